//! The thread of a sink.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use super::shared::{RepeatFilter, Shared};
use crate::{
    mailbox::RecvResult,
    metrics::Event,
    sink::{Context, HealthReport, Sink},
};

/// Interval between polls of a sink.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Interval between health reports.
const HEALTH_INTERVAL_US: u64 = 1_000_000;

impl Shared {
    /// The current health of the node.
    pub(super) fn health_report(&self) -> HealthReport {
        let recent = *self.recent.lock();
        HealthReport {
            state: self.monitor.state(),
            uptime_us: self.now(),
            published: self.metrics.published(),
            dropped: self.metrics.total_drops(),
            temperature_cc: self.metrics.temperature_cc(),
            ..recent
        }
    }
}

pub(super) fn run(shared: &Shared, index: usize, mut sink: Box<dyn Sink>) {
    let (mut reported_at, mut changes) = (0, u64::MAX);
    let (mut failing, mut filter) = (false, RepeatFilter::default());
    let (mut link_errors, mut not_written, mut not_written_before) = (0, 0, 0);
    loop {
        let model = shared.model.lock().clone();
        let context = Context {
            labels: model.as_ref().map_or(&[], |m| m.labels()),
            model: model.as_deref(),
            control: &shared.control,
            clock: shared.clock,
            metrics: &shared.metrics,
        };
        let mut result = Ok(());
        let closed = match shared.sink_queues[index].recv(POLL_INTERVAL) {
            RecvResult::Item(output) => {
                result = sink.push(&output, &context);
                false
            }
            RecvResult::Timeout => false,
            RecvResult::Closed => true,
        };
        let now = shared.now();
        let changed = shared.monitor.changes();
        if changed != changes || now >= reported_at + HEALTH_INTERVAL_US || closed {
            (reported_at, changes) = (now, changed);
            result = result.and(sink.push_health(&shared.health_report(), &context));
        }
        result = result.and(sink.poll(&context));
        if closed {
            result = result.and(sink.finish());
        }
        let status = sink.status();
        for (event, total, counted) in [
            (Event::LinkError, status.link_errors, &mut link_errors),
            (Event::NotWritten, status.not_written, &mut not_written),
        ] {
            shared.metrics.count(event, total.saturating_sub(*counted));
            *counted = total;
        }
        match result {
            Err(e) => {
                shared.metrics.count(Event::SinkError, 1);
                let text = format!("{}: {e}", sink.name());
                if filter.is_new(now, &text) {
                    shared.monitor.record(now, "sink", text);
                }
                if !failing {
                    failing = true;
                    shared.sink_changed(status.reason, true, sink.name());
                }
            }
            Ok(()) if failing && status.healthy => {
                failing = false;
                filter.clear();
                let text = format!("{} works again", sink.name());
                shared.sink_changed(status.reason, false, &text);
                let n = not_written - not_written_before;
                if n > 0 {
                    log::info!("{}: {n} messages were not written", sink.name());
                }
                not_written_before = not_written;
            }
            Ok(()) => {}
        }
        if closed {
            break;
        }
    }
    shared.open_sinks.fetch_sub(1, SeqCst);
}
