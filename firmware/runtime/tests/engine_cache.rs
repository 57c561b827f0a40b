//! Tests of the engine cache: damaged files, concurrent processes, and killed processes.
//!
//! Some tests start this program again as a child process ([`child`]).

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use loftup_runtime::backend::{
    BackendError,
    engine_cache::{BuildEvent, BuildWatch, EngineCache, EngineKey, Origin},
};

fn key(graph: &str) -> EngineKey {
    EngineKey {
        graph: graph.into(),
        sha256: "ab".repeat(32),
        library: "TensorRT 10.3.0".into(),
        capability: "8.7".into(),
        precision: "fp32".into(),
        profiles: "image 1x3x224x224".into(),
        settings: "workspace 1073741824, tf32 false, dla none".into(),
    }
}

/// Records its events.
#[derive(Default)]
struct Notes {
    lines: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl BuildWatch for Notes {
    fn event(&self, event: &BuildEvent<'_>) {
        self.lines.lock().unwrap().push(match event {
            BuildEvent::Waiting { .. } => "waiting".into(),
            BuildEvent::Rebuilding { why, .. } => format!("rebuilding: {why}"),
            BuildEvent::Built { .. } => "built".into(),
            BuildEvent::Loaded { .. } => "loaded".into(),
            other => format!("{other:?}"),
        });
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }
}

impl Notes {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.lines.lock().unwrap())
    }
}

/// Deterministic pseudorandom bytes.
fn payload(bytes: usize) -> Vec<u8> {
    let mut x = 1u64;
    let mut next = || {
        x = x
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (x >> 33) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

fn get(cache: &EngineCache, key: &EngineKey, notes: &Notes) -> (Vec<u8>, bool) {
    let (bytes, origin) = cache
        .get_or_build(key, notes, || Ok(payload(5000)))
        .unwrap();
    (bytes, matches!(origin, Origin::Built(_)))
}

fn only_engine(directory: &Path) -> PathBuf {
    let mut engines: Vec<PathBuf> = fs::read_dir(directory)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "engine"))
        .collect();
    assert_eq!(engines.len(), 1, "{engines:?}");
    engines.remove(0)
}

#[test]
fn an_engine_is_built_once_and_then_read() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path().join("deep/down"));
    let notes = Notes::default();
    assert!(!cache.contains(&key("a.onnx")));
    assert_eq!(get(&cache, &key("a.onnx"), &notes), (payload(5000), true));
    assert_eq!(notes.take(), ["built"]);
    assert_eq!(get(&cache, &key("a.onnx"), &notes), (payload(5000), false));
    assert_eq!(notes.take(), ["loaded"]);
    assert!(cache.contains(&key("a.onnx")));
    let name = only_engine(cache.directory().unwrap());
    let name = name.file_name().unwrap().to_str().unwrap().to_owned();
    println!("{name}");
    assert!(name.starts_with("a-fp32-TensorRT-10.3.0-sm87-"), "{name}");
}

#[test]
fn the_directory_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path().join("engines"));
    get(&cache, &key("a.onnx"), &Notes::default());
    let mode = fs::metadata(cache.directory().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn each_part_of_the_key_counts() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let notes = Notes::default();
    let base = key("a.onnx");
    let change: [fn(&mut EngineKey); 7] = [
        |k| k.graph = "b.onnx".into(),
        |k| k.sha256 = "cd".repeat(32),
        |k| k.library = "TensorRT 10.7.0".into(),
        |k| k.capability = "8.6".into(),
        |k| k.precision = "fp16".into(),
        |k| k.profiles = "image 1x3x448x448".into(),
        |k| k.settings = "workspace 268435456, tf32 false, dla none".into(),
    ];
    get(&cache, &base, &notes);
    let mut names = vec![base.file_name()];
    for change in change {
        let mut other = base.clone();
        change(&mut other);
        assert!(get(&cache, &other, &notes).1, "{other:?} must be built");
        assert!(!names.contains(&other.file_name()));
        names.push(other.file_name());
    }
    assert!(!get(&cache, &base, &notes).1);
}

#[test]
fn an_outdated_engine_is_named_with_what_has_changed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let notes = Notes::default();
    get(&cache, &key("a.onnx"), &notes);
    notes.take();
    let mut newer = key("a.onnx");
    newer.library = "TensorRT 10.7.0".into();
    assert!(get(&cache, &newer, &notes).1);
    let lines = notes.take();
    println!("{lines:?}");
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains("it is for library TensorRT 10.3.0, but TensorRT 10.7.0 is needed"),
        "{lines:?}"
    );
    // Both stay, because a machine may have both versions installed.
    assert!(!get(&cache, &key("a.onnx"), &notes).1);
}

