//! Queries, and the outputs computed for them.

use loftup_bundle::Size;
use loftup_runtime::{Point, Rect, image::RgbImage};
use loftup_wire::{
    command::{Area, Refusal, Want},
    message,
};

use crate::frame::Header;

/// Number of query slots.
pub const SLOTS: usize = 8;

/// A query, evaluated on every frame. Coordinates are pixels of the camera image.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// The pixels it covers.
    pub area: Area,
    /// The kind of output.
    pub want: Want,
}

/// The queries, by slot.
pub type Queries = [Option<Query>; SLOTS];

impl Query {
    /// Checks that this node supports the query, for images of size `camera` if known.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for features except at points, regions at points, and objects except in
    /// the whole frame; [`Refusal::OutOfPicture`] outside the image.
    pub fn check(&self, camera: Option<Size>) -> Result<(), Refusal> {
        let points = matches!(self.area, Area::Points(_));
        let supported = match self.want {
            Want::FeaturesF16 | Want::FeaturesU8 => points,
            Want::Regions => !points,
            Want::Objects => self.area == Area::Frame,
            Want::Classes | Want::Words | Want::Depth => true,
        };
        if !supported {
            return Err(Refusal::Unsupported);
        }
        let inside = match &self.area {
            Area::Frame => true,
            Area::Region(rect) => camera.is_none() || is_inside(*rect, camera),
            Area::Points(points) => points.iter().all(|p| contains(*p, camera)),
        };
        if inside {
            Ok(())
        } else {
            Err(Refusal::OutOfPicture)
        }
    }
}

/// Maps `area` of a camera image to an output of size `output`: all output pixels that overlap it.
pub fn output_rect(area: message::Rect, camera: Size, output: Size) -> Rect {
    let span = |at: u16, len: u16, from: usize, to: usize| {
        let (at, end) = (usize::from(at), usize::from(at) + usize::from(len));
        let first = (at * to / from.max(1)).min(to.saturating_sub(1));
        let last = (end * to)
            .div_ceil(from.max(1))
            .clamp(first + 1, to.max(first + 1));
        (first, last - first)
    };
    let (x, width) = span(area.x, area.width, camera.width, output.width);
    let (y, height) = span(area.y, area.height, camera.height, output.height);
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// Whether a rectangle is not empty and within images of size `camera`, if known.
pub fn is_inside(rect: message::Rect, camera: Option<Size>) -> bool {
    let end = |at: u16, len: u16| usize::from(at) + usize::from(len);
    let fits = |camera: Size| {
        end(rect.x, rect.width) <= camera.width && end(rect.y, rect.height) <= camera.height
    };
    rect.width > 0 && rect.height > 0 && camera.is_none_or(fits)
}

/// Whether a point is within images of size `camera`, if known.
pub fn contains(point: message::Point, camera: Option<Size>) -> bool {
    camera.is_none_or(|c| usize::from(point.x) < c.width && usize::from(point.y) < c.height)
}

/// The whole camera image.
pub fn full_frame(camera: Size) -> message::Rect {
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    message::Rect {
        x: 0,
        y: 0,
        width: side(camera.width),
        height: side(camera.height),
    }
}

/// Maps `rect` of an output of size `output` to the camera image: all camera pixels that overlap it.
pub fn camera_rect(rect: Rect, output: Size, camera: Size) -> message::Rect {
    let side = |n: usize| u16::try_from(n).unwrap_or(u16::MAX);
    let span = |at: usize, len: usize, from: usize, to: usize| {
        let first = at * to / from.max(1);
        (
            side(first),
            side(((at + len) * to).div_ceil(from.max(1)) - first),
        )
    };
    let (x, width) = span(rect.x, rect.width, output.width, camera.width);
    let (y, height) = span(rect.y, rect.height, output.height, camera.height);
    message::Rect {
        x,
        y,
        width,
        height,
    }
}

/// Maps the center of a camera pixel to a pixel of an output of size `output`.
pub fn output_point(point: message::Point, camera: Size, output: Size) -> Point {
    let at = |p: u16, from: usize, to: usize| {
        ((2 * usize::from(p) + 1) * to / (2 * from.max(1))).min(to.saturating_sub(1))
    };
    Point {
        x: at(point.x, camera.width, output.width),
        y: at(point.y, camera.height, output.height),
    }
}

/// Kind of a [`QueryOutput`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutputKind {
    /// `classes`, `[height, width]`; [`loftup_runtime::heads::NO_CLASS`] for no class.
    #[default]
    Classes,
    /// `values`, `[width, channels]`: one vector per point.
    Features(Precision),
    /// `regions`, largest first.
    Regions,
    /// `depth`, `[height, width]`, in millimeters; 0 for no depth.
    Depth,
    /// `objects`, and in `classes` their masks, `[height, width]`; 0 for the background.
    Objects,
}

