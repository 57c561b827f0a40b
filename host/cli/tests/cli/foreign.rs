//! Backbones from other people's ONNX files.

mod forms;
mod refusals;

use std::{
    fs,
    path::{Path, PathBuf},
};

use loftup_onnx::{Attr, Dim, Graph, Tensor};

use crate::support::*;

/// What a test graph looks like from outside.
#[derive(Default)]
struct Kind {
    dynamic: bool,
    tokens: bool,
    two_outputs: bool,
}

/// A patch embedding of 8 x 8 pixels and 48 channels, with a class token in front of `tokens`.
fn graph(dir: &Path, kind: &Kind) -> PathBuf {
    let (width, height) = (64, 40);
    let mut g = Graph::new("foreign");
    let sides: [Dim; 2] = if kind.dynamic {
        ["H".into(), "W".into()]
    } else {
        [height.into(), width.into()]
    };
    let [rows, columns] = sides;
    let image = g.input("pixels", &[1.into(), 3.into(), rows, columns]);
    let weight = Tensor::from_fn([48, 3, 8, 8], |i| ((i * 37 % 101) as f32 - 50.0) / 400.0);
    let bias = Tensor::from_fn([48], |i| i as f32 / 48.0 - 0.5);
    let map = g.conv(&image, &weight, &bias, 8);
    if kind.tokens {
        let flat = g.reshape(&map, &[1, 48, -1]);
        let tokens = g.transpose(&flat, &[0, 2, 1]);
        let class = g.constant("class", &Tensor::from_fn([1, 1, 48], |_| 9.0));
        let all = g.concat(&[&class, &tokens], 1);
        g.output(&all, "tokens", &[1.into(), "n".into(), 48.into()]);
    } else {
        g.output(&map, "map", &[1.into(), 48.into(), "h".into(), "w".into()]);
    }
    if kind.two_outputs {
        let pooled = g.op("GlobalAveragePool", &[&map], &[Attr::Int("unused", 0)][..0]);
        g.output(
            &pooled,
            "pooled",
            &[1.into(), 48.into(), 1.into(), 1.into()],
        );
    }
    let path = dir.join("foreign.onnx");
    fs::write(&path, g.finish()).unwrap();
    path
}

fn convert(onnx: &Path, out: &Path) -> std::process::Command {
    loftup!(
        "convert",
        "--backbone-onnx",
        onnx,
        "--patch",
        "8",
        "--out",
        out
    )
}

fn answer(bundle: &Path, image: &Path, more: &[&str]) -> loftup_runtime::npy::Array {
    let out = bundle.with_extension("npy");
    done(loftup!("run", bundle, "--image", image, "--out", &out).args(more));
    read(out)
}

#[test]
fn a_backbone_of_ours_works_as_a_foreign_one() {
    let (dir, own) = (dir(), full());
    let (image, bundle) = (png(dir.path()), dir.path().join("b.loftup"));
    done(&mut loftup!(
        "convert",
        "--backbone-onnx",
        own.path().join("backbone.onnx"),
        "--patch",
        "14",
        "--upsampler-weights",
        weights("loftup_odd.ckpt"),
        "--out",
        &bundle
    ));
    let foreign = answer(&bundle, &image, &[]);
    let out = dir.path().join("own.npy");
    done(&mut loftup!(
        "run",
        own.path(),
        "--image",
        &image,
        "--out",
        &out
    ));
    let worst = apart(&foreign, &read(&out));
    println!("the same backbone twice: max {worst:.1e}");
    assert!(worst <= 1e-4);
}

#[test]
fn tokens_become_the_map_that_they_were() {
    let dir = dir();
    let image = png(dir.path());
    let (a, b) = (dir.path().join("a.loftup"), dir.path().join("b.loftup"));
    done(&mut convert(&graph(dir.path(), &Kind::default()), &a));
    let tokens = Kind {
        tokens: true,
        ..Kind::default()
    };
    done(&mut convert(&graph(dir.path(), &tokens), &b));
    let (map, tokens) = (answer(&a, &image, &[]), answer(&b, &image, &[]));
    assert_eq!(map.shape, [1, 48, 5, 8]);
    let worst = apart(&map, &tokens);
    println!("map and tokens: max {worst:.1e}");
    assert!(worst <= 1e-5);
    names(&done(&mut loftup!("inspect", &b)), &["tokens (1 dropped)"]);
}

#[test]
fn an_open_size_is_the_users_and_a_fixed_one_the_graphs() {
    let dir = dir();
    let image = png(dir.path());
    let (open, fixed) = (
        dir.path().join("open.loftup"),
        dir.path().join("fixed.loftup"),
    );
    let dynamic = Kind {
        dynamic: true,
        ..Kind::default()
    };
    done(convert(&graph(dir.path(), &dynamic), &open).args(["--size", "80x64"]));
    assert_eq!(answer(&open, &image, &[]).shape, [1, 48, 8, 10]);
    assert_eq!(
        answer(&open, &image, &["--size", "32x48"]).shape,
        [1, 48, 6, 4]
    );
    assert_eq!(
        answer(&open, &image, &["--size", "35x45"]).shape,
        [1, 48, 6, 4]
    );

    let onnx = graph(dir.path(), &Kind::default());
    let (_, said) = told(convert(&onnx, &fixed).args(["--size", "80x64"]));
    names(&said, &["foreign.onnx", "64x40", "80x64"]);
    assert_eq!(answer(&fixed, &image, &[]).shape, [1, 48, 5, 8]);
    assert_eq!(
        answer(&fixed, &image, &["--size", "32x48"]).shape,
        [1, 48, 5, 8]
    );
}

