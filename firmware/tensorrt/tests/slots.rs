//! Compares the slot table with NVIDIA's headers, as far as they are downloaded.
//!
//! `headers/slots.cc` is compiled against each set of headers and prints slots and values, in part
//! by passing instrumented objects to NVIDIA's inline functions. The headers come from the cache
//! (`tools/fetch_tensorrt.sh headers`) and, for versions that the script cannot download, from the
//! directories in `LOFTUP_TENSORRT_HEADERS`, separated by colons.

use std::path::{Path, PathBuf};
use std::process::Command;

use loftup_tensorrt::testing::{cached, common_values, slot_table};
use loftup_tensorrt::{Layout, Version};

/// Compiles and runs the program against `headers`.
fn measured(headers: &Path, stubs: &Path) -> Vec<(String, i64)> {
    let work = tempfile::tempdir().unwrap();
    let program = work.path().join("slots");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/headers/slots.cc");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let output = Command::new(compiler)
        .args(["-std=c++17", "-w", "-I"])
        .arg(headers)
        .arg("-I")
        .arg(stubs)
        .arg(source)
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C++ compiler");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {text}", headers.display());
    let output = Command::new(program).output().unwrap();
    assert!(output.status.success(), "{}", headers.display());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_string(), value.parse().unwrap())
        })
        .collect()
}

/// Compares one set of headers; returns the number of matching values.
fn compare(headers: &Path, stubs: &Path) -> (Version, usize) {
    let measured = measured(headers, stubs);
    let (name, number) = &measured[0];
    assert_eq!(name, "version");
    // The program's number for 8.5.3 is 80503, the library's is 8503.
    let (major, rest) = (number / 10_000, number % 10_000);
    let number = if major == 8 { 8000 + rest } else { *number };
    let version = Version::decode(number as i32).unwrap();
    let layout = version.layout().unwrap();
    let column = Layout::ALL
        .iter()
        .position(|known| *known == layout)
        .unwrap();

    let mut equal = 0;
    let mut wrong = Vec::new();
    for (name, row) in slot_table() {
        let expected = i64::from(row[column]);
        let found: Vec<i64> = measured
            .iter()
            .filter(|(known, _)| known == name)
            .map(|(_, value)| *value)
            .collect();
        match (expected, found.as_slice()) {
            (-1, []) => {}
            (_, []) => wrong.push(format!("{name}: table {expected}, not in the headers")),
            (_, found) if found.iter().all(|value| *value == expected) => equal += found.len(),
            (_, found) => wrong.push(format!("{name}: table {expected}, headers {found:?}")),
        }
    }
    let dims = if layout == Layout::V8 {
        (36, 4)
    } else {
        (72, 8)
    };
    let sizes = [
        ("sizeof Dims", dims.0),
        ("sizeof Dims::d[0]", dims.1),
        ("offsetof Dims::d", dims.1),
        ("Dims::MAX_DIMS", 8),
    ];
    for (name, expected) in common_values().iter().copied().chain(sizes) {
        let found = measured
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| *value);
        if found == Some(expected) {
            equal += 1
        } else {
            wrong.push(format!("{name}: {expected}, headers {found:?}"))
        }
    }
    assert!(
        wrong.is_empty(),
        "{version} ({}): {wrong:#?}",
        headers.display()
    );
    (version, equal)
}

#[test]
fn the_slot_table_is_that_of_nvidias_headers() {
    let Some(root) = cached("headers") else {
        return;
    };
    let mut directories: Vec<PathBuf> = std::fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("NvInfer.h").exists())
        .collect();
    if let Some(more) = std::env::var_os("LOFTUP_TENSORRT_HEADERS") {
        directories.extend(std::env::split_paths(&more));
    }
    directories.sort();
    assert!(directories.len() >= 2, "{directories:?}");
    for headers in directories {
        let (version, equal) = compare(&headers, &root);
        println!("{version}: {equal} slots and values as in the table");
        assert!(equal > 80, "{version}: only {equal}");
    }
}
