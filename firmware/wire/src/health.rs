//! How the node is.

use crate::shape::{wire_enum, wire_struct};

wire_enum! {
    /// State of the node.
    #[derive(Copy, Eq)]
    pub enum State {
        /// Loading its bundle, warming up. No answers yet.
        Starting,
        /// All well.
        Running,
        /// Answers come, but later, fewer, or from the fallback.
        Degraded(Reason),
        /// A fault is being repaired; answers will come back.
        Recovering,
        /// No answers until someone acts.
        Failed(Reason),
    }

    /// Why the node is not well.
    #[derive(Copy, Eq)]
    pub enum Reason {
        /// The processor is too hot and has been slowed.
        TooHot,
        /// Deadlines were missed and frames dropped.
        Late,
        /// The camera sends nothing.
        NoFrames,
        /// The accelerator failed; the processor computes instead.
        Fallback,
        /// The bundle cannot be read or does not fit.
        Bundle,
        /// Memory ran out.
        Memory,
        /// The other side of the link has gone silent.
        Link,
        /// A fault in the program.
        Internal,
        /// A number of the sender's own.
        Other(u16),
    }
}

wire_struct! {
    /// How the node is; sent on every change and at least once a second.
    #[derive(Copy, Eq)]
    pub struct Health {
        /// Its state.
        pub state: State,
        /// Time since it started, milliseconds.
        pub uptime_ms: u64,
        /// Answers per thousand seconds, over the last second.
        pub rate_mhz: u32,
        /// Median time from picture to answer, microseconds.
        pub latency_p50_us: u32,
        /// 99th percentile of the same.
        pub latency_p99_us: u32,
        /// Hottest sensor, hundredths of a degree Celsius.
        pub temperature_cc: Option<i16>,
        /// Frames answered since the start.
        pub answered: u32,
        /// Frames dropped since the start.
        pub dropped: u32,
        /// Frames of this link lost or refused since the start.
        pub link_errors: u32,
    }
}

impl State {
    /// Why it is not well, where it is not.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        match self {
            State::Degraded(reason) | State::Failed(reason) => Some(*reason),
            State::Starting | State::Running | State::Recovering => None,
        }
    }

    /// Whether answers can be expected.
    #[must_use]
    pub const fn answers(&self) -> bool {
        matches!(self, State::Running | State::Degraded(_))
    }
}

impl Reason {
    /// A small number from 1 on, for a display that can only count.
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
