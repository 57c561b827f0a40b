//! Links over streams of the operating system.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use embedded_io::{Read, ReadReady, Write, WriteReady};
use loftup_board::stdio::{NonBlocking, SystemClock};
use loftup_board::{Clock, Link, LinkError};
use loftup_wire::Message;
use loftup_wire::message::{MAX_DATA, TimeRequest};
use loftup_wire::runs::MapWriter;

fn pair() -> (UnixStream, UnixStream) {
    let (a, b) = UnixStream::pair().unwrap();
    a.set_nonblocking(true).unwrap();
    b.set_nonblocking(true).unwrap();
    (a, b)
}

#[test]
fn polling_an_empty_socket_returns_at_once() {
    let (a, mut b) = pair();
    let mut link: Link<_> = Link::new(NonBlocking::new(a));
    let start = Instant::now();
    for _ in 0..1_000 {
        assert!(matches!(link.poll(), Ok(None)));
    }
    assert!(start.elapsed() < Duration::from_secs(1));
    b.write_all(&[1, 2]).unwrap();
    assert!(matches!(link.poll(), Ok(None)));
    drop(b);
    assert!(matches!(link.poll(), Err(LinkError::Closed)));
    assert!(matches!(link.poll(), Err(LinkError::Closed)));
}

#[test]
fn a_writer_never_waits_on_a_reader_who_does_not_read() {
    let (a, b) = pair();
    let mut io = NonBlocking::new(a);
    let mut sent = 0;
    while io.write_ready().unwrap() {
        sent += io.write(&[7; 4_096]).unwrap();
        assert!(sent < 100_000_000, "a socket that is never full");
    }
    let mut other = NonBlocking::new(b);
    let reader = thread::spawn(move || {
        let mut buffer = [0; 1_000];
        let mut got = 0;
        while got < sent {
            got += other.read(&mut buffer).unwrap();
        }
        (got, other.read_ready().unwrap())
    });
    io.flush().unwrap();
    assert_eq!(reader.join().unwrap(), (sent, false));
}

#[test]
fn a_class_map_crosses_a_socket_between_two_threads() {
    let (a, b) = pair();
    let map: Vec<u8> = (0..224 * 224).map(|i: u32| (i / 7 % 11) as u8).collect();
    let sent = map.clone();
    let sender = thread::spawn(move || {
        let mut link: Link<_> = Link::new(NonBlocking::new(a));
        let mut writer = MapWriter::new(1, 0, 224, 224, &sent).unwrap();
        let mut scratch = [0; MAX_DATA];
        while let Some(chunk) = writer.next_chunk(&mut scratch) {
            link.send(&chunk.into()).unwrap();
        }
        link.send(&TimeRequest { sent_us: 5 }.into()).unwrap();
    });
    let mut link: Link<_> = Link::new(NonBlocking::new(b));
    let mut got = Vec::new();
    loop {
        match link.receive().unwrap() {
            Message::MapChunk(chunk) => {
                for run in chunk.runs().unwrap() {
                    got.resize(got.len() + run.length as usize, run.class);
                }
            }
            other => {
                assert_eq!(other, TimeRequest { sent_us: 5 }.into());
                break;
            }
        }
    }
    sender.join().unwrap();
    assert_eq!(got, map);
}

#[test]
fn the_system_clock_goes_forward() {
    // Not faster than the standard library's clock.
    let start = Instant::now();
    let mut clock = SystemClock::new();
    let first = clock.now_us();
    while clock.now_us() < first + 3_000 {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(start.elapsed() > Duration::from_millis(2));
}
