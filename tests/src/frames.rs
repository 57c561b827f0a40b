//! Asking a perceptor for a frame and watching that every pixel comes once.

use std::{path::Path, sync::Arc};

use loftup_bundle::{Bundle, Size};
use loftup_runtime::{
    ColorRange, EncodedFrame, ExecutionOptions, Features, ImageTensor, Perceptor, Rect,
    RuntimeError, backend::Backend, sinks::VecSink,
};

use crate::synthetic::Noise;

/// Channels of the features.
pub const DIM: usize = 12;
/// Rows and columns of the backbone's features.
pub const GRID: (usize, usize) = (4, 5);
/// Size of the answer: odd, not square.
pub const SIZE: Size = Size {
    width: 43,
    height: 29,
};

/// The bundle in an engine, asked with tiles of the given side.
///
/// # Panics
/// Where it does not open.
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

/// Always the same features and picture.
///
/// # Errors
/// Those of the engine.
pub fn view(perceptor: &Perceptor, size: Size) -> Result<EncodedFrame<'_>, RuntimeError> {
    let mut noise = Noise::new(21);
    let (rows, cols) = GRID;
    let features = noise.vec(DIM * rows * cols);
    let features = Features::from_map(&[1, DIM, rows, cols], &features, DIM)?;
    let picture = ImageTensor {
        size,
        data: noise.vec(3 * size.area()),
    };
    perceptor.encode_features(&features, &picture, ColorRange::PerImage)
}

/// The whole frame `[d, H, W]`.
///
/// # Errors
/// Those of the engine.
///
/// # Panics
/// Where a pixel comes twice or not at all.
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
        "a pixel came not at all, or twice"
    );
    Ok(sink.to_map())
}

/// The greatest difference; infinite where something is not a number.
pub fn worst(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, x| match x.is_nan() {
        true => f32::INFINITY,
        false => worst.max(x),
    })
}
