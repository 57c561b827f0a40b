//! Prints the CPU time of upsamplers with random weights, for features and for a map of classes.
//!
//! ```text
//! cargo run --workspace --example upsamplers -- [CHANNELS] [REPEAT]
//! ```

use std::path::{Path, PathBuf};

use loftup_bundle::{BundleWriter, HeadKind, Linear, Normalization, Size};
use loftup_import::bundle as new;
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, ImageTensor, Perceptor, RuntimeError,
    cpu_time,
    heads::Head,
    jbu::JbuOptions,
    references::{test_features, test_image},
};
use loftup_spec::naf::NafWeights;
use loftup_tests::synthetic::{Noise, upsampler_bundle};

/// Side of a patch.
const PATCH: usize = 14;
/// Classes of the head.
const CLASSES: usize = 19;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let dim = args.next().unwrap_or(Ok(384))?;
    let repeat = args.next().unwrap_or(Ok(3))?;
    let folder = tempfile::tempdir()?;
    let options = ExecutionOptions {
        threads: 1,
        tile: None,
    };
    let open = |path: &Path| Perceptor::open_on_cpu(path, options);
    let loftup = open(&upsampler_bundle(dim, 1, folder.path()))?;
    let naf = open(&naf_bundle(folder.path(), dim)?)?;
    let head = head(dim)?;
    println!(
        "{dim} channels, patch {PATCH}; seconds of CPU time on one thread, the least of {repeat}\n\n\
         | output | | JBU | NAF | LoftUp | NAF / LoftUp |\n|---|---|---|---|---|---|"
    );
    for side in [224, 448] {
        let square = |side: usize| Size {
            width: side,
            height: side,
        };
        let features = test_features(dim, square(side / PATCH));
        let image = test_image(square(side));
        let classes = format!("{CLASSES} classes");
        for (what, head) in [("features", None), (classes.as_str(), Some(&head))] {
            let jbu = seconds(repeat, head, || {
                Ok(naf.encode_jbu(features.clone(), &image, JbuOptions::default()))
            })?;
            let learned = |p| seconds(repeat, head, || encoded(p, &features, &image));
            let (naf, loftup) = (learned(&naf)?, learned(&loftup)?);
            println!(
                "| {side}x{side} | {what} | {jbu:.3} | {naf:.3} | {loftup:.3} | {:.3} |",
                naf / loftup
            );
        }
    }
    Ok(())
}

fn encoded<'a>(
    perceptor: &'a Perceptor,
    features: &Features,
    image: &ImageTensor,
) -> Result<EncodedFrame<'a>, RuntimeError> {
    perceptor.encode_features(features, image, ColorRange::PerImage)
}

/// The least CPU time of a frame, after one that is not counted.
fn seconds<'a>(
    repeat: usize,
    head: Option<&'a Head>,
    encode: impl Fn() -> Result<EncodedFrame<'a>, RuntimeError>,
) -> Result<f64, RuntimeError> {
    let mut least = f64::INFINITY;
    for i in 0..=repeat {
        let start = cpu_time::process();
        let mut view = encode()?;
        if let Some(head) = head {
            view = view.with_head(head)?;
        }
        view.frame(&mut |_| Ok(()))?;
        if i > 0 {
            least = least.min((cpu_time::process() - start).as_secs_f64());
        }
    }
    Ok(least)
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
