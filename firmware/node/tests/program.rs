//! The program: restarts keep earlier files, a missing serial line is retried, a closed log is
//! harmless, and systemd is notified.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    net::TcpListener,
    os::unix::{ffi::OsStrExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    time::Duration,
};

use loftup_node::{frame::RawFrame, source::Recording};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Starts the program with the test configuration and `more`.
fn start(folder: &Path, more: &str, stderr: Stdio) -> common::KillOnDrop {
    fs::write(folder.join("node.toml"), common::config_text(more)).unwrap();
    let child: Child = Command::new(env!("CARGO_BIN_EXE_loftup-node"))
        .arg(folder.join("node.toml"))
        .stderr(stderr)
        .spawn()
        .unwrap();
    common::KillOnDrop(child)
}

/// All files below a directory, with their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => _ = fs::read(&path).map(|bytes| found.insert(path, bytes)),
        }
    }
    found
}

/// Number of messages in an MCAP file, finished or not.
fn messages(bytes: &[u8]) -> usize {
    let options = mcap::read::Options::IgnoreEndMagic;
    let stream = mcap::MessageStream::new_with_options(bytes, options.into()).unwrap();
    stream.take_while(Result::is_ok).count()
}

fn image_count(path: &Path) -> usize {
    let (mut recording, mut frame) = (Recording::open(path).unwrap(), RawFrame::default());
    let mut count = 0;
    while recording.read(&mut frame).unwrap() {
        count += 1;
    }
    count
}

#[test]
fn files_survive_a_kill_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let log = folder.path().join("log");
    fs::create_dir(&log).unwrap();
    let sinks = "[[sink]]\nkind = \"mcap\"\npath = \"log/a.mcap\"\n\
        [[sink]]\nkind = \"recording\"\npath = \"log/a.rec\"\n\
        [[sink]]\nkind = \"images\"\npath = \"log/maps\"\n";
    // More of them for a longer test.
    let starts = std::env::var("LOFTUP_STARTS").map_or(3, |n| n.parse().unwrap());
    let name = |ending: &str, n: usize| match n {
        0 => log.join(format!("a.{ending}")),
        n => log.join(format!("a-{n}.{ending}")),
    };
    let mut before: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    for n in 0..starts {
        let mut node = start(folder.path(), sinks, Stdio::null());
        let (mcap, recording) = (name("mcap", n), name("rec", n));
        common::until("messages in both files", 120, || {
            let mcap = fs::read(&mcap).map_or(0, |bytes| messages(&bytes));
            mcap > 10 && recording.exists() && image_count(&recording) > 5
        });
        // SIGKILL.
        node.0.kill().unwrap();
        node.0.wait().unwrap();
        let now = files(&log);
        for (path, bytes) in &before {
            assert!(now.get(path) == Some(bytes), "{} changed", path.display());
        }
        println!(
            "start {n}: {} messages, {} images, {} files",
            messages(&now[&mcap]),
            image_count(&recording),
            now.len()
        );
        before = now;
    }
    let ending = |ending: &str| {
        let is = |path: &&PathBuf| path.extension().is_some_and(|e| e == ending);
        before.keys().filter(is).count()
    };
    assert_eq!((ending("mcap"), ending("rec")), (starts, starts));
    assert!(ending("png") > starts);
}

