//! Programs in C and C++ get the bits of the runtime, and errors for misuse.

mod common;

use std::{ffi::OsStr, path::Path, process::Command};

use loftup_bundle::Size;
use loftup_runtime::{ColorRange, Frame, Query, Rect, class_map::ClassMap};

use common::{Fixture, skipped, succeeds};

#[test]
fn the_example_in_c_gives_the_classes_of_the_runtime() {
    let fixture = Fixture::new();
    let Some(program) = fixture.compile("examples/classes.c", &["-std=c99", "-pedantic"]) else {
        return;
    };
    let [bundle, photo, out] =
        ["robot.loftup", "photo.ppm", "classes.raw"].map(|n| fixture.path(n));
    let arguments = [
        bundle.as_os_str(),
        "classes".as_ref(),
        photo.as_ref(),
        out.as_ref(),
    ];
    let output = fixture.run(&program, &arguments);

    let perceptor = fixture.perceptor();
    let head = perceptor.head("classes").unwrap();
    let size = Size {
        width: 224,
        height: 224,
    };
    let view = perceptor.encode(&fixture.photo, size, ColorRange::PerImage);
    let mut map = ClassMap::new(Rect::whole(size));
    let view = view.unwrap().with_head(&head).unwrap();
    view.frame(&mut |tile| map.push(tile)).unwrap();
    let classes = map.into_classes();
    assert!(std::fs::read(&out).unwrap() == classes, "other classes");
    let printed = String::from_utf8(output.stdout).unwrap();
    for (i, name) in ["road", "wall", "sky"].into_iter().enumerate() {
        let count = classes.iter().filter(|c| usize::from(**c) == i).count();
        let line = format!("{name}: {count}\n");
        assert_eq!(printed.contains(&line), count > 0, "{line}{printed}");
    }
}

#[test]
fn the_example_in_cpp_gives_the_features_of_the_runtime() {
    let fixture = Fixture::new();
    let Some(program) = fixture.compile("examples/features.cpp", &["-std=c++17", "-pedantic"])
    else {
        return;
    };
    let [bundle, photo, out] = ["robot.loftup", "photo.ppm", "f.raw"].map(|n| fixture.path(n));
    fixture.run(&program, &[&bundle, &photo, &out]);
    let frame = Frame::packed(
        fixture.photo.data(),
        fixture.photo.width(),
        fixture.photo.height(),
    );
    let query = Query::frame(Size {
        width: 61,
        height: 47,
    });
    let expected = fixture.perceptor().perceive(&frame, &query).unwrap().values;
    let bytes: Vec<u8> = expected.iter().flat_map(|x| x.to_ne_bytes()).collect();
    assert!(std::fs::read(&out).unwrap() == bytes, "other features");
}

/// A program that needs no libloftup.so.
#[test]
fn a_static_library_gives_the_same_classes() {
    let fixture = Fixture::new();
    let shared = fixture.path("libloftup.so").canonicalize().unwrap();
    let (built, library) = (shared.parent().unwrap(), fixture.path("libloftup.a"));
    let source = fixture.path("static.rs");
    std::fs::write(&source, "pub use loftup::*;\n").unwrap();
    // `cargo rustc --crate-type staticlib` would compile every dependency again.
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or("rustc".into()));
    rustc.current_dir(env!("CARGO_MANIFEST_DIR"));
    rustc.args(["--edition", "2024", "--crate-type", "staticlib", "-o"]);
    rustc.arg(&library).arg(&source).arg("--extern");
    rustc.arg(format!("loftup={}", built.join("libloftup.rlib").display()));
    succeeds(rustc.arg("-L").arg(built));
    let flags = ["-std=c99", library.to_str().unwrap(), "-lgcc_s", "-ldl"];
    // The linker takes what is missing from the static library, which comes first.
    let Some(program) = fixture.compile_with("examples/classes.c", &flags, false) else {
        return;
    };
    let [bundle, photo] = ["robot.loftup", "photo.ppm"].map(|n| fixture.path(n));
    let classes = |program: &Path, out: &str| {
        let out = fixture.path(out);
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", fixture.path("nothing"));
        command.arg(&bundle).arg("classes").arg(&photo).arg(&out);
        succeeds(&mut command);
        std::fs::read(out).unwrap()
    };
    let by_static = classes(&program, "static.raw");
    let program = fixture
        .compile("examples/classes.c", &["-std=c99"])
        .unwrap();
    let out = fixture.path("shared.raw");
    let arguments = [
        bundle.as_os_str(),
        "classes".as_ref(),
        photo.as_ref(),
        out.as_ref(),
    ];
    fixture.run(&program, &arguments);
    assert!(by_static == std::fs::read(out).unwrap(), "other classes");
}

