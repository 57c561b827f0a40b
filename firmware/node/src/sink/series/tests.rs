use std::{fs, time::Duration};

use rustix::io::Errno;

use super::*;
use crate::sink::files::{LocalFiles, testing::Quota};

fn series(disk: impl FileSystem + 'static, path: PathBuf, end: &'static [u8]) -> FileSeries {
    let retry = Retry::every(Duration::ZERO);
    FileSeries::new(Box::new(disk), path, 0, end, retry)
}

/// Names and contents of the files in a directory.
fn files(folder: &Path) -> Vec<(String, String)> {
    let mut files: Vec<_> = entries(folder)
        .map(|name| {
            let text = fs::read_to_string(folder.join(&name)).unwrap();
            (name.into_string().unwrap(), text)
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_run_continues_after_the_highest_number() {
    let cases: [(&[&str], &str); 8] = [
        (&[], "a.mcap"),
        (&["a.mcap"], "a-1.mcap"),
        (&["a.mcap", "a-1.mcap", "a-9.mcap"], "a-10.mcap"),
        // The first files were removed: numbers still give the order.
        (&["a-7.mcap"], "a-8.mcap"),
        (&["b.mcap", "ab-3.mcap", "a-x.mcap", "a-3.rec"], "a.mcap"),
        (&["a-18446744073709551615.mcap"], "a.mcap"),
        (&["a-99999999999999999999.mcap"], "a.mcap"),
        (&["a-+3.mcap", "a--3.mcap"], "a.mcap"),
    ];
    for (there, expected) in cases {
        let folder = tempfile::tempdir().unwrap();
        for name in there {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let mut series = series(LocalFiles, folder.path().join("a.mcap"), b"");
        assert_eq!(series.append(&[b"new"]).unwrap(), Written::Yes);
        for (name, text) in files(folder.path()) {
            let wanted = if name == expected { "new" } else { &name };
            assert_eq!(text, wanted, "{name} of {there:?}");
        }
        assert!(folder.path().join(expected).exists(), "{there:?}");
    }
}

#[test]
fn writers_of_one_path_never_share_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    let writers: Vec<_> = (0..4)
        .map(|i| {
            let path = path.clone();
            std::thread::spawn(move || {
                let mut series = series(LocalFiles, path, b"");
                for _ in 0..20 {
                    let text = i.to_string();
                    assert_eq!(series.append(&[text.as_bytes()]).unwrap(), Written::Yes);
                    assert_eq!(series.close(b"").unwrap(), Written::Yes);
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|w| w.join().unwrap());
    let files = files(folder.path());
    assert_eq!(files.len(), 80);
    assert!(files.iter().all(|(_, text)| text.len() == 1), "{files:?}");
}

#[test]
fn a_dangling_link_is_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rec");
    std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
    let mut series = series(LocalFiles, path, b"");
    assert_eq!(series.append(&[b"x"]).unwrap(), Written::Yes);
    assert!(folder.path().join("a-1.rec").exists());
    assert!(!folder.path().join("elsewhere").exists());
}

#[test]
fn a_full_disk_loses_complete_blocks_and_is_reported_once() {
    for error in [Errno::NOSPC, Errno::DQUOT, Errno::IO] {
        let folder = tempfile::tempdir().unwrap();
        let disk = Quota::default();
        // Two and a half blocks of four bytes.
        disk.set(10, error);
        let mut series = series(disk.clone(), folder.path().join("a"), b".");
        let block: &[&[u8]] = &[b"12", b"34"];
        assert_eq!(series.append(block).unwrap(), Written::Yes);
        assert_eq!(series.append(block).unwrap(), Written::Yes);
        let error_text = series.append(block).unwrap_err().to_string();
        let expected = std::io::Error::from(error).to_string();
        assert!(error_text.contains(&expected), "{error_text}");
        if error == Errno::NOSPC {
            assert!(
                error_text.contains("No space left on device"),
                "{error_text}"
            );
        }
        for _ in 0..5 {
            assert!(series.is_failing() && series.is_due());
            assert_eq!(series.append(block).unwrap(), Written::No, "reported once");
        }
        assert_eq!(
            files(folder.path()),
            [("a".into(), "12341234.".into())],
            "complete blocks, the trailer, and nothing of the retries"
        );
        // Space for one block is not enough for a retry.
        disk.set(4, error);
        assert_eq!(series.append(block).unwrap(), Written::No);
        disk.set(1000, error);
        assert_eq!(series.append(block).unwrap(), Written::Yes);
        assert!(!series.is_failing());
        assert_eq!(series.close(b"!").unwrap(), Written::Yes);
        assert_eq!(
            files(folder.path()),
            [
                ("a".into(), "12341234.".into()),
                ("a-1".into(), "1234!".into())
            ]
        );
    }
}

#[test]
fn an_empty_file_is_removed_and_its_name_reused() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(3);
    let mut series = series(disk.clone(), folder.path().join("a"), b".");
    assert!(series.append(&[b"1234"]).is_err());
    assert_eq!(files(folder.path()), []);
    disk.set(1000, Errno::NOSPC);
    assert_eq!(series.append(&[b"1234"]).unwrap(), Written::Yes);
    assert_eq!(files(folder.path()), [("a".into(), "1234".into())]);
}

#[test]
fn a_trailer_that_does_not_fit_is_written_later() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(4);
    let mut series = series(disk.clone(), folder.path().join("a"), b".");
    assert_eq!(series.append(&[b"1234"]).unwrap(), Written::Yes);
    assert!(series.close(b"summary").is_err());
    assert_eq!(files(folder.path()), [("a".into(), "1234".into())]);
    disk.set(1000, Errno::NOSPC);
    assert_eq!(series.append(&[b"5678"]).unwrap(), Written::Yes);
    assert_eq!(
        files(folder.path()),
        [("a".into(), "1234.".into()), ("a-1".into(), "5678".into())]
    );
}

#[test]
fn a_failed_sync_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(1000);
    let mut series = series(disk.clone(), folder.path().join("a"), b".");
    assert_eq!(series.append(&[b"1234"]).unwrap(), Written::Yes);
    disk.fail_syncs(true);
    assert!(series.close(b"!").is_err());
    disk.fail_syncs(false);
    assert_eq!(series.append(&[b"5678"]).unwrap(), Written::Yes);
    assert_eq!(
        files(folder.path()),
        [("a".into(), "1234!".into()), ("a-1".into(), "5678".into())]
    );
}

#[test]
fn a_missing_directory_is_retried() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("later/a");
    let mut series = series(LocalFiles, path.clone(), b"");
    assert!(series.append(&[b"1"]).is_err());
    assert_eq!(series.append(&[b"2"]).unwrap(), Written::No);
    fs::create_dir(path.parent().unwrap()).unwrap();
    assert_eq!(series.append(&[b"3"]).unwrap(), Written::Yes);
    assert_eq!(fs::read_to_string(path).unwrap(), "3");
}

#[test]
fn a_removed_file_is_reported_and_followed_by_a_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let logs = folder.path().join("logs");
    for folder_too in [false, true] {
        fs::create_dir_all(&logs).unwrap();
        let mut series = series(LocalFiles, logs.join("a.mcap"), b"end");
        assert_eq!(series.append(&[b"first"]).unwrap(), Written::Yes);
        if folder_too {
            fs::remove_dir_all(&logs).unwrap();
        } else {
            fs::remove_file(logs.join("a.mcap")).unwrap();
        }
        let error = series.append(&[b"lost"]).unwrap_err().to_string();
        assert!(
            error.contains("removed") && error.contains("a.mcap"),
            "{error}"
        );
        assert!(!series.is_open(), "the next block starts a file");
        if folder_too {
            assert_eq!(series.append(&[b"no folder"]).unwrap(), Written::No);
            fs::create_dir(&logs).unwrap();
        }
        assert_eq!(series.append(&[b"second"]).unwrap(), Written::Yes);
        let texts: Vec<_> = files(&logs).into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["second"]);
        fs::remove_dir_all(&logs).unwrap();
    }
}

#[test]
fn repeated_failures_increase_the_interval() {
    let mut retry = Retry::every(Duration::from_secs(1));
    assert!(retry.is_due() && !retry.is_failing());
    for seconds in [1, 2, 4, 8, 16, 32, 64, 64] {
        assert_eq!(retry.failed(10, ()), Err(()), "reported");
        assert_eq!(retry.failed(10, ()), Ok(()), "not reported");
        assert_eq!(retry.interval, Duration::from_secs(seconds));
        assert!(retry.is_failing() && !retry.is_due());
        retry.succeeded();
        assert!(retry.is_due() && !retry.is_failing());
    }
    (0..STEADY).for_each(|_| retry.succeeded());
    assert_eq!(retry.failed(10, ()), Err(()));
    assert_eq!(retry.interval, Duration::from_secs(1));
}
