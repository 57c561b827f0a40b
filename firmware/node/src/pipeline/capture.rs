//! The capture thread: reads frames from the source, validates them and starts their jobs.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::Ordering::SeqCst,
    thread,
};

use super::{
    cpu_limit::{CpuLimit, process_cpu_us},
    shared::{CAPTURE, RepeatFilter, Shared},
    stages::{POLL_INTERVAL, POLL_INTERVAL_US, REPLACED},
};
use crate::{
    config::Level,
    frame::{self, RawFrame, Validation},
    metrics::{DropReason, Event, Stage},
    source::{Poll, SourceError, SourceFactory},
};

/// Minimum interval between two attempts to open a source.
const REOPEN_INTERVAL_US: u64 = 1_000_000;

/// When the next frame may start.
struct Pace {
    next_due_us: u64,
    cpu: Option<CpuLimit>,
}

/// Runs until the node stops, the source ends, or a newer capture thread replaces this one.
pub(super) fn run(shared: &Shared, factory: &SourceFactory, generation: u64) {
    let mut source = None;
    let mut raw = RawFrame::default();
    let mut pace = Pace {
        next_due_us: 0,
        cpu: CpuLimit::new(shared.config.pipeline.max_cpus),
    };
    let mut silent_since = shared.now();
    // Slightly longer than the supervisor's limit, so that it reports the silence before the
    // reopened source delivers a frame.
    let timeout_us = 1000 * shared.config.source.timeout_ms + POLL_INTERVAL_US;
    let current = || shared.capture_generation.load(SeqCst) == generation;
    let (mut filter, mut open_at) = (RepeatFilter::default(), 0);
    let failed = |filter: &mut RepeatFilter, e: &SourceError| {
        shared.metrics.count(Event::SourceError, 1);
        let (now, text) = (shared.now(), e.to_string());
        if filter.is_new(now, &text) {
            shared.monitor.record(now, "source", text);
        }
        thread::sleep(POLL_INTERVAL);
    };
    while !shared.stop.load(SeqCst) && current() {
        let Some(open) = &mut source else {
            if shared.now() < open_at {
                thread::sleep(POLL_INTERVAL);
                continue;
            }
            open_at = shared.now() + REOPEN_INTERVAL_US;
            match factory() {
                Ok(opened) => {
                    shared.validator.lock().reopened();
                    source = Some(opened);
                }
                Err(e) => failed(&mut filter, &e),
            }
            continue;
        };
        let start = shared.begin(CAPTURE);
        let polled = catch_unwind(AssertUnwindSafe(|| open.next(&shared.clock, &mut raw)));
        if !shared.end(CAPTURE, start) || !current() {
            return;
        }
        let now = shared.now();
        match polled {
            Ok(Ok(Poll::Frame)) => {
                silent_since = now;
                filter.clear();
                shared.metrics.frame_captured();
                shared.metrics.observe(Stage::Capture, now - start);
                accept_frame(shared, &raw, now, &mut pace);
            }
            Ok(Ok(Poll::Nothing)) if now.saturating_sub(silent_since) > timeout_us => {
                silent_since = now;
                shared.log_throttled("source", || "no frame in time: reopening it".into());
                source = None;
            }
            Ok(Ok(Poll::Nothing)) => {}
            Ok(Ok(Poll::Starting)) => silent_since = now,
            Ok(Ok(Poll::End)) => {
                log::info!("end of source");
                break;
            }
            Ok(Err(e)) => {
                failed(&mut filter, &e);
                if let SourceError::Gone { .. } = e {
                    source = None;
                }
            }
            Err(_) => {
                shared.metrics.count(Event::SourceError, 1);
                shared.log_throttled("source", || "it panicked: reopening it".into());
                source = None;
                thread::sleep(POLL_INTERVAL);
            }
        }
    }
    if current() {
        shared.queues[0].close();
    }
}

/// Validates a frame and queues it for the first stage.
fn accept_frame(shared: &Shared, raw: &RawFrame, now: u64, pace: &mut Pace) {
    let metrics = &shared.metrics;
    let validation = shared.validator.lock().validate(raw, now);
    report(shared, raw, now, &validation);
    if let Some(reason) = validation.rejected {
        return metrics.frame_dropped(reason);
    }
    shared.last_frame_us.store(now, SeqCst);
    if !shared.control.is_running() || shared.degradation.lock().is_paused() {
        return metrics.frame_dropped(DropReason::Paused);
    }
    let (level, Level { rate_hz, .. }) = shared.level();
    let rates = [rate_hz, shared.control.rate_hz()];
    let rate = rates
        .into_iter()
        .filter(|r| *r > 0.0)
        .fold(f64::INFINITY, f64::min);
    if rate.is_finite() {
        let period = (1e6 / rate) as u64;
        // Tolerates a jitter of 10 % of the period.
        if now + period / 10 < pace.next_due_us {
            return metrics.frame_dropped(DropReason::Rate);
        }
        pace.next_due_us = (pace.next_due_us + period).max(now);
    }
    if let Some(cpu) = &mut pace.cpu {
        // Time for loading a model does not count, at the start and after a restart.
        if shared.model.lock().is_none() {
            cpu.pause();
        } else if !cpu.allows(now, process_cpu_us()) {
            return metrics.frame_dropped(DropReason::CpuLimit);
        }
    }
    let mut job = shared.jobs.acquire();
    let image = job.image.get_or_insert_with(frame::placeholder);
    if let Err(e) = frame::copy_into(raw, image) {
        shared.log_throttled("failed", || format!("frame {}: {e}", raw.number));
        return shared.discard(job, DropReason::Failed);
    }
    job.sequence = validation.sequence;
    job.number = raw.number;
    job.captured_us = validation.captured_us;
    job.header.clone_from(&raw.header);
    job.level = level;
    job.queries = shared.control.queries();
    shared.control.set_camera(job.camera());
    if let Some(old) = shared.queues[0].send(job) {
        shared.discard(old, REPLACED[0]);
    }
}

/// Counts and logs anomalies of a frame.
fn report(shared: &Shared, raw: &RawFrame, now: u64, validation: &Validation) {
    let metrics = &shared.metrics;
    if validation.lost > 0 {
        metrics.count(Event::SourceLost, validation.lost);
        shared.log_throttled("frames lost", || {
            format!("{} before frame {}", validation.lost, raw.number)
        });
    }
    if validation.restart {
        metrics.count(Event::SourceRestart, 1);
        shared.log_throttled("source restart", || {
            format!("its numbering restarts at {}", raw.number)
        });
    }
    if validation.time_jump {
        metrics.count(Event::TimeJump, 1);
        shared.log_throttled("time jump", || {
            let off = raw.stamp_us as f64 - now as f64;
            format!(
                "the time stamp of frame {} is off by {:.3} s",
                raw.number,
                off / 1e6
            )
        });
    }
    if let Some(reason) = validation.rejected {
        shared.log_throttled(reason.name(), || {
            let bytes = raw.bytes.len();
            format!(
                "frame {}, {} x {}, {bytes} bytes",
                raw.number, raw.width, raw.height
            )
        });
    }
}
