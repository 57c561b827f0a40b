//! Pauses the source while the comparison is behind.

use std::{
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use parking_lot::Mutex;

use super::compare::Totals;
use crate::{
    frame::RawFrame,
    pipeline::Handle,
    source::{Clock, Poll, Source, SourceError, SourceFactory},
};

/// Maximum number of outputs waiting for the comparison: far fewer than its queue holds, and few enough that
/// the source is never silent for long.
const BACKLOG: u64 = 16;

/// A source that delivers nothing while the comparison is behind. Without it, the node could publish
/// faster than one thread recomputes, and outputs would remain unchecked.
struct HeldBack {
    source: Box<dyn Source>,
    node: Arc<OnceLock<Handle>>,
    totals: Arc<Mutex<Totals>>,
}

impl Source for HeldBack {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let published = self.node.get().map_or(0, |n| n.metrics().published());
        if published.saturating_sub(self.totals.lock().compared) > BACKLOG {
            thread::sleep(Duration::from_millis(10));
            return Ok(Poll::Nothing);
        }
        self.source.next(clock, into)
    }
}

/// Wraps `open` so that its sources pause while the comparison that counts in `totals` is behind. `node`
/// is set once the node runs.
pub(super) fn held_back(
    open: SourceFactory,
    node: &Arc<OnceLock<Handle>>,
    totals: &Arc<Mutex<Totals>>,
) -> SourceFactory {
    let (node, totals) = (node.clone(), totals.clone());
    Arc::new(move || {
        Ok(Box::new(HeldBack {
            source: open()?,
            node: node.clone(),
            totals: totals.clone(),
        }))
    })
}
