//! `--backend` and `loftup engine`.

use std::{path::Path, process::Command};

use loftup_tensorrt::{Layout, testing::Fake};
use serde_json::Value;

use crate::support::*;

/// A command that finds no TensorRT, or only what `LOFTUP_TENSORRT` names.
fn without_tensorrt(command: &mut Command) -> &mut Command {
    command
        .env("LOFTUP_TENSORRT", "/nowhere/libnvinfer.so.10")
        .env("LOFTUP_LIBCUDA", "/nowhere/libcuda.so.1")
}

fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {said}");
    said
}

#[test]
fn without_tensorrt_auto_answers_with_tract_and_says_why() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let answer = |backend: &str, out: &Path| {
        let mut command = loftup!(
            "run",
            bundle.path(),
            "--image",
            &image,
            "--out",
            out,
            "--json"
        );
        command.args(["--backend", backend]);
        let (said, warned) = told(without_tensorrt(&mut command));
        (serde_json::from_str::<Value>(&said).unwrap(), warned)
    };
    let (auto, tract) = (dir.path().join("auto.npy"), dir.path().join("tract.npy"));
    let (json, warned) = answer("auto", &auto);
    assert_eq!(json["backend"], "tract");
    let reason = json["degraded"].as_str().unwrap();
    assert!(reason.contains("/nowhere/libnvinfer.so.10"), "{reason}");
    assert_eq!(warned.lines().count(), 1, "{warned}");
    assert!(
        warned.contains(reason) && warned.contains("falling back to tract"),
        "{warned}"
    );
    let (json, warned) = answer("tract", &tract);
    assert_eq!(
        (&json["backend"], &json["degraded"]),
        (&"tract".into(), &Value::Null)
    );
    assert_eq!(warned, "");
    assert_eq!(std::fs::read(auto).unwrap(), std::fs::read(tract).unwrap());
}

#[test]
fn tensorrt_alone_fails_with_the_reason_and_writes_nothing() {
    let (dir, bundle) = (dir(), full());
    let image = png(dir.path());
    let out = dir.path().join("out.npy");
    let commands = [
        loftup!("run", bundle.path(), "--image", &image, "--out", &out),
        loftup!("verify", bundle.path()),
    ];
    for mut command in commands {
        let said = refused(without_tensorrt(&mut command).args(["--backend", "tensorrt"]));
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("libnvinfer.so.10: not found"), "{said}");
        assert!(said.contains("LOFTUP_TENSORRT"), "{said}");
    }
    assert!(!out.exists());
}

#[test]
fn verify_names_the_engine_that_ran() {
    let bundle = full();
    let said = done(without_tensorrt(&mut loftup!("verify", bundle.path())));
    let last = said.lines().last().unwrap();
    assert!(
        last.starts_with("engine: tract (fallback: tensorrt cannot be used"),
        "{last}"
    );
}

#[test]
fn an_empty_engine_cache_is_listed_and_cleaned() {
    let dir = dir();
    let cache = dir.path().join("engines");
    let said = done(&mut loftup!("engine", "list", "--engine-cache", &cache));
    assert_eq!(said, format!("{}: 0 engines, 0.0 MB\n", cache.display()));
    let said = done(&mut loftup!(
        "engine",
        "list",
        "--json",
        "--engine-cache",
        &cache
    ));
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["engines"], Value::Array(Vec::new()));
    let said = done(&mut loftup!("engine", "clean", "--engine-cache", &cache));
    assert_eq!(said, "0 engines removed, 0.0 MB\n");
    assert!(!cache.exists());
    // A damaged one is shown as what it is, and goes.
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("a-1.engine"), b"nonsense").unwrap();
    let said = done(&mut loftup!("engine", "list", "--engine-cache", &cache));
    assert!(said.starts_with("a-1.engine: 0.0 MB, unusable"), "{said}");
    let said = done(&mut loftup!("engine", "clean", "--engine-cache", &cache));
    assert!(said.starts_with("1 engine removed"), "{said}");
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 0);
}

