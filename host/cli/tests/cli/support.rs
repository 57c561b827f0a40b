//! Running the program and preparing what it is given.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    sync::{Arc, Mutex, Weak},
};

use loftup_runtime::{
    image::RgbImage,
    npy::{self, Array},
};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use tempfile::TempDir;

/// A command line of `loftup`.
macro_rules! loftup {
    ($($arg:expr),* $(,)?) => {{
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_loftup"));
        command.env_remove("RUST_LOG");
        $(command.arg($arg);)*
        command
    }};
}
pub(crate) use loftup;

/// An empty directory that goes with the test.
pub fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

pub fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/golden")
}

pub fn weights(name: &str) -> PathBuf {
    golden().join("weights").join(name)
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs a command that must succeed; what it printed on standard output.
pub fn done(command: &mut Command) -> String {
    told(command).0
}

/// As [`done`], and what it said on standard error.
pub fn told(command: &mut Command) -> (String, String) {
    let output = command.output().unwrap();
    let stderr = stderr(&output);
    assert!(output.status.success(), "{command:?}: {stderr}");
    (String::from_utf8(output.stdout).unwrap(), stderr)
}

/// Runs a command that must be refused with exit code 1 and one line on standard error, and must
/// change nothing in `dir`. Returns the line.
pub fn refused(dir: &Path, command: &mut Command) -> String {
    let before = listing(dir);
    let output = command.output().unwrap();
    let stderr = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
    assert!(
        !stderr.contains(".part") && !stderr.contains("/.loftup-bundle"),
        "{stderr}"
    );
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{command:?}: {stderr}");
    assert!(lines[0].starts_with("error: "), "{command:?}: {stderr}");
    // A cause is given once.
    assert!(lines[0].matches("(os error").count() <= 1, "{stderr}");
    // A panic is one line, too, but it is not an answer.
    assert!(
        !lines[0].contains("internal error"),
        "{command:?}: {stderr}"
    );
    let after = listing(dir);
    assert!(before == after, "{command:?} left {:?}", after.keys());
    println!("{}", lines[0]);
    lines[0].to_owned()
}

pub fn signal(child: &Child, signal: &str) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(child.id().to_string())
        .status()
        .unwrap();
    assert!(status.success());
}

/// Asserts that a message names all of `parts`.
pub fn names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
}

/// Everything below a directory: files with what they hold, directories without.
pub fn listing(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(listing(&path));
            found.insert(path, None);
        } else {
            let bytes = fs::read(&path).ok();
            found.insert(path, bytes);
        }
    }
    found
}

/// Size of the backbone's input in [`full`] and [`backbone`], and so of their answers.
pub const SIDE: (usize, usize) = (84, 56);

/// A bundle that several tests share while any of them runs.
type Shared = Mutex<Weak<TempDir>>;

/// Keeps a shared bundle in being.
pub struct Bundle {
    dir: Arc<TempDir>,
}

impl Bundle {
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("b.loftup")
    }
}

fn shared(place: &Shared, convert: impl FnOnce() -> Command) -> Bundle {
    let mut place = place.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(dir) = place.upgrade() {
        return Bundle { dir };
    }
    let dir = Arc::new(dir());
    *place = Arc::downgrade(&dir);
    let bundle = Bundle { dir };
    done(convert().arg("--out").arg(bundle.path()));
    bundle
}

fn convert_backbone() -> Command {
    loftup!(
        "convert",
        "--backbone",
        "dinov2",
        "--backbone-weights",
        weights("dinov2.bin"),
        "--heads",
        "3",
        "--size",
        format!("{}x{}", SIDE.0, SIDE.1),
    )
}

fn convert_upsampler() -> Command {
    loftup!("convert", "--upsampler-weights", weights("loftup_odd.ckpt"))
}

