//! Tracking of objects through a video.

use loftup_runtime::{
    Point, Rect,
    track::{Seed, TrackOptions, TrackedMask, Tracker},
};
use parking_lot::Mutex;

use crate::{
    border::{self, Growing},
    frame::{loftup_point, loftup_rect},
    model::output_size,
    status::{Result, guard, loftup_status},
};

/// How objects are tracked. Zeros are the defaults.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_tracker_options {
    /// sizeof(loftup_tracker_options).
    pub size: usize,
    /// The largest label, and so the most objects at a time; at most 254. Default: 10.
    pub max_objects: usize,
    /// Frames that labels are taken from, besides the one in which objects were started. Default: 7.
    pub last_frames: usize,
    /// How far an object can move between frames, in cells of the grid. Default: 12.
    pub radius: usize,
    /// The most similar cells that a label is the weighted mean of. Default: 5.
    pub top_k: usize,
    /// Labels are interpolated to this multiple of the grid. Default: 2.
    pub output_scale: usize,
    /// Threads. Default: one per core.
    pub threads: usize,
    /// The weight of a cell is exp(cosine similarity / temperature). Default: 0.1.
    pub temperature: f32,
    /// An object whose soft label is nowhere above this is not visible.
    pub min_label: f32,
}

// SAFETY: `repr(C)`, the size is first, and zeros are numbers.
unsafe impl Growing for loftup_tracker_options {
    const NAME: &'static str = "loftup_tracker_options";
}

/// A tracked object in one frame.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct loftup_object {
    /// Its label, the same from its start until it is removed.
    pub label: u32,
    /// The mean of its soft label over its pixels, 0 to 1; 0 while it is not visible.
    pub confidence: f32,
    /// Pixels in the mask; 0 while it is not visible.
    pub area: usize,
    /// The smallest box around its pixels; zeros while it is not visible.
    pub bounds: loftup_rect,
}

/// Follows objects through a video.
pub struct loftup_tracker {
    state: Mutex<State>,
}

struct State {
    tracker: Tracker,
    mask: TrackedMask,
}

/// Makes a tracker. All of its memory is allocated here.
///
/// @param width    Columns of the grid of features that it will be given.
/// @param height   Rows of the grid.
/// @param dim      Channels of the features.
/// @param options  NULL for the defaults.
/// @param tracker  Gets the tracker, to be freed with loftup_tracker_free; NULL on errors.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_new(
    width: usize,
    height: usize,
    dim: usize,
    options: *const loftup_tracker_options,
    tracker: *mut *mut loftup_tracker,
) -> loftup_status {
    // SAFETY: as the header asks.
    guard(|| unsafe {
        border::make(tracker, "tracker", || {
            let options = border::options(options)?.into();
            let tracker = Tracker::new((width, height), dim, options)?;
            Ok(loftup_tracker {
                state: Mutex::new(State {
                    tracker,
                    mask: TrackedMask::default(),
                }),
            })
        })
    })
}

impl From<loftup_tracker_options> for TrackOptions {
    fn from(given: loftup_tracker_options) -> Self {
        fn or<T: PartialEq + Default>(given: T, default: T) -> T {
            if given == T::default() {
                default
            } else {
                given
            }
        }
        let default = Self::default();
        Self {
            last_frames: or(given.last_frames, default.last_frames),
            radius: or(given.radius, default.radius),
            top_k: or(given.top_k, default.top_k),
            temperature: or(given.temperature, default.temperature),
            output_scale: or(given.output_scale, default.output_scale),
            min_label: given.min_label,
            max_objects: or(given.max_objects, default.max_objects),
            threads: or(given.threads, default.threads),
        }
    }
}

/// Frees a tracker; NULL is ignored.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_free(tracker: *mut loftup_tracker) {
    // SAFETY: as the header asks.
    unsafe { border::free(tracker) }
}

/// Calls `body` with the state of a tracker.
unsafe fn with(
    tracker: *const loftup_tracker,
    body: impl FnOnce(&mut State) -> Result<()>,
) -> loftup_status {
    guard(|| {
        // SAFETY: as the header of the functions below asks.
        let tracker = unsafe { border::get(tracker, "tracker") }?;
        body(&mut tracker.state.lock())
    })
}

