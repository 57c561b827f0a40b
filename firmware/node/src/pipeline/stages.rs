//! What each stage does.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, SeqCst},
    },
    thread,
    time::Duration,
};

use super::{
    job::Job,
    shared::{CAPTURE, PUBLISH, Shared, Told},
};
use crate::{
    answer::Answer,
    config,
    degradation::{DeadlineOutcome, Step},
    frame::{self, RawFrame},
    health::Reason,
    mailbox::{Mailbox, RecvResult},
    metrics::{DropReason, Event, Stage},
    model::{Model, ModelError, Question},
    source::{Poll, SourceError, SourceFactory},
    sync::lock,
};

/// How often a thread that waits looks whether it shall go on.
const LOOK: Duration = Duration::from_micros(LOOK_US);
const LOOK_US: u64 = 50_000;
/// Between two attempts to open a source.
const OPEN_EVERY_US: u64 = 1_000_000;

impl Shared {
    fn begin(&self, stage: usize) -> u64 {
        let now = self.now();
        self.beats[stage].store(now + 1, SeqCst);
        now
    }

    /// Whether the stage was not given up in the meantime.
    fn end(&self, stage: usize) -> bool {
        self.beats[stage].swap(0, SeqCst) != 0
    }

    /// A frame was processed, or was not in time.
    pub(super) fn record_deadline(&self, outcome: DeadlineOutcome) {
        let mut degradation = lock(&self.degradation);
        let step = degradation.record(outcome);
        let (level, late) = (degradation.level(), degradation.is_late());
        drop(degradation);
        self.stepped(step, level, "of deadlines");
        if late != self.monitor.holds(Reason::Late) {
            let why = match late {
                true => "deadlines were missed in a row",
                false => "deadlines are met again",
            };
            self.monitor.set(self.now(), Reason::Late, late, why);
        }
    }

    pub(super) fn stepped(&self, step: Option<Step>, level: usize, why: &str) {
        let Some(step) = step else { return };
        self.metrics.level.store(level as u64, Relaxed);
        let (event, way) = match step {
            Step::Down => (Event::StepDown, "down"),
            Step::Up => (Event::StepUp, "up"),
        };
        self.metrics.count(event, 1);
        let level_is = self.levels[level.min(self.levels.len() - 1)];
        let config::Level {
            size,
            regions_only,
            rate_hz,
        } = level_is;
        self.monitor.note(
            self.now(),
            "step",
            format!("{way} to {level} because {why}: {}x{}, regions only {regions_only}, rate {rate_hz}", size.width, size.height),
        );
    }
}

/// The capture thread.
pub(super) fn capture(shared: &Shared, factory: &SourceFactory, generation: u64) {
    let mut source = None;
    let mut raw = RawFrame::default();
    let mut next_due = 0u64;
    let mut silent_since = shared.now();
    // A little longer than it takes to count as silent, so that this is noticed before the source
    // that is opened in its place gives an image.
    let timeout_us = 1000 * shared.config.source.timeout_ms + LOOK_US;
    let current = || shared.capture_generation.load(SeqCst) == generation;
    let (mut told, mut open_at) = (Told::default(), 0);
    let failed = |told: &mut Told, e: &SourceError| {
        shared.metrics.count(Event::SourceError, 1);
        let (now, text) = (shared.now(), e.to_string());
        if told.is_news(now, &text) {
            shared.monitor.note(now, "source", text);
        }
        thread::sleep(LOOK);
    };
    while !shared.stop.load(SeqCst) && current() {
        let Some(open) = &mut source else {
            if shared.now() < open_at {
                thread::sleep(LOOK);
                continue;
            }
            open_at = shared.now() + OPEN_EVERY_US;
            match factory() {
                Ok(opened) => {
                    lock(&shared.validator).reopened();
                    source = Some(opened);
                }
                Err(e) => failed(&mut told, &e),
            }
            continue;
        };
        let start = shared.begin(CAPTURE);
        let pulled = catch_unwind(AssertUnwindSafe(|| open.next(&shared.clock, &mut raw)));
        if !shared.end(CAPTURE) || !current() {
            return;
        }
        let now = shared.now();
        match pulled {
            Ok(Ok(Poll::Frame)) => {
                silent_since = now;
                told.over();
                shared.metrics.captured.fetch_add(1, Relaxed);
                shared.metrics.stages[Stage::Capture as usize].record(now - start);
                take_in(shared, &raw, now, &mut next_due);
            }
            Ok(Ok(Poll::Nothing)) if now.saturating_sub(silent_since) > timeout_us => {
                silent_since = now;
                shared.log_throttled("source", || "it is opened anew after its silence".into());
                source = None;
            }
            Ok(Ok(Poll::Nothing)) => {}
            Ok(Ok(Poll::End)) => {
                log::info!("the source has ended");
                break;
            }
            Ok(Err(e)) => {
                failed(&mut told, &e);
                if let SourceError::Gone { .. } = e {
                    source = None;
                }
            }
            Err(_) => {
                shared.metrics.count(Event::SourceError, 1);
                shared.log_throttled("source", || "it panicked, and is opened anew".into());
                source = None;
                thread::sleep(LOOK);
            }
        }
    }
    if current() {
        shared.queues[0].close();
    }
}

