//! The built-in model with heads, an image, and programs in C and C++ that use the library.

use std::{
    ffi::OsStr,
    io::Write as _,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use loftup_bundle::{Bundle, BundleWriter, Head, HeadKind, Linear, Size};
use loftup_import::{
    builtin::scenes,
    checkpoint::Checkpoint,
    vit::{ConfigFiles, Preset, Vit, VitOptions},
};
use loftup_runtime::{ExecutionOptions, Perceptor, image::RgbImage};

/// A folder with a bundle, an image as PPM, and the library.
pub struct Fixture {
    folder: tempfile::TempDir,
    pub photo: RgbImage,
}

impl Fixture {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_bundle(folder.path());
        let seen = loftup_scenes::Scene::new(5).frame(0.0, 97, 61);
        let photo = RgbImage::new(seen.width, seen.height, seen.rgb).unwrap();
        let mut ppm = format!("P6\n{} {}\n255\n", photo.width(), photo.height()).into_bytes();
        ppm.extend(photo.data());
        std::fs::write(folder.path().join("photo.ppm"), ppm).unwrap();
        // Next to the test program, and under the names for linking and loading.
        let test = std::env::current_exe().unwrap();
        let library = test.parent().unwrap().join("libloftup.so");
        assert!(library.is_file(), "{}", library.display());
        for name in ["libloftup.so", "libloftup.so.1"] {
            symlink(&library, folder.path().join(name)).unwrap();
        }
        Self { folder, photo }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn perceptor(&self) -> Perceptor {
        Perceptor::open_on_cpu(&self.path("robot.loftup"), ExecutionOptions::default()).unwrap()
    }

    /// Compiles a source file of this crate, with warnings as errors. If there is no compiler, reports
    /// this on standard error and returns `None`.
    pub fn compile(&self, source: &str, flags: &[&str]) -> Option<PathBuf> {
        self.compile_with(source, flags, true)
    }

    /// As [`Self::compile`], with the shared library or with what `flags` name.
    pub fn compile_with(&self, source: &str, flags: &[&str], shared: bool) -> Option<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let program = self.path(&source.replace(['/', '.'], "_"));
        let (variable, default) = match source.ends_with(".c") {
            true => ("CC", "cc"),
            false => ("CXX", "c++"),
        };
        let compiler = std::env::var(variable).unwrap_or_else(|_| default.into());
        if Command::new(&compiler).arg("--version").output().is_err() {
            skipped(&format!(
                "there is no compiler {compiler}; install it or set {variable}"
            ));
            return None;
        }
        let mut command = Command::new(compiler);
        command.args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-missing-field-initializers",
        ]);
        command.arg("-I").arg(root.join("include"));
        command.arg("-I").arg(root.join("examples"));
        command.arg(root.join(source)).arg("-o").arg(&program);
        command.args(flags);
        if shared {
            command.arg("-L").arg(self.folder.path()).arg("-lloftup");
        }
        succeeds(command.args(["-lm", "-pthread"]));
        Some(program)
    }

    /// Runs a program with the library.
    pub fn run<S: AsRef<OsStr>>(&self, program: &Path, arguments: &[S]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments);
        command.env("LD_LIBRARY_PATH", self.folder.path());
        succeeds(&mut command)
    }
}

/// Reports that a test is skipped and why, bypassing the output capture of the test harness.
pub fn skipped(reason: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
}

/// Runs a command, which must succeed.
pub fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn write_bundle(folder: &Path) {
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        Checkpoint::open(&path).unwrap()
    };
    let backbone = file("backbone.safetensors", scenes::BACKBONE);
    let upsampler = file("upsampler.safetensors", scenes::UPSAMPLER);
    let options = VitOptions {
        heads: Some(scenes::HEADS),
        ..VitOptions::default()
    };
    let preset = Preset::parse(scenes::PRESET).unwrap();
    let model = Vit::from_checkpoint(&backbone, preset, &options, &ConfigFiles::default()).unwrap();
    let upsampler = loftup_import::loftup::read(&upsampler).unwrap();
    let size = Size {
        width: 224,
        height: 224,
    };
    let plain = folder.join("plain.loftup");
    loftup_import::bundle::write(&plain, (&model, size), &upsampler, Vec::new()).unwrap();

    let bundle = Bundle::open(&plain).unwrap();
    let mut manifest = bundle.manifest().clone();
    let mut writer = BundleWriter::create(&folder.join("robot.loftup"), false).unwrap();
    for name in manifest.files.keys() {
        writer.add(name, &bundle.read(name).unwrap()).unwrap();
    }
    let dim = manifest.upsampler.as_ref().unwrap().dim;
    let names = ["road", "wall", "sky"].map(String::from).to_vec();
    let depth = HeadKind::Depth {
        min_meters: 0.25,
        max_meters: 20.0,
        bins: Some(8),
    };
    for (name, kind) in [("classes", HeadKind::Classes { names }), ("depth", depth)] {
        let outputs = kind.rows();
        let weight = (0..outputs * dim).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0);
        let linear = Linear {
            inputs: dim,
            weight: weight.collect(),
            bias: vec![0.0; outputs],
        };
        let file = Head::file_name(name);
        writer.add(&file, &linear.to_bytes().unwrap()).unwrap();
        manifest.heads.insert(name.into(), Head { kind, dim, file });
    }
    writer.seal(manifest).unwrap();
    writer.commit().unwrap();
}
