//! Commands from a controller to the node, and the replies.
//!
//! A command whose reply was lost can be repeated: all commands are idempotent, except
//! starting an object. A repetition starts the object at the same position in a later
//! frame, so repeat it soon or not at all.

use crate::bounded::{Bytes, Text};
use crate::geometry::{Point, Rect};
use crate::schema::{wire_enum, wire_struct};

/// Maximum length of the code of a mask in a command, in bytes.
pub const MAX_MASK: usize = 448;

/// Maximum number of points in one query.
pub const MAX_POINTS: usize = 64;

wire_struct! {
    /// A command; the [`Reply`] has the same number.
    pub struct Command<'a> {
        /// Chosen by the sender; the same in a retransmission.
        pub id: u16,
        /// What to do.
        #[serde(borrow)]
        pub action: Action<'a>,
    }

    /// The reply to a [`Command`].
    #[derive(Copy, Eq)]
    pub struct Reply {
        /// The number of the command.
        pub id: u16,
        /// The outcome.
        pub outcome: Outcome,
    }
}

wire_enum! {
    /// What to do.
    #[allow(clippy::large_enum_variant, reason = "no allocation")]
    pub enum Action<'a> {
        /// Only sends a reply.
        Ping,
        /// Start processing queries, from the next frame on.
        Start,
        /// Stop processing queries.
        Stop,
        /// Limit the frame rate; 0 is unlimited.
        SetRate {
            /// Frames per thousand seconds (millihertz).
            mhz: u32,
        },
        /// Use the head with this name.
        SetHead(#[serde(borrow)] Text<'a, 32>),
        /// Set the query of a slot, replacing its previous query.
        SetQuery {
            /// The slot.
            slot: u8,
            /// The pixels.
            area: Area,
            /// What to compute for them.
            want: Want,
        },
        /// Remove the query of a slot.
        ClearQuery {
            /// The slot.
            slot: u8,
        },
        /// Start or restart tracking an object in the next frame.
        StartObject {
            /// Its number, from 1, chosen by the sender.
            object: u8,
            /// Its name.
            #[serde(borrow)]
            name: Text<'a, 32>,
            /// Its position.
            #[serde(borrow)]
            seed: Seed<'a>,
        },
        /// Stop tracking an object.
        StopObject {
            /// Its number.
            object: u8,
        },
        /// Change the name of an object.
        RenameObject {
            /// Its number.
            object: u8,
            /// Its name.
            #[serde(borrow)]
            name: Text<'a, 32>,
        },
        /// Replace the words to find by those of the file or head with this name.
        SetWords(#[serde(borrow)] Text<'a, 32>),
    }

    /// The position of an object in the camera image.
    #[derive(Copy, Eq)]
    pub enum Seed<'a> {
        /// Everything inside a rectangle.
        Box(Rect),
        /// The connected pixels around a pixel that are similar to it.
        Point(Point),
        /// The pixels of a mask, which covers the camera image at any resolution.
        Mask {
            /// Width of the mask.
            width: u16,
            /// Height of the mask.
            height: u16,
            /// Its code; see [`mask`](crate::mask).
            #[serde(borrow)]
            runs: Bytes<'a, MAX_MASK>,
        },
    }

    /// The pixels of a query.
    #[allow(clippy::large_enum_variant, reason = "no allocation")]
    pub enum Area {
        /// The whole image.
        Frame,
        /// A rectangle.
        Region(Rect),
        /// Individual pixels.
        Points(heapless::Vec<Point, MAX_POINTS>),
    }

    /// What a query computes for its pixels.
    #[derive(Copy, Eq)]
    pub enum Want {
        /// The class of each pixel.
        Classes,
        /// The feature vector of each pixel, two bytes per value.
        FeaturesF16,
        /// The feature vector of each pixel, one byte per value.
        FeaturesU8,
        /// The connected regions of each class.
        Regions,
        /// The depth of each pixel, in millimeters.
        Depth,
        /// The tracked objects and their masks.
        Objects,
        /// The word of each pixel.
        Words,
    }

    /// The outcome of a command.
    #[derive(Copy, Eq)]
    pub enum Outcome {
        /// Executed.
        Done,
        /// Rejected without any change.
        Refused(Refusal),
    }

    /// Why a command was rejected.
    #[derive(Copy, Eq)]
    pub enum Refusal {
        /// Not now; try again later.
        Busy,
        /// Not supported by this node.
        Unsupported,
        /// There is no such slot.
        NoSuchSlot,
        /// There is no head with this name.
        NoSuchHead,
        /// A region or point is outside the image, or empty.
        OutOfPicture,
        /// The rate cannot be achieved.
        Rate,
        /// The message could not be decoded: the versions differ.
        Incompatible,
        /// There is no object with this number, or the number is invalid.
        NoSuchObject,
        /// The mask is invalid, empty or too large.
        Mask,
    }
}
