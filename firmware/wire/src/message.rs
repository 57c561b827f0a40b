//! The messages. Their order, names and types are frozen by the golden bytes in
//! `tests/golden.rs`; `docs/wire-format.md` describes them for other languages.

pub use crate::geometry::{Point, Rect};

use crate::bounded::{Bytes, Text};
use crate::command::{Command, Reply};
use crate::error::{DecodeError, EncodeError, Incompatible};
use crate::health::Health;
use crate::schema::{Fnv, Schema, schema_name, wire_enum, wire_struct};
use crate::{MAX_BODY, PROTOCOL};

/// Maximum payload of one [`MapChunk`], [`DepthChunk`] or [`Features`] message, in bytes.
pub const MAX_DATA: usize = 480;

/// Payload bytes that fit in a body of `max_body` bytes, for a message whose body has at most `max_size`
/// bytes; at least as many as fit in [`MIN_BODY`](crate::MIN_BODY).
pub(crate) const fn payload_within(max_body: usize, max_size: usize) -> usize {
    let overhead = max_size - MAX_DATA;
    let min = crate::MIN_BODY - overhead;
    let payload = max_body.saturating_sub(overhead);
    if payload < min {
        min
    } else if payload > MAX_DATA {
        MAX_DATA
    } else {
        payload
    }
}

/// Maximum number of regions in one [`Regions`] message; more are split over several.
pub const MAX_REGIONS: usize = 16;

wire_struct! {
    /// Identifies the sender: the first message of either side, and the reply to it.
    pub struct Hello<'a> {
        /// [`crate::PROTOCOL`] of the sender.
        pub protocol: u16,
        /// [`SCHEMA_HASH`] of the sender.
        pub schema: u64,
        /// Role of the sender.
        pub role: Role,
        /// True to request a hello from the other side; false in the reply, so
        /// that the exchange ends.
        pub answer: bool,
        /// The largest body that the sender accepts, in bytes.
        pub max_body: u16,
        /// Program and version, for logs.
        #[serde(borrow)]
        pub name: Text<'a, 32>,
    }

    /// Requests the other side's clock; see [`Timing`](crate::sync::Timing).
    #[derive(Copy, Eq)]
    pub struct TimeRequest {
        /// The sender's clock when it sent the request, in microseconds.
        pub sent_us: u64,
    }

    /// The reply to a [`TimeRequest`].
    #[derive(Copy, Eq)]
    pub struct TimeReply {
        /// `sent_us` of the request, unchanged.
        pub sent_us: u64,
        /// The replier's clock when the request arrived, in microseconds.
        pub received_us: u64,
        /// The replier's clock when it sent the reply, in microseconds.
        pub replied_us: u64,
    }

    /// The name of one class. The names of a label set are sent once after the
    /// handshake, and again under a new set number when the head changes.
    #[derive(Copy, Eq)]
    pub struct Label<'a> {
        /// Number of the label set.
        pub set: u16,
        /// Number of classes in the set.
        pub classes: u16,
        /// The class.
        pub class: u8,
        /// Its name.
        #[serde(borrow)]
        pub name: Text<'a, 32>,
    }

    /// Announces the result of a query. Sent before the messages of a frame that
    /// contain it, which can also be read without it.
    #[derive(Copy, Eq)]
    pub struct Answer {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Capture time, in microseconds of the sender's clock.
        pub stamp_us: u64,
        /// The part of the camera image that the result covers.
        pub source: Rect,
        /// The kind and size of the result.
        pub content: Content,
    }

    /// Part of a class map: `count` consecutive pixels in row-major order,
    /// starting at pixel `first`, run-length coded. Each chunk can be decoded on
    /// its own.
    #[derive(Copy, Eq)]
    pub struct MapChunk<'a> as "Band" {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Width of the complete map, in pixels.
        pub width: u16,
        /// Height of the complete map, in pixels.
        pub height: u16,
        /// First pixel, `row * width + column`.
        pub first: u32,
        /// Number of pixels.
        pub count: u32,
        /// The run-length code; see [`runs`](crate::runs).
        #[serde(borrow)]
        pub runs: Bytes<'a, MAX_DATA>,
    }

    /// Part of a feature result: consecutive values of `[vectors][channels]`.
    /// Each chunk can be decoded on its own.
    #[derive(Copy)]
    pub struct Features<'a> {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Values per vector.
        pub channels: u16,
        /// Number of vectors in the complete result.
        pub vectors: u32,
        /// First value, `vector * channels + channel`.
        pub first: u32,
        /// The values.
        #[serde(borrow)]
        pub values: Values<'a>,
    }

    /// Part of a depth map: `count` consecutive pixels in row-major order, starting
    /// at pixel `first`. Each chunk can be decoded on its own.
    #[derive(Copy, Eq)]
    pub struct DepthChunk<'a> {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Width of the complete map, or the number of points of a point query.
        pub width: u16,
        /// Height of the complete map; 1 for a point query.
        pub height: u16,
        /// First pixel, `row * width + column`.
        pub first: u32,
        /// Number of pixels.
        pub count: u32,
        /// The depths; see [`depth`](crate::depth).
        #[serde(borrow)]
        pub code: Bytes<'a, MAX_DATA>,
    }

    /// A tracked object. The masks of all objects of a frame follow in [`MapChunk`]
    /// messages, whose classes are the objects' numbers; 0 is the background.
    #[derive(Copy, Eq)]
    pub struct Object<'a> {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Number of objects in the complete result.
        pub total: u8,
        /// Index of this one among them.
        pub index: u8,
        /// Its number, which does not change until it is stopped.
        pub object: u8,
        /// Its name.
        #[serde(borrow)]
        pub name: Text<'a, 32>,
        /// Bounding box; empty while the object is not visible.
        pub bounds: Rect,
        /// Area, in pixels of the mask; 0 while it is not visible.
        pub pixels: u32,
        /// Confidence; 255 is 1.
        pub confidence: u8,
    }

    /// Connected regions of one class, largest first, as needed for obstacle
    /// avoidance.
    pub struct Regions {
        /// Camera frame number.
        pub frame: u32,
        /// Slot of the query.
        pub slot: u8,
        /// Number of regions in the complete result.
        pub total: u16,
        /// Index of the first of `items` among them.
        pub first: u16,
        /// The regions.
        pub items: heapless::Vec<Region, MAX_REGIONS>,
    }

    /// A connected region of one class.
    #[derive(Copy, Eq)]
    pub struct Region {
        /// Its class.
        pub class: u8,
        /// Bounding box.
        pub bounds: Rect,
        /// Centroid.
        pub centre: Point,
        /// Area, in pixels of the class map.
        pub pixels: u32,
        /// Mean probability of its class; 255 is 1.
        pub score: u8,
    }
}