/// Everything else of the header: misuse, parts of a frame, formats, threads, tracking, clicks, memory.
#[test]
fn the_checks_in_c_pass() {
    let fixture = Fixture::new();
    let Some(program) = fixture.compile(
        "tests/c/checks.c",
        &["-std=c99", "-D_POSIX_C_SOURCE=200809L"],
    ) else {
        return;
    };
    let output = fixture.run(&program, &[fixture.path("robot.loftup")]);
    print!("{}", String::from_utf8_lossy(&output.stdout));
}

/// The C++ header, with exceptions and without.
#[test]
fn the_checks_in_cpp_pass() {
    let fixture = Fixture::new();
    for flags in [&["-std=c++17"][..], &["-std=c++17", "-fno-exceptions"]] {
        let Some(program) = fixture.compile("tests/c/checks.cpp", flags) else {
            return;
        };
        fixture.run(&program, &[fixture.path("robot.loftup")]);
    }
}

/// With AddressSanitizer, where the compiler has it. It also reports what is still allocated at the end and
/// reachable from nowhere.
#[test]
fn programs_pass_with_address_sanitizer() {
    let fixture = Fixture::new();
    let probe = fixture.path("probe.c");
    std::fs::write(&probe, "int main(void) { return 0; }").unwrap();
    let mut compiler = Command::new(std::env::var("CC").unwrap_or("cc".into()));
    compiler
        .arg("-fsanitize=address")
        .arg(&probe)
        .arg("-o")
        .arg(fixture.path("probe"));
    let built = compiler.output().is_ok_and(|o| o.status.success());
    let runs = || Command::new(fixture.path("probe")).status();
    if !built || !runs().is_ok_and(|s| s.success()) {
        skipped("the C compiler has no AddressSanitizer");
        return;
    }
    let sanitize = ["-fsanitize=address", "-g"];
    let [bundle, photo, out] = ["robot.loftup", "photo.ppm", "out.raw"].map(|n| fixture.path(n));
    let programs: [(&str, &[&str], Vec<&OsStr>); 3] = [
        (
            "tests/c/checks.c",
            &["-std=c99", "-D_POSIX_C_SOURCE=200809L"],
            vec![bundle.as_ref()],
        ),
        (
            "examples/classes.c",
            &["-std=c99"],
            vec![
                bundle.as_ref(),
                "classes".as_ref(),
                photo.as_ref(),
                out.as_ref(),
            ],
        ),
        (
            "examples/features.cpp",
            &["-std=c++17"],
            vec![bundle.as_ref(), photo.as_ref(), out.as_ref()],
        ),
    ];
    for (source, standard, arguments) in programs {
        let Some(program) = fixture.compile(source, &[standard, &sanitize].concat()) else {
            return;
        };
        fixture.run(&program, &arguments);
    }
}

/// Installs the library and builds an example with the CMake package.
#[test]
fn an_installed_library_is_found() {
    let fixture = Fixture::new();
    let cmake = std::env::var("CMAKE").unwrap_or("cmake".into());
    let cmake = || Command::new(&cmake);
    if cmake().arg("--version").output().is_err() {
        skipped("there is no cmake; install it or set CMAKE");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let define = |name: &str, path: &Path| format!("-D{name}={}", path.display());
    let [build, prefix, user] = ["build", "prefix", "user"].map(|name| fixture.path(name));
    let library = fixture.path("libloftup.so").canonicalize().unwrap();
    let mut configure = cmake();
    configure.arg("-S").arg(root).arg("-B").arg(&build);
    configure.arg(define("LOFTUP_LIBRARY", &library));
    succeeds(configure.arg(define("CMAKE_INSTALL_PREFIX", &prefix)));
    succeeds(cmake().arg("--install").arg(&build));

    std::fs::create_dir(&user).unwrap();
    let lists = format!(
        "cmake_minimum_required(VERSION 3.16)\n\
         project(user LANGUAGES CXX)\n\
         find_package(loftup {} REQUIRED)\n\
         add_executable(features {})\n\
         target_compile_features(features PRIVATE cxx_std_17)\n\
         target_link_libraries(features PRIVATE loftup::loftup)\n",
        env!("CARGO_PKG_VERSION"),
        root.join("examples/features.cpp").display()
    );
    std::fs::write(user.join("CMakeLists.txt"), lists).unwrap();
    let mut configure = cmake();
    configure
        .arg("-S")
        .arg(&user)
        .arg("-B")
        .arg(user.join("build"));
    succeeds(configure.arg(define("CMAKE_PREFIX_PATH", &prefix)));
    succeeds(cmake().arg("--build").arg(user.join("build")));
    // Without the library's directory in the environment.
    let mut program = Command::new(user.join("build/features"));
    program.env_remove("LD_LIBRARY_PATH");
    let files = ["robot.loftup", "photo.ppm", "f.raw"].map(|n| fixture.path(n));
    succeeds(program.args(&files));
    assert_eq!(
        std::fs::metadata(&files[2]).unwrap().len(),
        61 * 47 * 64 * 4
    );
}
