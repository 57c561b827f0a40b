//! The ROS 2 package, compiled with stand-ins of ROS 2: its node gives the outputs of `loftup.hpp`.

#[allow(dead_code, reason = "the other tests of this crate use the rest")]
mod common;

use std::path::{Path, PathBuf};

use common::Fixture;

/// Compiles a test program of the package with some of its sources.
fn compile(fixture: &Fixture, test: &str, sources: &[&str]) -> Option<PathBuf> {
    let package = "../ros/loftup_ros";
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(package);
    let mut flags = vec!["-std=c++17".to_owned(), "-pedantic".to_owned()];
    flags.extend(["include", "test/stand_ins"].map(|folder| format!("-I{}", path(&root, folder))));
    flags.extend(sources.iter().map(|source| path(&root, source)));
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    fixture.compile(&format!("{package}/{test}"), &flags)
}

fn path(root: &Path, name: &str) -> String {
    root.join(name).to_str().expect("UTF-8").to_owned()
}

#[test]
fn the_node_gives_the_outputs_of_the_library() {
    let fixture = Fixture::new();
    let sources = ["src/loftup_node.cpp", "src/model.cpp", "src/convert.cpp"];
    let Some(program) = compile(&fixture, "test/node_test.cpp", &sources) else {
        return;
    };
    let output = fixture.run(&program, &[fixture.path("robot.loftup")]);
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn conversions_regions_and_the_waiting_frame() {
    let fixture = Fixture::new();
    let Some(program) = compile(&fixture, "test/parts_test.cpp", &["src/convert.cpp"]) else {
        return;
    };
    fixture.run::<&str>(&program, &[]);
}