#[test]
fn every_kind_of_damage_is_found_and_mended_with_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let notes = Notes::default();
    get(&cache, &key("a.onnx"), &notes);
    let path = only_engine(directory.path());
    let good = fs::read(&path).unwrap();
    let header = good.len() - 5000;
    let mut cases: Vec<(String, Vec<u8>)> = vec![
        ("empty".into(), Vec::new()),
        (
            "another file".into(),
            b"\x7fELF and so on, for more than a hundred bytes. ".repeat(9),
        ),
        ("longer".into(), [&good[..], b"x"].concat()),
        ("key length".into(), {
            let mut bytes = good.clone();
            bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        }),
        ("engine length".into(), {
            let mut bytes = good.clone();
            bytes[20..28].copy_from_slice(&u64::MAX.to_le_bytes());
            bytes
        }),
    ];
    for cut in (1..good.len()).step_by(61) {
        cases.push((format!("cut at {cut}"), good[..cut].to_vec()));
    }
    for at in (0..header).chain((header..good.len()).step_by(97)) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x04;
        cases.push((format!("bit at {at}"), bytes));
    }
    let count = cases.len();
    notes.take();
    for (what, bytes) in cases {
        fs::write(&path, bytes).unwrap();
        assert_eq!(
            get(&cache, &key("a.onnx"), &notes),
            (payload(5000), true),
            "{what}"
        );
        let lines = notes.take();
        assert_eq!(lines.len(), 2, "{what}: {lines:?}");
        assert!(
            lines[0].starts_with("rebuilding: ") && !lines[0].contains('\n'),
            "{lines:?}"
        );
        assert!(!get(&cache, &key("a.onnx"), &notes).1, "{what}");
        notes.take();
    }
    println!("{count} kinds of damage");
}

#[test]
fn a_file_of_another_key_under_this_name_is_told_by_what_it_says() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let notes = Notes::default();
    let mut foreign = key("a.onnx");
    foreign.capability = "8.6".into();
    get(&cache, &foreign, &notes);
    let path = directory.path();
    fs::rename(
        path.join(foreign.file_name()),
        path.join(key("a.onnx").file_name()),
    )
    .unwrap();
    notes.take();
    assert!(get(&cache, &key("a.onnx"), &notes).1);
    let lines = notes.take();
    assert!(
        lines[0].contains("compute-capability 8.6, but 8.7 is needed"),
        "{lines:?}"
    );
}

#[test]
fn a_failed_build_leaves_nothing_and_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let notes = Notes::default();
    let failed = cache.get_or_build(&key("a.onnx"), &notes, || {
        Err::<Vec<u8>, _>(BackendError::Cancelled {
            graph: "a.onnx".into(),
        })
    });
    assert!(matches!(failed, Err(BackendError::Cancelled { .. })));
    assert!(cache.entries().unwrap().is_empty());
    assert!(get(&cache, &key("a.onnx"), &notes).1);
}

#[test]
fn where_nothing_can_be_kept_it_is_built_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, b"").unwrap();
    for cache in [EngineCache::none(), EngineCache::at(file.join("engines"))] {
        for _ in 0..2 {
            assert_eq!(
                get(&cache, &key("a.onnx"), &Notes::default()),
                (payload(5000), true)
            );
        }
    }
}

#[test]
fn listing_says_what_each_engine_is_for_and_cleaning_spares_what_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    assert!(cache.entries().unwrap().is_empty());
    for name in ["a.onnx", "b.onnx", "c.onnx"] {
        get(&cache, &key(name), &Notes::default());
    }
    let path = directory.path().join(key("b.onnx").file_name());
    fs::write(&path, b"damaged").unwrap();
    fs::write(directory.path().join("left.engine.part"), [0; 100]).unwrap();
    let entries = cache.entries().unwrap();
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0].content, Ok(key("a.onnx")));
    assert!(
        entries[1]
            .content
            .as_ref()
            .unwrap_err()
            .contains("truncated")
    );
    let bytes: u64 = entries.iter().map(|e| e.bytes).sum();
    assert!(bytes > 10_000);

    // While another process builds it, it is left alone.
    let third = key("c.onnx");
    let lock = directory.path().join(format!("{}.lock", third.file_name()));
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(lock)
        .unwrap();
    lock.lock().unwrap();
    let cleaned = cache.clean().unwrap();
    assert_eq!((cleaned.engines, cleaned.in_use), (2, 1), "{cleaned:?}");
    assert!(cache.contains(&third));
    drop(lock);
    assert_eq!(cache.clean().unwrap().engines, 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}

