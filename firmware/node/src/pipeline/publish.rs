//! The publishing thread: hands outputs to the sinks, in order and within the maximum age.

use std::sync::{Arc, atomic::Ordering::SeqCst};

use super::{
    job::Job,
    shared::{PUBLISH, Shared},
    stages::POLL_INTERVAL,
};
use crate::{
    degradation::DeadlineOutcome,
    mailbox::{Mailbox, RecvResult},
    metrics::{DropReason, Event, Stage},
    output::FrameOutput,
};

/// Runs until the last frame has passed all stages.
pub(super) fn run(shared: &Shared) {
    loop {
        match shared.queues[PUBLISH - 1].recv(POLL_INTERVAL) {
            RecvResult::Item(job) => {
                let start = shared.begin(PUBLISH);
                publish_one(shared, job);
                shared.end(PUBLISH, start);
                let elapsed = shared.now() - start;
                shared.metrics.observe(Stage::Publish, elapsed);
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
    let next = shared.next_sequence.fetch_max(job.sequence + 1, SeqCst);
    if job.sequence < next {
        return shared.discard(job, DropReason::Reordered);
    }
    let mut shared_output = reusable_output(shared);
    if let Some(output) = Arc::get_mut(&mut shared_output) {
        std::mem::swap(output, &mut job.output);
        output.sequence = job.sequence;
        output.number = job.number;
        output.captured_us = job.captured_us;
        output.header = job.header.take();
        output.published_us = now;
        output.level = job.level;
        if shared.needs_image {
            // The job gets the image of an earlier frame, or none.
            std::mem::swap(&mut output.image, &mut job.image);
        }
    }
    for queue in &shared.sink_queues {
        if queue.send(shared_output.clone()).is_some() {
            shared.metrics.count(Event::SinkDropped, 1);
        }
    }
    recycle_output(shared, shared_output);
    shared.jobs.release(job);
    shared.metrics.frame_published(age);
    let deadline = 1000 * p.deadline_ms;
    let early = (deadline as f64 * shared.config.degrade.early) as u64;
    if age > deadline {
        shared.metrics.count(Event::DeadlineMissed, 1);
        shared.log_throttled("late", || {
            format!("latency {} ms, deadline {} ms", age / 1000, p.deadline_ms)
        });
    }
    shared.record_deadline(match age {
        age if age > deadline => DeadlineOutcome::Missed,
        age if age < early => DeadlineOutcome::Early,
        _ => DeadlineOutcome::Met,
    });
    shared.monitor.published(now);
}

/// Returns an output that no sink holds any more, or a new one.
fn reusable_output(shared: &Shared) -> Arc<FrameOutput> {
    let mut outputs = shared.outputs.lock();
    for _ in 0..outputs.len() {
        match outputs.pop_front() {
            Some(output) if Arc::strong_count(&output) == 1 => return output,
            Some(output) => outputs.push_back(output),
            None => break,
        }
    }
    Arc::default()
}

fn recycle_output(shared: &Shared, output: Arc<FrameOutput>) {
    let mut outputs = shared.outputs.lock();
    if outputs.len() < outputs.capacity() {
        outputs.push_back(output);
    }
}
