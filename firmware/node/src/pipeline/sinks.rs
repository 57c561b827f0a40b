//! The thread of a sink.

use std::{
    sync::atomic::Ordering::{Relaxed, SeqCst},
    time::Duration,
};

use super::shared::{Shared, Told};
use crate::{
    mailbox::RecvResult,
    metrics::Event,
    sink::{Context, Report, Sink},
    sync::lock,
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
    let (mut fails, mut told) = (false, Told::default());
    let (mut link_errors, mut not_written, mut missing_since) = (0, 0, 0);
    loop {
        let labels = lock(&shared.model).clone();
        let context = Context {
            labels: labels.as_ref().map_or(&[], |m| m.labels()),
            control: &shared.control,
            clock: shared.clock,
            metrics: &shared.metrics,
        };
        let mut result = Ok(());
        let closed = match shared.sink_queues[index].recv(LISTEN) {
            RecvResult::Item(answer) => {
                result = sink.answer(&answer, &context);
                false
            }
            RecvResult::Timeout => false,
            RecvResult::Closed => true,
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
        let missing = sink.not_written();
        shared
            .metrics
            .count(Event::NotWritten, missing - not_written);
        not_written = missing;
        match result {
            Err(e) => {
                shared.metrics.count(Event::SinkError, 1);
                let text = format!("{}: {e}", sink.name());
                if told.is_news(now, &text) {
                    shared.monitor.note(now, "sink", text);
                }
                if !fails {
                    fails = true;
                    shared.sink_changed(sink.reason(), true, sink.name());
                }
            }
            Ok(()) if fails && sink.is_well() => {
                fails = false;
                told.over();
                let text = format!("{} works again", sink.name());
                shared.sink_changed(sink.reason(), false, &text);
                if missing > missing_since {
                    let n = missing - missing_since;
                    log::info!("{}: {n} messages were not written", sink.name());
                }
                missing_since = missing;
            }
            Ok(()) => {}
        }
        if closed {
            break;
        }
    }
    shared.sinks_open.fetch_sub(1, SeqCst);
}