/// The behavior of this program as a child process: `LOFTUP_TEST_CHILD` contains a directory and a
/// mode.
#[test]
#[ignore = "started by other tests"]
fn child() {
    let Some(role) = std::env::var_os("LOFTUP_TEST_CHILD") else {
        return;
    };
    let role = role.into_string().unwrap();
    let (way, directory) = role.split_once(':').unwrap();
    let cache = EngineCache::at(directory);
    match way {
        // Builds slowly, and writes a file when it starts.
        "once" => {
            let notes = Notes::default();
            cache
                .get_or_build(&key("a.onnx"), &notes, || {
                    let log = Path::new(directory).join("built.log");
                    let mut log = OpenOptions::new()
                        .create(true)
                        .append(true)
                        .open(log)
                        .unwrap();
                    writeln!(log, "{}", std::process::id()).unwrap();
                    thread::sleep(Duration::from_millis(400));
                    Ok(payload(5000))
                })
                .unwrap();
            println!("{:?}", notes.take());
        }
        // Builds, rejects, and builds again until it is killed.
        _ => loop {
            let big = payload(6_000_000);
            let notes = Notes::default();
            cache
                .get_or_build(&key("a.onnx"), &notes, || Ok(&big))
                .unwrap();
            for _ in 0..3 {
                cache.reject(&key("a.onnx"), &notes, "intentionally");
                cache
                    .get_or_build(&key("a.onnx"), &notes, || Ok(&big))
                    .unwrap();
            }
        },
    }
}

fn start(way: &str, directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .env(
            "LOFTUP_TEST_CHILD",
            format!("{way}:{}", directory.display()),
        )
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn of_several_processes_one_builds_and_the_others_wait() {
    let directory = tempfile::tempdir().unwrap();
    let children: Vec<Child> = (0..4).map(|_| start("once", directory.path())).collect();
    let mut waited = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        waited += usize::from(text.contains("waiting") && text.contains("loaded"));
    }
    let log = fs::read_to_string(directory.path().join("built.log")).unwrap();
    println!("{} builds, {waited} waited", log.lines().count());
    assert_eq!(log.lines().count(), 1, "{log}");
    // Some may have started after the build was finished.
    assert!(waited >= 1);
}

#[test]
fn waiting_for_another_process_can_be_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let lock = directory
        .path()
        .join(format!("{}.lock", key("a.onnx").file_name()));
    let lock = OpenOptions::new()
        .create(true)
        .append(true)
        .open(lock)
        .unwrap();
    lock.lock().unwrap();
    let notes = Notes::default();
    notes.stop.store(true, Ordering::SeqCst);
    let result = cache.get_or_build(&key("a.onnx"), &notes, || Ok(payload(10)));
    assert!(matches!(result, Err(BackendError::Cancelled { .. })));
    assert!(notes.take().is_empty());
}

#[test]
fn a_kill_at_any_moment_of_a_build_leaves_a_usable_cache() {
    let directory = tempfile::tempdir().unwrap();
    let cache = EngineCache::at(directory.path());
    let expected = payload(6_000_000);
    let (mut whole, mut none, mut parts) = (0, 0, 0);
    for i in 0..20u64 {
        let mut child = start("for ever", directory.path());
        // Waits until it is building, so that kills are spread over building, writing and renaming.
        let begun = Instant::now();
        while fs::read_dir(directory.path()).unwrap().count() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60));
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_millis(40 + i * 7919 % 211));
        child.kill().unwrap();
        child.wait().unwrap();

        let left: Vec<_> = fs::read_dir(directory.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        parts += usize::from(left.iter().any(|name| name.ends_with(".part")));
        for entry in cache.entries().unwrap() {
            assert_eq!(entry.content, Ok(key("a.onnx")), "after kill {i}");
        }
        match cache.contains(&key("a.onnx")) {
            true => whole += 1,
            false => none += 1,
        }
        // Nothing stays locked, and existing and new entries are correct.
        let notes = Notes::default();
        let (bytes, _) = cache
            .get_or_build(&key("a.onnx"), &notes, || Ok(&expected))
            .unwrap();
        assert!(bytes == expected, "after kill {i}");
        assert!(
            !notes
                .take()
                .iter()
                .any(|line| line.starts_with("rebuilding"))
        );
    }
    println!("20 kills: {whole} left a whole engine, {none} none, {parts} an unfinished file");
    assert_eq!(cache.clean().unwrap().engines, 1);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
