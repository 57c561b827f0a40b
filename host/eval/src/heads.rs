//! Creates heads and adds them to bundles.

use std::path::Path;

use loftup_bundle::{
    Bundle, BundleWriter, Head, HeadKind, Linear, Manifest, Size, Source, sha256_hex,
};
use loftup_runtime::{
    ColorRange, Perceptor, Point,
    image::{self, Orientation},
    pca::Pca,
};

use crate::{
    EvalError, Method, Progress,
    data::{self, Classes},
    error::or_skip,
    probe::{self, Options},
    random::Random,
    sampling::{Encoder, sample, subsample},
};

/// A head that is not in a bundle yet.
#[derive(Debug, Clone)]
pub struct NewHead {
    /// The meaning of its outputs.
    pub kind: HeadKind,
    /// Its weights.
    pub linear: Linear,
    /// Number of images used.
    pub images: usize,
    /// Number of pixels used.
    pub pixels: usize,
    /// Quality of the fit, 0 to 1: pixel accuracy on the training data, or the fraction of explained
    /// variance.
    pub fit: f64,
    /// Reasons for skipped images.
    pub skipped: Vec<String>,
}

/// Settings for creating a head.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    /// Size of the output; the backbone's default if not given.
    pub size: Option<Size>,
    /// Color range of the guidance. It should match the one used with the head.
    pub range: ColorRange,
    /// Orientation of images. Masks are used as stored.
    pub orientation: Orientation,
    /// Number of pixels sampled per image.
    pub samples: usize,
    /// Maximum number of images, evenly spaced.
    pub most: Option<usize>,
    /// Training settings of a probe; a PCA only uses the seed.
    pub probe: Options,
}

/// Trains a linear probe on upsampled features, on `dir/train` if it exists, otherwise on `dir`.
///
/// # Errors
/// The data is not usable, or the bundle lacks a part.
pub fn classes(
    perceptor: &Perceptor,
    dir: &Path,
    request: &Request,
    progress: Progress<'_>,
) -> Result<NewHead, EvalError> {
    let encoder = encoder(perceptor, request)?;
    let pairs = subsample(data::pairs(dir, "train")?, request.most);
    let classes = Classes::of(dir, &pairs)?;
    let (each, seed) = (request.samples, request.probe.seed);
    let set = (dir, &pairs[..], &classes);
    let sampled = sample(&encoder, set, &[Method::LoftUp], (each, seed), progress)?;
    let (images, skipped) = (sampled.images, sampled.skipped);
    let samples = sampled.samples.into_iter().next().unwrap_or_default();
    let pixels = samples.labels.len();
    let trained = probe::train(samples, classes.names.len(), &request.probe, progress);
    Ok(NewHead {
        kind: HeadKind::Classes {
            names: classes.names,
        },
        linear: trained.linear,
        images,
        pixels,
        fit: trained.accuracy,
        skipped,
    })
}

/// Finds the first `channels` principal components of the upsampled features of the images in
/// `dir`.
///
/// # Errors
/// There are no usable images, or the bundle lacks a part.
pub fn pca(
    perceptor: &Perceptor,
    dir: &Path,
    channels: usize,
    request: &Request,
    progress: Progress<'_>,
) -> Result<NewHead, EvalError> {
    let encoder = encoder(perceptor, request)?;
    let dim = perceptor.manifest().upsampler.as_ref().map_or(0, |u| u.dim);
    let images = subsample(data::image_files(dir)?, request.most);
    let mut features = Vec::new();
    let (mut used, mut skipped) = (0, Vec::new());
    // At most one gigabyte, as for probes.
    let fit = (1 << 30) / (4 * dim.max(1) * images.len().max(1));
    let each = request.samples.min(fit.max(1));
    for (i, path) in images.iter().enumerate() {
        progress("sampling images", i, images.len());
        let opened = image::open_with(path, request.orientation);
        let Some(decoded) = or_skip(opened, &mut skipped) else {
            continue;
        };
        let encoded = encoder.encode(&decoded.image)?;
        let width = encoder.size.width;
        let mut places: Vec<usize> = (0..encoder.size.area()).collect();
        let places = Random::new(request.probe.seed ^ ((i as u64) << 20)).choose(&mut places, each);
        let points: Vec<Point> = places
            .iter()
            .map(|i| Point {
                x: i % width,
                y: i / width,
            })
            .collect();
        features.extend(encoder.view(&encoded, encoder.range)?.points(&points)?);
        used += 1;
    }
    if used == 0 {
        let what = match skipped.first() {
            Some(first) => format!("no usable images; first error: {first}"),
            None => "contains no images; use a directory of JPEG or PNG files".into(),
        };
        return Err(EvalError::Data {
            path: dir.into(),
            what,
        });
    }
    let pixels = features.len() / dim;
    progress("finding principal components", 0, 1);
    let pca = Pca::fit(&features, dim, channels)?;
    let total = variance(&features, pca.mean());
    // w * (x - mean)  =  w * x - w * mean
    let shift = |row: &[f32]| {
        let dot: f64 = row
            .iter()
            .zip(pca.mean())
            .map(|(w, m)| f64::from(*w) * f64::from(*m))
            .sum();
        -dot as f32
    };
    let bias = pca.directions().chunks_exact(dim).map(shift).collect();
    let linear = Linear {
        inputs: dim,
        weight: pca.directions().to_vec(),
        bias,
    };
    let kept: f64 = pca.variances().iter().sum();
    Ok(NewHead {
        kind: HeadKind::Descriptors { channels },
        linear,
        images: used,
        pixels,
        fit: if total > 0.0 { kept / total } else { 0.0 },
        skipped,
    })
}

