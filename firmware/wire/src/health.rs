//! Health of the node.

use crate::schema::{wire_enum, wire_struct};

wire_enum! {
    /// State of the node.
    #[derive(Copy, Eq)]
    pub enum State {
        /// Loading the bundle and warming up. No results yet.
        Starting,
        /// Running normally.
        Running,
        /// Results are late, fewer than requested, or from the fallback.
        Degraded(Reason),
        /// Recovering from a fault; results will resume.
        Recovering,
        /// No results without intervention.
        Failed(Reason),
    }

    /// Why the node is degraded or failed.
    #[derive(Copy, Eq)]
    pub enum Reason {
        /// The processor is too hot and throttled.
        TooHot,
        /// Deadlines were missed and frames dropped.
        Late,
        /// The camera sends no frames.
        NoFrames,
        /// The accelerator failed; the CPU computes instead.
        Fallback,
        /// The bundle cannot be read or is unsuitable.
        Bundle,
        /// Out of memory.
        Memory,
        /// The other side of the link is silent.
        Link,
        /// An internal error.
        Internal,
        /// A number defined by the sender.
        Other(u16),
    }
}

wire_struct! {
    /// Health of the node; sent on every change and at least once per second.
    #[derive(Copy, Eq)]
    pub struct Health {
        /// State of the node.
        pub state: State,
        /// Time since the start, in milliseconds.
        pub uptime_ms: u64,
        /// Frames processed per thousand seconds (millihertz), over the last second.
        pub rate_mhz: u32,
        /// Median latency from image to result, in microseconds.
        pub latency_p50_us: u32,
        /// 99th percentile of the latency, in microseconds.
        pub latency_p99_us: u32,
        /// Temperature of the hottest sensor, in hundredths of a degree Celsius.
        pub temperature_cc: Option<i16>,
        /// Frames processed since the start.
        pub answered: u32,
        /// Frames dropped since the start.
        pub dropped: u32,
        /// Frames of this link lost or rejected since the start.
        pub link_errors: u32,
    }
}

impl State {
    /// The reason, if the state has one.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            State::Degraded(reason) | State::Failed(reason) => Some(*reason),
            State::Starting | State::Running | State::Recovering => None,
        }
    }

    /// Whether results can be expected.
    #[must_use]
    pub const fn answers(&self) -> bool {
        matches!(self, State::Running | State::Degraded(_))
    }
}

impl Reason {
    /// A small number from 1, for displays that can only count.
    #[must_use]
    pub const fn number(&self) -> u8 {
        match self {
            Reason::TooHot => 1,
            Reason::Late => 2,
            Reason::NoFrames => 3,
            Reason::Fallback => 4,
            Reason::Bundle => 5,
            Reason::Memory => 6,
            Reason::Link => 7,
            Reason::Internal => 8,
            Reason::Other(_) => 9,
        }
    }
}
