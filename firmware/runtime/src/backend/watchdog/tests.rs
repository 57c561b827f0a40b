use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

const SHORT: Duration = Duration::from_millis(40);
const LONG: Duration = Duration::from_secs(20);

/// Adds one to its input in each run. If there is a channel, each run waits for a message.
struct Counter {
    value: [f32; 1],
    gate: Option<Receiver<&'static str>>,
    dropped: Sender<thread::ThreadId>,
}

impl Session for Counter {
    fn set(&mut self, _: usize, values: &[f32]) -> Result<(), BackendError> {
        self.value = [values[0]];
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        match self.gate.as_ref().map(|gate| gate.recv()) {
            Some(Ok("panic")) => panic!("on\npurpose"),
            Some(Ok("fail")) => return Err(about().failed("on request")),
            _ => {}
        }
        self.value[0] += 1.0;
        Ok(())
    }

    fn output(&self, _: usize) -> &[f32] {
        &self.value
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id());
    }
}

fn about() -> About {
    About {
        backend: "counter",
        graph: "graph".into(),
    }
}

struct Bench {
    watched: WatchedSession,
    stuck: Arc<AtomicU64>,
    words: Sender<&'static str>,
    dropped: Receiver<thread::ThreadId>,
}

fn bench(gated: bool) -> Bench {
    let (words, gate) = channel();
    let (sender, dropped) = channel();
    let stuck = Arc::new(AtomicU64::new(0));
    let make: Make = Box::new(move || {
        Ok(Box::new(Counter {
            value: [0.0],
            gate: gated.then_some(gate),
            dropped: sender,
        }))
    });
    let mut watched = WatchedSession::start(about(), &stuck, make).unwrap();
    watched.made(LONG).expect("in time").unwrap();
    Bench {
        watched,
        stuck,
        words,
        dropped,
    }
}

fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn inputs_and_outputs_are_reached_between_runs() {
    let mut bench = bench(false);
    bench.watched.session().unwrap().set(0, &[4.0]).unwrap();
    for expected in [5.0, 6.0, 7.0] {
        bench.watched.run(LONG).unwrap();
        assert_eq!(bench.watched.output(0), [expected]);
    }
    assert_eq!(bench.stuck.load(Ordering::SeqCst), 0);
}

#[test]
fn errors_and_panics_come_back_in_one_line() {
    let mut bench = bench(true);
    bench.words.send("fail").unwrap();
    let e = bench.watched.run(LONG).unwrap_err().to_string();
    assert_eq!(e, "counter failed in graph: on request");
    bench.words.send("go").unwrap();
    bench.watched.run(LONG).unwrap();
    bench.words.send("panic").unwrap();
    let e = bench.watched.run(LONG).unwrap_err().to_string();
    assert_eq!(e, "counter failed in graph: it panicked: on purpose");
    let e = bench.watched.run(LONG).unwrap_err().to_string();
    assert!(e.contains("lost"), "{e}");
    assert_eq!(bench.stuck.load(Ordering::SeqCst), 0);
}

#[test]
fn a_run_that_hangs_is_left_to_itself_and_cleaned_up_if_it_comes_back() {
    let mut bench = bench(true);
    let start = Instant::now();
    let e = bench.watched.run(SHORT).unwrap_err();
    assert!(matches!(e, BackendError::Timeout { after, .. } if after == SHORT));
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG / 2);
    assert_eq!(bench.stuck.load(Ordering::SeqCst), 1);
    assert!(bench.watched.session().is_none() && bench.watched.output(0).is_empty());
    let before = Instant::now();
    drop(bench.watched);
    assert!(
        before.elapsed() < Duration::from_secs(1),
        "dropping blocked"
    );
    assert!(bench.dropped.try_recv().is_err(), "it is still in use");
    bench.words.send("go").unwrap();
    let on = bench.dropped.recv_timeout(LONG).unwrap();
    assert_ne!(on, thread::current().id());
    let stuck = &bench.stuck;
    eventually("counted back", || stuck.load(Ordering::SeqCst) == 0);
}

#[test]
fn sessions_are_dropped_on_their_worker() {
    let bench = bench(false);
    drop(bench.watched);
    let on = bench.dropped.recv_timeout(LONG).unwrap();
    assert_ne!(on, thread::current().id());
    assert_eq!(bench.stuck.load(Ordering::SeqCst), 0);
}

#[test]
fn making_is_waited_for_looked_at_or_given_up() {
    let (go, wait) = channel::<()>();
    let stuck = Arc::new(AtomicU64::new(0));
    let make: Make = Box::new(move || {
        let _ = wait.recv();
        Err(about().failed("no memory"))
    });
    let mut watched = WatchedSession::start(about(), &stuck, make).unwrap();
    assert!(watched.made(Duration::ZERO).is_none());
    assert!(watched.made(SHORT).is_none());
    go.send(()).unwrap();
    let e = watched.made(LONG).expect("in time").unwrap_err();
    assert!(e.to_string().contains("no memory"), "{e}");

    let (go, wait) = channel::<()>();
    let make: Make = Box::new(move || {
        let _ = wait.recv();
        Err(about().failed("too late"))
    });
    drop(WatchedSession::start(about(), &stuck, make).unwrap());
    assert_eq!(stuck.load(Ordering::SeqCst), 1);
    go.send(()).unwrap();
    eventually("counted back", || stuck.load(Ordering::SeqCst) == 0);
}

#[test]
fn many_runs_race_with_their_limit_and_lose_nothing() {
    // Limits close to the duration of a run, so that some are met and some are not.
    let (mut met, mut missed) = (0, 0);
    for i in 0..300 {
        let mut bench = bench(false);
        match bench.watched.run(Duration::from_micros(i / 2)) {
            Ok(()) => {
                met += 1;
                assert_eq!(bench.watched.output(0), [1.0]);
            }
            Err(_) => missed += 1,
        }
        drop(bench.watched);
        bench
            .dropped
            .recv_timeout(LONG)
            .expect("dropped in the end");
        let stuck = &bench.stuck;
        eventually("counted back", || stuck.load(Ordering::SeqCst) == 0);
    }
    println!("{met} in time, {missed} not");
}

/// If it is abandoned before the worker starts, the slot is closed, and the worker drops the
/// session.
#[test]
fn a_run_that_never_began_is_not_counted_as_stuck() {
    let mut bench = bench(false);
    let session = bench.watched.session.take();
    *bench.watched.mailbox.slot.lock() = Slot::Closed(session);
    bench.watched.mailbox.changed.notify_all();
    bench.dropped.recv_timeout(LONG).unwrap();
    drop(bench.watched);
    assert_eq!(bench.stuck.load(Ordering::SeqCst), 0);
}
