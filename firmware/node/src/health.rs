//! The state of the node and a journal of events.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use loftup_wire::health as wire;
use parking_lot::Mutex;

/// Why the node is degraded or failed. If several apply, the first is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bundle cannot be opened, or does not match the configuration.
    Bundle,
    /// A fault in the program or the engine that restarts did not repair.
    Internal,
    /// The source delivers no frames.
    NoFrames,
    /// A temperature limit was exceeded, or the sensor cannot be read.
    TooHot,
    /// Deadlines were missed: outputs are smaller or less frequent.
    Late,
    /// The preferred engine failed and another one runs.
    Fallback,
    /// A link is down or stalled.
    Link,
    /// A file cannot be written, for example because the disk is full.
    Storage,
}

impl Reason {
    /// The number of [`Reason::Storage`] in the wire format, which is specific to this program.
    const STORAGE: u16 = 1;

    const ALL: [Self; 8] = [
        Self::Bundle,
        Self::Internal,
        Self::NoFrames,
        Self::TooHot,
        Self::Late,
        Self::Fallback,
        Self::Link,
        Self::Storage,
    ];

    /// The name in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bundle => "bundle",
            Self::Internal => "internal",
            Self::NoFrames => "no frames",
            Self::TooHot => "too hot",
            Self::Late => "late",
            Self::Fallback => "fallback",
            Self::Link => "link",
            Self::Storage => "storage",
        }
    }

    fn to_wire(self) -> wire::Reason {
        match self {
            Self::Bundle => wire::Reason::Bundle,
            Self::Internal => wire::Reason::Internal,
            Self::NoFrames => wire::Reason::NoFrames,
            Self::TooHot => wire::Reason::TooHot,
            Self::Late => wire::Reason::Late,
            Self::Fallback => wire::Reason::Fallback,
            Self::Link => wire::Reason::Link,
            Self::Storage => wire::Reason::Other(Self::STORAGE),
        }
    }
}

/// State of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Loading, before the first output.
    Starting,
    /// Running normally.
    Running,
    /// Outputs are fewer, smaller or later than configured.
    Degraded(Reason),
    /// A stage or the model is being restarted.
    Recovering,
    /// The fault could not be repaired. The program ends.
    Failed(Reason),
}

impl State {
    /// Names of all states.
    pub const NAMES: [&'static str; 5] =
        ["starting", "running", "degraded", "recovering", "failed"];

    /// The name in logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded(_) => "degraded",
            Self::Recovering => "recovering",
            Self::Failed(_) => "failed",
        }
    }

    /// The state in the wire format.
    pub fn to_wire(self) -> wire::State {
        match self {
            Self::Starting => wire::State::Starting,
            Self::Running => wire::State::Running,
            Self::Degraded(reason) => wire::State::Degraded(reason.to_wire()),
            Self::Recovering => wire::State::Recovering,
            Self::Failed(reason) => wire::State::Failed(reason.to_wire()),
        }
    }
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Degraded(reason) | Self::Failed(reason) => write!(f, ": {}", reason.name()),
            _ => Ok(()),
        }
    }
}

/// The conditions that determine the [`State`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conditions {
    published: bool,
    recovering: bool,
    failed: Option<Reason>,
    /// In the order of [`Reason::ALL`].
    reasons: [bool; Reason::ALL.len()],
}

impl Conditions {
    fn state(&self) -> State {
        if let Some(reason) = self.failed {
            return State::Failed(reason);
        }
        if self.recovering {
            return State::Recovering;
        }
        let worst = Reason::ALL
            .into_iter()
            .zip(self.reasons)
            .find(|(_, is)| *is);
        match (worst, self.published) {
            (Some((reason, _)), _) => State::Degraded(reason),
            (None, true) => State::Running,
            (None, false) => State::Starting,
        }
    }
}

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalEntry {
    /// Microseconds since the start of the node.
    pub at_us: u64,
    /// Kind of event.
    pub kind: &'static str,
    /// Description.
    pub text: String,
}

/// Capacity of the journal. The oldest entries are removed; all of them are logged.
const CAPACITY: usize = 512;

/// Tracks the state of the node and keeps the journal.
#[derive(Debug, Default)]
pub struct Monitor {
    inner: Mutex<Inner>,
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    conditions: Conditions,
    journal: VecDeque<JournalEntry>,
    kind_counts: BTreeMap<&'static str, u64>,
}

impl Monitor {
    /// The current state.
    pub fn state(&self) -> State {
        self.inner.lock().conditions.state()
    }

