//! Mock versions of libnvinfer, its ONNX parser and libcuda, for tests.
//!
//! They are compiled from the C++ in `tests/fake` with the system's compiler (`CXX`, or `c++`) when
//! a test first needs them, and cached next to the test program. They verify the order of calls,
//! lifetimes and error handling. They do not verify NVIDIA's binary interface, because they are
//! generated from the same slot table as the binding.
//!
//! ```no_run
//! use loftup_tensorrt::{Layout, Library, cuda::Cuda, testing::Fake};
//!
//! let Some(fake) = Fake::new(Layout::V10) else { return }; // prints why
//! let library = Library::open(&fake.library()).unwrap();
//! let cuda = Cuda::open(&fake.libcuda()).unwrap();
//! fake.set("enqueue", "nan"); // from now on
//! // ...
//! assert!(fake.violations().is_empty());
//! ```
//!
//! Each file of `tests/fake` documents at its top the keys that `set` accepts. A mock engine fills
//! every output with the mean of all inputs plus 0.01 times (index modulo 97); see
//! [`Fake::expected`].

use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use parking_lot::Mutex;

use crate::slots;
use crate::version::Layout;

const HEADER: &str = include_str!("../tests/fake/fake.h");
const SOURCES: [(&str, &str); 3] = [
    (
        "fake_nvinfer",
        include_str!("../tests/fake/fake_nvinfer.cc"),
    ),
    (
        "fake_onnxparser",
        include_str!("../tests/fake/fake_onnxparser.cc"),
    ),
    (
        "fake_libcuda",
        include_str!("../tests/fake/fake_libcuda.cc"),
    ),
];

/// Environment variable with the directory of NVIDIA's own libraries and headers.
pub const CACHE_VARIABLE: &str = "LOFTUP_NVIDIA_CACHE";

/// The table of slots and enum values: C++ name, and one value per [`Layout::ALL`]; -1 if a version
/// does not have it.
pub fn slot_table() -> Vec<(&'static str, [i16; 5])> {
    slots::rows()
}

/// Enum values that are the same in every version.
pub fn common_values() -> &'static [(&'static str, i64)] {
    &slots::COMMON
}

/// Reports that a test is skipped and why, bypassing the output capture of the test harness.
pub fn skipped(reason: &str) {
    let line = format!("skipped: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The directory `name` that `tools/fetch_tensorrt.sh` has downloaded. If it is missing, reports
/// this on standard error and returns `None`.
pub fn cached(name: &str) -> Option<PathBuf> {
    if name != "headers" && !cfg!(target_arch = "x86_64") {
        skipped("tools/fetch_tensorrt.sh downloads libraries for x86-64 only");
        return None;
    }
    let root = match std::env::var_os(CACHE_VARIABLE) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/loftup-edge/nvidia"),
    };
    let path = root.join(name);
    if path.is_dir() {
        return Some(path);
    }
    let full = if name.starts_with("full") {
        " full"
    } else {
        ""
    };
    skipped(&format!(
        "{} is missing; run tools/fetch_tensorrt.sh{full}",
        path.display()
    ));
    None
}

/// Runs `body` in a child process, so that a crash of a real library is only a failed test and two
/// versions are never loaded into the same process. `test` is the full name of the calling test.
/// Panics with the child's output if it fails.
pub fn in_child(test: &str, body: impl FnOnce()) {
    const MARK: &str = "LOFTUP_TEST_CHILD";
    if std::env::var(MARK).is_ok_and(|running| running == test) {
        return body();
    }
    let program = std::env::current_exe().expect("the test program has a path");
    let output = Command::new(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(MARK, test)
        .output()
        .expect("the test program starts again");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(
        output.status.success(),
        "{test} ended with {}:\n{text}",
        output.status
    );
    assert!(
        text.contains("1 passed"),
        "{test} is not the name of the calling test:\n{text}"
    );
}

/// A set of mock libraries in a temporary directory.
#[derive(Debug)]
pub struct Fake {
    directory: tempfile::TempDir,
    layout: Layout,
}

impl Fake {
    /// Creates a set for `layout`. `None` if there is no C++ compiler; the reason is printed on
    /// standard error.
    ///
    /// # Panics
    /// If the compiler fails.
    pub fn new(layout: Layout) -> Option<Fake> {
        let built = build(layout)?;
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (from, to) in [
            ("fake_nvinfer.so", library_name(layout)),
            ("fake_onnxparser.so", parser_name(layout)),
            ("fake_libcuda.so", "libcuda.so.1"),
        ] {
            fs::copy(built.join(from), directory.path().join(to)).expect("copying a mock library");
        }
        Some(Fake { directory, layout })
    }

    /// The directory of the set.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Path of the mock libnvinfer.
    pub fn library(&self) -> PathBuf {
        self.directory().join(library_name(self.layout))
    }

    /// Path of the mock libcuda.
    pub fn libcuda(&self) -> PathBuf {
        self.directory().join("libcuda.so.1")
    }

    /// Changes the behavior of the mock libraries.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn set(&self, key: &str, value: &str) {
        let path = self.directory().join("control");
        let old = fs::read_to_string(&path).unwrap_or_default();
        // Replaced atomically, because the libraries may be reading it.
        let next = self.directory().join("control.next");
        fs::write(&next, format!("{old}{key}={value}\n")).expect("writing the control file");
        fs::rename(next, path).expect("replacing the control file");
    }

    /// All calls so far, in order, across all three libraries.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory().join("calls.log")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }

    /// Detected misuse: objects deleted before their dependents or used afterwards; memory that is
    /// missing, too small, leaked, or freed while in use.
    pub fn violations(&self) -> Vec<String> {
        self.calls()
            .into_iter()
            .filter(|call| call.starts_with("VIOLATION"))
            .collect()
    }

    /// The value that the mock engine computes for element `index` of an output, for inputs with
    /// this mean.
    pub fn expected(mean: f32, index: usize) -> f32 {
        mean + 0.01 * (index % 97) as f32
    }
}

fn library_name(layout: Layout) -> &'static str {
    match layout {
        Layout::V8 => "libnvinfer.so.8",
        Layout::V10 => "libnvinfer.so.10",
        Layout::V11 => "libnvinfer.so.11",
        Layout::Rtx1_4 | Layout::Rtx1_5 => "libtensorrt_rtx.so.1",
    }
}