wire_enum! {
    /// The role of a side.
    #[derive(Copy, Eq)]
    pub enum Role {
        /// The perception node.
        Node,
        /// A controller, which acts on the results.
        Controller,
        /// A passive observer.
        Monitor,
    }

    /// The kind and size of a result.
    #[derive(Copy, Eq)]
    pub enum Content {
        /// A class map, in [`MapChunk`] messages.
        Classes {
            /// Width of the map.
            width: u16,
            /// Height of the map.
            height: u16,
            /// The [`Label`] set of the classes.
            labels: u16,
        },
        /// Feature vectors, in [`Features`] messages.
        Features {
            /// Width of the grid, or the number of points of a point query.
            width: u16,
            /// Height of the grid; 1 for a point query.
            height: u16,
            /// Values per vector.
            channels: u16,
        },
        /// Regions, in [`Regions`] messages.
        Regions {
            /// Number of regions.
            total: u16,
            /// The [`Label`] set of the classes.
            labels: u16,
        },
        /// A depth map, in [`DepthChunk`] messages.
        Depth {
            /// Width of the map, or the number of points of a point query.
            width: u16,
            /// Height of the map; 1 for a point query.
            height: u16,
        },
        /// Tracked objects in [`Object`] messages, and their masks in [`MapChunk`]
        /// messages.
        Objects {
            /// Number of objects.
            total: u8,
            /// Width of the masks.
            width: u16,
            /// Height of the masks.
            height: u16,
        },
    }

    /// Feature values in one of two encodings.
    #[derive(Copy)]
    pub enum Values<'a> {
        /// IEEE 754 binary16, little-endian.
        F16(#[serde(borrow)] Bytes<'a, MAX_DATA>),
        /// One byte each: `offset + scale * byte`.
        U8 {
            /// Difference between adjacent byte values.
            scale: f32,
            /// Value of byte 0.
            offset: f32,
            /// The bytes.
            #[serde(borrow)]
            data: Bytes<'a, MAX_DATA>,
        },
    }
}

/// Describes one kind of message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// The kind byte in the frame header.
    pub kind: u8,
    /// Name of the message.
    pub name: &'static str,
    /// Maximum size of the encoded body, in bytes.
    pub max_size: usize,
    /// Name in [`SCHEMA_HASH`], which a rename of the message does not change.
    pub schema_name: &'static str,
    /// Hash of its layout.
    pub schema_hash: u64,
}

