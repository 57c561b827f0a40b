//! The messages. Their order, names and types are frozen by the golden bytes in
//! `tests/golden.rs` and described for other languages in `docs/wire-format.md`.

use crate::MAX_BODY;
use crate::bounded::{Bytes, Text};
use crate::command::{Command, Reply};
use crate::error::{DecodeError, EncodeError};
use crate::handshake::Incompatible;
use crate::health::Health;
use crate::shape::{Fnv, Wire, wire_enum, wire_struct};

/// Most bytes of payload in one [`Band`] or one [`Features`] block.
pub const MAX_DATA: usize = 480;

/// Bytes of payload where the whole body may take no more than `max_body`.
pub(crate) const fn data_within(max_body: usize, largest: usize) -> usize {
    let around = largest - MAX_DATA;
    let least = crate::MIN_BODY - around;
    let room = max_body.saturating_sub(around);
    if room < least {
        least
    } else if room > MAX_DATA {
        MAX_DATA
    } else {
        room
    }
}

/// Most regions in one [`Regions`] message; more go into several.
pub const MAX_REGIONS: usize = 16;

wire_struct! {
    /// Who speaks. The first message of either side, and its answer.
    pub struct Hello<'a> {
        /// [`PROTOCOL`](crate::PROTOCOL) of the sender.
        pub protocol: u16,
        /// [`SCHEMA_HASH`] of the sender.
        pub schema: u64,
        /// What the sender is.
        pub role: Role,
        /// True where the other side shall answer with its own hello; false in
        /// the answer, so that greetings end.
        pub answer: bool,
        /// The largest body, in bytes, that the sender can take.
        pub max_body: u16,
        /// Program and version, for logs.
        #[serde(borrow)]
        pub name: Text<'a, 32>,
    }

    /// Asks for the other side's clock; see [`Timing`](crate::sync::Timing).
    #[derive(Copy, Eq)]
    pub struct TimeRequest {
        /// The sender's clock when sending, microseconds.
        pub sent_us: u64,
    }

    /// The answer to a [`TimeRequest`].
    #[derive(Copy, Eq)]
    pub struct TimeReply {
        /// `sent_us` of the request, unchanged.
        pub sent_us: u64,
        /// The answerer's clock when the request came, microseconds.
        pub received_us: u64,
        /// The answerer's clock when it answers, microseconds.
        pub replied_us: u64,
    }

    /// The name of one class. The names of a set are sent once after the
    /// greeting and again when the head changes, under a new set number.
    #[derive(Copy, Eq)]
    pub struct Label<'a> {
        /// Number of the set.
        pub set: u16,
        /// Number of classes in the set.
        pub classes: u16,
        /// Which class this names.
        pub class: u8,
        /// Its name.
        #[serde(borrow)]
        pub name: Text<'a, 32>,
    }

    /// A rectangle in pixels of the camera picture.
    #[derive(Copy, Eq, Default)]
    pub struct Rect {
        /// Left edge.
        pub x: u16,
        /// Top edge.
        pub y: u16,
        /// Width.
        pub width: u16,
        /// Height.
        pub height: u16,
    }

    /// A pixel of the camera picture.
    #[derive(Copy, Eq, Default)]
    pub struct Point {
        /// Column.
        pub x: u16,
        /// Row.
        pub y: u16,
    }

    /// What is about to come in answer to a query: sent before the [`Band`]s,
    /// [`Features`] or [`Regions`] of a frame. Those can be read without it.
    #[derive(Copy, Eq)]
    pub struct Answer {
        /// Number of the camera frame.
        pub frame: u32,
        /// Which query it answers.
        pub slot: u8,
        /// When the camera took it, microseconds of the sender's clock.
        pub stamp_us: u64,
        /// The part of the camera picture that it covers.
        pub source: Rect,
        /// What follows.
        pub content: Content,
    }

    /// A piece of a class map: `count` pixels from pixel `first` on, row after
    /// row, run-length coded. Every band stands on its own.
    #[derive(Copy, Eq)]
    pub struct Band<'a> {
        /// Number of the camera frame.
        pub frame: u32,
        /// Which query it answers.
        pub slot: u8,
        /// Width of the whole map, in pixels.
        pub width: u16,
        /// Height of the whole map, in pixels.
        pub height: u16,
        /// First pixel, `row * width + column`.
        pub first: u32,
        /// Number of pixels.
        pub count: u32,
        /// The run code; see [`runs`](crate::runs).
        #[serde(borrow)]
        pub runs: Bytes<'a, MAX_DATA>,
    }

    /// A piece of an answer in feature vectors: consecutive values, the
    /// channels of one vector together, vector after vector. Every block stands
    /// on its own.
    #[derive(Copy)]
    pub struct Features<'a> {
        /// Number of the camera frame.
        pub frame: u32,
        /// Which query it answers.
        pub slot: u8,
        /// Values per vector.
        pub channels: u16,
        /// Number of vectors in the whole answer.
        pub vectors: u32,
        /// First value, `vector * channels + channel`.
        pub first: u32,
        /// The values.
        #[serde(borrow)]
        pub values: Values<'a>,
    }

    /// Connected areas of one class, largest first: what an avoider needs.
    pub struct Regions {
        /// Number of the camera frame.
        pub frame: u32,
        /// Which query it answers.
        pub slot: u8,
        /// Number of regions in the whole answer.
        pub total: u16,
        /// Position of the first of `items` among them.
        pub first: u16,
        /// The regions.
        pub items: heapless::Vec<Region, MAX_REGIONS>,
    }

    /// A connected area of one class.
    #[derive(Copy, Eq)]
    pub struct Region {
        /// Its class.
        pub class: u8,
        /// Smallest rectangle around it.
        pub bounds: Rect,
        /// Its centre of mass.
        pub centre: Point,
        /// Its size, in pixels of the answer.
        pub pixels: u32,
        /// Mean probability of its class, 255 for certainty.
        pub score: u8,
    }
}

