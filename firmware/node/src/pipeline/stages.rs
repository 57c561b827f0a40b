//! The stages that use the model: preprocess, backbone, upsample.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use loftup_bundle::Size;

use super::{
    job::Job,
    shared::{PUBLISH, Shared, WATCHED},
};
use crate::{
    config::Level,
    degradation::{DeadlineOutcome, Step},
    health::Reason,
    mailbox::RecvResult,
    metrics::{DropReason, Event, Stage},
    model::{FrameRequest, Model, ModelError, Words},
    output::Queries,
    tracking::TrackFrame,
};

/// Interval at which a waiting thread checks whether it should exit.
pub(super) const POLL_INTERVAL: Duration = Duration::from_micros(POLL_INTERVAL_US);
pub(super) const POLL_INTERVAL_US: u64 = 50_000;

/// The drop reason of a frame that is replaced by a newer one, by queue.
pub(super) const REPLACED: [DropReason; 4] = [
    DropReason::BeforePreprocess,
    DropReason::BeforeBackbone,
    DropReason::BeforeUpsample,
    DropReason::BeforePublish,
];

impl Shared {
    /// Marks a stage as busy.
    pub(super) fn begin(&self, stage: usize) -> u64 {
        let now = self.now();
        self.busy_since[stage].store(now + 1, SeqCst);
        now
    }

    /// Marks a stage as busy and returns the model and the time. `None` if there is no model, or the stages of
    /// this generation have been abandoned.
    ///
    /// [`Shared::abandon_stages`] holds the same lock: a frame that it does not find in a stage is refused here.
    fn begin_with_model(&self, stage: usize, generation: u64) -> Option<(Arc<dyn Model>, u64)> {
        let model = self.model.lock();
        if self.generation.load(SeqCst) != generation {
            return None;
        }
        let model = model.clone()?;
        Some((model, self.begin(stage)))
    }

    /// Abandons the stages together with their model, and counts the frames in them. Returns the stages that
    /// are busy; their threads exit when they notice.
    pub(super) fn abandon_stages(&self, reason: DropReason) -> [bool; WATCHED] {
        let mut model = self.model.lock();
        self.generation.fetch_add(1, SeqCst);
        *model = None;
        let busy = std::array::from_fn(|stage| {
            (1..PUBLISH).contains(&stage) && self.busy_since[stage].swap(0, SeqCst) != 0
        });
        for _ in busy.iter().filter(|busy| **busy) {
            self.metrics.frame_dropped(reason);
        }
        busy
    }

    /// Marks a stage as idle that has been busy since `begin`. Returns `false` if the watchdog has abandoned it;
    /// another thread may be busy in its place.
    pub(super) fn end(&self, stage: usize, begin: u64) -> bool {
        let busy = &self.busy_since[stage];
        busy.compare_exchange(begin + 1, 0, SeqCst, SeqCst).is_ok()
    }

    /// Reports to the degradation controller whether a frame met its deadline.
    pub(super) fn record_deadline(&self, outcome: DeadlineOutcome) {
        let mut degradation = self.degradation.lock();
        let step = degradation.record(outcome);
        let (level, late) = (degradation.level(), degradation.is_late());
        drop(degradation);
        self.record_step(step, level, "deadlines");
        if late != self.monitor.holds(Reason::Late) {
            let why = match late {
                true => "consecutive deadlines were missed",
                false => "deadlines are met again",
            };
            self.monitor.set(self.now(), Reason::Late, late, why);
        }
    }

    /// Counts and logs a step of the degradation controller.
    pub(super) fn record_step(&self, step: Option<Step>, level: usize, cause: &str) {
        let Some(step) = step else { return };
        self.metrics.set_level(level);
        let (event, direction) = match step {
            Step::Down => (Event::StepDown, "down"),
            Step::Up => (Event::StepUp, "up"),
        };
        self.metrics.count(event, 1);
        let Level {
            size,
            regions_only,
            upsampler,
            rate_hz,
        } = self.levels[level.min(self.levels.len() - 1)];
        self.monitor.record(
            self.now(),
            "step",
            format!(
                "{direction} to {level} ({cause}): {}x{}, {}, regions only {regions_only}, rate {rate_hz}",
                size.width, size.height, upsampler.name()
            ),
        );
    }
}

type StageFn = fn(&Shared, &dyn Model, &mut Job) -> Result<(), ModelError>;

/// The stages in order; their watchdog index is one more.
const STAGES: [(Stage, StageFn); 3] = [
    (Stage::Preprocess, preprocess),
    (Stage::Backbone, backbone),
    (Stage::Upsample, upsample),
];

/// Names of the threads.
pub(super) const THREADS: [&str; 3] = ["preprocess", "backbone", "upsample"];