/// Gives a tracker the features of the next frame, and follows the objects to it. After an error it
/// goes on as if the frame had not been.
///
/// @param features  [height, width, dim], as loftup_frame_features writes them.
/// @param length    Floats in it: height * width * dim.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_update(
    tracker: *mut loftup_tracker,
    features: *const f32,
    length: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            let features = border::input(features, length, "features")?;
            Ok(state.tracker.update(features)?)
        })
    }
}

/// Starts an object in the current frame, with everything inside a box.
///
/// @param label   Its label, from 1 to loftup_tracker_options.max_objects; if there is an object with
///                it, that one is started again.
/// @param box     The box, in pixels of an image.
/// @param width   Columns of that image.
/// @param height  Its rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_start_box(
    tracker: *mut loftup_tracker,
    label: u8,
    r#box: loftup_rect,
    width: usize,
    height: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            let seed = Seed::Box(r#box.into());
            let size = output_size(width, height)?;
            Ok(state.tracker.start(&[(label, seed)], size)?)
        })
    }
}

/// Starts an object in the current frame, with the cells around a pixel that are similar to it. As
/// loftup_tracker_start_box otherwise.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_start_point(
    tracker: *mut loftup_tracker,
    label: u8,
    point: loftup_point,
    width: usize,
    height: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            let seed = Seed::Click(Point {
                x: point.x,
                y: point.y,
            });
            let size = output_size(width, height)?;
            Ok(state.tracker.start(&[(label, seed)], size)?)
        })
    }
}

/// Starts an object for each value in a mask, from 1 to loftup_tracker_options.max_objects, in the
/// current frame. 0 and 255 (void) are background.
///
/// @param mask    [height, width].
/// @param length  Bytes in it: height * width.
/// @param width   Columns of the mask, which may have any size.
/// @param height  Its rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_start_mask(
    tracker: *mut loftup_tracker,
    mask: *const u8,
    length: usize,
    width: usize,
    height: usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            let mask = border::input(mask, length, "mask")?;
            let size = output_size(width, height)?;
            Ok(state.tracker.start_mask(mask, size)?)
        })
    }
}

/// Removes an object, which becomes background; its label can be used again. Without such an object
/// nothing happens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_remove(
    tracker: *mut loftup_tracker,
    label: u8,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            state.tracker.remove(label);
            Ok(())
        })
    }
}

/// Writes the mask of the current frame, and where each object is.
///
/// @param width         Columns of the mask, which may have any size.
/// @param height        Its rows.
/// @param mask          Gets the label of each pixel, [height, width]; 0 is background.
/// @param length        Bytes that may be written there.
/// @param objects       Gets the objects by label; NULL if they are not wanted.
/// @param capacity      Objects that may be written there; loftup_tracker_options.max_objects is
///                      enough.
/// @param count         Gets their number; NULL if it is not wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn loftup_tracker_mask(
    tracker: *mut loftup_tracker,
    width: usize,
    height: usize,
    mask: *mut u8,
    length: usize,
    objects: *mut loftup_object,
    capacity: usize,
    count: *mut usize,
) -> loftup_status {
    // SAFETY: as the header asks.
    unsafe {
        with(tracker, |state| {
            let size = output_size(width, height)?;
            let out = border::output((mask, length), Some(size.area()), "mask")?;
            state.tracker.mask(size, &mut state.mask)?;
            let found = &state.mask.objects;
            if !objects.is_null() && !found.is_empty() {
                let objects = border::output((objects, capacity), Some(found.len()), "objects")?;
                for (to, object) in objects.iter_mut().zip(found) {
                    let bounds = object.bounds.unwrap_or(Rect {
                        x: 0,
                        y: 0,
                        width: 0,
                        height: 0,
                    });
                    *to = loftup_object {
                        label: object.label.into(),
                        confidence: object.confidence,
                        area: object.area,
                        bounds: loftup_rect {
                            x: bounds.x,
                            y: bounds.y,
                            width: bounds.width,
                            height: bounds.height,
                        },
                    };
                }
            }
            out.copy_from_slice(&state.mask.labels);
            if let Some(count) = count.as_mut() {
                *count = found.len();
            }
            Ok(())
        })
    }
}