/// The label set of the classes of the head.
pub const CLASS_LABELS: u16 = 1;

/// Encoding of features on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Two bytes per value.
    F16,
    /// One byte per value.
    U8,
}

/// A connected region of one class. Coordinates are camera pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Class.
    pub class: u8,
    /// Bounding box.
    pub bounds: message::Rect,
    /// Centroid.
    pub center: message::Point,
    /// Area in output pixels.
    pub pixels: u32,
}

/// A name of at most 32 bytes.
pub type Name = heapless::String<32>;

/// A tracked object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackedObject {
    /// Its number.
    pub object: u8,
    /// Its name.
    pub name: Name,
    /// Bounding box in camera pixels; empty while it is not visible.
    pub bounds: message::Rect,
    /// Area in output pixels; 0 while it is not visible.
    pub pixels: u32,
    /// Confidence; 255 is 1.
    pub confidence: u8,
}

/// The output of one query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueryOutput {
    /// Slot of the query.
    pub slot: u8,
    /// Its kind.
    pub kind: OutputKind,
    /// The part of the camera image that it covers.
    pub source: message::Rect,
    /// Columns; the number of points for a query at points.
    pub width: usize,
    /// Rows; 1 for a query at points.
    pub height: usize,
    /// The label set of `classes` and `regions`: [`CLASS_LABELS`], or the label set of words.
    pub labels: u16,
    /// Class map. For [`OutputKind::Regions`], the map that contains the regions.
    pub classes: Vec<u8>,
    /// Depth map.
    pub depth: Vec<u16>,
    /// Tracked objects.
    pub objects: Vec<TrackedObject>,
    /// The points of a query at points, in pixels of the camera image.
    pub points: Vec<message::Point>,
    /// Features.
    pub values: Vec<f32>,
    /// Values per feature vector.
    pub channels: usize,
    /// Regions.
    pub regions: Vec<Region>,
}

/// The outputs of a frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FrameOutput {
    /// Sequence number of the node; increases with every frame.
    pub sequence: u64,
    /// Frame number of the source.
    pub number: u64,
    /// Capture time, microseconds of the node's clock.
    pub captured_us: u64,
    /// Stamp and frame of reference of the image's sender, if it has them.
    pub header: Option<Header>,
    /// Publication time.
    pub published_us: u64,
    /// Degradation step.
    pub level: usize,
    /// Size of the camera image: columns, rows.
    pub camera: (usize, usize),
    /// Size of a full-frame output: columns, rows.
    pub size: (usize, usize),
    /// The camera image.
    pub image: Option<RgbImage>,
    /// Class map tiles that were computed, and that were reused from the previous frame.
    pub tiles: (usize, usize),
    outputs: Vec<QueryOutput>,
    live: usize,
}

impl FrameOutput {
    /// The outputs of the queries.
    pub fn outputs(&self) -> &[QueryOutput] {
        &self.outputs[..self.live]
    }

    /// Removes the outputs, but keeps their buffers.
    pub fn clear(&mut self) {
        self.live = 0;
        self.tiles = (0, 0);
    }

    /// Adds an empty output, reusing a buffer if there is one.
    pub fn add(&mut self) -> &mut QueryOutput {
        if self.live == self.outputs.len() {
            self.outputs.push(QueryOutput::default());
        }
        let output = &mut self.outputs[self.live];
        self.live += 1;
        output.classes.clear();
        output.points.clear();
        output.values.clear();
        output.regions.clear();
        output.depth.clear();
        output.objects.clear();
        (output.channels, output.labels) = (0, 0);
        output
    }

