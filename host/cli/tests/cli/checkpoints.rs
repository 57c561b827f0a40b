//! Checkpoints that cannot be used: named, explained, and nothing left behind.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::*;

/// Converts an upsampler.
fn upsampler(weights: &Path, dir: &Path) -> Command {
    loftup!(
        "convert",
        "--upsampler-weights",
        weights,
        "--out",
        dir.join("b.loftup")
    )
}

/// Converts a backbone.
fn backbone(name: &str, weights: &Path, dir: &Path) -> Command {
    let mut command = loftup!(
        "convert",
        "--backbone",
        name,
        "--backbone-weights",
        weights,
        "--heads",
        "3",
        "--size",
        "112x112",
        "--out",
        dir.join("b.loftup")
    );
    if name == "siglip" {
        command.args(["--activation", "gelu"]);
    }
    command
}

fn put(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn truncated_checkpoints() {
    let dir = dir();
    for (name, source) in [
        ("up.ckpt", "loftup_odd.ckpt"),
        ("up.safetensors", "loftup_wide.safetensors"),
    ] {
        let bytes = fs::read(weights(source)).unwrap();
        for keep in [0, 3, 30, bytes.len() / 2, bytes.len() - 1] {
            let file = put(dir.path(), name, &bytes[..keep]);
            names(
                &refused(dir.path(), &mut upsampler(&file, dir.path())),
                &[name],
            );
        }
    }
    let bytes = fs::read(weights("dinov2.bin")).unwrap();
    let file = put(dir.path(), "vit.pth", &bytes[..bytes.len() / 3]);
    names(
        &refused(dir.path(), &mut backbone("dinov2", &file, dir.path())),
        &["vit.pth"],
    );
}

#[test]
fn corrupted_checkpoints() {
    let dir = dir();
    let good = fs::read(weights("loftup_odd.ckpt")).unwrap();
    // An archive has check sums: a flipped byte in the pickle or in the weights is found.
    for at in [200, good.len() / 3, good.len() / 2, good.len() * 2 / 3] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x40;
        let file = put(dir.path(), "up.ckpt", &bytes);
        let line = refused(dir.path(), &mut upsampler(&file, dir.path()));
        names(&line, &["up.ckpt"]);
    }
    let mut bytes = fs::read(weights("loftup_wide.safetensors")).unwrap();
    bytes[30..60].fill(b'}');
    let file = put(dir.path(), "up.safetensors", &bytes);
    names(
        &refused(dir.path(), &mut upsampler(&file, dir.path())),
        &["up.safetensors", "damaged"],
    );
}

#[test]
fn a_pickle_that_names_a_command_is_not_executed() {
    let dir = dir();
    let touched = dir.path().join("executed");
    let path = dir.path().join("evil.bin");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    // os.system("touch ...") as the reduction of an object.
    let shell = format!("touch {}", touched.display());
    let pickle = [
        b"\x80\x02cos\nsystem\n(X".as_slice(),
        &(shell.len() as u32).to_le_bytes(),
        shell.as_bytes(),
        b"tR.",
    ]
    .concat();
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(&pickle).unwrap();
    zip.start_file("archive/version", stored).unwrap();
    zip.write_all(b"3\n").unwrap();
    zip.finish().unwrap();
    let line = refused(dir.path(), &mut upsampler(&path, dir.path()));
    names(&line, &["evil.bin", "refused", "os.system", "torch.save"]);
    let line = refused(dir.path(), &mut loftup!("inspect", &path));
    names(&line, &["evil.bin", "os.system"]);
    assert!(!touched.exists());
}

#[test]
fn missing_tensors_are_named() {
    let dir = dir();
    let file = dir.path().join("up.safetensors");
    let all = tensors(&weights("loftup_wide.safetensors"));
    for name in [
        "upsampler.final_conv.0.weight",
        "upsampler.lr_pe.biases",
        "upsampler.ca_transformer.layers.1.0.attention.out_proj.bias",
    ] {
        let mut some = all.clone();
        some.remove(name).unwrap();
        save(&file, &some);
        let line = refused(dir.path(), &mut upsampler(&file, dir.path()));
        names(&line, &["up.safetensors", name, "missing"]);
    }
    let file = dir.path().join("vit.safetensors");
    let mut some = tensors(&weights("siglip.safetensors"));
    let name = "visual.trunk.blocks.1.mlp.fc2.weight";
    some.remove(name).unwrap();
    save(&file, &some);
    let line = refused(dir.path(), &mut backbone("siglip", &file, dir.path()));
    names(&line, &["vit.safetensors", "missing", "fc2"]);
}

#[test]
fn misshapen_tensors_are_named_with_both_shapes() {
    let dir = dir();
    let file = dir.path().join("up.safetensors");
    let mut all = tensors(&weights("loftup_wide.safetensors"));
    let name = "upsampler.final_conv.0.weight";
    let (shape, _) = all.get_mut(name).unwrap();
    let right = format!("{shape:?}");
    shape.swap(0, 1);
    let wrong = format!("{shape:?}");
    save(&file, &all);
    let line = refused(dir.path(), &mut upsampler(&file, dir.path()));
    names(&line, &["up.safetensors", name, &right, &wrong]);
}