    /// Number of state changes.
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// Sets or clears a reason for degradation. `why` describes the cause in the journal.
    pub fn set(&self, at_us: u64, reason: Reason, active: bool, why: &str) {
        self.change(at_us, why, |c| c.reasons[reason as usize] = active);
    }

    /// Whether a reason is set.
    pub fn holds(&self, reason: Reason) -> bool {
        self.inner.lock().conditions.reasons[reason as usize]
    }

    /// Records that a restart begins.
    pub fn recovering(&self, at_us: u64, why: &str) {
        self.change(at_us, why, |c| c.recovering = true);
    }

    /// Records that an output was published: starting or restarting has succeeded.
    pub fn published(&self, at_us: u64) {
        self.change(at_us, "an output was published", |c| {
            c.published = true;
            c.recovering = false;
        });
    }

    /// Records that the node failed. This is final.
    pub fn failed(&self, at_us: u64, reason: Reason, why: &str) {
        self.change(at_us, why, |c| c.failed = Some(c.failed.unwrap_or(reason)));
    }

    fn change(&self, at_us: u64, why: &str, change: impl FnOnce(&mut Conditions)) {
        let mut inner = self.inner.lock();
        let before = inner.conditions;
        change(&mut inner.conditions);
        if inner.conditions == before {
            return;
        }
        let (old, new) = (before.state(), inner.conditions.state());
        if old == new {
            return;
        }
        self.changes.fetch_add(1, SeqCst);
        let text = format!("{old} -> {new} ({why})");
        match new {
            State::Failed(_) => log::error!("{text}"),
            State::Running | State::Starting => log::info!("{text}"),
            _ => log::warn!("{text}"),
        }
        push(&mut inner, at_us, "state", text);
    }

    /// Adds an entry to the journal and the log.
    pub fn record(&self, at_us: u64, kind: &'static str, text: String) {
        log::warn!("{kind}: {text}");
        push(&mut self.inner.lock(), at_us, kind, text);
    }

    /// Number of entries of each kind, including removed ones.
    pub fn kind_counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().kind_counts.clone()
    }

    /// The journal, oldest first.
    pub fn journal(&self) -> Vec<JournalEntry> {
        self.inner.lock().journal.iter().cloned().collect()
    }
}

fn push(inner: &mut Inner, at_us: u64, kind: &'static str, text: String) {
    *inner.kind_counts.entry(kind).or_default() += 1;
    if inner.journal.len() == CAPACITY {
        inner.journal.pop_front();
    }
    inner.journal.push_back(JournalEntry { at_us, kind, text });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_the_conditions() {
        let monitor = Monitor::default();
        assert_eq!(monitor.state(), State::Starting);
        monitor.published(1);
        assert_eq!(monitor.state(), State::Running);
        monitor.set(2, Reason::Late, true, "5 deadlines missed");
        monitor.set(3, Reason::TooHot, true, "81 degrees");
        assert_eq!(
            monitor.state(),
            State::Degraded(Reason::TooHot),
            "the more severe reason"
        );
        monitor.recovering(4, "backbone hangs");
        assert_eq!(monitor.state(), State::Recovering);
        monitor.published(5);
        assert_eq!(monitor.state(), State::Degraded(Reason::TooHot));
        monitor.set(6, Reason::TooHot, false, "70 degrees");
        assert_eq!(monitor.state(), State::Degraded(Reason::Late));
        monitor.set(7, Reason::Late, false, "deadlines are met again");
        assert_eq!(monitor.state(), State::Running);
        monitor.failed(8, Reason::Internal, "4 restarts in a minute");
        monitor.published(9);
        assert_eq!(
            monitor.state(),
            State::Failed(Reason::Internal),
            "failed is final"
        );
        assert_eq!(monitor.changes(), 8);
        let journal = monitor.journal();
        assert_eq!(journal.len(), 8);
        assert_eq!(
            journal[1].text,
            "running -> degraded: late (5 deadlines missed)"
        );
    }

    #[test]
    fn a_reason_before_the_first_output_is_reported() {
        let monitor = Monitor::default();
        monitor.set(1, Reason::NoFrames, true, "nothing for 2 s");
        assert_eq!(monitor.state(), State::Degraded(Reason::NoFrames));
        monitor.set(2, Reason::NoFrames, false, "a frame came");
        assert_eq!(monitor.state(), State::Starting);
    }

    #[test]
    fn the_journal_is_bounded() {
        let monitor = Monitor::default();
        (0..2 * CAPACITY as u64).for_each(|i| monitor.record(i, "test", String::new()));
        assert_eq!(monitor.journal().len(), CAPACITY);
        assert_eq!(monitor.journal()[0].at_us, CAPACITY as u64);
    }
}