wire_enum! {
    /// What a side is.
    #[derive(Copy, Eq)]
    pub enum Role {
        /// The perception node, which sees.
        Node,
        /// A controller, which acts.
        Controller,
        /// A tool that looks on.
        Monitor,
    }

    /// What an [`Answer`] consists of.
    #[derive(Copy, Eq)]
    pub enum Content {
        /// [`Band`]s of a class map.
        Classes {
            /// Width of the map.
            width: u16,
            /// Height of the map.
            height: u16,
            /// The [`Label`] set its classes belong to.
            labels: u16,
        },
        /// [`Features`] blocks.
        Features {
            /// Width of the grid; the number of points where points were asked.
            width: u16,
            /// Height of the grid; 1 where points were asked.
            height: u16,
            /// Values per vector.
            channels: u16,
        },
        /// [`Regions`].
        Regions {
            /// Their number.
            total: u16,
            /// The [`Label`] set their classes belong to.
            labels: u16,
        },
    }

    /// Feature values in one of two codes.
    #[derive(Copy)]
    pub enum Values<'a> {
        /// IEEE 754 binary16, little-endian.
        F16(#[serde(borrow)] Bytes<'a, MAX_DATA>),
        /// One byte each: `offset + scale * byte`.
        U8 {
            /// Step between neighbouring bytes.
            scale: f32,
            /// Value of byte 0.
            offset: f32,
            /// The bytes.
            #[serde(borrow)]
            data: Bytes<'a, MAX_DATA>,
        },
    }
}

/// Name, number and largest size of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindInfo {
    /// Its number in the frame.
    pub kind: u8,
    /// Its name.
    pub name: &'static str,
    /// Largest encoded body, in bytes.
    pub max_size: usize,
    /// Hash of its layout.
    pub shape: u64,
}

macro_rules! messages {
    (<$a:lifetime> $( $(#[$meta:meta])* $number:literal $name:ident ( $type:ty ) ),* $(,)?) => {
        /// Any message, borrowed from its frame.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Message<$a> {
            $( $(#[$meta])* $name($type) ),*
        }

        impl<$a> Message<$a> {
            /// Every kind of message.
            pub const KINDS: &'static [KindInfo] = &[ $( KindInfo {
                kind: $number,
                name: stringify!($name),
                max_size: <$type as Wire>::MAX_SIZE,
                shape: <$type as Wire>::SHAPE,
            } ),* ];

            /// The number that stands for it in a frame.
            #[must_use]
            pub const fn kind(&self) -> u8 {
                match self { $( Message::$name(_) => $number ),* }
            }

            /// Its name.
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
    /// Greeting.
    0x01 Hello(Hello<'a>),
    /// Clock, asked.
    0x02 TimeRequest(TimeRequest),
    /// Clock, answered.
    0x03 TimeReply(TimeReply),
    /// Name of a class.
    0x10 Label(Label<'a>),
    /// What is about to come.
    0x11 Answer(Answer),
    /// A piece of a class map.
    0x12 Band(Band<'a>),
    /// A piece of a feature answer.
    0x13 Features(Features<'a>),
    /// Connected areas.
    0x14 Regions(Regions),
    /// How the node is.
    0x20 Health(Health),
    /// What the node shall do.
    0x30 Command(Command<'a>),
    /// What became of a command.
    0x31 Reply(Reply),
}

impl<'a> Message<'a> {
    /// Reads the body of a message of kind `kind`.
    ///
    /// # Errors
    /// [`DecodeError::UnknownKind`], [`DecodeError::Body`] where the bytes are
    /// not of that kind, [`DecodeError::Trailing`] where bytes are left,
    /// [`DecodeError::Incompatible`] where that is a hello of another version.
    pub fn decode(kind: u8, body: &'a [u8]) -> Result<Self, DecodeError> {
        let message = Message::decode_exactly(kind, body);
        if kind == KIND_HELLO && message.is_err() {
            // Its first two fields stay where they are in every version.
            let versions = postcard::take_from_bytes::<(u16, u64)>(body);
            if let Ok(((protocol, schema), _)) = versions {
                Incompatible::check(protocol, schema).map_err(DecodeError::Incompatible)?;
            }
        }
        message
    }
}

impl Message<'_> {
    /// Writes the body alone, without frame, into `out`; gives its length.
    ///
    /// # Errors
    /// [`EncodeError::BufferTooSmall`].
    pub fn encode_body(&self, out: &mut [u8]) -> Result<usize, EncodeError> {
        let room = out.len();
        self.encode(postcard::ser_flavors::Slice::new(out))
            .map(|written| written.len())
            .map_err(|cause| EncodeError::from_postcard(cause, room))
    }
}

/// The number of the kind [`Message::Hello`].
pub(crate) const KIND_HELLO: u8 = 0x01;

/// Hash over every message: its number, name and layout, and over the sizes
/// that both sides must agree on. Two programs with the same value read each
/// other's messages.
pub const SCHEMA_HASH: u64 = {
    const KINDS: &[KindInfo] = Message::<'static>::KINDS;
    let mut hash = Fnv::new().number(MAX_BODY as u64);
    let mut i = 0;
    while i < KINDS.len() {
        assert!(KINDS[i].max_size <= MAX_BODY, "a message is too large");
        hash = hash
            .number(KINDS[i].kind as u64)
            .name(KINDS[i].name)
            .number(KINDS[i].shape);
        i += 1;
    }
    hash.finish()
};
