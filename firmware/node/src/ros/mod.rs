//! ROS 2 messages in the encoding of `rmw_zenoh`: little-endian CDR bodies, key expressions, liveliness
//! tokens and attachments. ROS itself is not needed.
//!
//! The messages are `sensor_msgs/msg/Image`, `vision_msgs/msg/LabelInfo` and
//! `vision_msgs/msg/Detection2DArray`. The key of a topic is
//! `domain/topic/type/hash`, with the hash of the type description (REP 2016) as in every
//! distribution since Iron.

use crate::output::TrackedObject;

/// Encodes a CDR body. Alignment is relative to the end of the encapsulation header.
#[derive(Debug)]
struct Cdr<'a>(&'a mut Vec<u8>);

/// CDR, little-endian, no options.
const ENCAPSULATION: [u8; 4] = [0, 1, 0, 0];

impl<'a> Cdr<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&ENCAPSULATION);
        Self(out)
    }

    fn align(&mut self, to: usize) {
        let at = self.0.len() - ENCAPSULATION.len();
        self.0
            .resize(self.0.len() + at.next_multiple_of(to) - at, 0);
    }

    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    /// A 32-bit length or count.
    fn count(&mut self, n: usize) {
        // Larger images are rejected earlier.
        self.put(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn floats<const N: usize>(&mut self, values: [f64; N]) {
        values.iter().for_each(|x| self.put(x.to_le_bytes()));
    }

    /// A string with its terminating zero.
    fn text(&mut self, text: &str) {
        self.count(text.len() + 1);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// `std_msgs/msg/Header`.
    fn header(&mut self, stamp_ns: u64, frame_id: &str) {
        let seconds = i32::try_from(stamp_ns / 1_000_000_000).unwrap_or(i32::MAX);
        self.put(seconds.to_le_bytes());
        self.count((stamp_ns % 1_000_000_000) as usize);
        self.text(frame_id);
    }
}

/// A message type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Type {
    /// Name in keys.
    pub name: &'static str,
    /// Hash of the type description.
    pub hash: &'static str,
}

/// `sensor_msgs/msg/Image`.
pub const IMAGE: Type = Type {
    name: "sensor_msgs::msg::dds_::Image_",
    hash: "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47",
};

/// `vision_msgs/msg/LabelInfo`.
pub const LABEL_INFO: Type = Type {
    name: "vision_msgs::msg::dds_::LabelInfo_",
    hash: "RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783",
};

/// `vision_msgs/msg/Detection2DArray`.
pub const DETECTIONS: Type = Type {
    name: "vision_msgs::msg::dds_::Detection2DArray_",
    hash: "RIHS01_214274120007f4a683866481336b70310268cfa107aebe9d594a6acf75bda968",
};

/// Name of [`DETECTIONS`] in MCAP files.
pub const DETECTIONS_NAME: &str = "vision_msgs/msg/Detection2DArray";

/// Its definition, with those of the messages in it.
pub const DETECTIONS_DEFINITION: &str = include_str!("Detection2DArray.msg");

/// The pixels of an image, `[height, width]`.
#[derive(Debug, Clone, Copy)]
pub enum Pixels<'a> {
    /// One byte for each: `mono8`.
    Mono8(&'a [u8]),
    /// Millimeters, 0 for no depth: `16UC1`, as depth cameras publish.
    Depth(&'a [u16]),
}

/// An image.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Capture time, nanoseconds since 1970-01-01 UTC.
    pub stamp_ns: u64,
    /// Frame of reference.
    pub frame_id: &'a str,
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
        let mut cdr = Cdr::new(out);
        cdr.header(self.stamp_ns, self.frame_id);
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
                cdr.count(2 * data.len());
                cdr.0
                    .extend(data.iter().flat_map(|depth| depth.to_le_bytes()));
            }
        }
    }
}