/// Checks a frame and sends it on its way.
fn take_in(shared: &Shared, raw: &RawFrame, now: u64, next_due: &mut u64) {
    let metrics = &shared.metrics;
    let validation = lock(&shared.validator).validate(raw, now);
    if validation.lost > 0 {
        metrics.count(Event::SourceLost, validation.lost);
        shared.log_throttled("frames lost", || {
            format!("{} before frame {}", validation.lost, raw.number)
        });
    }
    if validation.restart {
        metrics.count(Event::SourceRestart, 1);
        shared.log_throttled("source restart", || {
            format!("it counts anew from {}", raw.number)
        });
    }
    if validation.time_jump {
        metrics.count(Event::TimeJump, 1);
        shared.log_throttled("time jump", || {
            let off = raw.stamp_us as f64 - now as f64;
            format!(
                "the stamp of frame {} is {:.3} s off",
                raw.number,
                off / 1e6
            )
        });
    }
    if let Some(why) = validation.refused {
        metrics.dropped(why);
        shared.log_throttled(why.name(), || {
            let bytes = raw.bytes.len();
            format!(
                "frame {} of {} x {} with {bytes} bytes",
                raw.number, raw.width, raw.height
            )
        });
        return;
    }
    shared.last_frame_us.store(now, SeqCst);
    if !shared.control.is_running() || lock(&shared.degradation).is_paused() {
        return metrics.dropped(DropReason::Paused);
    }
    let (level, Level { rate_hz, .. }) = shared.level();
    let rates = [rate_hz, shared.control.rate_hz()];
    let rate = rates
        .into_iter()
        .filter(|r| *r > 0.0)
        .fold(f64::INFINITY, f64::min);
    if rate.is_finite() {
        let period = (1e6 / rate) as u64;
        // A camera's frames come a little early or late: a tenth is let pass.
        if now + period / 10 < *next_due {
            return metrics.dropped(DropReason::Rate);
        }
        *next_due = (*next_due + period).max(now);
    }
    let mut job = shared.pool.take();
    let picture = job.picture.get_or_insert_with(frame::one_pixel);
    if let Err(e) = frame::copy(raw, picture) {
        shared.log_throttled("failed", || format!("frame {}: {e}", raw.number));
        return shared.discard(job, DropReason::Failed);
    }
    job.sequence = validation.sequence;
    job.number = raw.number;
    job.captured_us = validation.captured_us;
    job.level = level;
    job.queries = shared.control.queries();
    shared.control.set_camera(job.camera());
    if let Some(old) = shared.queues[0].send(job) {
        shared.discard(old, BEFORE[0]);
    }
}

use config::Level;

/// Reasons for what a queue displaces, by queue.
const BEFORE: [DropReason; 4] = [
    DropReason::BeforePreprocess,
    DropReason::BeforeBackbone,
    DropReason::BeforeUpsample,
    DropReason::BeforePublish,
];

type Work = fn(&Shared, &dyn Model, &mut Job) -> Result<(), ModelError>;

/// The stages that use the model, by number.
const WORK: [(Stage, Work); 3] = [
    (Stage::Preprocess, preprocess),
    (Stage::Backbone, backbone),
    (Stage::Upsample, upsample),
];

fn preprocess(shared: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    let image = present(&job.picture, "image")?;
    let size = shared.levels[job.level].size;
    job.inputs = Some(model.preprocess(image, size)?);
    Ok(())
}

fn backbone(_: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    let inputs = present(&job.inputs, "preprocessed image")?;
    job.features = Some(model.features(inputs)?);
    Ok(())
}

/// What an earlier stage left in the job.
fn present<'a, T>(item: &'a Option<T>, name: &str) -> Result<&'a T, ModelError> {
    item.as_ref()
        .ok_or_else(|| ModelError::Other(format!("the job has no {name}")))
}

fn upsample(shared: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    let camera = job.camera();
    let level = shared.levels[job.level];
    let Job {
        inputs,
        features,
        queries,
        finder,
        answer,
        ..
    } = job;
    let inputs = present(inputs, "preprocessed image")?;
    let features = present(features, "features")?;
    let question = Question {
        queries,
        regions_only: level.regions_only,
        min_area_px: shared.config.regions.min_area_px,
        max_regions: shared.config.regions.max_regions,
        camera,
    };
    let head_us = model.upsample(inputs, features, &question, finder, answer)?;
    answer.size = (level.size.width, level.size.height);
    answer.camera = (camera.width, camera.height);
    shared.metrics.stages[Stage::Head as usize].record(head_us);
    let (computed, kept) = answer.tiles;
    shared.metrics.count(Event::TileComputed, computed as u64);
    shared.metrics.count(Event::TileKept, kept as u64);
    Ok(())
}

