//! Commands from a controller to the node, and the replies.
//!
//! Every command is idempotent, so that it is safe to repeat a command whose reply
//! was lost.

use crate::bounded::Text;
use crate::geometry::{Point, Rect};
use crate::schema::{wire_enum, wire_struct};

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
    }
}
