//! One call from a picture to an answer, for those who have a loop of their own.

use loftup_bundle::Size;

use crate::{
    ColorRange, Perceptor, Point, Rect, RuntimeError, TileFeatures,
    heads::{self, Head},
    image::{ImageError, Rgb8},
};

/// A picture where a camera left it: rows from the top, pixels from the left, 8 bits each of red,
/// green and blue.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// The rows. The last one need not be filled up to the stride.
    pub data: &'a [u8],
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Bytes from the start of a row to that of the next, at least `3 * width`.
    pub stride: usize,
}

impl<'a> Frame<'a> {
    /// Rows without gaps: a stride of `3 * width`.
    pub fn packed(data: &'a [u8], width: usize, height: usize) -> Self {
        Self {
            data,
            width,
            height,
            stride: width.saturating_mul(3),
        }
    }

    /// The picture without its gaps.
    ///
    /// # Errors
    /// Where the stride is shorter than a row, the data end before the last row does or go on for
    /// more than a row after it, or a side is 0 or over [`crate::image::MAX_SIDE`].
    pub fn to_rgb8(self) -> Result<Rgb8, ImageError> {
        let Self {
            data,
            width,
            height,
            stride,
        } = self;
        let row = width.saturating_mul(3);
        // What is not right about the sides, `Rgb8::new` says.
        if row == stride && Some(data.len()) == row.checked_mul(height) {
            return Rgb8::new(width, height, data.to_vec());
        }
        let least = stride
            .checked_mul(height.saturating_sub(1))
            .and_then(|before| before.checked_add(row));
        let most = stride.checked_mul(height);
        let fits = least.is_some_and(|n| n <= data.len()) && most.is_some_and(|n| data.len() <= n);
        if width == 0 || height == 0 || stride < row || !fits {
            return Err(ImageError::BadStride {
                width,
                height,
                stride,
                bytes: data.len(),
            });
        }
        let packed = data.chunks(stride).take(height).flat_map(|r| &r[..row]);
        Rgb8::new(width, height, packed.copied().collect())
    }
}

/// Where the answer is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Area<'a> {
    /// At every pixel.
    Frame,
    /// At every pixel of a part.
    Region(Rect),
    /// At these pixels alone.
    Points(&'a [Point]),
}

/// What is asked of a frame.
///
/// ```
/// use loftup_runtime::{Query, Rect};
/// use loftup_bundle::Size;
///
/// let size = Size { width: 224, height: 224 };
/// let whole = Query::frame(size);
/// let part = Query::region(size, Rect { x: 80, y: 60, width: 64, height: 64 });
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// Size of the answer for the whole frame. The frame is resized to it, and regions and points
    /// are in its pixels.
    pub size: Size,
    /// Where in it.
    pub area: Area<'a>,
    /// What the features are turned into; `None` for the features themselves.
    pub head: Option<&'a Head>,
    /// How colors are scaled. A fixed range keeps video from flickering.
    pub range: ColorRange,
}

impl<'a> Query<'a> {
    fn new(size: Size, area: Area<'a>) -> Self {
        Self {
            size,
            area,
            head: None,
            range: ColorRange::PerImage,
        }
    }

    /// The features of the whole frame.
    pub fn frame(size: Size) -> Self {
        Self::new(size, Area::Frame)
    }

    /// The features of a part of a frame of `size`.
    pub fn region(size: Size, rect: Rect) -> Self {
        Self::new(size, Area::Region(rect))
    }

    /// The features at some pixels of a frame of `size`.
    pub fn points(size: Size, points: &'a [Point]) -> Self {
        Self::new(size, Area::Points(points))
    }

    /// The outputs of a head in place of the features.
    pub fn through(self, head: &'a Head) -> Self {
        Self {
            head: Some(head),
            ..self
        }
    }

    /// With another range of colors.
    pub fn colors(self, range: ColorRange) -> Self {
        Self { range, ..self }
    }
}

/// What was asked for, in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Columns, or the number of points.
    pub width: usize,
    /// Rows; 1 for points.
    pub height: usize,
    /// Channels of the features, or outputs of the head.
    pub dim: usize,
    /// `[height, width, dim]`, the channels of a pixel side by side.
    pub values: Vec<f32>,
}

impl Answer {
    /// The channels of one pixel, or of point `x` with `y` 0; `None` outside.
    pub fn pixel(&self, x: usize, y: usize) -> Option<&[f32]> {
        let inside = x < self.width && y < self.height;
        inside.then(|| &self.values[(y * self.width + x) * self.dim..][..self.dim])
    }

    /// The greatest output of each pixel, as [`heads::best`]: the class, where the answer was asked
    /// for through a head of classes. `[height, width]`.
    pub fn classes(&self) -> Vec<u8> {
        // `max`: a head without outputs would be refused earlier.
        let pixels = self.values.chunks_exact(self.dim.max(1));
        pixels.map(heads::best).collect()
    }
}

