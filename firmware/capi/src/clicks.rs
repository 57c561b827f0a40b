//! Segmentation from clicks.

use loftup_runtime::{
    Point,
    click::{Click, ClickSegmenter, DEFAULT_THRESHOLD},
};
use parking_lot::Mutex;

use crate::{
    border,
    frame::{loftup_frame, loftup_point},
    model::output_size,
    status::{Result, guard, loftup_status},
};

/// The features of an image, and the clicks on an object in it.
pub struct loftup_clicks {
    segmenter: Mutex<ClickSegmenter>,
}

/// Begins to segment an object of an encoded image: computes its features, which are kept. The frame
/// is not needed afterwards.
///
/// @param threshold  The cosine similarity from which a pixel belongs to the object, -1 to 1; NULL for
///                   the one that was fitted for the bundle with `loftup head clicks`, or else 0.6.
/// @param clicks     Gets the handle, to be freed with loftup_clicks_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_clicks_new(
    frame: *const loftup_frame,
    threshold: *const f32,
    clicks: *mut *mut loftup_clicks,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(clicks, "clicks", || {
            let frame = border::get(frame, "frame")?;
            let given = threshold.as_ref().copied();
            let threshold = given.or_else(|| frame.click_threshold());
            let threshold = threshold.unwrap_or(DEFAULT_THRESHOLD);
            Ok(loftup_clicks {
                segmenter: Mutex::new(ClickSegmenter::new(frame.view(), threshold)?),
            })
        })
    })
}

/// Frees clicks and features; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_clicks_free(clicks: *mut loftup_clicks) {
    // SAFETY: as the header asks.
    unsafe { border::free(clicks) }
}

/// Calls `body` with a segmenter.
unsafe fn with(
    clicks: *const loftup_clicks,
    body: impl FnOnce(&mut ClickSegmenter) -> Result<()>,
) -> loftup_status {
    guard(|| {
        // SAFETY: as the header of the functions below asks.
        let clicks = unsafe { border::get(clicks, "clicks") }?;
        body(&mut clicks.segmenter.lock())
    })
}

/// Adds a click. At most 256 can be added.
///
/// @param point     A pixel of the frame's output.
/// @param positive  1 if it belongs to the object, 0 if not.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_clicks_add(
    clicks: *mut loftup_clicks,
    point: loftup_point,
    positive: i32,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(clicks, |segmenter| {
            let positive = border::choice(positive, &[(0, false), (1, true)], "positive")?;
            let point = Point {
                x: point.x,
                y: point.y,
            };
            segmenter.click(Click { point, positive })?;
            Ok(())
        })
    }
}

/// Forgets all clicks; the features are kept.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_clicks_clear(clicks: *mut loftup_clicks) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(clicks, |segmenter| {
            segmenter.clear();
            Ok(())
        })
    }
}

/// Writes the mask of the object for the clicks so far.
///
/// @param width   Columns of the mask: those of the frame's output, or others, to which the scores are
///                interpolated.
/// @param height  Its rows.
/// @param mask    Gets 1 for the object and 0 elsewhere, [height, width].
/// @param length  Bytes that may be written there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_clicks_mask(
    clicks: *mut loftup_clicks,
    width: usize,
    height: usize,
    mask: *mut u8,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(clicks, |segmenter| {
            let size = output_size(width, height)?;
            let out = border::output((mask, length), Some(size.area()), "mask")?;
            let resized;
            let found = if size == segmenter.size() {
                segmenter.mask()
            } else {
                resized = segmenter.mask_at(size);
                &resized
            };
            for (to, inside) in out.iter_mut().zip(found) {
                *to = u8::from(*inside);
            }
            Ok(())
        })
    }
}
