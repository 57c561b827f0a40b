//! Prints how much NAF's features change if the frames of a video reuse the normalization statistics of an
//! earlier frame.
//!
//! ```text
//! cargo run --workspace --example naf_statistics -- BUNDLE INTERVAL CLIP...
//! ```
//! A clip is a directory of images.

use std::path::{Path, PathBuf};

use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, NafStatistics, Perceptor, Rect, RuntimeError,
    image, sinks::VecSink,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, interval, clips @ ..] = &args[..] else {
        return Err("expected BUNDLE INTERVAL CLIP...".into());
    };
    let interval: u32 = interval.parse()?;
    let perceptor = Perceptor::open_on_cpu(Path::new(bundle), ExecutionOptions::default())?;
    let backbone = perceptor.manifest().backbone.as_ref();
    let size = backbone.ok_or("the bundle has no backbone")?.size;
    println!(
        "| clip | frames | cosine: mean | 1st percentile | relative RMS: mean | worst frame |\n|---|---|---|---|---|---|"
    );
    for clip in clips {
        let mut files: Vec<PathBuf> = std::fs::read_dir(clip)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_, std::io::Error>>()?;
        files.sort();
        let mut statistics = NafStatistics::every(interval);
        let (mut cosines, mut distances) = (Vec::new(), Vec::new());
        for file in &files {
            let image = image::open(file)?;
            let inputs = perceptor.preprocess(&image, size)?;
            let features = perceptor.features(inputs.backbone())?;
            let range = ColorRange::PerImage;
            let guidance = &inputs.guidance;
            let own = all(&perceptor.encode_features(&features, guidance, range)?)?;
            let video = perceptor.encode_video(&features, guidance, range, &mut statistics)?;
            let found = all(&video)?;
            let (mut error, mut power) = (0.0, 0.0);
            for (a, b) in own.chunks(video.dim()).zip(found.chunks(video.dim())) {
                let dot = |a: &[f32], b: &[f32]| -> f64 {
                    a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum()
                };
                let (aa, bb, ab) = (dot(a, a), dot(b, b), dot(a, b));
                cosines.push(ab / (aa * bb).sqrt().max(f64::MIN_POSITIVE));
                error += aa + bb - 2.0 * ab;
                power += aa;
            }
            distances.push((error.max(0.0) / power).sqrt());
        }
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let (cosine, distance) = (mean(&cosines), mean(&distances));
        cosines.sort_by(f64::total_cmp);
        let low = cosines[cosines.len() / 100];
        let worst = distances.iter().copied().fold(0.0, f64::max);
        let name = Path::new(clip).file_name().unwrap_or_default();
        println!(
            "| {} | {} | {cosine:.4} | {low:.4} | {distance:.3} | {worst:.3} |",
            name.to_string_lossy(),
            files.len()
        );
    }
    Ok(())
}

fn all(view: &EncodedFrame<'_>) -> Result<Vec<f32>, RuntimeError> {
    let mut sink = VecSink::new(Rect::whole(view.size()), view.dim())?;
    view.frame(&mut |tile| sink.push(tile))?;
    Ok(sink.into_values())
}
