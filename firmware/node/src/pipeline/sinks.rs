//! The thread of a sink.

use std::{
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use super::{Shared, lock};
use crate::{
    health::Reason,
    mailbox::Take,
    metrics::Event,
    sink::{Context, Report, Sink},
};

/// How often a link is listened to.
const LISTEN: Duration = Duration::from_millis(10);
/// How often health is told.
const HEALTH_US: u64 = 1_000_000;

impl Shared {
    /// How the node is.
    pub(super) fn report(&self) -> Report {
        let recent = lock(&self.recent).1;
        let cc = self.metrics.temperature_cc.load(Relaxed);
        Report {
            state: self.monitor.state(),
            uptime_us: self.now(),
            answered: self.metrics.answers(),
            dropped: self.metrics.all_drops(),
            temperature_cc: i16::try_from(cc).ok(),
            ..recent
        }
    }
}

pub(super) fn run(shared: &Shared, index: usize, mut sink: Box<dyn Sink>) {
    let (mut told_at, mut changes) = (0, u64::MAX);
    let mut errors = 0u64;
    let mut link_errors = 0;
    loop {
        let labels = lock(&shared.model).clone();
        let context = Context {
            labels: labels.as_ref().map_or(&[], |m| m.labels()),
            control: &shared.control,
            clock: shared.clock,
            metrics: &shared.metrics,
        };
        let mut result = Ok(());
        let closed = match shared.outlets[index].take(LISTEN) {
            Take::Item(answer) => {
                result = sink.answer(&answer, &context);
                false
            }
            Take::Timeout => false,
            Take::Closed => true,
        };
        let now = shared.now();
        let changed = shared.monitor.changes();
        if changed != changes || now >= told_at + HEALTH_US || closed {
            (told_at, changes) = (now, changed);
            result = result.and(sink.health(&shared.report(), &context));
        }
        result = result.and(sink.poll(&context));
        if closed {
            result = result.and(sink.finish());
        }
        let lost = sink.link_errors();
        shared
            .metrics
            .count(Event::LinkError, lost.saturating_sub(link_errors));
        link_errors = lost;
        match result {
            Err(e) => {
                errors += 1;
                shared.metrics.count(Event::SinkError, 1);
                shared.note("sink", || format!("{}: {e}", sink.name()));
                if errors == 1 {
                    shared.monitor.set(now, Reason::Link, true, "a sink fails");
                }
            }
            Ok(()) if errors > 0 && sink.is_well() => {
                errors = 0;
                shared
                    .monitor
                    .set(now, Reason::Link, false, "the sink works again");
            }
            Ok(()) => {}
        }
        if closed {
            break;
        }
    }
    shared.sinks_open.fetch_sub(1, SeqCst);
}