macro_rules! messages {
    (<$a:lifetime> $( $(#[$meta:meta])* $number:literal $name:ident $(as $schema:literal)? ( $type:ty ) ),* $(,)?) => {
        /// A message, borrowed from its frame.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Message<$a> {
            $( $(#[$meta])* $name($type) ),*
        }

        impl<$a> Message<$a> {
            /// All kinds of messages.
            pub const KINDS: &'static [KindInfo] = &[ $( KindInfo {
                kind: $number,
                name: stringify!($name),
                schema_name: schema_name!($name $($schema)?),
                max_size: <$type as Schema>::MAX_SIZE,
                schema_hash: <$type as Schema>::HASH,
            } ),* ];

            /// The kind byte in the frame header.
            #[must_use]
            pub const fn kind(&self) -> u8 {
                match self { $( Message::$name(_) => $number ),* }
            }

            /// Name of the message.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $( Message::$name(_) => stringify!($name) ),* }
            }

            pub(crate) fn encode<F>(&self, flavor: F) -> Result<F::Output, postcard::Error>
            where
                F: postcard::ser_flavors::Flavor,
            {
                match self {
                    $( Message::$name(body) => postcard::serialize_with_flavor(body, flavor) ),*
                }
            }

            fn decode_exactly(kind: u8, body: &$a [u8]) -> Result<Self, DecodeError> {
                match kind {
                    $( $number => {
                        let (message, rest) = postcard::take_from_bytes(body)
                            .map_err(|cause| DecodeError::Body { kind, cause })?;
                        if !rest.is_empty() {
                            return Err(DecodeError::Trailing { kind, extra: rest.len() });
                        }
                        Ok(Message::$name(message))
                    } )*
                    kind => Err(DecodeError::UnknownKind(kind)),
                }
            }
        }

        $( impl<$a> From<$type> for Message<$a> {
            fn from(body: $type) -> Self {
                Message::$name(body)
            }
        } )*
    };
}

messages! { <'a>
    /// Handshake.
    0x01 Hello(Hello<'a>),
    /// Clock request.
    0x02 TimeRequest(TimeRequest),
    /// Clock reply.
    0x03 TimeReply(TimeReply),
    /// Class name.
    0x10 Label(Label<'a>),
    /// Announcement of a result.
    0x11 Answer(Answer),
    /// Part of a class map.
    0x12 MapChunk as "Band" (MapChunk<'a>),
    /// Part of a feature result.
    0x13 Features(Features<'a>),
    /// Connected regions.
    0x14 Regions(Regions),
    /// Part of a depth map.
    0x15 DepthChunk(DepthChunk<'a>),
    /// Tracked object.
    0x16 Object(Object<'a>),
    /// Health of the node.
    0x20 Health(Health),
    /// Command to the node.
    0x30 Command(Command<'a>),
    /// Reply to a command.
    0x31 Reply(Reply),
}

impl<'a> Message<'a> {
    /// Decodes the body of a message of kind `kind`.
    ///
    /// # Errors
    /// [`DecodeError::UnknownKind`]; [`DecodeError::Body`] if the bytes are not a
    /// message of that kind; [`DecodeError::Trailing`] if bytes are left over;
    /// [`DecodeError::Incompatible`] for a hello of another version.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let message = Message::decode_exactly(kind, body);
        if kind == KIND_HELLO && message.is_err() {
            // The first two fields are the same in every version.
            let versions = postcard::take_from_bytes::<(u16, u64)>(body);
            if let Ok(((protocol, schema), _)) = versions {
                check_versions(protocol, schema).map_err(DecodeError::Incompatible)?;
            }
        }
        message
    }
}

impl Message<'_> {
    /// Encodes the body, without a frame, into `out`; returns its length.
    ///
    /// # Errors
    /// [`EncodeError::BufferTooSmall`].
    pub fn encode_body(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let capacity = out.len();
        self.encode(postcard::ser_flavors::Slice::new(out))
            .map(|written| written.len())
            .map_err(|cause| EncodeError::from_postcard(cause, capacity))
    }
}

/// The kind byte of [`Message::Hello`].
pub(crate) const KIND_HELLO: u8 = 0x01;

/// Hash of the kind, name and layout of every message and of the sizes that both
/// sides must agree on. Two programs with the same value can decode each other's
/// messages.
pub const SCHEMA_HASH: u64 = {
    const KINDS: &[KindInfo] = Message::<'static>::KINDS;
    let mut hash = Fnv::new().number(MAX_BODY as u64);
    let mut i = 0;
    while i < KINDS.len() {
        assert!(KINDS[i].max_size <= MAX_BODY, "a message is too large");
        hash = hash
            .number(KINDS[i].kind as u64)
            .name(KINDS[i].schema_name)
            .number(KINDS[i].schema_hash);
        i += 1;
    }
    hash.finish()
};

/// Compares the other side's versions with this side's.
pub(crate) const fn check_versions(protocol: u16, schema: u64) -> Result<(), Incompatible> {
    if protocol != PROTOCOL {
        return Err(Incompatible::Protocol {
            ours: PROTOCOL,
            theirs: protocol,
        });
    }
    if schema != SCHEMA_HASH {
        return Err(Incompatible::Schema {
            ours: SCHEMA_HASH,
            theirs: schema,
        });
    }
    Ok(())
}