/// Encodes a `vision_msgs/msg/Detection2DArray` with the visible ones among `objects` into `out`. The `id` of a
/// detection is the number of the object, and the `class_id` its name, or its number if it has none.
pub fn detections(stamp_ns: u64, frame_id: &str, objects: &[TrackedObject], out: &mut Vec<u8>) {
    let mut cdr = Cdr::new(out);
    cdr.header(stamp_ns, frame_id);
    let visible = || objects.iter().filter(|o| o.pixels > 0);
    cdr.count(visible().count());
    for object in visible() {
        let number = object.object.to_string();
        cdr.header(stamp_ns, frame_id);
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
pub fn label_info(stamp_ns: u64, frame_id: &str, names: &[String], out: &mut Vec<u8>) {
    let mut cdr = Cdr::new(out);
    cdr.header(stamp_ns, frame_id);
    // 255 means no class.
    let names = &names[..names.len().min(255)];
    cdr.count(names.len());
    for (class, name) in (0u16..).zip(names) {
        cdr.put(class.to_le_bytes());
        cdr.text(name);
    }
    cdr.put(0f32.to_le_bytes());
}

/// The attachment of a message: its number, the time it was sent (nanoseconds since 1970-01-01 UTC)
/// and its publisher, in zenoh's serialization.
pub fn attachment(sequence: i64, sent_ns: i64, publisher: [u8; 16]) -> [u8; 33] {
    let mut out = [0; 33];
    out[..8].copy_from_slice(&sequence.to_le_bytes());
    out[8..16].copy_from_slice(&sent_ns.to_le_bytes());
    // Length of the publisher ID.
    out[16] = 16;
    out[17..].copy_from_slice(&publisher);
    out
}

/// The key expression of a topic such as `/loftup/slot_0/classes`.
pub fn topic_key(domain: u32, topic: &str, of: Type) -> String {
    let topic = topic.trim_matches('/');
    format!("{domain}/{topic}/{}/{}", of.name, of.hash)
}

/// Replaces slashes, which are separators in keys.
fn mangled(name: &str) -> String {
    name.replace('/', "%")
}

/// The liveliness token of a node without namespace. `session` is its zenoh ID.
pub fn node_token(domain: u32, session: &str, node: &str) -> String {
    format!("@ros2_lv/{domain}/{session}/0/0/NN/%/%/{node}")
}

/// The liveliness token of publisher `id` of a node. `latched` topics are transient local.
pub fn publisher_token(
    domain: u32,
    session: &str,
    node: &str,
    id: u32,
    (topic, of): (&str, Type),
    latched: bool,
) -> String {
    // Reliability, durability, history and depth, then deadline, lifespan and liveliness. Empty values
    // are the defaults: reliable, volatile, keep last. Durability 1 is transient local.
    let durability = if latched { "1" } else { "" };
    format!(
        "@ros2_lv/{domain}/{session}/0/{id}/MP/%/%/{node}/{}/{}/{}/:{durability}:,1:,:,:,,",
        mangled(topic),
        of.name,
        of.hash
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_encoded_byte_by_byte() {
        let image = Image {
            stamp_ns: 1_700_000_000_000_000_007,
            frame_id: "camera",
            width: 3,
            height: 2,
            pixels: Pixels::Mono8(&[1, 2, 3, 4, 5, 255]),
        };
        // Previous contents are replaced.
        let mut out = vec![9; 200];
        image.encode(&mut out);
        #[rustfmt::skip]
        let expected = [
            0, 1, 0, 0, // little-endian CDR
            0x00, 0xF1, 0x53, 0x65, // 1 700 000 000 s
            7, 0, 0, 0, // 7 ns
            7, 0, 0, 0, b'c', b'a', b'm', b'e', b'r', b'a', 0,
            0, // to a multiple of 4
            2, 0, 0, 0, // height
            3, 0, 0, 0, // width
            6, 0, 0, 0, b'm', b'o', b'n', b'o', b'8', 0,
            0, // is_bigendian
            0, // to a multiple of 4
            3, 0, 0, 0, // step
            6, 0, 0, 0, 1, 2, 3, 4, 5, 255,
        ];
        assert_eq!(out, expected);
    }

    /// Messages that another encoder has written (`tools/make_ros_fixtures.py`).
    #[test]
    fn messages_are_those_of_another_encoder() {
        use crate::objects::named;
        use loftup_wire::message::Rect;

        let stamp_ns = 1_700_000_000_000_000_007;
        let object = |object, name, confidence, [x, y, width, height]: [u16; 4]| TrackedObject {
            object,
            name: named(name),
            bounds: Rect {
                x,
                y,
                width,
                height,
            },
            pixels: u32::from(width),
            confidence,
        };
        let objects = [
            object(7, "mug", 204, [5, 300, 640, 7]),
            object(9, "hidden", 0, [0; 4]),
            object(12, "Straße", 255, [0, 0, 1, 1]),
            object(3, "", 0, [1, 2, 3, 4]),
        ];
        let mut out = Vec::new();
        detections(stamp_ns, "camera", &objects, &mut out);
        assert_eq!(out, include_bytes!("../../tests/data/ros/detections.cdr"));
        detections(stamp_ns, "camera", &objects[1..2], &mut out);
        assert_eq!(
            out,
            include_bytes!("../../tests/data/ros/no_detections.cdr")
        );
        let image = Image {
            stamp_ns,
            frame_id: "camera",
            width: 3,
            height: 2,
            pixels: Pixels::Depth(&[0, 1, 1234, 65535, 256, 7]),
        };
        image.encode(&mut out);
        assert_eq!(out, include_bytes!("../../tests/data/ros/depth.cdr"));
    }

    #[test]
    fn labels_are_encoded_byte_by_byte() {
        let names = ["road".to_owned(), "go".to_owned(), "sky".to_owned()];
        let mut out = Vec::new();
        label_info(5_000_000_001, "", &names, &mut out);
        #[rustfmt::skip]
        let expected = [
            0, 1, 0, 0, // little-endian CDR
            5, 0, 0, 0, 1, 0, 0, 0, // 5.000000001 s
            1, 0, 0, 0, 0, // an empty name: its zero
            0, 0, 0, // to a multiple of 4
            3, 0, 0, 0, // entries
            0, 0, // class
            0, 0, // to a multiple of 4
            5, 0, 0, 0, b'r', b'o', b'a', b'd', 0,
            0, // to a multiple of 2
            1, 0, // class; its name begins at a multiple of 4
            3, 0, 0, 0, b'g', b'o', 0,
            0, // to a multiple of 2
            2, 0, // class
            0, 0, // to a multiple of 4
            4, 0, 0, 0, b's', b'k', b'y', 0,
            0, 0, 0, 0, // threshold
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn keys_tokens_and_attachments_match_rmw_zenoh() {
        assert_eq!(
            topic_key(2, "/loftup/slot_0/classes", IMAGE),
            "2/loftup/slot_0/classes/sensor_msgs::msg::dds_::Image_/\
             RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"
        );
        assert_eq!(
            node_token(0, "aac3178e146ba6f1fc6e6a4085e77f21", "loftup"),
            "@ros2_lv/0/aac3178e146ba6f1fc6e6a4085e77f21/0/0/NN/%/%/loftup"
        );
        let topic = ("/loftup/slot_0/label_info", LABEL_INFO);
        assert_eq!(
            publisher_token(0, "ab", "loftup", 3, topic, true),
            "@ros2_lv/0/ab/0/3/MP/%/%/loftup/%loftup%slot_0%label_info/\
             vision_msgs::msg::dds_::LabelInfo_/\
             RIHS01_3d37df4015cdf660cc851c51897f2acd957e1ca6205ba0a99aebffb9406b0783/:1:,1:,:,:,,"
        );
        let bytes = attachment(0x0102, -1, [7; 16]);
        assert_eq!(bytes[..8], [2, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[8..17], [255, 255, 255, 255, 255, 255, 255, 255, 16]);
        assert_eq!(bytes[17..], [7; 16]);
    }
}
