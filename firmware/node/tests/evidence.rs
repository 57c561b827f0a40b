//! The program itself: killed and started again it overwrites nothing, a serial line that is not
//! there is waited for, and nobody need read what it logs.

mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use loftup_node::{frame::RawFrame, source::Recording};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Starts the program on a configuration with `more`.
fn start(folder: &Path, more: &str, stderr: Stdio) -> common::Ended {
    fs::write(folder.join("node.toml"), common::config_text(more)).unwrap();
    let child: Child = Command::new(env!("CARGO_BIN_EXE_loftup-node"))
        .arg(folder.join("node.toml"))
        .stderr(stderr)
        .spawn()
        .unwrap();
    common::Ended(child)
}

/// Every file below a folder with its bytes.
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

/// Messages of an MCAP file, finished or not.
fn messages(bytes: &[u8]) -> usize {
    let options = mcap::read::Options::IgnoreEndMagic;
    let stream = mcap::MessageStream::new_with_options(bytes, options.into()).unwrap();
    stream.take_while(Result::is_ok).count()
}

fn pictures(path: &Path) -> usize {
    let (mut recording, mut frame) = (Recording::open(path).unwrap(), RawFrame::default());
    let mut count = 0;
    while recording.read(&mut frame).unwrap() {
        count += 1;
    }
    count
}

#[test]
fn a_kill_and_a_start_lose_no_file() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let log = folder.path().join("log");
    fs::create_dir(&log).unwrap();
    let sinks = "[[sink]]\nkind = \"mcap\"\npath = \"log/a.mcap\"\n\
        [[sink]]\nkind = \"recording\"\npath = \"log/a.rec\"\n\
        [[sink]]\nkind = \"pictures\"\npath = \"log/maps\"\n";
    // More of them for a longer drill.
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
            mcap > 10 && recording.exists() && pictures(&recording) > 5
        });
        // SIGKILL.
        node.0.kill().unwrap();
        node.0.wait().unwrap();
        let now = files(&log);
        for (path, bytes) in &before {
            assert!(now.get(path) == Some(bytes), "{} changed", path.display());
        }
        println!(
            "start {n}: {} messages, {} pictures, {} files",
            messages(&now[&mcap]),
            pictures(&recording),
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

/// Reads what the program logs up to a line that has all of `words`.
fn wait_for(log: &mut impl BufRead, words: &[&str], seen: &mut String) {
    loop {
        let mut line = String::new();
        assert!(log.read_line(&mut line).unwrap() > 0, "{words:?}: {seen}");
        seen.push_str(&line);
        if words.iter().all(|word| line.contains(word)) {
            return;
        }
    }
}

#[test]
fn a_serial_line_that_is_not_there_or_taken_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let sink = "[[sink]]\nkind = \"serial\"\npath = \"ttyLater\"\nbaud = 115200\n";
    let mut node = start(folder.path(), sink, Stdio::piped());
    let mut log = BufReader::new(node.0.stderr.take().unwrap());
    let mut seen = String::new();
    wait_for(&mut log, &["ttyLater", "No such file"], &mut seen);
    wait_for(&mut log, &["-> degraded: link"], &mut seen);

    let side = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&side).unwrap();
    unlockpt(&side).unwrap();
    let terminal = ptsname(&side, Vec::new()).unwrap();
    let terminal = Path::new(std::ffi::OsStr::from_bytes(terminal.to_bytes()));
    let owner = loftup_board::linux::serial(terminal, 115_200).unwrap();
    std::os::unix::fs::symlink(terminal, folder.path().join("ttyLater")).unwrap();
    wait_for(&mut log, &["is in use by another process"], &mut seen);
    drop(owner);
    wait_for(&mut log, &["degraded: link -> ", "works again"], &mut seen);
    for told in ["No such file", "is in use", "-> degraded: link"] {
        assert_eq!(seen.matches(told).count(), 1, "{told} in: {seen}");
    }
    // It greets.
    let mut byte = [0];
    fs::File::from(side).read_exact(&mut byte).unwrap();
    assert!(node.0.try_wait().unwrap().is_none(), "it still runs");
}

#[test]
fn a_log_that_nobody_reads_ends_nothing() {
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let sink = "[[sink]]\nkind = \"recording\"\npath = \"a.rec\"\n";
    let mut node = start(folder.path(), sink, Stdio::piped());
    drop(node.0.stderr.take());
    let recording = folder.path().join("a.rec");
    common::until("pictures", 120, || {
        recording.exists() && pictures(&recording) > 5
    });
    assert!(node.0.try_wait().unwrap().is_none());
    node.0.kill().unwrap();
    // A mistake, told to nobody: its exit code is all there is.
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
