use std::{fs, path::Path, time::Instant};

use mcap::read::Options;
use rustix::io::Errno;

use super::*;
use crate::sink::{
    files::testing::Quota,
    testing::{SIDE, feed},
};

/// Each output is an image and a map.
const MESSAGES: u64 = 2;

fn sink(disk: &Quota, folder: &Path, limit: u64) -> McapSink {
    let retry = Retry::every(Duration::ZERO);
    let files = FileSeries::new(
        Box::new(disk.clone()),
        folder.join("a.mcap"),
        limit,
        TRAILER,
        retry,
    );
    McapSink::with_files("mcap a.mcap".into(), 1, files)
}

/// Sequence numbers of the images in a file, which are also their pixel values.
fn images(bytes: &[u8], options: Option<Options>) -> Vec<u64> {
    let stream =
        mcap::MessageStream::new_with_options(bytes, options.into_iter().collect()).unwrap();
    let messages = stream.map_while(Result::ok);
    let images = messages.filter(|m| m.channel.topic == "/camera/image");
    images
        .map(|m| {
            let image = RawImage::decode(&m.data[..]).unwrap();
            assert_eq!(image.data, vec![m.sequence as u8; 3 * SIDE * SIDE]);
            m.sequence.into()
        })
        .collect()
}

/// Number of messages in a complete file.
fn count(path: &Path) -> u64 {
    let bytes = fs::read(path).unwrap();
    let stream = mcap::MessageStream::new(&bytes).unwrap();
    stream.inspect(|m| assert!(m.is_ok(), "{m:?}")).count() as u64
}

#[test]
fn a_full_disk_ends_a_file_after_its_last_chunk_and_a_new_one_follows() {
    let folder = tempfile::tempdir().unwrap();
    // Room for one chunk and a half.
    let disk = Quota::new(CHUNK_BYTES * 3 / 2);
    let mut sink = sink(&disk, folder.path(), 0);
    let mut errors = feed(&mut sink, 0..200);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let error = errors.remove(0);
    assert!(error.contains("No space left on device"), "{error}");
    assert!(error.contains("a.mcap"), "{error}");
    assert!(!sink.status().healthy);
    let first = folder.path().join("a.mcap");
    let before = count(&first);
    assert!(before > 0);
    assert_eq!(
        before + sink.status().not_written,
        MESSAGES * 200,
        "every message is counted"
    );

    disk.set(1 << 30, Errno::NOSPC);
    let missed = sink.status().not_written;
    assert_eq!(feed(&mut sink, 200..250), Vec::<String>::new());
    assert!(sink.status().healthy);
    sink.finish().unwrap();
    assert_eq!(sink.status().not_written, missed);
    assert_eq!(count(&first), before, "the first file is unchanged");
    let second = folder.path().join("a-1.mcap");
    assert_eq!(count(&second), MESSAGES * 50);
    let bytes = fs::read(&second).unwrap();
    assert_eq!(images(&bytes, None), (200..250).collect::<Vec<_>>());
    let summary = mcap::Summary::read(&bytes).unwrap().unwrap();
    assert_eq!(summary.stats.unwrap().message_count, MESSAGES * 50);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_summary_that_does_not_fit_leaves_a_file_that_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Quota::new(1 << 30);
    let mut sink = sink(&disk, folder.path(), 0);
    assert_eq!(feed(&mut sink, 0..10), Vec::<String>::new());
    sink.flush().unwrap();
    disk.set(TRAILER.len() as u64, Errno::NOSPC);
    assert!(sink.finish().is_err());
    let path = folder.path().join("a.mcap");
    assert_eq!(count(&path), MESSAGES * 10);
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.ends_with(TRAILER));
    assert_eq!(mcap::Summary::read(&bytes).unwrap(), None);
}

#[test]
fn an_unfinished_file_can_be_read_up_to_its_last_complete_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(&Quota::new(1 << 30), folder.path(), 0);
    assert_eq!(feed(&mut sink, 0..400), Vec::<String>::new());
    // Not finished, as after a kill: the last chunk is lost.
    let path = folder.path().join("a.mcap");
    let bytes = fs::read(&path).unwrap();
    let whole = images(&bytes, Some(Options::IgnoreEndMagic));
    let per_chunk = CHUNK_BYTES / (4 * SIDE * SIDE) as u64 + 2;
    assert!(
        whole.len() as u64 + per_chunk > 400,
        "{} images",
        whole.len()
    );
    assert_eq!(whole, (0..whole.len() as u64).collect::<Vec<_>>());
    // An interrupted write loses only its chunk.
    let half = bytes.len() - CHUNK_BYTES as usize / 2;
    let cut = images(&bytes[..half], Some(Options::IgnoreEndMagic));
    let lost = (whole.len() - cut.len()) as u64;
    assert!((1..=per_chunk).contains(&lost), "{lost} images");
    assert_eq!(cut, whole[..cut.len()]);
}

#[test]
fn a_small_chunk_is_written_after_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = sink(&Quota::new(1 << 30), folder.path(), 0);
    assert_eq!(feed(&mut sink, 0..1), Vec::<String>::new());
    let path = folder.path().join("a.mcap");
    let poll = |sink: &mut McapSink| {
        crate::sink::testing::with_context(|context| sink.poll(context).unwrap());
    };
    if let Some(open) = &mut sink.open {
        open.pending_since = Instant::now().checked_sub(CHUNK_AGE).unwrap();
    }
    poll(&mut sink);
    let bytes = fs::read(&path).unwrap();
    assert_eq!(images(&bytes, Some(Options::IgnoreEndMagic)), [0]);
    poll(&mut sink);
    assert_eq!(fs::read(&path).unwrap(), bytes, "no chunk is pending");
}

#[test]
fn files_of_limited_size_form_one_series() {
    let folder = tempfile::tempdir().unwrap();
    let path = |n: u64| match n {
        0 => folder.path().join("a.mcap"),
        n => folder.path().join(format!("a-{n}.mcap")),
    };
    for start in 0..2 {
        let mut sink = sink(&Quota::new(1 << 30), folder.path(), CHUNK_BYTES);
        assert_eq!(
            feed(&mut sink, 300 * start..300 * (start + 1)),
            Vec::<String>::new()
        );
        sink.finish().unwrap();
    }
    let files = fs::read_dir(folder.path()).unwrap().count() as u64;
    assert!(files >= 4, "{files} files");
    let all = (0..files).flat_map(|n| images(&fs::read(path(n)).unwrap(), None));
    assert_eq!(all.collect::<Vec<_>>(), (0..600).collect::<Vec<_>>());
}
