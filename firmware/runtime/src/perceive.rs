//! A single call from an image to an output.

use loftup_bundle::Size;

use crate::{
    ColorRange, Perceptor, Point, Rect, RuntimeError,
    heads::{self, Head},
    image::Frame,
    sinks::VecSink,
};

/// The pixels to compute.
#[derive(Debug, Clone, Copy)]
pub enum Area<'a> {
    /// All pixels.
    Frame,
    /// The pixels of a rectangle.
    Region(Rect),
    /// These pixels only.
    Points(&'a [Point]),
}

/// The output to compute for a frame.
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
    /// Size of the output for the whole frame. The image is resized to it; regions and points are in
    /// output pixels.
    pub size: Size,
    /// The pixels of the output to compute.
    pub area: Area<'a>,
    /// The head to apply; `None` gives features.
    pub head: Option<&'a Head>,
    /// How the guidance is scaled. A fixed range avoids flicker in video.
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

    /// The features of a region of a frame of `size`.
    pub fn region(size: Size, rect: Rect) -> Self {
        Self::new(size, Area::Region(rect))
    }

    /// The features at points of a frame of `size`.
    pub fn points(size: Size, points: &'a [Point]) -> Self {
        Self::new(size, Area::Points(points))
    }

    /// Applies a head to the features.
    pub fn with_head(self, head: &'a Head) -> Self {
        Self {
            head: Some(head),
            ..self
        }
    }

    /// Sets the color range.
    pub fn with_color_range(self, range: ColorRange) -> Self {
        Self { range, ..self }
    }
}

/// The output of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Columns, or the number of points.
    pub width: usize,
    /// Rows; 1 for points.
    pub height: usize,
    /// Channels of the features, or outputs of the head.
    pub dim: usize,
    /// `[height, width, dim]`.
    pub values: Vec<f32>,
}

impl Output {
    /// The channels of one pixel, or of point `x` if `y` is 0; `None` outside.
    pub fn pixel(&self, x: usize, y: usize) -> Option<&[f32]> {
        let inside = x < self.width && y < self.height;
        inside.then(|| &self.values[(y * self.width + x) * self.dim..][..self.dim])
    }

    /// The index of the largest output of each pixel ([`heads::argmax`]): its class, with a
    /// classification head. `[height, width]`.
    pub fn classes(&self) -> Vec<u8> {
        // A head without outputs has been rejected earlier.
        let pixels = self.values.chunks_exact(self.dim.max(1));
        pixels.map(heads::argmax).collect()
    }
}

impl Perceptor {
    /// Runs the model on one frame: resizes it, runs the backbone, and upsamples the pixels of the
    /// query.
    ///
    /// The first call with a new size compiles for it; [`Perceptor::compile`] does so ahead of time.
    /// For several queries on one frame, or an output too large for memory, use [`Perceptor::encode`],
    /// whose result can be queried repeatedly and returns tile by tile.
    ///
    /// ```no_run
    /// use std::path::Path;
    ///
    /// use loftup_bundle::Size;
    /// use loftup_runtime::{ExecutionOptions, Frame, Perceptor, Point, Query};
    ///
    /// // A bundle made by `loftup convert`.
    /// let perceptor = Perceptor::open(Path::new("robot.loftup"), ExecutionOptions::default())?;
    ///
    /// // A camera image: here gray with a red square.
    /// let (width, height) = (320, 240);
    /// let mut image = vec![128u8; width * height * 3];
    /// for y in 60..120 {
    ///     for x in 80..140 {
    ///         image[(y * width + x) * 3..][..3].copy_from_slice(&[200, 20, 20]);
    ///     }
    /// }
    /// let frame = Frame::packed(&image, width, height);
    ///
    /// // Points are in pixels of the output, not of the camera's image.
    /// let size = Size { width: 112, height: 112 };
    /// let points = [Point { x: 38, y: 42 }, Point { x: 100, y: 100 }];
    /// let output = perceptor.perceive(&frame, &Query::points(size, &points))?;
    /// assert_eq!(output.width, 2);
    /// assert_ne!(output.pixel(0, 0), output.pixel(1, 0));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the buffer does not match its dimensions, the region or a point is outside the frame, the
    /// bundle has no backbone or no upsampler, the head expects a different number of channels, the
    /// output does not fit into memory, or the engine fails.
    pub fn perceive(&self, frame: &Frame<'_>, query: &Query<'_>) -> Result<Output, RuntimeError> {
        let image = frame.to_image()?;
        let mut encoded = self.encode(&image, query.size, query.range)?;
        if let Some(head) = query.head {
            encoded = encoded.with_head(head)?;
        }
        let dim = encoded.dim();
        let rect = match query.area {
            Area::Points(points) => {
                return Ok(Output {
                    width: points.len(),
                    height: 1,
                    dim,
                    values: encoded.points(points)?,
                });
            }
            Area::Region(rect) => rect,
            Area::Frame => Rect::whole(query.size),
        };
        encoded.check_region(rect)?;
        let mut sink = VecSink::new(rect, dim)?;
        // A frame has larger tiles than a region.
        match query.area {
            Area::Frame => encoded.frame(&mut |tile| sink.push(tile))?,
            _ => encoded.region(rect, &mut |tile| sink.push(tile))?,
        }
        Ok(Output {
            width: rect.width,
            height: rect.height,
            dim,
            values: sink.into_values(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_too_large_for_memory_is_an_error() {
        let rect = Rect::whole(Size {
            width: Size::LONGEST_SIDE,
            height: Size::LONGEST_SIDE,
        });
        for dim in [usize::MAX, usize::MAX / rect.area()] {
            let text = VecSink::new(rect, dim).unwrap_err().to_string();
            assert!(
                text.contains("16384 x 16384") && text.contains("memory"),
                "{text}"
            );
        }
        let small = Rect {
            width: 3,
            height: 2,
            ..rect
        };
        assert_eq!(VecSink::new(small, 4).unwrap().values(), [0.0; 24]);
    }
}
