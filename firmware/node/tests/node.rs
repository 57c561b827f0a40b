//! The complete node: over a serial line, under heat, and with a hanging engine.

mod common;

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_node::{
    assemble,
    config::Config,
    health::{Reason, State},
    inject::Plan,
    metrics::{DropReason, Event},
    pipeline::{Handle, Node},
};
use loftup_runtime::backend::fault::{Fault, Faults};
use loftup_wire::{
    Decoder, Encoder, Handshake, MAX_FRAME, MAX_PACKET, Message, Text,
    assemble::{MapAssembler, Progress},
    command::{Action, Command, Outcome},
    message::{Role, TimeRequest},
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

fn config(folder: &Path, more: &str) -> Config {
    common::bundle(folder);
    Config::parse(&common::config_text(more), &folder.join("node.toml")).unwrap()
}

/// Every captured frame is counted as published or dropped.
fn check_accounting(handle: &Handle) {
    let m = handle.metrics();
    assert_eq!(m.captured(), m.published() + m.total_drops());
}

#[test]
fn a_controller_on_a_serial_line_receives_maps_and_sends_commands() {
    let line = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&line).unwrap();
    unlockpt(&line).unwrap();
    let name = ptsname(&line, Vec::new()).unwrap().into_string().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sink = format!("[[sink]]\nkind = \"serial\"\npath = {name:?}\n");
    let (parts, _) = assemble::parts(config(folder.path(), &sink), &Plan::default()).unwrap();
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());

    // The node sets its end to raw mode when it starts.
    let mut line = File::from(line);
    let mut reader = line.try_clone().unwrap();
    let (sender, bytes) = std::sync::mpsc::channel::<Vec<u8>>();
    thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(n) = reader.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::<MAX_PACKET>::new());
    let mut handshake = Handshake::new(Role::Controller, Text::new("test").unwrap());
    let mut maps = MapAssembler::<4096>::new();
    let (mut whole, mut labels, mut healths, mut timed, mut done) = (0, 0, 0, false, false);
    let mut sent = false;
    let end = Instant::now() + Duration::from_secs(60);
    while !(whole >= 10 && labels >= 5 && healths >= 2 && timed && done) {
        assert!(
            Instant::now() < end,
            "{whole} maps, {labels} labels, {healths} healths, time {timed}, reply {done}, {:?}",
            decoder.counters()
        );
        let Ok(chunk) = bytes.recv_timeout(Duration::from_secs(5)) else {
            continue;
        };
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut send = |message: &Message<'_>| {
            let mut frame = [0; MAX_FRAME];
            out.push(encoder.encode(message, &mut frame).unwrap().to_vec());
        };
        decoder.push_slice(&chunk, |frame| {
            // The line may echo before the node sets it to raw mode.
            let Ok(frame) = frame else { return };
            match frame.message().unwrap() {
                Message::Hello(hello) => {
                    if let Some(reply) = handshake.receive(&hello) {
                        send(&reply.into());
                    }
                    if handshake.is_open() && !sent {
                        sent = true;
                        send(&TimeRequest { sent_us: 5 }.into());
                        let action = Action::SetRate { mhz: 15_000 };
                        send(&Command { id: 9, action }.into());
                    }
                }
                Message::Label(label) => {
                    assert_eq!(label.name.get(), common::LABELS[usize::from(label.class)]);
                    labels += 1;
                }
                Message::MapChunk(chunk) => {
                    whole += u32::from(maps.push(&chunk) == Ok(Progress::Complete))
                }
                Message::Health(_) => healths += 1,
                Message::TimeReply(reply) => {
                    assert!(reply.sent_us == 5 && reply.replied_us >= reply.received_us);
                    timed = true;
                }
                Message::Reply(reply) => {
                    assert_eq!((reply.id, reply.outcome), (9, Outcome::Done));
                    done = true;
                }
                _ => {}
            }
        });
        for frame in out {
            line.write_all(&frame).unwrap();
        }
    }
    assert_eq!(handle.control().rate_hz(), 15.0);
    handle.stop();
    thread.join().unwrap().unwrap();
    check_accounting(&handle);
}

