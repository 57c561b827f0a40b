//! Encoded images, and what is computed of them.

use std::sync::Arc;

use loftup_bundle::UpsamplerKind;
use loftup_runtime::{
    ColorRange, EncodedFrame, Perceptor, Point, Rect, RuntimeError, heads, jbu::JbuOptions,
};
use self_cell::self_cell;

use crate::{
    border::{self, Growing},
    head::loftup_head,
    image::{self, loftup_image},
    model::{loftup_model, output_size},
    status::{Error, Result, guard, loftup_status},
};

/// How features get the resolution of the output, for loftup_encode_options.method.
#[repr(i32)]
#[derive(Debug, Clone, Copy)]
pub enum loftup_method {
    /// The upsampler of the bundle.
    Bundle = 0,
    /// Joint bilateral upsampling of the backbone's features, which needs no weights. Heads for it are
    /// others than those for LoftUp.
    Jbu = 1,
}

/// How an image is encoded. Zeros are the defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_encode_options {
    /// sizeof(loftup_encode_options).
    pub size: usize,
    /// A loftup_method.
    pub method: i32,
    /// 0: LoftUp scales the colors by the minimum and maximum of each image, as in training. 1: by
    /// color_min and color_max for every image, so that in video one hot pixel changes only itself.
    pub fixed_color_range: i32,
    /// Per channel, in normalized units: maps to -0.5.
    pub color_min: [f32; 3],
    /// Maps to 0.5.
    pub color_max: [f32; 3],
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for loftup_encode_options {
    const NAME: &'static str = "loftup_encode_options";
}

/// What an encoded image gives.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_frame_info {
    /// sizeof(loftup_frame_info), set by the caller.
    pub size: usize,
    /// Columns of the output for the whole frame.
    pub width: usize,
    /// Its rows.
    pub height: usize,
    /// Channels of the features, without a head.
    pub dim: usize,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for loftup_frame_info {
    const NAME: &'static str = "loftup_frame_info";
}

/// A rectangle of pixels of the output.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_rect {
    /// Left column.
    pub x: usize,
    /// Top row.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl From<loftup_rect> for Rect {
    fn from(r: loftup_rect) -> Self {
        Self {
            x: r.x,
            y: r.y,
            width: r.width,
            height: r.height,
        }
    }
}

/// A pixel of the output.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_point {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
}

/// The class of a pixel whose scores are NaN, or where no word was found.
pub const LOFTUP_NO_CLASS: u8 = 255;
const _: () = assert!(LOFTUP_NO_CLASS == heads::NO_CLASS);

self_cell!(
    /// An encoded image borrows from the engine; both are kept together.
    struct Encoded {
        owner: Arc<Perceptor>,
        #[covariant]
        dependent: EncodedFrame,
    }
);

/// An encoded image: what was computed once. Each output of it costs in proportion to its area.
pub struct loftup_frame {
    encoded: Encoded,
    method: &'static str,
}

impl loftup_frame {
    pub(crate) fn view(&self) -> &EncodedFrame<'_> {
        self.encoded.borrow_dependent()
    }

    /// The threshold for clicks that was fitted for this bundle and method, if there is one.
    pub(crate) fn click_threshold(&self) -> Option<f32> {
        let clicks = self.encoded.borrow_owner().manifest().clicks.as_ref();
        clicks.and_then(|c| c.thresholds.get(self.method).copied())
    }
}

/// Encodes an image: resizes it to the size of the output, runs the backbone, and computes the keys.
///
/// @param image    The image, in any size.
/// @param width    Columns of the output for the whole frame. Regions and points are in its pixels.
/// @param height   Its rows.
/// @param options  NULL for the defaults.
/// @param frame    Gets the encoded image, to be freed with loftup_frame_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_encode(
    model: *const loftup_model,
    image: *const loftup_image,
    width: usize,
    height: usize,
    options: *const loftup_encode_options,
    frame: *mut *mut loftup_frame,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(frame, "frame", || {
            let model = border::get(model, "model")?;
            let image = image::frame(image)?.to_image()?;
            let size = output_size(width, height)?;
            let options = border::options(options)?;
            let methods = [
                (loftup_method::Bundle as i32, false),
                (loftup_method::Jbu as i32, true),
            ];
            let jbu = border::choice(options.method, &methods, "method")?;
            let range = options.range()?;
            let upsampler = model.perceptor.manifest().upsampler.as_ref();
            let kind = upsampler.map_or(UpsamplerKind::default(), |u| u.kind);
            let method = if jbu { "jbu" } else { kind.key() };
            let encoded = Encoded::try_new(model.perceptor.clone(), |perceptor| {
                if !jbu {
                    return perceptor.encode(&image, size, range);
                }
                let inputs = perceptor.preprocess(&image, size)?;
                let features = perceptor.features(inputs.backbone())?;
                Ok(perceptor.encode_jbu(features, &inputs.guidance, JbuOptions::default()))
            })?;
            Ok(loftup_frame { encoded, method })
        })
    })
}

impl loftup_encode_options {
    fn range(&self) -> Result<ColorRange> {
        let fixed = [(0, false), (1, true)];
        if !border::choice(self.fixed_color_range, &fixed, "fixed_color_range")? {
            return Ok(ColorRange::PerImage);
        }
        let (min, max) = (self.color_min, self.color_max);
        // Not NaN either.
        let good = |(a, b): (&f32, &f32)| a < b && a.is_finite() && b.is_finite();
        if !min.iter().zip(&max).all(good) {
            let what = format!(
                "color_min {min:?} and color_max {max:?}: each minimum must be finite and below its maximum"
            );
            return Err(Error::argument(what));
        }
        Ok(ColorRange::Fixed { min, max })
    }
}

