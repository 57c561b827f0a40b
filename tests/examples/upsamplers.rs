//! Prints CPU time and peak memory of upsamplers with random weights, for features and for a map of
//! classes. Outputs are dropped tile by tile.
//!
//! ```text
//! cargo run --workspace --example upsamplers -- [CHANNELS] [REPEAT]
//! ```

use std::path::{Path, PathBuf};

use loftup_bundle::{BundleWriter, HeadKind, Linear, Normalization, Size};
use loftup_import::bundle as new;
use loftup_runtime::{
    ColorRange, ExecutionOptions, Features, ImageTensor, Perceptor, RuntimeError, cpu_time,
    heads::Head,
    jbu::JbuOptions,
    references::{test_features, test_image},
};
use loftup_spec::{interpolate::bilinear, naf::NafWeights};
use loftup_tests::synthetic::{Noise, upsampler_bundle};

/// Side of a patch.
const PATCH: usize = 14;
/// Classes of the head.
const CLASSES: usize = 19;

/// What is measured.
#[derive(Debug, Clone, Copy)]
enum Method {
    Bilinear,
    Jbu,
    Naf,
    LoftUp,
}

impl Method {
    const ALL: [Self; 4] = [Self::Bilinear, Self::Jbu, Self::Naf, Self::LoftUp];
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, rest @ ..] = &args[..]
        && flag == "--peak"
    {
        let numbers: Vec<usize> = rest.iter().map(|n| n.parse()).collect::<Result<_, _>>()?;
        let [dim, method, side, classes] = numbers[..] else {
            return Err("--peak is for this program alone".into());
        };
        let head = if classes > 0 { Some(head(dim)?) } else { None };
        let models = Models::open(dim, &Method::ALL[method..=method])?;
        let case = Case::new(dim, side);
        models.run(Method::ALL[method], &case, head.as_ref())?;
        println!("{}", peak()?);
        return Ok(());
    }
    let number = |i: usize, default: usize| args.get(i).map_or(Ok(default), |n| n.parse());
    let (dim, repeat) = (number(0, 384)?, number(1, 5)?);
    let head = head(dim)?;
    let models = Models::open(dim, &Method::ALL)?;
    println!(
        "{dim} channels, patch {PATCH}, one thread: seconds of CPU time, the median of {repeat} rounds of all, and MB of memory at the peak\n\n\
         | output | | {} | NAF / LoftUp |\n|---|---|{}---|",
        Method::ALL.map(|m| format!("{m:?}")).join(" | "),
        "---|".repeat(Method::ALL.len())
    );
    for side in [224, 448] {
        let case = Case::new(dim, side);
        let classes = format!("{CLASSES} classes");
        for (what, head) in [("features", None), (classes.as_str(), Some(&head))] {
            let mut seconds = [const { Vec::new() }; Method::ALL.len()];
            // The first round is not counted.
            for round in 0..=repeat {
                for (method, seconds) in Method::ALL.into_iter().zip(&mut seconds) {
                    let start = cpu_time::process();
                    models.run(method, &case, head)?;
                    if round > 0 {
                        seconds.push((cpu_time::process() - start).as_secs_f64());
                    }
                }
            }
            let medians = seconds.map(median);
            let mut cells = Vec::new();
            for (i, seconds) in medians.iter().enumerate() {
                let peak = peak_of(dim, i, side, head.is_some())?;
                cells.push(format!("{seconds:.3} s, {peak:.0}"));
            }
            println!(
                "| {side}x{side} | {what} | {} | {:.3} |",
                cells.join(" | "),
                medians[2] / medians[3]
            );
        }
    }
    Ok(())
}

/// An image and the features of its patches.
struct Case {
    features: Features,
    image: ImageTensor,
}

impl Case {
    fn new(dim: usize, side: usize) -> Self {
        let square = |side: usize| Size {
            width: side,
            height: side,
        };
        Self {
            features: test_features(dim, square(side / PATCH)),
            image: test_image(square(side)),
        }
    }
}

/// The learned upsamplers. JBU runs in the bundle of any.
struct Models {
    naf: Option<Perceptor>,
    loftup: Option<Perceptor>,
    /// Where their bundles are.
    _folder: tempfile::TempDir,
}

