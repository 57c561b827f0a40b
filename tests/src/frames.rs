//! Runs a perceptor on a frame and checks that every pixel is returned once.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, ImageTensor, Perceptor, Rect,
    RuntimeError, backend::Backend, sinks::VecSink,
};

use crate::synthetic::Noise;

/// Channels of the features.
pub const DIM: usize = 12;
/// Rows and columns of the backbone's feature map.
pub const GRID: (usize, usize) = (4, 5);
/// Output size: odd, and not square.
pub const SIZE: Size = Size {
    width: 43,
    height: 29,
};

/// A perceptor for the bundle with tiles of the given side.
///
/// # Panics
/// If it cannot be opened.
pub fn perceptor(
    bundle: &Path,
    backend: Arc<dyn Backend>,
    threads: usize,
    tile: usize,
) -> Perceptor {
    let bundle = Bundle::open(bundle).expect("a bundle");
    let tile = Some(tile);
    Perceptor::with_backend(bundle, backend, ExecutionOptions { threads, tile }).expect("an engine")
}

/// The same features and image for every call.
///
/// # Errors
/// Errors of the backend.
pub fn view(perceptor: &Perceptor, size: Size) -> Result<EncodedFrame<'_>, RuntimeError> {
    let mut noise = Noise::new(21);
    let (rows, cols) = GRID;
    let features = noise.vec(DIM * rows * cols);
    let features = Features::from_map(&[1, DIM, rows, cols], &features, DIM)?;
    let image = ImageTensor {
        size,
        data: noise.vec(3 * size.area()),
    };
    perceptor.encode_features(&features, &image, ColorRange::PerImage)
}

/// The complete frame `[d, H, W]`.
///
/// # Errors
/// Errors of the backend.
///
/// # Panics
/// If a pixel is returned twice or not at all.
pub fn frame(view: &EncodedFrame<'_>) -> Result<Vec<f32>, RuntimeError> {
    let Size { width, height } = view.size();
    let mut sink = VecSink::new(Rect::whole(view.size()), DIM)?;
    let mut times = vec![0u8; width * height];
    view.frame(&mut |tile| {
        for y in tile.rect.y..tile.rect.y + tile.rect.height {
            for x in tile.rect.x..tile.rect.x + tile.rect.width {
                times[y * width + x] += 1;
            }
        }
        sink.push(tile)
    })?;
    assert!(
        times.iter().all(|n| *n == 1),
        "a pixel was returned twice or not at all"
    );
    Ok(sink.to_map())
}

/// The maximum difference; infinite if a value is NaN.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, x| match x.is_nan() {
        true => f32::INFINITY,
        false => worst.max(x),
    })
}