#[test]
fn of_several_outputs_one_must_be_named() {
    let dir = dir();
    let image = png(dir.path());
    let onnx = graph(
        dir.path(),
        &Kind {
            two_outputs: true,
            ..Kind::default()
        },
    );
    let bundle = dir.path().join("b.loftup");
    let line = refused(dir.path(), &mut convert(&onnx, &bundle));
    names(&line, &["foreign.onnx", "map, pooled", "--backbone-output"]);
    let line = refused(
        dir.path(),
        convert(&onnx, &bundle).args(["--backbone-output", "nap"]),
    );
    names(&line, &["foreign.onnx", "nap", "map, pooled"]);
    let line = refused(
        dir.path(),
        convert(&onnx, &bundle).args(["--backbone-output", "pooled"]),
    );
    names(
        &line,
        &["foreign.onnx", "pooled", "[1, 48, 1, 1]", "[1, d, 5, 8]"],
    );
    done(convert(&onnx, &bundle).args(["--backbone-output", "map"]));
    assert_eq!(answer(&bundle, &image, &[]).shape, [1, 48, 5, 8]);
}

#[test]
fn a_wrong_patch_is_noticed() {
    let dir = dir();
    let onnx = graph(dir.path(), &Kind::default());
    let bundle = dir.path().join("b.loftup");
    let with = |patch: &str| {
        loftup!(
            "convert",
            "--backbone-onnx",
            &onnx,
            "--patch",
            patch,
            "--out",
            &bundle
        )
    };
    // Divides the image, but is not the graph's.
    let line = refused(dir.path(), &mut with("4"));
    names(
        &line,
        &[
            "foreign.onnx",
            "map",
            "[1, 48, 5, 8]",
            "[1, d, 10, 16]",
            "patch",
        ],
    );
    // Does not divide it.
    let line = refused(dir.path(), &mut with("14"));
    names(
        &line,
        &["foreign.onnx", "64x40", "patch size 14", "--patch"],
    );
    let line = refused(dir.path(), &mut with("18446744073709551615"));
    names(&line, &["patch"]);
    let dynamic = Kind {
        dynamic: true,
        ..Kind::default()
    };
    let onnx = graph(dir.path(), &dynamic);
    for patch in ["17000", "18446744073709551615"] {
        let line = refused(
            dir.path(),
            &mut loftup!(
                "convert",
                "--backbone-onnx",
                &onnx,
                "--patch",
                patch,
                "--out",
                &bundle
            ),
        );
        names(&line, &["foreign.onnx", patch, "16384", "--patch"]);
    }
}

#[test]
fn channels_of_backbone_and_upsampler_must_agree() {
    let dir = dir();
    let onnx = graph(dir.path(), &Kind::default());
    let bundle = dir.path().join("b.loftup");
    let line = refused(
        dir.path(),
        convert(&onnx, &bundle)
            .arg("--upsampler-weights")
            .arg(weights("loftup_wide.safetensors")),
    );
    names(&line, &["loftup_wide.safetensors", "32", "48"]);
}

#[test]
fn what_is_no_graph_is_refused() {
    let dir = dir();
    let bundle = dir.path().join("b.loftup");
    let onnx = dir.path().join("x.onnx");
    let good = fs::read(graph(dir.path(), &Kind::default())).unwrap();
    let garbage: [&[u8]; 5] = [
        b"",
        b"not an ONNX file, but text of some length",
        &[0xff; 300],
        &good[..good.len() / 2],
        &good[..20],
    ];
    for bytes in garbage {
        fs::write(&onnx, bytes).unwrap();
        let line = refused(dir.path(), &mut convert(&onnx, &bundle));
        names(&line, &["x.onnx"]);
    }
    let missing = dir.path().join("missing.onnx");
    names(
        &refused(dir.path(), &mut convert(&missing, &bundle)),
        &["missing.onnx"],
    );
}

/// Whatever is wrong in a graph, it is an error and no panic, and never a bundle that does not
/// open.
#[test]
fn damaged_graphs_are_refused_or_work() {
    let dir = dir();
    let bundle = dir.path().join("b.loftup");
    let onnx = dir.path().join("x.onnx");
    let good = fs::read(graph(
        dir.path(),
        &Kind {
            tokens: true,
            ..Kind::default()
        },
    ))
    .unwrap();
    // Weights begin somewhere in the middle; structure is at both ends.
    let places = (0..60)
        .map(|i| i * 7)
        .chain((1..60).map(|i| good.len() - 7 * i));
    let mut refusals = 0;
    for at in places.filter(|at| *at < good.len()) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x15;
        fs::write(&onnx, bytes).unwrap();
        let output = convert(&onnx, &bundle).output().unwrap();
        let said = stderr(&output);
        assert!(!said.contains("internal error"), "byte {at}: {said}");
        if output.status.success() {
            fs::remove_dir_all(&bundle).unwrap();
        } else {
            assert_eq!(output.status.code(), Some(1), "byte {at}: {said}");
            assert!(
                said.starts_with("error: ") && said.lines().count() == 1,
                "byte {at}: {said}"
            );
            assert!(!bundle.exists());
            refusals += 1;
        }
    }
    println!("{refusals} refused");
    assert!(refusals > 20);
}