#[test]
fn extents_that_make_no_model_are_refused() {
    let dir = dir();
    let file = dir.path().join("up.safetensors");
    for channels in [0, 1, 30] {
        let mut all = tensors(&weights("loftup_wide.safetensors"));
        let name = all
            .keys()
            .find(|name| name.ends_with("norm.weight") && !name.starts_with("upsampler"))
            .unwrap()
            .clone();
        all.insert(name.clone(), (vec![channels], vec![1.0; channels]));
        save(&file, &all);
        let line = refused(dir.path(), &mut upsampler(&file, dir.path()));
        names(&line, &["up.safetensors", &name, &channels.to_string()]);
    }
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let dir = dir();
    for (value, text) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
        let file = dir.path().join("up.safetensors");
        let mut all = tensors(&weights("loftup_wide.safetensors"));
        let name = "upsampler.first_conv.4.weight";
        all.get_mut(name).unwrap().1[17] = value;
        save(&file, &all);
        let line = refused(dir.path(), &mut upsampler(&file, dir.path()));
        names(&line, &["up.safetensors", name, text, "17"]);
    }
    let file = dir.path().join("vit.safetensors");
    let mut all = tensors(&weights("siglip.safetensors"));
    let name = "visual.trunk.blocks.1.mlp.fc1.weight";
    all.get_mut(name).unwrap().1[5] = f32::NAN;
    save(&file, &all);
    let line = refused(dir.path(), &mut backbone("siglip", &file, dir.path()));
    names(&line, &["vit.safetensors", name, "NaN"]);
}

#[test]
fn channels_of_backbone_and_upsampler_that_differ() {
    let dir = dir();
    let line = refused(
        dir.path(),
        backbone("dinov2", &weights("dinov2.bin"), dir.path())
            .arg("--upsampler-weights")
            .arg(weights("loftup_wide.safetensors")),
    );
    names(
        &line,
        &[
            "loftup_wide.safetensors",
            "32",
            "48",
            "trained for this backbone",
        ],
    );
}

#[test]
fn files_that_are_no_checkpoint() {
    let dir = dir();
    let html = put(
        dir.path(),
        "up.bin",
        b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n",
    );
    names(
        &refused(dir.path(), &mut upsampler(&html, dir.path())),
        &["up.bin", "HTML"],
    );
    let pointer = put(
        dir.path(),
        "up.pth",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
    );
    names(
        &refused(dir.path(), &mut upsampler(&pointer, dir.path())),
        &["up.pth", "LFS"],
    );
    let missing = dir.path().join("missing.pth");
    names(
        &refused(dir.path(), &mut upsampler(&missing, dir.path())),
        &["missing.pth"],
    );
    names(
        &refused(dir.path(), &mut upsampler(dir.path(), dir.path())),
        &[dir.path().to_str().unwrap()],
    );
    // Of the wrong half.
    names(
        &refused(
            dir.path(),
            &mut upsampler(&weights("dinov2.bin"), dir.path()),
        ),
        &["dinov2.bin", "channelnorm"],
    );
    let line = refused(
        dir.path(),
        &mut backbone("dinov2", &weights("loftup_odd.ckpt"), dir.path()),
    );
    names(&line, &["loftup_odd.ckpt", "no vision transformer"]);
}

#[test]
fn backbones_by_the_wrong_name() {
    let dir = dir();
    let dinov2 = weights("dinov2.bin");
    let line = refused(dir.path(), &mut backbone("resnet-50", &dinov2, dir.path()));
    names(&line, &["resnet-50", "dinov2-s14", "clip-b16", "siglip"]);
    let line = refused(dir.path(), &mut backbone("dinov2-reg", &dinov2, dir.path()));
    names(&line, &["dinov2.bin", "register"]);
    let line = refused(dir.path(), &mut backbone("clip", &dinov2, dir.path()));
    names(&line, &["dinov2.bin", "not CLIP", "dinov2"]);
    for heads in ["5", "100"] {
        let line = refused(
            dir.path(),
            &mut loftup!(
                "convert",
                "--backbone",
                "dinov2",
                "--backbone-weights",
                &dinov2,
                "--heads",
                heads,
                "--out",
                dir.path().join("b.loftup")
            ),
        );
        names(&line, &["dinov2.bin", heads, "48", "heads"]);
    }
    // Without --heads: dinov2-s14 is another size, and 48 channels are no multiple of 64.
    for (name, parts) in [
        ("dinov2-s14", ["width 48", "not dinov2-s14", "dinov2 "]),
        ("dinov2", ["48", "number of", "heads"]),
    ] {
        let out = dir.path().join("b.loftup");
        let line = refused(
            dir.path(),
            &mut loftup!(
                "convert",
                "--backbone",
                name,
                "--backbone-weights",
                &dinov2,
                "--out",
                out
            ),
        );
        names(&line, &["dinov2.bin"]);
        names(&line, &parts);
    }
}
