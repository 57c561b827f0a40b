//! Injected faults and the traces they left in counters and journal.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use loftup_runtime::backend::fault::Fault;

use super::link::PeerCounters;
use crate::{
    assemble::Injection,
    inject::SourceFault,
    metrics::{DropReason, Event, Metrics},
    pipeline::Handle,
};

/// Counts of a kind of fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its name.
    pub fault: &'static str,
    /// Number of injected faults.
    pub injected: u64,
    /// Number of faults that the node counted.
    pub counted: u64,
    /// Number of journal entries; for a link, the frames that the peer missed.
    pub journaled: u64,
    /// Minimum of counted faults per ten injected ones.
    pub min_tenths: u64,
}

impl Row {
    /// Whether enough of the faults were counted and journaled. The last ones may occur while the node
    /// is stopping.
    pub fn is_explained(&self) -> bool {
        let few = 20 >= self.min_tenths * self.injected;
        let counted = 10 * (self.counted + 2) >= self.min_tenths * self.injected;
        self.injected == 0 || (counted && (self.journaled > 0 || (few && self.min_tenths > 0)))
    }
}

/// The rows of all kinds of faults.
pub(super) fn rows(injection: &Injection, handle: &Handle, peer: &PeerCounters) -> Vec<Row> {
    let (metrics, kinds) = (handle.metrics(), handle.monitor().kind_counts());
    let journaled = |names: &[&str]| names.iter().filter_map(|n| kinds.get(n)).sum::<u64>();
    let mut rows: Vec<Row> = SourceFault::ALL
        .into_iter()
        .map(|fault| {
            let (counted, names): (u64, &[&str]) = match fault {
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
                counted,
                journaled: journaled(names),
                min_tenths: 9,
            }
        })
        .collect();
    rows.extend(engine_rows(injection, metrics, &journaled));
    // Bytes are injected but frames are counted, so only zero and non-zero can be compared.
    rows.push(Row {
        fault: "link",
        injected: injection.link.load(SeqCst),
        counted: peer.corrupted.load(SeqCst) + peer.missed.load(SeqCst),
        journaled: peer.missed.load(SeqCst),
        min_tenths: 0,
    });
    rows
}

/// Returns the rows of the engine's faults. Half of them must be counted as such: the others may affect
/// frames that are dropped for another reason.
fn engine_rows(
    injection: &Injection,
    metrics: &Metrics,
    journaled: &dyn Fn(&[&str]) -> u64,
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
        // Infinity may turn into NaN in later layers.
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
    .map(|(fault, injected, counted, kind)| Row {
        fault,
        injected,
        counted,
        journaled: journaled(&[kind]),
        min_tenths: 5,
    })
    .collect()
}