impl Models {
    /// Those that these methods need.
    fn open(dim: usize, methods: &[Method]) -> Result<Self, Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let options = ExecutionOptions {
            threads: 1,
            tile: None,
        };
        let open = |path: &Path| Perceptor::open_on_cpu(path, options);
        let has = |wanted: &dyn Fn(&Method) -> bool| methods.iter().any(wanted);
        Ok(Self {
            naf: match has(&|m| matches!(m, Method::Naf | Method::Jbu)) {
                true => Some(open(&naf_bundle(folder.path(), dim)?)?),
                false => None,
            },
            loftup: match has(&|m| matches!(m, Method::LoftUp)) {
                true => Some(open(&upsampler_bundle(dim, 1, folder.path()))?),
                false => None,
            },
            _folder: folder,
        })
    }

    /// Computes a frame, of which nothing is kept.
    fn run(
        &self,
        method: Method,
        case: &Case,
        head: Option<&Head>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let (learned, jbu) = match method {
            Method::Bilinear => {
                bilinear_frame(case, head);
                return Ok(());
            }
            Method::Jbu => (&self.naf, true),
            Method::Naf => (&self.naf, false),
            Method::LoftUp => (&self.loftup, false),
        };
        let perceptor = learned.as_ref().ok_or("was not opened")?;
        let mut view = match jbu {
            true => perceptor.encode_jbu(case.features.clone(), &case.image, JbuOptions::default()),
            false => {
                perceptor.encode_features(&case.features, &case.image, ColorRange::PerImage)?
            }
        };
        if let Some(head) = head {
            view = view.with_head(head)?;
        }
        view.frame(&mut |_| Ok(()))?;
        Ok(())
    }
}

/// Bilinear interpolation, row by row. A linear head is applied to the patches.
fn bilinear_frame(case: &Case, head: Option<&Head>) {
    let Features {
        tokens,
        dim,
        height: rows,
        width: columns,
    } = &case.features;
    let mut outputs = Vec::new();
    let (tokens, dim) = match head {
        Some(head) => {
            head.apply(tokens, &mut outputs);
            (&outputs, head.outputs())
        }
        None => (tokens, *dim),
    };
    let Size { width, height } = case.image.size;
    let mut line = vec![0.0f32; columns * dim];
    let mut out = vec![0.0f32; width * dim];
    for y in 0..height {
        let (top, v) = bilinear(y, *rows, height);
        let [above, below] = [top, (top + 1).min(rows - 1)].map(|r| &tokens[r * columns * dim..]);
        for ((line, a), b) in line.iter_mut().zip(above).zip(below) {
            *line = a + v * (b - a);
        }
        for (x, out) in out.chunks_exact_mut(dim).enumerate() {
            let (left, u) = bilinear(x, *columns, width);
            let [a, b] = [left, (left + 1).min(columns - 1)].map(|c| &line[c * dim..][..dim]);
            for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                *out = a + u * (b - a);
            }
        }
        std::hint::black_box(&out);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Peak of the resident memory of a process of its own, which computes one frame, in MB.
fn peak_of(
    dim: usize,
    method: usize,
    side: usize,
    classes: bool,
) -> Result<f64, Box<dyn std::error::Error>> {
    let output = std::process::Command::new(std::env::current_exe()?)
        .arg("--peak")
        .args([dim, method, side, usize::from(classes)].map(|n| n.to_string()))
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().parse()?)
}

/// Peak of this process's resident memory, in MB.
fn peak() -> Result<f64, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|l| l.split_whitespace().next());
    Ok(kilobytes
        .ok_or("no VmHWM in /proc/self/status")?
        .parse::<f64>()?
        * 1024.0
        / 1e6)
}

fn naf_bundle(folder: &Path, dim: usize) -> Result<PathBuf, Box<dyn std::error::Error>> {
    let path = folder.join("naf.loftup");
    let mut writer = BundleWriter::create(&path, false)?;
    let upsampler = new::add_naf(&mut writer, &NafWeights::random(1), dim, None)?;
    let normalization = Normalization::IMAGENET;
    writer.seal(new::manifest(
        normalization,
        None,
        Some(upsampler),
        Vec::new(),
        None,
    ))?;
    writer.commit()?;
    Ok(path)
}

fn head(dim: usize) -> Result<Head, RuntimeError> {
    let manifest = loftup_bundle::Head {
        kind: HeadKind::Classes {
            names: (0..CLASSES).map(|i| i.to_string()).collect(),
        },
        dim,
        file: String::new(),
    };
    let mut noise = Noise::new(1);
    let linear = Linear {
        inputs: dim,
        weight: noise.vec(CLASSES * dim),
        bias: noise.vec(CLASSES),
    };
    Head::new(manifest, linear)
}
