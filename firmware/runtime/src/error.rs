//! Errors of the runtime.

use std::path::PathBuf;

use loftup_bundle::{BundleError, Size};
use loftup_kernels::KernelError;

use crate::{backend::BackendError, image::ImageError, npy::NpyError, tiles::Rect};

/// Why an output cannot be computed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// An error of the bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// An error of the inference engine.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An error of an upsampler on the CPU.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// An error of an image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// An error of an array file.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The sink refused a tile.
    #[error(transparent)]
    Sink(SinkError),
    /// Features that do not fit the upsampler.
    #[error("features of shape {found:?}: the upsampler takes [1, {dim}, h, w]")]
    FeatureShape {
        /// Their shape.
        found: Vec<usize>,
        /// Channels of the upsampler.
        dim: usize,
    },
    /// A camera image of another size than the graph's.
    #[error(
        "an image of {found}: this graph is for camera images of {expected}; make another one, or resize the image"
    )]
    CameraSize {
        /// Its size.
        found: Size,
        /// The size of the graph's input.
        expected: Size,
    },
    /// A frame graph that cannot be written.
    #[error("{bundle}: {source}")]
    FrameGraph {
        /// The bundle.
        bundle: String,
        /// Why.
        source: loftup_onnx::frame::FrameError,
    },
    /// A frame graph that this bundle does not support.
    #[error("{bundle}: {what}")]
    NoFrameGraph {
        /// The bundle.
        bundle: String,
        /// Why, and what to do.
        what: String,
    },
    /// An image that does not fit the backbone.
    #[error(
        "an image of {found}: the backbone of this bundle takes {expected}; convert with --size {found}, or give an image of {expected}"
    )]
    ImageSize {
        /// Its size.
        found: Size,
        /// Size of the backbone's input.
        expected: Size,
    },
    /// An image whose sides are not multiples of the patch.
    #[error(
        "an image of {found}: sides must be multiples of the patch {patch}; the nearest size is {nearest}"
    )]
    PatchSize {
        /// Its size.
        found: Size,
        /// Side of a patch.
        patch: usize,
        /// The nearest size that fits.
        nearest: Size,
    },
    /// The backbone's output does not match the manifest.
    #[error(
        "the backbone's output has shape {found:?}, expected {expected:?}; was it converted with the right --patch?"
    )]
    BackboneOutput {
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the manifest.
        expected: Vec<usize>,
    },
    /// An array that is not a normalized image.
    #[error("shape {found:?} is not a normalized image [1, 3, H, W]")]
    ImageShape {
        /// Its shape.
        found: Vec<usize>,
    },
    /// A head whose weights do not match its manifest entry.
    #[error("the head's weights are {} x {} (or incomplete), expected {} x {}: make it again with `loftup head`", found.0, found.1, expected.0, expected.1)]
    HeadShape {
        /// Outputs and inputs of the weights.
        found: (usize, usize),
        /// Outputs and inputs of the head.
        expected: (usize, usize),
    },
    /// A head for a different number of channels.
    #[error(
        "the head takes {found} channels, the upsampler gives {expected}: make one for this bundle with `loftup head`"
    )]
    HeadDim {
        /// Channels that the head takes.
        found: usize,
        /// Channels of the upsampler.
        expected: usize,
    },
    /// A head file that cannot be used.
    #[error("{}: {what}", path.display())]
    HeadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A text head for LoftUp's output without the channel norm that maps it back to the backbone's space.
    #[error(
        "a head of words for LoftUp's features needs the channel norm of the upsampler's keys graph in fp32, and this head has none; make it with Perceptor::head, head_from_file or custom_head, from a bundle that `loftup convert` has written, or use joint bilateral upsampling (--upsampler jbu)"
    )]
    WordsWithoutNorm,
    /// An input contains NaN or infinity.
    #[error("{what} contain {value} at flat index {index}; remove NaN and infinity from the input")]
    NotFinite {
        /// Which input.
        what: &'static str,
        /// Flat index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// An empty region.
    #[error("region {}: is empty; give X,Y,WIDTH,HEIGHT with a width and height of at least 1", region(.0))]
    EmptyRegion(Rect),
    /// A region that is not within the frame.
    #[error("region {}: not within the output, which is {size}", region(.rect))]
    RegionOutside {
        /// The region.
        rect: Rect,
        /// Size of the output.
        size: Size,
    },
    /// An output that does not fit into memory.
    #[error(
        "an output of {width} x {height} pixels with {dim} channels does not fit into memory: use a smaller size, or take it tile by tile from an encoded frame"
    )]
    OutputTooLarge {
        /// Its columns.
        width: usize,
        /// Its rows.
        height: usize,
        /// Its channels.
        dim: usize,
    },
    /// A point that is not within the frame.
    #[error("point {index} is ({x}, {y}): outside the output, which is {size} (columns 0 to {}, rows 0 to {})", .size.width - 1, .size.height - 1)]
    PointOutside {
        /// Which point, from 0.
        index: usize,
        /// Its column.
        x: usize,
        /// Its row.
        y: usize,
        /// Size of the output.
        size: Size,
    },
    /// Features for clicks that are not a map of the given size.
    #[error("{values} values are not the features of {size} pixels with {dim} channels")]
    ClickFeatures {
        /// Number of values.
        values: usize,
        /// Size of the map.
        size: Size,
        /// Channels of the features.
        dim: usize,
    },
    /// A threshold for clicks that is not a cosine similarity.
    #[error("threshold {0} is not a cosine similarity: give a number from -1 to 1")]
    ClickThreshold(f32),
    /// Too many clicks on one image.
    #[error("more than {0} clicks on one image: clear them first")]
    TooManyClicks(usize),
}

/// Why a sink refused a tile.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

fn region(r: &Rect) -> String {
    format!("{},{},{},{}", r.x, r.y, r.width, r.height)
}

/// The first NaN or infinity in `values`, as an error.
pub(crate) fn check_finite(what: &'static str, values: &[f32]) -> Result<(), RuntimeError> {
    match values.iter().position(|x| !x.is_finite()) {
        Some(index) => Err(RuntimeError::NotFinite {
            what,
            index,
            value: values[index],
        }),
        None => Ok(()),
    }
}