    /// Returns the last output and the ones before it.
    pub fn split_last_mut(&mut self) -> Option<(&mut QueryOutput, &[QueryOutput])> {
        let (rest, last) = self
            .outputs
            .get_mut(..self.live)?
            .split_at_mut_checked(self.live.checked_sub(1)?)?;
        Some((last.first_mut()?, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAMERA: Size = Size {
        width: 640,
        height: 480,
    };

    #[test]
    fn a_mapped_area_is_covered_and_inside_the_output() {
        let output = Size {
            width: 84,
            height: 56,
        };
        for (x, y, width, height) in [
            (0, 0, 640, 480),
            (639, 479, 1, 1),
            (0, 0, 1, 1),
            (100, 333, 7, 90),
        ] {
            let r = output_rect(
                message::Rect {
                    x,
                    y,
                    width,
                    height,
                },
                CAMERA,
                output,
            );
            let reaches = |first: usize, len: usize, at: u16, alen: u16, from: usize, to: usize| {
                first * from <= usize::from(at) * to
                    && (first + len) * from >= (usize::from(at) + usize::from(alen)) * to
                    && first + len <= to
            };
            assert!(reaches(r.x, r.width, x, width, 640, 84), "{r:?}");
            assert!(reaches(r.y, r.height, y, height, 480, 56), "{r:?}");
        }
        for (x, y, width, height) in [(0, 0, 84, 56), (83, 55, 1, 1), (13, 5, 7, 30)] {
            let rect = Rect {
                x,
                y,
                width,
                height,
            };
            let camera = camera_rect(rect, output, CAMERA);
            let back = output_rect(camera, CAMERA, output);
            assert!(is_inside(camera, Some(CAMERA)), "{camera:?}");
            assert!(back.x <= x && back.x + back.width >= x + width);
            assert!(back.y <= y && back.y + back.height >= y + height);
        }
        let p = output_point(message::Point { x: 639, y: 0 }, CAMERA, output);
        assert_eq!((p.x, p.y), (83, 0));
    }

    #[test]
    fn unsupported_queries_are_refused() {
        let region = |x, width| Query {
            area: Area::Region(message::Rect {
                x,
                y: 0,
                width,
                height: 5,
            }),
            want: Want::Classes,
        };
        assert_eq!(region(600, 40).check(Some(CAMERA)), Ok(()));
        assert_eq!(
            region(601, 40).check(Some(CAMERA)),
            Err(Refusal::OutOfPicture)
        );
        assert_eq!(
            region(601, 0).check(Some(CAMERA)),
            Err(Refusal::OutOfPicture)
        );
        assert_eq!(region(601, 40).check(None), Ok(()));
        let frame = |want| Query {
            area: Area::Frame,
            want,
        };
        for want in [Want::Regions, Want::Depth, Want::Words, Want::Objects] {
            assert_eq!(frame(want).check(None), Ok(()));
        }
        assert_eq!(
            frame(Want::FeaturesU8).check(None),
            Err(Refusal::Unsupported)
        );
        let mut points = heapless_points(&[(0, 0)]);
        let at = |points, want| Query {
            area: Area::Points(points),
            want,
        };
        for want in [Want::FeaturesF16, Want::Depth, Want::Words] {
            assert_eq!(at(points.clone(), want).check(None), Ok(()));
        }
        for want in [Want::Regions, Want::Objects] {
            assert_eq!(
                at(points.clone(), want).check(None),
                Err(Refusal::Unsupported)
            );
        }
        points = heapless_points(&[(0, 480)]);
        assert_eq!(
            at(points, Want::Classes).check(Some(CAMERA)),
            Err(Refusal::OutOfPicture)
        );
    }

    fn heapless_points(points: &[(u16, u16)]) -> heapless::Vec<message::Point, 64> {
        points
            .iter()
            .map(|&(x, y)| message::Point { x, y })
            .collect()
    }

    #[test]
    fn buffers_are_reused() {
        let mut frame = FrameOutput::default();
        frame.add().classes.resize(1000, 1);
        frame.clear();
        assert!(frame.outputs().is_empty());
        let output = frame.add();
        assert!(output.classes.is_empty() && output.classes.capacity() >= 1000);
    }
}
