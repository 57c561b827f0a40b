//! ROS 2 messages in the encoding of `rmw_zenoh`: little-endian CDR bodies, key expressions, liveliness
//! tokens and attachments. ROS itself is not needed.
//!
//! | messages | module |
//! |---|---|
//! | published: `sensor_msgs` `Image` and `PointCloud2`, `vision_msgs` `LabelInfo` and `Detection2DArray`, `diagnostic_msgs` `DiagnosticArray` | `messages` |
//! | received: `sensor_msgs` `Image` and `CompressedImage` | `image` |
//! | requests and responses: `std_srvs` `SetBool` and the parameter services of `rcl_interfaces` | `services` |
//!
//! These modules do not depend on zenoh; `session` does.

mod cdr;
mod image;
mod keys;
mod messages;
mod numbering;
mod services;
#[cfg(feature = "zenoh")]
pub(crate) mod session;

pub use cdr::{CdrError, Header};
pub use image::{CompressedImage, ENCODINGS, MessageError, RawImage};
pub use keys::*;
pub use messages::{Image, Level, Pixels, Status, detections, diagnostics, label_info, points};
pub use numbering::Numbering;
pub use services::{MAX_REQUEST, Service, Settings, answer};

/// Default endpoint of the router of `rmw_zenoh` (`rmw_zenohd`).
pub const ROUTER: &str = "tcp/localhost:7447";

/// Name of [`DETECTIONS`] in MCAP files.
pub const DETECTIONS_NAME: &str = "vision_msgs/msg/Detection2DArray";

/// Its definition, including the definitions of nested messages.
pub const DETECTIONS_DEFINITION: &str = include_str!("Detection2DArray.msg");

/// Name of [`POINTS`] in MCAP files.
pub const POINTS_NAME: &str = "sensor_msgs/msg/PointCloud2";

/// Its definition, including the definitions of nested messages.
pub const POINTS_DEFINITION: &str = include_str!("PointCloud2.msg");

/// Returns the definition of a message for MCAP files.
pub fn definition(name: &str) -> Option<&'static str> {
    match name {
        DETECTIONS_NAME => Some(DETECTIONS_DEFINITION),
        POINTS_NAME => Some(POINTS_DEFINITION),
        _ => None,
    }
}