#[test]
fn heat_steps_down_and_cooling_steps_up() {
    let folder = tempfile::tempdir().unwrap();
    let zone = folder.path().join("temp");
    std::fs::write(&zone, "50000\n").unwrap();
    let more = format!(
        "[degrade]\nrecover_after = 5\nearly = 1.0\n[pipeline]\ndeadline_ms = 5000\nmax_age_ms = 5000\n[[degrade.step]]\nsize = [28, 28]\n[thermal]\nzones = [{:?}]\nperiod_ms = 20\nstep_ms = 50\n",
        zone.display().to_string()
    );
    let (parts, _) = assemble::parts(config(folder.path(), &more), &Plan::default()).unwrap();
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    let level = || handle.metrics().level();
    common::until("running", 60, || handle.monitor().state() == State::Running);
    std::fs::write(&zone, "85000\n").unwrap();
    common::until("hot", 20, || {
        handle.monitor().state() == State::Degraded(Reason::TooHot) && level() == 1
    });
    std::fs::write(&zone, "99000\n").unwrap();
    common::until("paused", 20, || {
        handle.metrics().drops(DropReason::Paused) > 2
    });
    std::fs::write(&zone, "60000\n").unwrap();
    common::until("cool", 20, || {
        handle.monitor().state() == State::Running && level() == 0
    });
    assert!(
        handle
            .prometheus()
            .contains("loftup_state{state=\"running\"} 1")
    );
    handle.stop();
    thread.join().unwrap().unwrap();
    check_accounting(&handle);
}

#[test]
fn a_hung_engine_is_restarted_and_too_many_restarts_end_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let more = "[watchdog]\nhang_ms = 300\nmax_restarts = 1\ndrain_ms = 200\n";
    let config = config(folder.path(), more);
    let (mut parts, _) = assemble::parts(config.clone(), &Plan::default()).unwrap();
    let faults = Faults::none();
    parts.model = assemble::model_factory(&config, Some(faults.clone()));
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    common::until("running", 60, || handle.monitor().state() == State::Running);
    faults.at_run(faults.runs() + 20, Fault::Hang);
    common::until("hang", 20, || handle.metrics().events(Event::Hang) == 1);
    common::until("running again", 60, || {
        handle.monitor().state() == State::Running
    });
    faults.during_runs(faults.runs() + 1, u64::MAX, Fault::Hang);
    let error = thread.join().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("2 restarts in 60 s") && error.contains("hangs"),
        "{error}"
    );
    assert_eq!(handle.monitor().state(), State::Failed(Reason::Internal));
    check_accounting(&handle);
    faults.release();
}

/// Stops the node at different points of a frame, without time for the frames in the pipeline.
#[test]
fn frames_in_the_pipeline_are_counted_when_the_node_stops() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), "[watchdog]\ndrain_ms = 0\n");
    config.source.rate_hz = Some(500.0);
    let model = assemble::model_factory(&config, None)().unwrap();
    for round in 0..40 {
        let (mut parts, _) = assemble::parts(config.clone(), &Plan::default()).unwrap();
        let model = model.clone();
        parts.model = Arc::new(move || Ok(model.clone()));
        let node = Node::start(parts).unwrap();
        let handle = node.handle();
        let thread = thread::spawn(|| node.run());
        common::until("running", 60, || handle.monitor().state() == State::Running);
        thread::sleep(Duration::from_micros(700 * round));
        handle.stop();
        thread.join().unwrap().unwrap();
        check_accounting(&handle);
    }
}

#[test]
fn a_check_verifies_the_bundle_and_its_heads() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "");
    assemble::check_model(&config).unwrap();
    let refused = |change: &dyn Fn(&mut Config), part: &str| {
        let mut config = config.clone();
        change(&mut config);
        let text = assemble::check_model(&config).unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    };
    refused(&|c| c.model.head = "pca".into(), "kind classes");
    refused(&|c| c.model.head = "nothing".into(), "nothing");
    refused(&|c| c.model.descriptors = Some("no".into()), "no");
    refused(&|c| c.model.bundle = "missing.loftup".into(), "missing");
    let damaged = folder.path().join("robot.loftup/backbone.onnx");
    std::fs::write(&damaged, b"other").unwrap();
    refused(&|_| (), "backbone.onnx");
}
