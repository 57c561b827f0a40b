use std::{path::Path, time::Duration};

use rustix::io::Errno;

use super::*;
use crate::{
    frame::RawFrame,
    sink::{
        files::testing::Quota,
        testing::{SIDE, feed},
    },
    source::Recording,
};

/// Numbers of the images in a file.
fn numbers(path: &Path) -> Vec<u64> {
    let (mut recording, mut frame) = (Recording::open(path).unwrap(), RawFrame::default());
    let mut numbers = Vec::new();
    while recording.read(&mut frame).unwrap() {
        assert_eq!(frame.bytes, vec![frame.number as u8; 3 * SIDE * SIDE]);
        numbers.push(frame.number);
    }
    numbers
}

#[test]
fn a_full_disk_ends_a_recording_after_its_last_image() {
    let folder = tempfile::tempdir().unwrap();
    let image = (HEAD + 3 * SIDE * SIDE) as u64;
    let disk = Quota::new(MAGIC.len() as u64 + 5 * image / 2);
    let path = folder.path().join("a.rec");
    let retry = Retry::every(Duration::ZERO);
    let files = FileSeries::new(Box::new(disk.clone()), path.clone(), 0, &[], retry);
    let mut sink = RecordingSink::with_files("recording a.rec".into(), 1, files);
    let errors = feed(&mut sink, 0..10);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("No space left on device"), "{errors:?}");
    assert_eq!(numbers(&path), [0, 1]);
    assert_eq!(
        (sink.status().not_written, sink.status().healthy),
        (8, false)
    );
    disk.set(1 << 30, Errno::NOSPC);
    assert_eq!(feed(&mut sink, 10..13), Vec::<String>::new());
    // Not finished, as after a kill.
    assert_eq!(numbers(&folder.path().join("a-1.rec")), [10, 11, 12]);
    assert_eq!(numbers(&path), [0, 1]);
    assert_eq!(
        (sink.status().not_written, sink.status().healthy),
        (8, true)
    );
}
