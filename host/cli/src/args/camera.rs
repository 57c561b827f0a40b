//! The camera of an image.

use loftup_runtime::depth::{Camera, Pinhole};

use super::numbers;

/// What is known about the camera, for surface normals.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct CameraArgs {
    /// The camera, for normals: focal lengths and principal point in pixels of the image, as fx, fy, cx
    /// and cy of ROS's CameraInfo
    #[arg(long, value_name = "FX,FY,CX,CY", value_parser = pinhole)]
    intrinsics: Option<Pinhole>,
    /// The camera, for normals, if its intrinsics are unknown: its horizontal field of view, with square
    /// pixels and the principal point in the center [default: 60]
    #[arg(long, value_name = "DEGREES", conflicts_with = "intrinsics", value_parser = field_of_view)]
    field_of_view: Option<f32>,
}

impl CameraArgs {
    /// The camera, 60 degrees wide if nothing is given.
    pub fn camera(&self) -> Camera {
        match (self.intrinsics, self.field_of_view) {
            (Some(pinhole), _) => Camera::Pinhole(pinhole),
            (None, Some(degrees)) => Camera::FieldOfView(degrees),
            (None, None) => Camera::default(),
        }
    }

    /// Whether it is assumed.
    pub fn is_assumed(&self) -> bool {
        self.intrinsics.is_none() && self.field_of_view.is_none()
    }
}

fn pinhole(s: &str) -> Result<Pinhole, String> {
    numbers::<f32, 4>(s)
        .map(|[fx, fy, cx, cy]| Pinhole { fx, fy, cx, cy })
        .filter(Pinhole::is_valid)
        .ok_or_else(|| {
            "expected FX,FY,CX,CY in pixels, focal lengths above 0, as in 525,525,319.5,239.5"
                .into()
        })
}

fn field_of_view(s: &str) -> Result<f32, String> {
    s.parse()
        .ok()
        .filter(|degrees| *degrees > 0.0 && *degrees < 180.0)
        .ok_or_else(|| "expected degrees between 0 and 180".into())
}