/// The lines of a log, read in a thread.
fn lines(log: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Reads the log up to a line that contains all of `words`.
fn wait_for(log: &Receiver<String>, words: &[&str], seen: &mut String) {
    loop {
        let line = log.recv_timeout(Duration::from_secs(60));
        let line = line.unwrap_or_else(|e| panic!("{e}: no line with {words:?} in: {seen}"));
        seen.push_str(&line);
        seen.push('\n');
        if words.iter().all(|word| line.contains(word)) {
            return;
        }
    }
}

#[test]
fn a_missing_or_locked_serial_line_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let sink = "[[sink]]\nkind = \"serial\"\npath = \"ttyLater\"\nbaud = 115200\n";
    let mut node = start(folder.path(), sink, Stdio::piped());
    let log = lines(node.0.stderr.take().unwrap());
    let mut seen = String::new();
    wait_for(&log, &["ttyLater", "No such file"], &mut seen);
    wait_for(&log, &["-> degraded: link"], &mut seen);

    let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&side).unwrap();
    unlockpt(&side).unwrap();
    let terminal = ptsname(&side, Vec::new()).unwrap();
    let terminal = Path::new(std::ffi::OsStr::from_bytes(terminal.to_bytes()));
    let owner = loftup_board::linux::serial(terminal, 115_200).unwrap();
    std::os::unix::fs::symlink(terminal, folder.path().join("ttyLater")).unwrap();
    wait_for(&log, &["in use by another process"], &mut seen);
    drop(owner);
    wait_for(&log, &["degraded: link -> ", "works again"], &mut seen);
    for text in ["No such file", "in use by", "-> degraded: link"] {
        assert_eq!(seen.matches(text).count(), 1, "{text} in: {seen}");
    }
    // It sends a `Hello`.
    let mut byte = [0];
    fs::File::from(side).read_exact(&mut byte).unwrap();
    assert!(node.0.try_wait().unwrap().is_none(), "it is still running");
}

#[test]
fn a_closed_log_is_harmless() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let sink = "[[sink]]\nkind = \"recording\"\npath = \"a.rec\"\n";
    let mut node = start(folder.path(), sink, Stdio::piped());
    drop(node.0.stderr.take());
    let recording = folder.path().join("a.rec");
    common::until("images", 120, || {
        recording.exists() && image_count(&recording) > 5
    });
    assert!(node.0.try_wait().unwrap().is_none());
    node.0.kill().unwrap();
    // Without an open log, only the exit code reports an error.
    let program = |stdout: Stdio, args: &[&str]| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_loftup-node"))
            .args(args)
            .current_dir(folder.path())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop((child.stderr.take(), child.stdout.take()));
        child.wait().unwrap().code()
    };
    assert_eq!(program(Stdio::piped(), &["none.toml"]), Some(2));
    assert_eq!(program(Stdio::piped(), &["node.toml", "--check"]), Some(0));
    let closed = Command::new("sh")
        .args(["-c", "exec \"$0\" none.toml >&- 2>&-"])
        .arg(env!("CARGO_BIN_EXE_loftup-node"))
        .current_dir(folder.path())
        .status();
    assert_eq!(closed.unwrap().code(), Some(2));
}

#[test]
fn systemd_is_notified() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    fs::write(folder.path().join("node.toml"), common::config_text("")).unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(120)))
        .unwrap();
    let receive = || {
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    let child = Command::new(env!("CARGO_BIN_EXE_loftup-node"))
        .arg(folder.path().join("node.toml"))
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "100000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut node = common::KillOnDrop(child);
    // The watchdog is fed while the model is still loading.
    assert_eq!(receive(), "WATCHDOG=1");
    while receive() != "READY=1" {}
    assert_eq!(receive(), "WATCHDOG=1");
    let pid = node.0.id().to_string();
    let kill = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(kill.unwrap().success());
    while receive() != "STOPPING=1" {}
    assert!(node.0.wait().unwrap().success());
}

#[test]
fn a_metrics_port_in_use_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let metrics = format!("[metrics]\nlisten = \"{address}\"\n");
    fs::write(
        folder.path().join("node.toml"),
        common::config_text(&metrics),
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_loftup-node"))
        .arg(folder.path().join("node.toml"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    let errors: Vec<_> = text.lines().filter(|l| l.contains("error: ")).collect();
    let [error] = errors[..] else {
        panic!("{text}");
    };
    for part in [
        "metrics.listen",
        &address.to_string(),
        "Address already in use",
        "choose another port",
    ] {
        assert!(error.contains(part), "no {part:?} in: {error}");
    }
}