#[test]
fn engines_are_built_only_where_they_can_be() {
    let bundle = full();
    for more in [&[][..], &["--target", "8.6"]] {
        let mut command = loftup!("engine", "build", bundle.path());
        let said = refused(without_tensorrt(&mut command).args(more));
        assert!(said.contains("libnvinfer.so.10: not found"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for wrong in ["8", "8.x", "-8.6", "800.6"] {
        let mut command = loftup!("engine", "build", bundle.path());
        let output = command.arg(format!("--target={wrong}")).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}

/// With NVIDIA's real TensorRT-RTX, where `tools/fetch_tensorrt.sh` has fetched it.
#[test]
fn engines_are_built_ahead_of_time_listed_and_found_again() {
    let root = std::env::var_os("LOFTUP_NVIDIA_CACHE")
        .map(Into::into)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache/loftup-edge/nvidia")));
    let Some(library) = root
        .map(|root| root.join("rtx-1.7"))
        .filter(|path| path.is_dir())
    else {
        eprintln!("skipped: no TensorRT-RTX; run tools/fetch_tensorrt.sh");
        return;
    };
    let (dir, bundle) = (dir(), full());
    let cache = dir.path().join("engines");
    let mut seconds = Vec::new();
    for _ in 0..2 {
        let mut command = loftup!(
            "engine",
            "build",
            bundle.path(),
            "--json",
            "--target",
            "8.6"
        );
        command.args(["--tile", "32", "--engine-cache"]).arg(&cache);
        let said = done(command.env("LOFTUP_TENSORRT", &library));
        let json: Value = serde_json::from_str(&said).unwrap();
        let engines = json["engines"].as_array().unwrap().clone();
        assert_eq!(engines.len(), 3, "{json}");
        seconds.push(engines[0]["built_seconds"].clone());
    }
    assert!(
        seconds[0].is_number() && seconds[1].is_null(),
        "{seconds:?}"
    );
    let said = done(&mut loftup!("engine", "list", "--engine-cache", &cache));
    println!("{said}");
    assert!(
        said.contains("TensorRT-RTX 1.7.1, compute capability 8.6"),
        "{said}"
    );
    assert!(said.contains(": 3 engines"), "{said}");
    let said = done(&mut loftup!("engine", "clean", "--engine-cache", &cache));
    assert!(said.starts_with("3 engines removed"), "{said}");
}

#[test]
fn an_engine_that_computes_something_wrong_is_refused_by_every_command() {
    let Some(fake) = Fake::new(Layout::V10) else {
        return;
    };
    fake.set("enqueue", "plausible");
    fake.set("dim.tokens", "grid.1*grid.2");
    fake.set("dim.pixels", "guidance.0*guidance.2-4*guidance.3-4");
    let (dir, bundle) = (dir(), full());
    let (image, cache) = (png(dir.path()), dir.path().join("engines"));
    let with_fake = |mut command: Command| {
        command
            .env("LOFTUP_TENSORRT", fake.library())
            .env("LOFTUP_LIBCUDA", fake.libcuda())
            .arg("--engine-cache")
            .arg(&cache);
        command
    };
    let run = |out: &Path| loftup!("run", bundle.path(), "--image", &image, "--out", out);
    let out = dir.path().join("out.npy");
    let mut commands = vec![loftup!("engine", "build", bundle.path())];
    for mut command in [loftup!("verify", bundle.path()), run(&out)] {
        command.args(["--backend", "tensorrt"]);
        commands.push(command);
    }
    for command in commands {
        let said = refused(&mut with_fake(command));
        println!("{said}");
        for part in [
            "TensorRT 10.3.0",
            "backbone.onnx",
            "wrong outputs",
            "allowed",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }
    assert!(!out.exists());

    // `auto`: tract's output, and the reason.
    let (said, _) = told(&mut with_fake({
        let mut command = run(&out);
        command.arg("--json");
        command
    }));
    let said: Value = serde_json::from_str(&said).unwrap();
    let reason = said["degraded"].as_str().unwrap();
    assert!(reason.contains("TensorRT 10.3.0"), "{reason}");
    assert_eq!(
        (&said["backend"], &said["runs"]["wrong"]),
        (&"tract".into(), &1.into())
    );
    let tract = dir.path().join("tract.npy");
    let mut command = run(&tract);
    done(command.args(["--backend", "tract"]));
    assert!(std::fs::read(&out).unwrap() == std::fs::read(&tract).unwrap());
}
