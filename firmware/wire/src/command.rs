//! What a controller asks of the node, and how the node answers.
//!
//! Every command sets something; sending it twice does no harm. That is what
//! makes it safe to repeat a command whose reply was lost.

use crate::bounded::Text;
use crate::message::{Point, Rect};
use crate::shape::{wire_enum, wire_struct};

/// Most points in one query.
pub const MAX_POINTS: usize = 64;

wire_struct! {
    /// A command, to be answered by the [`Reply`] of the same number.
    pub struct Command<'a> {
        /// Chosen by the sender; a repetition carries the same.
        pub id: u16,
        /// What to do.
        #[serde(borrow)]
        pub action: Action<'a>,
    }

    /// The answer to a [`Command`].
    #[derive(Copy, Eq)]
    pub struct Reply {
        /// The number of the command.
        pub id: u16,
        /// What became of it.
        pub outcome: Outcome,
    }
}

wire_enum! {
    /// What to do.
    #[allow(clippy::large_enum_variant, reason = "there is no heap to box in")]
    pub enum Action<'a> {
        /// Nothing but answer.
        Ping,
        /// Answer queries from the next frame on.
        Start,
        /// Answer no more.
        Stop,
        /// Answer at most so many frames in a thousand seconds; 0: as fast as
        /// it goes.
        SetRate {
            /// Frames per thousand seconds.
            mhz: u32,
        },
        /// Use the head of that name.
        SetHead(#[serde(borrow)] Text<'a, 32>),
        /// Put a query into a slot, in place of what is there.
        SetQuery {
            /// Which slot.
            slot: u8,
            /// Which pixels.
            area: Area,
            /// What to tell of them.
            want: Want,
        },
        /// Empty a slot.
        ClearQuery {
            /// Which slot.
            slot: u8,
        },
    }

    /// Which pixels a query is about.
    #[allow(clippy::large_enum_variant, reason = "there is no heap to box in")]
    pub enum Area {
        /// The whole picture.
        Frame,
        /// A rectangle of it.
        Region(Rect),
        /// Single points.
        Points(heapless::Vec<Point, MAX_POINTS>),
    }

    /// What a query tells of its pixels.
    #[derive(Copy, Eq)]
    pub enum Want {
        /// The class of each.
        Classes,
        /// The feature vector of each, two bytes a value.
        FeaturesF16,
        /// The feature vector of each, one byte a value.
        FeaturesU8,
        /// The connected areas among them.
        Regions,
    }

    /// What became of a command.
    #[derive(Copy, Eq)]
    pub enum Outcome {
        /// Carried out.
        Done,
        /// Refused; nothing has changed.
        Refused(Refusal),
    }

    /// Why a command was refused.
    #[derive(Copy, Eq)]
    pub enum Refusal {
        /// Not now; ask again later.
        Busy,
        /// This node cannot do it at all.
        Unsupported,
        /// No slot of that number.
        NoSuchSlot,
        /// No head of that name.
        NoSuchHead,
        /// A region or point lies outside the picture, or is empty.
        OutOfPicture,
        /// The rate cannot be met.
        Rate,
        /// The message could not be read: the versions differ.
        Incompatible,
    }
}
