//! What is asked of a frame, and what is processed.

use loftup_bundle::Size;
use loftup_runtime::{Point, Rect, image::RgbImage};
use loftup_wire::{
    command::{Area, Refusal, Want},
    message,
};

/// Slots for queries.
pub const SLOTS: usize = 8;

/// A question asked of every frame. Coordinates are pixels of the camera's image.
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// Which pixels.
    pub area: Area,
    /// What to tell of them.
    pub want: Want,
}

/// The questions asked of every frame, by slot.
pub type Queries = [Option<Query>; SLOTS];

impl Query {
    /// Whether this node can answer it, for pictures of the size `camera` where that is known.
    ///
    /// # Errors
    /// [`Refusal::Unsupported`] for features other than at points and for regions at points;
    /// [`Refusal::OutOfPicture`].
    pub fn check(&self, camera: Option<Size>) -> Result<(), Refusal> {
        let points = matches!(self.area, Area::Points(_));
        let features = matches!(self.want, Want::FeaturesF16 | Want::FeaturesU8);
        if features != points && !(points && self.want == Want::Classes) {
            return Err(Refusal::Unsupported);
        }
        let Some(camera) = camera else { return Ok(()) };
        let inside = match &self.area {
            Area::Frame => true,
            Area::Region(r) => {
                let end = |at: u16, len: u16| usize::from(at) + usize::from(len);
                r.width > 0
                    && r.height > 0
                    && end(r.x, r.width) <= camera.width
                    && end(r.y, r.height) <= camera.height
            }
            Area::Points(points) => points
                .iter()
                .all(|p| usize::from(p.x) < camera.width && usize::from(p.y) < camera.height),
        };
        if inside {
            Ok(())
        } else {
            Err(Refusal::OutOfPicture)
        }
    }
}

/// The part of an output of size `answer` that shows `area` of an image of size `camera`: every
/// pixel that touches it.
pub fn scaled(area: message::Rect, camera: Size, answer: Size) -> Rect {
    let span = |at: u16, len: u16, from: usize, to: usize| {
        let (at, end) = (usize::from(at), usize::from(at) + usize::from(len));
        let first = (at * to / from.max(1)).min(to.saturating_sub(1));
        let last = (end * to)
            .div_ceil(from.max(1))
            .clamp(first + 1, to.max(first + 1));
        (first, last - first)
    };
    let (x, width) = span(area.x, area.width, camera.width, answer.width);
    let (y, height) = span(area.y, area.height, camera.height, answer.height);
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// The pixel of an output that shows the middle of a pixel of the camera's image.
pub fn scaled_point(point: message::Point, camera: Size, answer: Size) -> Point {
    let at = |p: u16, from: usize, to: usize| {
        ((2 * usize::from(p) + 1) * to / (2 * from.max(1))).min(to.saturating_sub(1))
    };
    Point {
        x: at(point.x, camera.width, answer.width),
        y: at(point.y, camera.height, answer.height),
    }
}

/// What a [`Part`] consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// `classes`, `[height, width]`; [`loftup_runtime::heads::NO_CLASS`] for none.
    #[default]
    Classes,
    /// `values`, `[width, channels]`: a vector for each point.
    Features(Precision),
    /// `regions`, largest first.
    Regions,
}

/// How features go over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Two bytes a value.
    F16,
    /// One byte a value.
    U8,
}

/// A connected area of one class, in pixels of the camera's image but for its size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// Its class.
    pub class: u8,
    /// Smallest rectangle around it.
    pub bounds: message::Rect,
    /// Its center of mass.
    pub center: message::Point,
    /// Its size, in pixels of the output.
    pub pixels: u32,
}

