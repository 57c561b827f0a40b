//! A pinhole camera.

use loftup_bundle::Size;

/// A pinhole camera: focal lengths and principal point in pixels, with the center of the first pixel at
/// (0, 0), as in ROS's `CameraInfo` and OpenCV. Coordinates are as in ROS's optical frames: x right,
/// y down, z forward.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pinhole {
    /// Horizontal focal length.
    pub fx: f32,
    /// Vertical focal length.
    pub fy: f32,
    /// Column of the principal point.
    pub cx: f32,
    /// Row of the principal point.
    pub cy: f32,
}

impl Pinhole {
    /// The horizontal field of view that is assumed for an unknown camera, in degrees.
    pub const FIELD_OF_VIEW: f32 = 60.0;

    /// Returns a camera with square pixels and the principal point at the center of its image of `size`.
    /// `degrees` is the horizontal field of view, between 0 and 180.
    pub fn with_field_of_view(degrees: f32, size: Size) -> Self {
        let center = |pixels: usize| (pixels as f32 - 1.0) / 2.0;
        let focal = size.width as f32 / 2.0 / (degrees.to_radians() / 2.0).tan();
        Self {
            fx: focal,
            fy: focal,
            cx: center(size.width),
            cy: center(size.height),
        }
    }

    /// Returns the camera of the image after resizing it from size `from` to size `to`.
    #[must_use]
    pub fn resized(&self, from: Size, to: Size) -> Self {
        let x = to.width as f32 / from.width as f32;
        let y = to.height as f32 / from.height as f32;
        Self {
            fx: self.fx * x,
            fy: self.fy * y,
            cx: (self.cx + 0.5) * x - 0.5,
            cy: (self.cy + 0.5) * y - 0.5,
        }
    }

    /// Returns the camera of the image after cropping it to start at column `x` and row `y`.
    #[must_use]
    pub fn cropped(&self, x: usize, y: usize) -> Self {
        Self {
            cx: self.cx - x as f32,
            cy: self.cy - y as f32,
            ..*self
        }
    }

    /// Whether all numbers are finite and the focal lengths positive.
    pub fn is_valid(&self) -> bool {
        let Self { fx, fy, cx, cy } = *self;
        [fx, fy, cx, cy].iter().all(|x| x.is_finite()) && fx > 0.0 && fy > 0.0
    }
}

/// The known properties of the camera of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Camera {
    /// Its intrinsics, in pixels of the image.
    Pinhole(Pinhole),
    /// Its horizontal field of view in degrees; see [`Pinhole::with_field_of_view`].
    FieldOfView(f32),
}

impl Default for Camera {
    fn default() -> Self {
        Self::FieldOfView(Pinhole::FIELD_OF_VIEW)
    }
}

impl Camera {
    /// Returns the camera of a map of size `map` computed from an image of size `image`.
    pub fn of_map(&self, image: Size, map: Size) -> Pinhole {
        match *self {
            Self::Pinhole(pinhole) => pinhole,
            Self::FieldOfView(degrees) => Pinhole::with_field_of_view(degrees, image),
        }
        .resized(image, map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 640,
        height: 480,
    };

    #[test]
    fn the_field_of_view_reaches_the_outer_edges_of_the_pixels() {
        let camera = Pinhole::with_field_of_view(90.0, SIZE);
        assert!((camera.fx - 320.0).abs() < 1e-3 && camera.fx == camera.fy);
        assert_eq!((camera.cx, camera.cy), (319.5, 239.5));
        let edge = (-0.5 - camera.cx) / camera.fx;
        assert!((edge + 1.0).abs() < 1e-6);
        assert!(camera.is_valid());
        for degrees in [0.0, 180.5, f32::NAN] {
            assert!(!Pinhole::with_field_of_view(degrees, SIZE).is_valid());
        }
    }

    #[test]
    fn rays_stay_where_an_image_is_resized_or_cropped() {
        let camera = Pinhole {
            fx: 525.0,
            fy: 520.0,
            cx: 310.0,
            cy: 250.0,
        };
        let half = Size {
            width: 320,
            height: 120,
        };
        let small = camera.resized(SIZE, half);
        // The first pixel of the smaller image covers 2 x 4 pixels.
        let [x, y] = [(0.5 - 310.0) / 525.0, (1.5 - 250.0) / 520.0];
        assert!((-small.cx / small.fx - x).abs() < 1e-6);
        assert!((-small.cy / small.fy - y).abs() < 1e-6);
        let part = camera.cropped(100, 40);
        assert_eq!((part.cx, part.cy, part.fx), (210.0, 210.0, 525.0));
    }
}