fn parser_name(layout: Layout) -> &'static str {
    match layout {
        Layout::V8 => "libnvonnxparser.so.8",
        Layout::V10 => "libnvonnxparser.so.10",
        Layout::V11 => "libnvonnxparser.so.11",
        Layout::Rtx1_4 | Layout::Rtx1_5 => "libtensorrt_onnxparser_rtx.so.1",
    }
}

/// The versions that the mock library and parser report.
fn versions(layout: Layout) -> (i32, i32) {
    match layout {
        Layout::V8 => (8503, 100),
        Layout::V10 => (100300, 100),
        Layout::V11 => (110400, 200),
        Layout::Rtx1_4 => (10400, 100),
        Layout::Rtx1_5 => (10701, 200),
    }
}

/// `slots.h`: the slot table of a layout as C macros.
fn slots_header(layout: Layout) -> String {
    let (version, parser) = versions(layout);
    let mut text = format!(
        "#define FAKE_VERSION {version}\n#define FAKE_PARSER_VERSION {parser}\n#define NARROW_DIMS {}\n",
        i32::from(layout.dims_are_32_bit())
    );
    for (name, row) in slots::rows() {
        let (class, method) = name.split_once("::").unwrap_or((name, ""));
        let method = if method.starts_with('~') {
            "delete"
        } else {
            method
        };
        let slot = row[layout.column()];
        writeln!(text, "#define SLOT_{class}_{method} {slot}").expect("writing to a string");
    }
    text
}

/// Compiles the mock libraries for `layout`, unless they are cached.
fn build(layout: Layout) -> Option<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock();

    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let slots_header = slots_header(layout);
    let mut hasher = DefaultHasher::new();
    (&compiler, &slots_header, HEADER, SOURCES).hash(&mut hasher);
    let program = std::env::current_exe().ok()?;
    let directory = program.parent()?;
    let done = directory.join(format!("loftup-fake-{:?}-{:016x}", layout, hasher.finish()));
    if done.is_dir() {
        return Some(done);
    }
    if Command::new(&compiler).arg("--version").output().is_err() {
        skipped(&format!(
            "there is no C++ compiler {compiler}; install g++ or set CXX"
        ));
        return None;
    }
    let work = tempfile::tempdir_in(directory).expect("a temporary directory");
    fs::write(work.path().join("slots.h"), slots_header).expect("writing slots.h");
    fs::write(work.path().join("fake.h"), HEADER).expect("writing fake.h");
    for (name, source) in SOURCES {
        let file = work.path().join(format!("{name}.cc"));
        fs::write(&file, source).expect("writing a source");
        let output = Command::new(&compiler)
            .args(["-std=c++17", "-O1", "-Wall", "-Wextra", "-fPIC", "-shared"])
            .args(["-fvisibility=hidden", "-fno-exceptions", "-include"])
            .arg(work.path().join("slots.h"))
            .arg(&file)
            .arg("-o")
            .arg(work.path().join(format!("{name}.so")))
            .arg("-ldl")
            .output()
            .expect("the compiler starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name} does not compile:\n{text}");
    }
    // Another test program may have been faster; its result is identical.
    let work = work.keep();
    if fs::rename(&work, &done).is_err() {
        let _ = fs::remove_dir_all(&work);
    }
    Some(done)
}
