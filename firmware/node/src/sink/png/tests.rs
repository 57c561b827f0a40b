use std::{fs, time::Duration};

use rustix::io::Errno;

use super::*;
use crate::sink::{files::testing::Quota, testing::feed};

fn sink(disk: &Quota, folder: &Path, keep: u64) -> PngSink {
    let retry = Retry::every(Duration::ZERO);
    PngSink::with_files(Box::new(disk.clone()), folder.to_owned(), 1, keep, retry)
}

/// Names of the images in a directory. All of them must be readable.
fn names(folder: &Path) -> Vec<String> {
    let names = entries(folder).map(|name| name.into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    for name in &names {
        loftup_runtime::image::open(&folder.join(name)).unwrap();
    }
    names
}

#[test]
fn a_run_neither_overwrites_nor_removes_images_of_earlier_runs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("images");
    for _ in 0..3 {
        let mut sink = sink(&Quota::new(1 << 20), &path, 2);
        assert_eq!(feed(&mut sink, 0..4), Vec::<String>::new());
    }
    assert_eq!(
        names(&path),
        [
            "frame-00000002-slot-0.png",
            "frame-00000003-slot-0.png",
            "run-0001-frame-00000002-slot-0.png",
            "run-0001-frame-00000003-slot-0.png",
            "run-0002-frame-00000002-slot-0.png",
            "run-0002-frame-00000003-slot-0.png",
        ]
    );
}

#[test]
fn concurrent_sinks_overwrite_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(1 << 20);
    let (mut one, mut two) = (sink(&disk, folder.path(), 0), sink(&disk, folder.path(), 0));
    (one.run, two.run) = (Some(0), Some(0));
    assert_eq!(feed(&mut one, 0..2), Vec::<String>::new());
    let first = fs::read(folder.path().join("frame-00000001-slot-0.png")).unwrap();
    assert_eq!(feed(&mut two, 1..3), Vec::<String>::new());
    assert_eq!(names(folder.path()).len(), 4);
    let now = fs::read(folder.path().join("frame-00000001-slot-0.png")).unwrap();
    assert_eq!(first, now);
}

#[test]
fn a_full_disk_leaves_complete_images_and_is_reported_once() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(1000);
    let mut sink = sink(&disk, folder.path(), 0);
    let errors = feed(&mut sink, 0..100);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("No space left on device"), "{errors:?}");
    let written = names(folder.path()).len() as u64;
    assert!(written > 0 && written < 100, "{written}");
    assert_eq!(
        (sink.status().not_written, sink.status().healthy),
        (100 - written, false)
    );
    disk.set(1 << 20, Errno::NOSPC);
    assert_eq!(feed(&mut sink, 100..110), Vec::<String>::new());
    assert_eq!(names(folder.path()).len() as u64, written + 10);
    assert_eq!(
        (sink.status().not_written, sink.status().healthy),
        (100 - written, true)
    );
}