/// DINOv2 and LoftUp, d = 48.
pub fn full() -> Bundle {
    static PLACE: Shared = Mutex::new(Weak::new());
    shared(&PLACE, || {
        let mut command = convert_backbone();
        command
            .arg("--upsampler-weights")
            .arg(weights("loftup_odd.ckpt"));
        command
    })
}

/// DINOv2 alone.
pub fn backbone() -> Bundle {
    static PLACE: Shared = Mutex::new(Weak::new());
    shared(&PLACE, convert_backbone)
}

/// LoftUp alone, d = 48.
pub fn upsampler() -> Bundle {
    static PLACE: Shared = Mutex::new(Weak::new());
    shared(&PLACE, convert_upsampler)
}

/// A copy of a bundle that a test may damage.
pub fn copy(bundle: &Bundle, to: &Path) -> PathBuf {
    let to = to.join("copy.loftup");
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(bundle.path()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    to
}

/// An image with edges, gradients and texture.
pub fn photo() -> RgbImage {
    let (width, height) = (131, 97);
    let mut data = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let block = if (20..70).contains(&x) && (30..60).contains(&y) {
                120
            } else {
                0
            };
            let texture = (x * 7 + y * 13) % 11;
            let level = |v: usize| v.min(255) as u8;
            data.extend([
                level(x + block + texture),
                level(y * 2 + texture),
                level(x + y + block),
            ]);
        }
    }
    RgbImage::new(width, height, data).unwrap()
}

/// [`photo`] as a PNG in `dir`.
pub fn png(dir: &Path) -> PathBuf {
    let path = dir.join("photo.png");
    photo().save_png(&path).unwrap();
    path
}

/// [`photo`] as a JPEG in `dir`.
pub fn jpeg(dir: &Path) -> PathBuf {
    let path = dir.join("photo.jpg");
    let photo = photo();
    let mut file = fs::File::create(&path).unwrap();
    image::codecs::jpeg::JpegEncoder::new_with_quality(&mut file, 90)
        .encode(
            photo.data(),
            photo.width() as u32,
            photo.height() as u32,
            image::ExtendedColorType::Rgb8,
        )
        .unwrap();
    path
}

pub fn read(path: impl AsRef<Path>) -> Array {
    npy::read(path.as_ref()).unwrap()
}

/// Largest absolute difference of two arrays of the same shape.
pub fn apart(a: &Array, b: &Array) -> f32 {
    assert_eq!(a.shape, b.shape);
    let apart = |(x, y): (&f32, &f32)| (x - y).abs();
    a.data.iter().zip(&b.data).map(apart).fold(0.0, |worst, x| {
        // NaN, too, is a difference.
        if x <= worst { worst } else { x }
    })
}

/// The part of a frame `[1, d, H, W]`.
pub fn crop(frame: &Array, x: usize, y: usize, width: usize, height: usize) -> Array {
    let [1, d, rows, columns] = frame.shape[..] else {
        panic!("{:?} is no frame", frame.shape)
    };
    let mut data = Vec::new();
    for c in 0..d {
        for row in y..y + height {
            data.extend_from_slice(&frame.data[(c * rows + row) * columns + x..][..width]);
        }
    }
    Array {
        shape: vec![1, d, height, width],
        data,
    }
}

/// Tensors of a safetensors file, to be changed and written again.
pub type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

pub fn tensors(path: &Path) -> Tensors {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .filter(|(_, view)| view.dtype() == Dtype::F32)
        .map(|(name, view)| {
            let (chunks, _) = view.data().as_chunks::<4>();
            let values = chunks.iter().map(|b| f32::from_le_bytes(*b)).collect();
            (name.to_owned(), (view.shape().to_vec(), values))
        })
        .collect()
}

pub fn save(path: &Path, tensors: &Tensors) {
    let bytes: BTreeMap<_, Vec<u8>> = tensors
        .iter()
        .map(|(name, (_, values))| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()))
        .collect();
    let views = tensors.iter().map(|(name, (shape, _))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), &bytes[name]).unwrap();
        (name.clone(), view)
    });
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}