impl Perceptor {
    /// Answers one query about one frame: resizes, runs the backbone, and upsamples what is asked
    /// for. It works in the calling thread and those of the engine, and returns when it is done.
    ///
    /// The first call with a new size compiles for it; [`Perceptor::compile`] does so beforehand.
    /// Several queries about one frame, or an answer too large for memory: [`Perceptor::view`],
    /// which keeps the backbone's work and gives tile by tile.
    ///
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// use loftup_bundle::Size;
    /// use loftup_runtime::{Frame, Options, Perceptor, Point, Query};
    ///
    /// # let folder = tempfile::tempdir()?;
    /// # let path = folder.path().join("default.loftup");
    /// // The built-in model; a bundle of `loftup convert` does as well.
    /// loftup_convert::builtin(&path, false, |_| ControlFlow::Continue(()))?;
    /// let perceptor = Perceptor::open(&path, Options::default())?;
    ///
    /// // A picture as a camera gives it: here a gray one with a red square.
    /// let (width, height) = (320, 240);
    /// let mut picture = vec![128u8; width * height * 3];
    /// for y in 60..120 {
    ///     for x in 80..140 {
    ///         picture[(y * width + x) * 3..][..3].copy_from_slice(&[200, 20, 20]);
    ///     }
    /// }
    /// let frame = Frame::packed(&picture, width, height);
    ///
    /// // Points are in pixels of the answer, which has another size than the camera's picture.
    /// let size = Size { width: 112, height: 112 };
    /// let points = [Point { x: 38, y: 42 }, Point { x: 100, y: 100 }];
    /// let answer = perceptor.perceive(&frame, &Query::points(size, &points))?;
    /// assert_eq!((answer.width, answer.dim), (2, 64));
    /// assert_ne!(answer.pixel(0, 0), answer.pixel(1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Where the frame's data do not fit its sides, the region or a point is outside, the bundle
    /// lacks a backbone or an upsampler, the head is for another width, the answer does not fit
    /// into memory, or the engine fails.
    pub fn perceive(&self, frame: &Frame<'_>, query: &Query<'_>) -> Result<Answer, RuntimeError> {
        let photo = frame.to_rgb8()?;
        let guidance = self.prepare(&photo, query.size)?;
        let small = self.backbone_size(query.size)?;
        let features = match small == query.size {
            true => self.features_of(&guidance)?,
            false => self.features(&photo, small)?,
        };
        let mut view = self.view(&features, &guidance, query.range)?;
        if let Some(head) = query.head {
            view = view.through(head)?;
        }
        let dim = view.dim();
        let rect = match query.area {
            Area::Points(points) => {
                return Ok(Answer {
                    width: points.len(),
                    height: 1,
                    dim,
                    values: view.points(points)?,
                });
            }
            Area::Region(rect) => rect,
            Area::Frame => Rect::whole(query.size),
        };
        view.check_region(rect)?;
        let mut values = zeros(rect, dim)?;
        let mut put = |tile: &TileFeatures<'_>| {
            for row in 0..tile.rect.height {
                let pixel = (tile.rect.y - rect.y + row) * rect.width + tile.rect.x - rect.x;
                let line = tile.row(row);
                values[pixel * dim..][..line.len()].copy_from_slice(line);
            }
            Ok(())
        };
        // Tiles of a frame have another shape than those of a region.
        match query.area {
            Area::Frame => view.frame(&mut put)?,
            _ => view.region(rect, &mut put)?,
        }
        Ok(Answer {
            width: rect.width,
            height: rect.height,
            dim,
            values,
        })
    }
}

/// Memory for an answer, or an error in place of an abort.
fn zeros(rect: Rect, dim: usize) -> Result<Vec<f32>, RuntimeError> {
    let mut values = Vec::new();
    let count = rect.area().checked_mul(dim);
    match count.map(|n| (n, values.try_reserve_exact(n))) {
        Some((n, Ok(()))) => values.resize(n, 0.0),
        _ => {
            return Err(RuntimeError::AnswerTooLarge {
                width: rect.width,
                height: rect.height,
                dim,
            });
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_beyond_all_memory_is_an_error() {
        let rect = Rect::whole(Size {
            width: Size::LONGEST_SIDE,
            height: Size::LONGEST_SIDE,
        });
        for dim in [usize::MAX, usize::MAX / rect.area()] {
            let text = zeros(rect, dim).unwrap_err().to_string();
            assert!(
                text.contains("16384 x 16384") && text.contains("memory"),
                "{text}"
            );
        }
        assert_eq!(
            zeros(
                Rect {
                    width: 3,
                    height: 2,
                    ..rect
                },
                4
            )
            .unwrap(),
            [0.0; 24]
        );
    }
}