/// The output to one query.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Part {
    /// Slot of the query.
    pub slot: u8,
    /// What it consists of.
    pub kind: Kind,
    /// The part of the camera's image that it covers.
    pub source: message::Rect,
    /// Columns; the number of points where points were asked.
    pub width: usize,
    /// Rows; 1 where points were asked.
    pub height: usize,
    /// Classes. For [`Kind::Regions`], what the regions were found in.
    pub classes: Vec<u8>,
    /// Features.
    pub values: Vec<f32>,
    /// Values per feature vector.
    pub channels: usize,
    /// Connected areas.
    pub regions: Vec<Region>,
}

/// Everything that is published of a frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answer {
    /// The node's number of the frame, always rising.
    pub sequence: u64,
    /// The source's number of the frame.
    pub number: u64,
    /// When the image was taken, microseconds of the node's clock.
    pub captured_us: u64,
    /// When this was published.
    pub published_us: u64,
    /// Step of degradation.
    pub level: usize,
    /// Size of the camera's image: columns, rows.
    pub camera: (usize, usize),
    /// Size of the whole output: columns, rows.
    pub size: (usize, usize),
    /// The camera's image.
    pub picture: Option<RgbImage>,
    /// Tiles of class maps that were computed, and that were kept from the frame before.
    pub tiles: (usize, usize),
    parts: Vec<Part>,
    live: usize,
}

impl Answer {
    /// The outputs to the queries, by slot.
    pub fn parts(&self) -> &[Part] {
        &self.parts[..self.live]
    }

    /// Forgets the parts and the count of tiles, and keeps their memory.
    pub fn clear(&mut self) {
        self.live = 0;
        self.tiles = (0, 0);
    }

    /// A new, empty part, in memory that was used before where there is some.
    pub fn add(&mut self) -> &mut Part {
        if self.live == self.parts.len() {
            self.parts.push(Part::default());
        }
        let part = &mut self.parts[self.live];
        self.live += 1;
        part.classes.clear();
        part.values.clear();
        part.regions.clear();
        part.channels = 0;
        part
    }

    /// The last part, and those before it.
    pub fn last_and_rest(&mut self) -> Option<(&mut Part, &[Part])> {
        let (rest, last) = self
            .parts
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
    fn a_scaled_area_covers_what_was_asked_and_stays_inside() {
        let answer = Size {
            width: 84,
            height: 56,
        };
        for (x, y, width, height) in [
            (0, 0, 640, 480),
            (639, 479, 1, 1),
            (0, 0, 1, 1),
            (100, 333, 7, 90),
        ] {
            let r = scaled(
                message::Rect {
                    x,
                    y,
                    width,
                    height,
                },
                CAMERA,
                answer,
            );
            let reaches = |first: usize, len: usize, at: u16, alen: u16, from: usize, to: usize| {
                first * from <= usize::from(at) * to
                    && (first + len) * from >= (usize::from(at) + usize::from(alen)) * to
                    && first + len <= to
            };
            assert!(reaches(r.x, r.width, x, width, 640, 84), "{r:?}");
            assert!(reaches(r.y, r.height, y, height, 480, 56), "{r:?}");
        }
        let p = scaled_point(message::Point { x: 639, y: 0 }, CAMERA, answer);
        assert_eq!((p.x, p.y), (83, 0));
    }

    #[test]
    fn queries_that_cannot_be_answered_are_refused() {
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
        assert_eq!(frame(Want::Regions).check(None), Ok(()));
        assert_eq!(
            frame(Want::FeaturesU8).check(None),
            Err(Refusal::Unsupported)
        );
        let mut points = heapless_points(&[(0, 0)]);
        let at = |points, want| Query {
            area: Area::Points(points),
            want,
        };
        assert_eq!(at(points.clone(), Want::FeaturesF16).check(None), Ok(()));
        assert_eq!(
            at(points.clone(), Want::Regions).check(None),
            Err(Refusal::Unsupported)
        );
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
    fn parts_are_used_again() {
        let mut answer = Answer::default();
        answer.add().classes.resize(1000, 1);
        answer.clear();
        assert!(answer.parts().is_empty());
        let part = answer.add();
        assert!(part.classes.is_empty() && part.classes.capacity() >= 1000);
    }
}