/// Writes a copy of the bundle at `from` to `out`, with `head` added as `name`, replacing an
/// existing head of that name. With `replace`, `out` may be `from` itself.
///
/// # Errors
/// The name is invalid, or a bundle cannot be read or written; no partial output remains.
pub fn add(
    from: &Path,
    name: &str,
    head: &NewHead,
    source: &Path,
    out: &Path,
    replace: bool,
) -> Result<(), EvalError> {
    let bytes = head.linear.to_bytes().map_err(EvalError::Request)?;
    let entry = Head {
        kind: head.kind.clone(),
        dim: head.linear.inputs,
        file: Head::file_name(name),
    };
    // A directory has no hash, so the hash of the head is used.
    let called = source
        .file_name()
        .unwrap_or(source.as_os_str())
        .to_string_lossy();
    let source = Source {
        role: format!("data of head {name}"),
        file: called.into_owned(),
        sha256: sha256_hex(&bytes),
    };
    add_file(from, name, (entry, &bytes), source, (out, replace))
}

/// Same as [`add`], for a head that is already serialized. `source` is its provenance, which replaces
/// an existing entry with the same role.
///
/// # Errors
/// Same as [`add`].
pub fn add_file(
    from: &Path,
    name: &str,
    (head, bytes): (Head, &[u8]),
    source: Source,
    (out, replace): (&Path, bool),
) -> Result<(), EvalError> {
    if !Head::is_name(name) {
        return Err(EvalError::Request(format!(
            "{name:?} is not a valid head name; use 1 to 64 ASCII letters, digits, - and _"
        )));
    }
    let file = Head::file_name(name);
    let old = |manifest: &Manifest| manifest.heads.get(name).map(|head| head.file.clone());
    let (mut writer, mut manifest) = copy(from, out, replace, |manifest, listed| {
        listed != file && Some(listed) != old(manifest).as_deref()
    })?;
    manifest.heads.remove(name);
    writer.add(&file, bytes)?;
    manifest.heads.insert(name.into(), Head { file, ..head });
    let sources = &mut manifest.provenance.sources;
    sources.retain(|s| s.role != source.role);
    sources.push(source);
    let sealed = Bundle::open(writer.seal(manifest)?)?;
    sealed.head(name)?;
    writer.commit()?;
    Ok(())
}

/// Starts a copy of the bundle at `from` with the files that `keep` accepts. Also returns its
/// manifest.
pub(crate) fn copy(
    from: &Path,
    out: &Path,
    replace: bool,
    keep: impl Fn(&Manifest, &str) -> bool,
) -> Result<(BundleWriter, Manifest), EvalError> {
    let bundle = Bundle::open(from)?;
    let manifest = bundle.manifest().clone();
    let mut writer = BundleWriter::create(out, replace)?;
    for listed in manifest.files.keys() {
        if keep(&manifest, listed) {
            writer.add(listed, &bundle.read(listed)?)?;
        }
    }
    Ok((writer, manifest))
}

fn encoder<'a>(perceptor: &'a Perceptor, request: &Request) -> Result<Encoder<'a>, EvalError> {
    if perceptor.manifest().upsampler.is_none() {
        return Err(EvalError::Request(
            "the bundle has no upsampler, but heads use upsampled features; convert it with --upsampler-weights".into(),
        ));
    }
    Encoder::new(perceptor, request.size, request.range, request.orientation)
}

/// Returns the sum of the variances of all channels.
fn variance(features: &[f32], mean: &[f32]) -> f64 {
    let rows = features.chunks_exact(mean.len());
    let count = rows.len() as f64;
    let square = |row: &[f32]| {
        row.iter()
            .zip(mean)
            .map(|(x, m)| (f64::from(*x) - f64::from(*m)).powi(2))
            .sum::<f64>()
    };
    rows.map(square).sum::<f64>() / count
}
