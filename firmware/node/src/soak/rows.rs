//! What was injected against what the node made of it.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use loftup_runtime::backend::fault::Fault;

use super::link::Heard;
use crate::{
    assemble::Injection,
    inject::SourceFault,
    metrics::{DropReason, Event, Metrics},
    pipeline::Handle,
};

/// A kind of fault: what was done, and what was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub fault: &'static str,
    /// How often it was injected.
    pub injected: u64,
    /// How often the node counted it.
    pub noticed: u64,
    /// Entries of the journal that speak of it; of a link, the frames that its other end missed.
    pub noted: u64,
    /// How many in ten must be noticed.
    pub least: u64,
}

impl Row {
    /// Whether the node has said what happened. The last faults may find it stopping.
    pub fn is_explained(&self) -> bool {
        let few = 20 >= self.least * self.injected;
        let noticed = 10 * (self.noticed + 2) >= self.least * self.injected;
        self.injected == 0 || (noticed && (self.noted > 0 || (few && self.least > 0)))
    }
}

/// All kinds of faults.
pub(super) fn rows(injection: &Injection, handle: &Handle, heard: &Heard) -> Vec<Row> {
    let (metrics, kinds) = (handle.metrics(), handle.monitor().kinds());
    let noted = |names: &[&str]| names.iter().filter_map(|n| kinds.get(n)).sum::<u64>();
    let mut rows: Vec<Row> = SourceFault::ALL
        .into_iter()
        .map(|fault| {
            let (noticed, names): (u64, &[&str]) = match fault {
                SourceFault::Drop => (metrics.events(Event::SourceLost), &["frames lost"]),
                SourceFault::Duplicate => (metrics.drops(DropReason::Duplicate), &["duplicate"]),
                SourceFault::Reorder => (metrics.drops(DropReason::Reordered), &["reordered"]),
                SourceFault::Truncate => (metrics.drops(DropReason::Truncated), &["truncated"]),
                SourceFault::WrongSize => (metrics.drops(DropReason::WrongSize), &["wrong_size"]),
                SourceFault::Stuck => (metrics.events(Event::Silence), &["state"]),
                SourceFault::TimeJump => (metrics.events(Event::TimeJump), &["time jump"]),
            };
            Row {
                fault: fault.name(),
                injected: injection.source.count(fault),
                noticed,
                noted: noted(names),
                least: 9,
            }
        })
        .collect();
    rows.extend(engine_rows(injection, metrics, &noted));
    // One frame holds many bytes: the numbers are not those of frames, but there is none without
    // the other.
    rows.push(Row {
        fault: "link",
        injected: injection.link.load(SeqCst),
        noticed: heard.broken.load(SeqCst) + heard.missed.load(SeqCst),
        noted: heard.missed.load(SeqCst),
        least: 0,
    });
    rows
}

/// Faults of the engine. They may hit a frame that is dropped for another reason, or given up
/// while it waits: half must be noticed as what they are.
fn engine_rows(
    injection: &Injection,
    metrics: &Metrics,
    noted: &dyn Fn(&[&str]) -> u64,
) -> Vec<Row> {
    let not_finite = metrics.events(Event::NotFinite);
    let failed = metrics.drops(DropReason::Failed).saturating_sub(not_finite);
    let injected = |faults: &[Fault]| -> u64 {
        faults
            .iter()
            .map(|f| injection.backend.injected_as(*f))
            .sum()
    };
    let slow = Fault::Slow(Duration::ZERO);
    [
        ("engine error", injected(&[Fault::Error]), failed, "failed"),
        // An infinity may have become NaN on its way.
        (
            "engine not finite",
            injected(&[Fault::Nan, Fault::Infinity]),
            not_finite,
            "not finite",
        ),
        (
            "engine hang",
            injected(&[Fault::Hang]),
            metrics.events(Event::Hang),
            "restart",
        ),
        (
            "engine slow",
            injected(&[slow]),
            metrics.events(Event::DeadlineMissed),
            "late",
        ),
    ]
    .into_iter()
    .map(|(fault, injected, noticed, kind)| Row {
        fault,
        injected,
        noticed,
        noted: noted(&[kind]),
        least: 5,
    })
    .collect()
}