/// The thread of stage `1 + index`.
pub(super) fn work(shared: &Shared, index: usize, generation: u64) {
    let (stage, work) = WORK[index];
    let beat = index + 1;
    let (inbox, outbox) = (&shared.queues[index], &shared.queues[index + 1]);
    let current = || shared.generation.load(SeqCst) == generation;
    while current() {
        let mut job = match inbox.recv(LOOK) {
            RecvResult::Item(job) => job,
            RecvResult::Timeout => continue,
            RecvResult::Closed => {
                outbox.close();
                return;
            }
        };
        let Some(model) = lock(&shared.model).clone() else {
            shared.discard(job, DropReason::Abandoned);
            continue;
        };
        let start = shared.begin(beat);
        if start.saturating_sub(job.captured_us) > 1000 * shared.config.pipeline.max_age_ms {
            shared.end(beat);
            shared.discard(job, DropReason::Stale);
            shared.record_deadline(DeadlineOutcome::Missed);
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| work(shared, &*model, &mut job)));
        if !shared.end(beat) {
            // Given up, and counted, while it worked.
            shared.pool.put(job);
            return;
        }
        shared.metrics.stages[stage as usize].record(shared.now().saturating_sub(start));
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some((e.is_not_finite(), e.to_string())),
            Err(_) => Some((false, "it panicked".into())),
        };
        match error {
            None => {
                if index == WORK.len() - 1 {
                    shared.failures.store(0, SeqCst);
                }
                if let Some(old) = outbox.send(job) {
                    shared.discard(old, BEFORE[index + 1]);
                }
            }
            Some((not_finite, e)) => {
                shared.failures.fetch_add(1, SeqCst);
                shared
                    .metrics
                    .count(Event::NotFinite, u64::from(not_finite));
                let kind = if not_finite { "not finite" } else { "failed" };
                shared.log_throttled(kind, || format!("{stage} of frame {}: {e}", job.number));
                shared.discard(job, DropReason::Failed);
            }
        }
    }
}

/// The publishing thread.
pub(super) fn publish(shared: &Shared) {
    loop {
        match shared.queues[PUBLISH - 1].recv(LOOK) {
            RecvResult::Item(job) => {
                let start = shared.begin(PUBLISH);
                publish_one(shared, job);
                shared.end(PUBLISH);
                shared.metrics.stages[Stage::Publish as usize].record(shared.now() - start);
            }
            RecvResult::Timeout => {}
            RecvResult::Closed => break,
        }
    }
    shared.sink_queues.iter().for_each(Mailbox::close);
    shared.published_all.store(true, SeqCst);
}

fn publish_one(shared: &Shared, mut job: Box<Job>) {
    let now = shared.now();
    let age = now.saturating_sub(job.captured_us);
    let p = &shared.config.pipeline;
    if age > 1000 * p.max_age_ms {
        shared.discard(job, DropReason::Stale);
        return shared.record_deadline(DeadlineOutcome::Missed);
    }
    // One more, so that 0 stands for none.
    let before = shared.last_sequence.fetch_max(job.sequence + 1, SeqCst);
    if job.sequence < before {
        return shared.discard(job, DropReason::Reordered);
    }
    let mut shareable = recycled_output(shared);
    if let Some(answer) = Arc::get_mut(&mut shareable) {
        std::mem::swap(answer, &mut job.answer);
        answer.sequence = job.sequence;
        answer.number = job.number;
        answer.captured_us = job.captured_us;
        answer.published_us = now;
        answer.level = job.level;
        if shared.wants_picture {
            std::mem::swap(&mut answer.picture, &mut job.picture);
            // What came back is the image of an earlier frame, or none.
        }
    }
    for queue in &shared.sink_queues {
        if queue.send(shareable.clone()).is_some() {
            shared.metrics.count(Event::SinkDropped, 1);
        }
    }
    keep(shared, shareable);
    shared.pool.put(job);
    shared.metrics.published.fetch_add(1, Relaxed);
    shared.metrics.latency.record(age);
    let deadline = 1000 * p.deadline_ms;
    let early = (deadline as f64 * shared.config.degrade.early) as u64;
    if age > deadline {
        shared.metrics.count(Event::DeadlineMissed, 1);
        shared.log_throttled("late", || {
            format!(
                "an output is {} ms old, due after {}",
                age / 1000,
                p.deadline_ms
            )
        });
    }
    shared.record_deadline(match age {
        age if age > deadline => DeadlineOutcome::Missed,
        age if age < early => DeadlineOutcome::Early,
        _ => DeadlineOutcome::Met,
    });
    shared.monitor.answered(now);
}

/// An output that no sink looks at any more, or a new one.
fn recycled_output(shared: &Shared) -> Arc<Answer> {
    let mut answers = lock(&shared.answers);
    for _ in 0..answers.len() {
        match answers.pop_front() {
            Some(answer) if Arc::strong_count(&answer) == 1 => return answer,
            Some(answer) => answers.push_back(answer),
            None => break,
        }
    }
    Arc::default()
}

fn keep(shared: &Shared, answer: Arc<Answer>) {
    let mut answers = lock(&shared.answers);
    if answers.len() < answers.capacity() {
        answers.push_back(answer);
    }
}
