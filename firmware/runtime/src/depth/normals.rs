//! Surface normals from depth.
//!
//! The inverse depth of a plane is an affine function of the pixel: with `n · p = d` and
//! `p = z (u, v, 1)`, it is `n · (u, v, 1) / d`. So a least-squares fit of the inverse depth in a window
//! gives the normal in closed form, exactly for planes under any perspective. For depth cameras that
//! measure disparity, the noise of the inverse depth does not depend on the distance.

use std::{io, path::Path};

use loftup_bundle::Size;

use super::pinhole::Pinhole;
use crate::{
    image::{ImageError, RgbImage},
    npy,
};

/// The window around a pixel to which a plane is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormalOptions {
    /// Rows and columns on each side of the pixel, 1 to [`NormalOptions::MOST_RADIUS`].
    pub radius: usize,
    /// Maximum difference in depth from the center pixel, as a fraction of its depth, of pixels on the same
    /// surface.
    pub within: f32,
    /// Minimum number of pixels on the surface, not all on one line, for a normal; at least 3.
    pub least: usize,
}

impl NormalOptions {
    /// Maximum of [`NormalOptions::radius`].
    pub const MOST_RADIUS: usize = 16;
}

impl Default for NormalOptions {
    /// 5 x 5 pixels, within 5 % of the depth.
    fn default() -> Self {
        Self {
            radius: 2,
            within: 0.05,
            least: 3,
        }
    }
}

/// Normals cannot be computed.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NormalsError {
    /// The number of depths is not the number of pixels.
    #[error("{depths} depths for {size} pixels")]
    Size {
        /// Number of depths.
        depths: usize,
        /// Size of the map.
        size: Size,
    },
    /// Impossible focal lengths or principal point.
    #[error(
        "focal lengths {} and {} with principal point {}, {}: expected finite numbers in pixels, focal lengths above 0",
        .0.fx, .0.fy, .0.cx, .0.cy
    )]
    Camera(Pinhole),
    /// A window that is empty or too large.
    #[error(
        "a window of {radius} pixels on each side; expected 1 to {}",
        NormalOptions::MOST_RADIUS
    )]
    Radius {
        /// Its radius.
        radius: usize,
    },
}

/// Writes the normals of a depth map, `[height, width]` in meters, to `normals`,
/// `[height, width, 3]`: of length 1, facing the camera, x right, y down, z forward. Pixels without
/// depth (NaN, infinite, or not positive) or without a surface around them get zeros. A map of one row
/// or one column has no normals.
///
/// # Errors
/// The number of depths is not the number of pixels, or the camera or the window is invalid.
pub fn normals(
    meters: &[f32],
    size: Size,
    camera: &Pinhole,
    options: &NormalOptions,
    normals: &mut Vec<f32>,
) -> Result<(), NormalsError> {
    if size.width.checked_mul(size.height) != Some(meters.len()) {
        let depths = meters.len();
        return Err(NormalsError::Size { depths, size });
    }
    if !camera.is_valid() {
        return Err(NormalsError::Camera(*camera));
    }
    if !(1..=NormalOptions::MOST_RADIUS).contains(&options.radius) {
        let radius = options.radius;
        return Err(NormalsError::Radius { radius });
    }
    normals.clear();
    normals.reserve(3 * meters.len());
    for y in 0..size.height {
        for x in 0..size.width {
            let plane = Plane::around(meters, size, options, x, y);
            let normal = plane.and_then(|plane| plane.normal(camera, x, y));
            normals.extend(normal.unwrap_or_default());
        }
    }
    Ok(())
}

fn is_depth(z: f32) -> bool {
    z > 0.0 && z.is_finite()
}

/// The inverse depth around a pixel: an affine function of the offsets in columns and rows.
#[derive(Debug, Clone, Copy)]
struct Plane {
    per_column: f64,
    per_row: f64,
    at: f64,
}