/// Frees an encoded image; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_free(frame: *mut loftup_frame) {
    // SAFETY: as the header asks.
    unsafe { border::free(frame) }
}

/// Tells what an encoded image gives.
///
/// @param info  Gets it; info->size must be set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_get_info(
    frame: *const loftup_frame,
    info: *mut loftup_frame_info,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let view = border::get(frame, "frame")?.view();
        let result = loftup_frame_info {
            size: size_of::<loftup_frame_info>(),
            width: view.size().width,
            height: view.size().height,
            dim: view.dim(),
        };
        border::results(info, result)
    })
}

/// What to compute: a frame with a head or without, and the rectangle or the whole.
struct Part<'a> {
    view: EncodedFrame<'a>,
    rect: Option<Rect>,
}

impl<'a> Part<'a> {
    unsafe fn new(
        frame: *const loftup_frame,
        head: Option<&'a loftup_head>,
        region: *const loftup_rect,
    ) -> Result<Self> {
        // SAFETY: as the header of the functions below asks.
        let (frame, region) = unsafe {
            (
                border::get::<loftup_frame>(frame, "frame")?,
                region.as_ref(),
            )
        };
        let mut view = frame.view().clone();
        if let Some(head) = head {
            view = view.with_head(&head.head)?;
        }
        let rect = region.map(|r| Rect::from(*r));
        if let Some(rect) = rect {
            view.check_region(rect)?;
        }
        Ok(Self { view, rect })
    }

    fn rect(&self) -> Rect {
        self.rect.unwrap_or(Rect::whole(self.view.size()))
    }

    /// Calls `row` with the index of the first pixel and the values of each row of each tile.
    fn compute(&self, mut row: impl FnMut(usize, &[f32]) + Send) -> Result<()> {
        let rect = self.rect();
        let sink: loftup_runtime::Sink<'_> = &mut |tile| {
            tile.rows_in(rect)
                .for_each(|(first, values)| row(first, values));
            Ok(())
        };
        // A frame has larger tiles than a region.
        let computed: std::result::Result<(), RuntimeError> = match self.rect {
            None => self.view.frame(sink),
            Some(rect) => self.view.region(rect, sink),
        };
        Ok(computed?)
    }
}

/// Computes the features of a frame or a region, or the outputs of a head.
///
/// @param head    The head; NULL for features.
/// @param region  The region; NULL for the whole frame.
/// @param out     Gets [height, width, channels], rows from top to bottom, the channels of a pixel
///                together: loftup_frame_info.dim channels, or loftup_head_info.outputs of the head.
/// @param length  Floats that may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_features(
    frame: *const loftup_frame,
    head: *const loftup_head,
    region: *const loftup_rect,
    out: *mut f32,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let part = Part::new(frame, head.as_ref(), region)?;
        let dim = part.view.dim();
        let needed = part.rect().area().checked_mul(dim);
        let out = border::output((out, length), needed, "out")?;
        part.compute(|first, row| out[first * dim..][..row.len()].copy_from_slice(row))
    })
}

/// Computes the features at points, or the outputs of a head.
///
/// @param head    The head; NULL for features.
/// @param points  The points.
/// @param count   Their number, which may be 0.
/// @param out     Gets [count, channels], in the order of the points.
/// @param length  Floats that may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_points(
    frame: *const loftup_frame,
    head: *const loftup_head,
    points: *const loftup_point,
    count: usize,
    out: *mut f32,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let part = Part::new(frame, head.as_ref(), std::ptr::null())?;
        let points = border::input(points, count, "points")?;
        if points.is_empty() {
            return Ok(());
        }
        let needed = count.checked_mul(part.view.dim());
        let out = border::output((out, length), needed, "out")?;
        let points: Vec<_> = points.iter().map(|p| Point { x: p.x, y: p.y }).collect();
        out.copy_from_slice(&part.view.points(&points)?);
        Ok(())
    })
}

/// Computes the class of each pixel of a frame or a region: the number of the largest output of the
/// head, or LOFTUP_NO_CLASS.
///
/// @param head    A head of classes or words.
/// @param region  The region; NULL for the whole frame.
/// @param out     Gets [height, width].
/// @param length  Bytes that may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_classes(
    frame: *const loftup_frame,
    head: *const loftup_head,
    region: *const loftup_rect,
    out: *mut u8,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let head = border::get(head, "head")?;
        if head.head.kind().class_names().is_none() {
            return Err(Error::argument("the head has no classes or words"));
        }
        let part = Part::new(frame, Some(head), region)?;
        let dim = part.view.dim();
        let out = border::output((out, length), Some(part.rect().area()), "out")?;
        part.compute(|first, row| {
            heads::argmax_pixels(row, dim, &mut out[first..][..row.len() / dim])
        })
    })
}

/// Computes the depth of each pixel of a frame or a region in meters.
///
/// @param head    A head of depth.
/// @param region  The region; NULL for the whole frame.
/// @param out     Gets [height, width].
/// @param length  Floats that may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_frame_depth(
    frame: *const loftup_frame,
    head: *const loftup_head,
    region: *const loftup_rect,
    out: *mut f32,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        let head = border::get(head, "head")?;
        let Some(depth) = &head.depth else {
            return Err(Error::argument("the head does not output depth"));
        };
        let part = Part::new(frame, Some(head), region)?;
        let dim = part.view.dim();
        let out = border::output((out, length), Some(part.rect().area()), "out")?;
        part.compute(|first, row| depth.pixels(row, &mut out[first..][..row.len() / dim]))
    })
}
