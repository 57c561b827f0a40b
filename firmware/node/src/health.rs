//! How the node is: its state, why, and a journal of what happened.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use loftup_wire::health as wire;

/// Why the node is not well. The first that applies is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// The bundle cannot be opened, or does not fit.
    Bundle,
    /// A fault in the program or the engine that could not be repaired.
    Internal,
    /// The source gives nothing.
    NoFrames,
    /// It is too hot, or the thermometer is dead.
    TooHot,
    /// Deadlines were missed: outputs are smaller or fewer.
    Late,
    /// The preferred engine failed, another one computes.
    Fallback,
    /// A link is cut or stalled.
    Link,
    /// A file cannot be written, as on a full disk.
    Storage,
}

impl Reason {
    /// Its number on the wire, where it is one of the sender's own.
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

    /// Its name in logs.
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

    fn on_the_wire(self) -> wire::Reason {
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
    /// Loading, no output yet.
    Starting,
    /// All well.
    Running,
    /// Outputs come, but fewer, smaller or later.
    Degraded(Reason),
    /// A stage or the model is being started again.
    Recovering,
    /// No outputs until someone acts. The program ends.
    Failed(Reason),
}

impl State {
    /// Names of all states.
    pub const NAMES: &'static [&'static str] =
        &["starting", "running", "degraded", "recovering", "failed"];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded(_) => "degraded",
            Self::Recovering => "recovering",
            Self::Failed(_) => "failed",
        }
    }

    /// As it goes over a link.
    pub fn on_the_wire(self) -> wire::State {
        match self {
            Self::Starting => wire::State::Starting,
            Self::Running => wire::State::Running,
            Self::Degraded(reason) => wire::State::Degraded(reason.on_the_wire()),
            Self::Recovering => wire::State::Recovering,
            Self::Failed(reason) => wire::State::Failed(reason.on_the_wire()),
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

/// What is true of the node now; [`State`] follows from it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Conditions {
    answered: bool,
    recovering: bool,
    failed: Option<Reason>,
    /// By the order of [`Reason::ALL`].
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
        match (worst, self.answered) {
            (Some((reason, _)), _) => State::Degraded(reason),
            (None, true) => State::Running,
            (None, false) => State::Starting,
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Microseconds since the start of the node.
    pub at_us: u64,
    /// What kind of thing.
    pub kind: &'static str,
    /// In words.
    pub text: String,
}

/// Entries that a journal keeps; older ones go. What is gone was logged.
const KEPT: usize = 512;

/// Follows the conditions of the node and writes a journal.
#[derive(Debug, Default)]
pub struct Monitor {
    inner: Mutex<Inner>,
    changes: AtomicU64,
}

#[derive(Debug, Default)]
struct Inner {
    conditions: Conditions,
    journal: VecDeque<Entry>,
    kinds: BTreeMap<&'static str, u64>,
}

impl Monitor {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state.
    pub fn state(&self) -> State {
        self.lock().conditions.state()
    }

    /// Changes of state so far.
    pub fn changes(&self) -> u64 {
        self.changes.load(SeqCst)
    }

    /// A reason to be degraded begins or ends. `why` says it in words, for the journal.
    pub fn set(&self, at_us: u64, reason: Reason, is: bool, why: &str) {
        self.change(at_us, why, |c| c.reasons[reason as usize] = is);
    }

    /// Whether a reason holds.
    pub fn holds(&self, reason: Reason) -> bool {
        self.lock().conditions.reasons[reason as usize]
    }

    /// A repair begins.
    pub fn recovering(&self, at_us: u64, why: &str) {
        self.change(at_us, why, |c| c.recovering = true);
    }

    /// An output was published: the node has started, and repairs are over.
    pub fn answered(&self, at_us: u64) {
        self.change(at_us, "an output was published", |c| {
            c.answered = true;
            c.recovering = false;
        });
    }

    /// It cannot go on.
    pub fn failed(&self, at_us: u64, reason: Reason, why: &str) {
        self.change(at_us, why, |c| c.failed = Some(c.failed.unwrap_or(reason)));
    }

    fn change(&self, at_us: u64, why: &str, change: impl FnOnce(&mut Conditions)) {
        let mut inner = self.lock();
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

    /// Writes something that happened into the journal and the log.
    pub fn note(&self, at_us: u64, kind: &'static str, text: String) {
        log::warn!("{kind}: {text}");
        push(&mut self.lock(), at_us, kind, text);
    }

    /// Entries of each kind so far, those that are gone included.
    pub fn kinds(&self) -> BTreeMap<&'static str, u64> {
        self.lock().kinds.clone()
    }

    /// The journal, oldest first.
    pub fn journal(&self) -> Vec<Entry> {
        self.lock().journal.iter().cloned().collect()
    }
}

fn push(inner: &mut Inner, at_us: u64, kind: &'static str, text: String) {
    *inner.kinds.entry(kind).or_default() += 1;
    if inner.journal.len() == KEPT {
        inner.journal.pop_front();
    }
    inner.journal.push_back(Entry { at_us, kind, text });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_from_what_is_true() {
        let monitor = Monitor::default();
        assert_eq!(monitor.state(), State::Starting);
        monitor.answered(1);
        assert_eq!(monitor.state(), State::Running);
        monitor.set(2, Reason::Late, true, "5 deadlines missed");
        monitor.set(3, Reason::TooHot, true, "81 degrees");
        assert_eq!(
            monitor.state(),
            State::Degraded(Reason::TooHot),
            "the worse one"
        );
        monitor.recovering(4, "backbone hangs");
        assert_eq!(monitor.state(), State::Recovering);
        monitor.answered(5);
        assert_eq!(monitor.state(), State::Degraded(Reason::TooHot));
        monitor.set(6, Reason::TooHot, false, "70 degrees");
        assert_eq!(monitor.state(), State::Degraded(Reason::Late));
        monitor.set(7, Reason::Late, false, "in time again");
        assert_eq!(monitor.state(), State::Running);
        monitor.failed(8, Reason::Internal, "4 restarts in a minute");
        monitor.answered(9);
        assert_eq!(monitor.state(), State::Failed(Reason::Internal), "for good");
        assert_eq!(monitor.changes(), 8);
        let journal = monitor.journal();
        assert_eq!(journal.len(), 8);
        assert_eq!(
            journal[1].text,
            "running -> degraded: late (5 deadlines missed)"
        );
    }

    #[test]
    fn a_reason_before_the_first_answer_is_told_and_then_starting_goes_on() {
        let monitor = Monitor::default();
        monitor.set(1, Reason::NoFrames, true, "nothing for 2 s");
        assert_eq!(monitor.state(), State::Degraded(Reason::NoFrames));
        monitor.set(2, Reason::NoFrames, false, "a frame came");
        assert_eq!(monitor.state(), State::Starting);
    }

    #[test]
    fn the_journal_is_bounded() {
        let monitor = Monitor::default();
        (0..2 * KEPT as u64).for_each(|i| monitor.note(i, "test", String::new()));
        assert_eq!(monitor.journal().len(), KEPT);
        assert_eq!(monitor.journal()[0].at_us, KEPT as u64);
    }
}