impl Plane {
    /// The least-squares fit in the window around a pixel.
    fn around(
        meters: &[f32],
        size: Size,
        options: &NormalOptions,
        x: usize,
        y: usize,
    ) -> Option<Self> {
        let center = meters[y * size.width + x];
        if !is_depth(center) {
            return None;
        }
        let (reach, radius) = (options.within * center, options.radius);
        let own = 1.0 / f64::from(center);
        // Column and row offsets are integers, so their sums are exact. Inverse depths are relative to the
        // center pixel.
        let (mut n, mut sx, mut sy, mut sxx, mut sxy, mut syy) =
            (0i64, 0i64, 0i64, 0i64, 0i64, 0i64);
        let (mut sz, mut sxz, mut syz) = (0f64, 0f64, 0f64);
        let columns = x.saturating_sub(radius)..(x + radius + 1).min(size.width);
        for row in y.saturating_sub(radius)..(y + radius + 1).min(size.height) {
            let line = &meters[row * size.width..][columns.clone()];
            for (column, z) in columns.clone().zip(line) {
                if !is_depth(*z) || (z - center).abs() > reach {
                    continue;
                }
                let (dx, dy) = (column as i64 - x as i64, row as i64 - y as i64);
                let dz = 1.0 / f64::from(*z) - own;
                n += 1;
                sx += dx;
                sy += dy;
                sxx += dx * dx;
                sxy += dx * dy;
                syy += dy * dy;
                sz += dz;
                sxz += dx as f64 * dz;
                syz += dy as f64 * dz;
            }
        }
        // n times the centered sums.
        let (xx, xy, yy) = (n * sxx - sx * sx, n * sxy - sx * sy, n * syy - sy * sy);
        let determinant = xx * yy - xy * xy;
        if n < options.least.max(3) as i64 || determinant <= 0 {
            return None;
        }
        let [n, sx, sy, xx, xy, yy, determinant] =
            [n, sx, sy, xx, xy, yy, determinant].map(|sum| sum as f64);
        let (xz, yz) = (n * sxz - sx * sz, n * syz - sy * sz);
        let per_column = (yy * xz - xy * yz) / determinant;
        let per_row = (xx * yz - xy * xz) / determinant;
        Some(Self {
            per_column,
            per_row,
            at: own + (sz - per_column * sx - per_row * sy) / n,
        })
    }

    /// The normal that faces the camera, if the plane does not contain the ray of its pixel.
    fn normal(&self, camera: &Pinhole, x: usize, y: usize) -> Option<[f32; 3]> {
        let [fx, fy, cx, cy] = [camera.fx, camera.fy, camera.cx, camera.cy].map(f64::from);
        // The inverse depth is a (u, v, 1).
        let a = [self.per_column * fx, self.per_row * fy];
        let [u, v] = [(x as f64 - cx) / fx, (y as f64 - cy) / fy];
        let a = [a[0], a[1], self.at - a[0] * u - a[1] * v];
        let length = a.iter().map(|x| x * x).sum::<f64>().sqrt();
        // The inverse depth at the pixel is positive, so a points away from the camera.
        (self.at > 0.0 && length > 0.0 && length.is_finite())
            .then(|| a.map(|x| (-x / length) as f32))
    }
}

/// Writes normals, `[height, width, 3]`: as float32 of this shape if `path` ends in `.npy`, otherwise
/// as a PNG with `(n + 1) / 2` of x, y and z as red, green and blue; pixels without a normal are gray.
/// The write is atomic.
///
/// # Errors
/// `normals` has the wrong number of pixels, or the file cannot be written.
pub fn save_normals(path: &Path, size: Size, normals: &[f32]) -> Result<(), ImageError> {
    let io = |what: String| ImageError::Io {
        path: path.to_owned(),
        source: io::Error::other(what),
    };
    let Size { width, height } = size;
    let values = width.checked_mul(height).and_then(|n| n.checked_mul(3));
    if values != Some(normals.len()) || normals.is_empty() {
        return Err(io(format!(
            "{} values for normals of {size}",
            normals.len()
        )));
    }
    if path
        .extension()
        .is_some_and(|e| e.eq_ignore_ascii_case("npy"))
    {
        return npy::write(path, &[height, width, 3], normals).map_err(|e| io(e.to_string()));
    }
    RgbImage::new(width, height, normals.iter().map(level).collect())?.save_png(path)
}

/// The cast saturates.
fn level(component: &f32) -> u8 {
    ((component + 1.0) * 127.5).round() as u8
}

#[cfg(test)]
mod tests;