/// The request for a frame of the size `camera` at `level`.
fn request<'a>(
    shared: &Shared,
    (level, camera): (&Level, Size),
    queries: &'a Queries,
    words: Option<&'a Words>,
) -> FrameRequest<'a> {
    FrameRequest {
        queries,
        regions_only: level.regions_only,
        upsampler: level.upsampler,
        words,
        min_area_px: shared.config.regions.min_area_px,
        max_regions: shared.config.regions.max_regions,
        camera,
    }
}

fn preprocess(shared: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    let image = stage_input(&job.image, "image")?;
    let level = &shared.levels[job.level];
    let size = level.size;
    let request = request(shared, (level, job.camera()), &job.queries, None);
    // Objects are tracked with the features, which the other stages compute.
    job.whole = shared.tracking.is_none() && model.takes_whole_frame(&request, size);
    if job.whole {
        return Ok(());
    }
    job.inputs = Some(model.preprocess(image, size)?);
    Ok(())
}

fn backbone(_: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    if job.whole {
        return Ok(());
    }
    let inputs = stage_input(&job.inputs, "preprocessed image")?;
    job.features = Some(model.features(inputs)?);
    Ok(())
}

/// Returns the result of the previous stage in the job.
fn stage_input<'a, T>(input: &'a Option<T>, name: &str) -> Result<&'a T, ModelError> {
    input
        .as_ref()
        .ok_or_else(|| ModelError::Other(format!("the frame has no {name}")))
}

fn upsample(shared: &Shared, model: &dyn Model, job: &mut Job) -> Result<(), ModelError> {
    let camera = job.camera();
    let level = shared.levels[job.level];
    let words = shared.control.words();
    let Job {
        sequence,
        number,
        image,
        inputs,
        features,
        queries,
        finder,
        output,
        whole,
        ..
    } = job;
    let request = request(shared, (&level, camera), queries, words.as_deref());
    if *whole {
        let image = stage_input(image, "image")?;
        model.whole_frame(image, &request, finder, output)?;
        output.size = (level.size.width, level.size.height);
        output.camera = (camera.width, camera.height);
        return Ok(());
    }
    let inputs = stage_input(inputs, "preprocessed image")?;
    let features = stage_input(features, "features")?;
    let head_us = model.upsample(inputs, features, &request, finder, output)?;
    if let Some(tracking) = &shared.tracking {
        let frame = TrackFrame {
            sequence: *sequence,
            number: *number,
            level: job.level,
            camera,
            size: level.size,
            queries,
        };
        let start = shared.now();
        let report = |text: String| {
            shared.log_throttled("object", || format!("frame {number}: {text}"));
        };
        tracking.run(
            model,
            (&shared.control, &report),
            (stage_input(image, "image")?, features),
            &frame,
            output,
        )?;
        shared.metrics.observe(Stage::Track, shared.now() - start);
    }
    output.size = (level.size.width, level.size.height);
    output.camera = (camera.width, camera.height);
    shared.metrics.observe(Stage::Head, head_us);
    let (computed, kept) = output.tiles;
    shared.metrics.count(Event::TileComputed, computed as u64);
    shared.metrics.count(Event::TileKept, kept as u64);
    Ok(())
}

/// Runs stage `index` of [`STAGES`].
pub(super) fn run(shared: &Shared, index: usize, generation: u64) {
    let (stage, function) = STAGES[index];
    let watched = index + 1;
    let (inbox, outbox) = (&shared.queues[index], &shared.queues[index + 1]);
    while shared.generation.load(SeqCst) == generation {
        let mut job = match inbox.recv(POLL_INTERVAL) {
            RecvResult::Item(job) => job,
            RecvResult::Timeout => continue,
            RecvResult::Closed => {
                outbox.close();
                return;
            }
        };
        let Some((model, start)) = shared.begin_with_model(watched, generation) else {
            let reason = match shared.stop.load(SeqCst) {
                true => DropReason::Shutdown,
                false => DropReason::Abandoned,
            };
            shared.discard(job, reason);
            continue;
        };
        if start.saturating_sub(job.captured_us) > 1000 * shared.config.pipeline.max_age_ms {
            shared.end(watched, start);
            shared.discard(job, DropReason::Stale);
            shared.record_deadline(DeadlineOutcome::Missed);
            continue;
        }
        let result = catch_unwind(AssertUnwindSafe(|| function(shared, &*model, &mut job)));
        if !shared.end(watched, start) {
            // Abandoned while it ran; the watchdog has counted the frame.
            shared.jobs.release(job);
            return;
        }
        let elapsed = shared.now().saturating_sub(start);
        shared.metrics.observe(stage, elapsed);
        let error = match result {
            Ok(Ok(())) => None,
            Ok(Err(e)) => Some((e.is_not_finite(), e.to_string())),
            Err(_) => Some((false, "it panicked".into())),
        };
        match error {
            None => {
                if index == STAGES.len() - 1 {
                    shared.failures.store(0, SeqCst);
                }
                if let Some(old) = outbox.send(job) {
                    shared.discard(old, REPLACED[index + 1]);
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
