//! The messages that the node publishes, in CDR.

use loftup_wire::message::Point;

use super::{Header, cdr::Writer};
use crate::output::TrackedObject;

/// The pixels of an image, `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// One byte per pixel: `mono8`.
    Mono8(&'a [u8]),
    /// Depth in millimeters, 0 for no depth: `16UC1`, as published by depth cameras.
    Depth(&'a [u16]),
}

/// An image.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Capture time and frame of reference.
    pub header: Header<'a>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Its pixels.
    pub pixels: Pixels<'a>,
}

impl Image<'_> {
    /// Encodes it as a `sensor_msgs/msg/Image` into `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut cdr = Writer::new(out);
        cdr.header(self.header);
        cdr.count(self.height);
        cdr.count(self.width);
        let (encoding, bytes) = match self.pixels {
            Pixels::Mono8(_) => ("mono8", 1),
            Pixels::Depth(_) => ("16UC1", 2),
        };
        cdr.text(encoding);
        // is_bigendian.
        cdr.put([0]);
        // step: bytes per row.
        cdr.count(bytes * self.width);
        match self.pixels {
            Pixels::Mono8(data) => cdr.bytes(data),
            Pixels::Depth(data) => {
                cdr.items(2 * data.len(), data.iter().map(|depth| depth.to_le_bytes()));
            }
        }
    }
}

/// Encodes a `vision_msgs/msg/Detection2DArray` with the visible `objects` into `out`. The `id` of a detection
/// is the object's number, and the `class_id` is its name, or its number if it has no name.
pub fn detections(header: Header<'_>, objects: &[TrackedObject], out: &mut Vec<u8>) {
    let mut cdr = Writer::new(out);
    cdr.header(header);
    let visible = || objects.iter().filter(|o| o.pixels > 0);
    cdr.count(visible().count());
    for object in visible() {
        let number = object.object.to_string();
        cdr.header(header);
        // One ObjectHypothesisWithPose.
        cdr.count(1);
        cdr.text(match object.name.as_str() {
            "" => &number,
            name => name,
        });
        cdr.floats([f64::from(object.confidence) / 255.0]);
        // No position, no rotation, and a covariance of 0: the pose is unknown.
        cdr.floats([0.0, 0.0, 0.0]);
        cdr.floats([0.0, 0.0, 0.0, 1.0]);
        cdr.floats([0.0; 36]);
        let b = object.bounds;
        let [x, y, width, height] = [b.x, b.y, b.width, b.height].map(f64::from);
        let theta = 0.0;
        cdr.floats([x + width / 2.0, y + height / 2.0, theta, width, height]);
        cdr.text(&number);
    }
}

/// Encodes a `vision_msgs/msg/LabelInfo` with the class names into `out`. The threshold is 0, because
/// classes are not thresholded.
pub fn label_info(header: Header<'_>, names: &[String], out: &mut Vec<u8>) {
    let mut cdr = Writer::new(out);
    cdr.header(header);
    // 255 means no class.
    let names = &names[..names.len().min(255)];
    cdr.count(names.len());
    for (class, name) in (0u16..).zip(names) {
        cdr.put(class.to_le_bytes());
        cdr.text(name);
    }
    cdr.put(0f32.to_le_bytes());
}

/// `FLOAT32` of `sensor_msgs/msg/PointField`.
const FLOAT32: u8 = 7;

/// Encodes a `sensor_msgs/msg/PointCloud2` with the features `[points, channels]` at points of the camera
/// image into `out`. Its fields, all 32-bit floats, are `x` and `y` in pixels, `z`, which is 0, and
/// `descriptor` with `channels` values.
pub fn points(
    header: Header<'_>,
    points: &[Point],
    (values, channels): (&[f32], usize),
    out: &mut Vec<u8>,
) {
    let mut cdr = Writer::new(out);
    cdr.header(header);
    let count = points.len().min(values.len() / channels.max(1));
    // height, width.
    cdr.count(1);
    cdr.count(count);
    let fields = [("x", 1), ("y", 1), ("z", 1), ("descriptor", channels)];
    cdr.count(fields.len());
    let mut offset = 0;
    for (name, count) in fields {
        cdr.text(name);
        cdr.count(offset);
        cdr.put([FLOAT32]);
        cdr.count(count);
        offset += 4 * count;
    }
    // is_bigendian.
    cdr.put([0]);
    // point_step, row_step.
    cdr.count(offset);
    cdr.count(count * offset);
    let data = points.iter().zip(values.chunks_exact(channels.max(1)));
    let floats = data.flat_map(|(point, features)| {
        let place = [f32::from(point.x), f32::from(point.y), 0.0];
        place.into_iter().chain(features.iter().copied())
    });
    cdr.items(count * offset, floats.map(f32::to_le_bytes));
    // is_dense: no value is missing.
    cdr.put([1]);
}

/// Level of a `diagnostic_msgs/msg/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `OK`.
    Ok = 0,
    /// `WARN`.
    Warn = 1,
    /// `ERROR`.
    Error = 2,
}

/// The status of one component.
#[derive(Debug, Clone, Copy)]
pub struct Status<'a> {
    /// Level.
    pub level: Level,
    /// Name of the component, prefixed with the name of its node.
    pub name: &'a str,
    /// Description.
    pub message: &'a str,
    /// Names and values.
    pub values: &'a [(&'a str, String)],
}

/// Encodes a `diagnostic_msgs/msg/DiagnosticArray` with one status into `out`.
pub fn diagnostics(stamp_ns: u64, status: &Status<'_>, out: &mut Vec<u8>) {
    let mut cdr = Writer::new(out);
    cdr.header(Header {
        stamp_ns,
        frame_id: "",
    });
    cdr.count(1);
    cdr.put([status.level as u8]);
    cdr.text(status.name);
    cdr.text(status.message);
    // hardware_id.
    cdr.text("");
    cdr.count(status.values.len());
    for (key, value) in status.values {
        cdr.text(key);
        cdr.text(value);
    }
}

#[cfg(test)]
mod tests;
