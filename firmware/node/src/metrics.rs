//! Counters, gauges and histograms, and their Prometheus text format.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use prometheus_client::{
    encoding::prometheus_text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use crate::{health::State, latency::LatencyRecorder};

macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $( $(#[$m:meta])* $variant:ident = $text:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$m])* $variant ),* }

        impl $name {
            /// All variants.
            pub const ALL: [Self; [$( $text ),*].len()] = [ $( Self::$variant ),* ];

            /// Its name in logs and metrics.
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $text ),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

named_enum! {
    /// A stage of the pipeline. `Head` is measured inside the thread of `Upsample`.
    Stage {
        /// Waiting for the source and validating its frame.
        Capture = "capture",
        /// Resizing and normalizing.
        Preprocess = "preprocess",
        /// The vision foundation model.
        Backbone = "backbone",
        /// The upsampler, with the linear layer of the head, which runs tile by tile.
        Upsample = "upsample",
        /// Argmax over the class scores, and connected components.
        Head = "head",
        /// Following tracked objects, with their features. Inside the thread of `Upsample`.
        Track = "track",
        /// Handing the output to the sinks.
        Publish = "publish",
    }
}

named_enum! {
    /// Why a frame was not published. Every frame from the source is counted exactly once, here
    /// or as published.
    DropReason {
        /// Its number was already seen.
        Duplicate = "duplicate",
        /// A later frame came first.
        Reordered = "reordered",
        /// The byte count does not match its size.
        Truncated = "truncated",
        /// Its size is not the configured one.
        WrongSize = "wrong_size",
        /// Above the configured frame rate.
        Rate = "rate",
        /// The process has used the CPU time that it may use.
        CpuLimit = "cpu_limit",
        /// Processing is paused, by a command or because of heat.
        Paused = "paused",
        /// Replaced by a newer frame before pre-processing.
        BeforePreprocess = "before_preprocess",
        /// Replaced by a newer frame before the backbone.
        BeforeBackbone = "before_backbone",
        /// Replaced by a newer frame before upsampling.
        BeforeUpsample = "before_upsample",
        /// Replaced by a newer frame before publishing.
        BeforePublish = "before_publish",
        /// Older than `max_age_ms`.
        Stale = "stale",
        /// A stage returned an error.
        Failed = "failed",
        /// In a stage that hung and was abandoned.
        Abandoned = "abandoned",
        /// The node was shut down.
        Shutdown = "shutdown",
    }
}

named_enum! {
    /// Everything else that is counted.
    Event {
        /// Frames missing in the source's numbering.
        SourceLost = "source_lost",
        /// Implausible time stamps, replaced by the time of arrival.
        TimeJump = "source_time_jump",
        /// Times the source restarted its numbering.
        SourceRestart = "source_restart",
        /// Source errors.
        SourceError = "source_error",
        /// Times the source delivered nothing within its timeout.
        Silence = "source_silent",
        /// Outputs published after their deadline.
        DeadlineMissed = "deadline_missed",
        /// Degradation steps down.
        StepDown = "step_down",
        /// Degradation steps up.
        StepUp = "step_up",
        /// Stages that hung and were abandoned.
        Hang = "hang",
        /// Frames for which the engine returned NaN or infinity. They are dropped as failed.
        NotFinite = "not_finite",
        /// Restarts of stages and models.
        Restart = "restart",
        /// Changes of the node's state.
        StateChange = "state_change",
        /// Commands executed.
        Command = "command",
        /// Commands refused.
        CommandRefused = "command_refused",
        /// Outputs dropped because a sink was too slow.
        SinkDropped = "sink_dropped",
        /// Sink errors.
        SinkError = "sink_error",
        /// Messages and images that a sink could not write to its files.
        NotWritten = "not_written",
        /// Class map tiles that were computed, when the backbone does not run on every frame.
        TileComputed = "tile_computed",
        /// Class map tiles that were unchanged and reused.
        TileKept = "tile_kept",
        /// Frames lost or rejected on serial and UDP links.
        LinkError = "link_error",
    }
}

/// All metrics of a node. Updating them does not allocate.
#[derive(Debug)]
pub struct Metrics {
    /// Latency from capture to publication, for health reports.
    pub latency: LatencyRecorder,
    registry: Registry,
    captured: Counter,
    published: Counter,
    drops: [Counter; DropReason::ALL.len()],
    events: [Counter; Event::ALL.len()],
    stage_seconds: [Histogram; Stage::ALL.len()],
    latency_seconds: Histogram,
    level: Gauge,
    /// Hundredths of a degree; `i64::MIN` without a reading.
    temperature_cc: AtomicI64,
    // Set when the metrics are encoded.
    uptime: Gauge<f64, AtomicU64>,
    temperature: Family<NoLabels, Gauge<f64, AtomicU64>>,
    states: [Gauge; State::NAMES.len()],
}

type Label = [(&'static str, &'static str); 1];
type NoLabels = [(&'static str, &'static str); 0];

/// Creates a histogram from 0.5 ms to 16 s.
fn histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 16))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("loftup");
        let (captured, published) = (Counter::default(), Counter::default());
        registry.register(
            "frames_captured",
            "Frames from the source",
            captured.clone(),
        );
        registry.register("outputs_published", "Outputs published", published.clone());
        let drops = Family::<Label, Counter>::default();
        registry.register(
            "frames_dropped",
            "Frames not published, by reason",
            drops.clone(),
        );
        let events = Family::<Label, Counter>::default();
        registry.register("events", "Other events", events.clone());
        let stages = Family::<Label, Histogram>::new_with_constructor(histogram);
        registry.register("stage_seconds", "Time in each stage", stages.clone());
        let latency_seconds = histogram();
        registry.register(
            "latency_seconds",
            "Time from capture to publication",
            latency_seconds.clone(),
        );
        let uptime = Gauge::default();
        registry.register("uptime_seconds", "Time since the start", uptime.clone());
        let level = Gauge::default();
        registry.register("level", "Degradation step, 0 for none", level.clone());
        let temperature = Family::default();
        registry.register("temperature_celsius", "Hottest sensor", temperature.clone());
        let states = Family::<Label, Gauge>::default();
        registry.register("state", "1 for the current state", states.clone());
        Self {
            latency: LatencyRecorder::default(),
            drops: DropReason::ALL.map(|r| drops.get_or_create_owned(&[("reason", r.name())])),
            events: Event::ALL.map(|e| events.get_or_create_owned(&[("event", e.name())])),
            stage_seconds: Stage::ALL.map(|s| stages.get_or_create_owned(&[("stage", s.name())])),
            states: State::NAMES.map(|name| states.get_or_create_owned(&[("state", name)])),
            registry,
            captured,
            published,
            latency_seconds,
            level,
            temperature_cc: AtomicI64::new(i64::MIN),
            uptime,
            temperature,
        }
    }
}

impl Metrics {
    /// Counts a frame from the source, valid or not.
    pub fn frame_captured(&self) {
        self.captured.inc();
    }

    /// Frames from the source.
    pub fn captured(&self) -> u64 {
        self.captured.get()
    }

    /// Counts a published output that is `age_us` old.
    pub fn frame_published(&self, age_us: u64) {
        self.published.inc();
        self.latency.record(age_us);
        self.latency_seconds.observe(seconds(age_us));
    }

    /// Outputs published.
    pub fn published(&self) -> u64 {
        self.published.get()
    }

    /// Counts a frame that is not published.
    pub fn frame_dropped(&self, reason: DropReason) {
        self.drops[reason as usize].inc();
    }

    /// Frames not published for this reason.
    pub fn drops(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize].get()
    }

    /// Frames not published.
    pub fn total_drops(&self) -> u64 {
        self.drops.iter().map(Counter::get).sum()
    }

    /// Counts `n` events.
    pub fn count(&self, event: Event, n: u64) {
        self.events[event as usize].inc_by(n);
    }

    /// Events so far.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].get()
    }

    /// Records the time that a stage took.
    pub fn observe(&self, stage: Stage, us: u64) {
        self.stage_seconds[stage as usize].observe(seconds(us));
    }

    /// Sets the degradation step.
    pub fn set_level(&self, level: usize) {
        self.level.set(i64::try_from(level).unwrap_or(i64::MAX));
    }

    /// Degradation step, 0 for none.
    pub fn level(&self) -> usize {
        usize::try_from(self.level.get()).unwrap_or(0)
    }

    /// Sets the temperature of the hottest sensor, in hundredths of a degree.
    pub fn set_temperature_cc(&self, cc: Option<i16>) {
        self.temperature_cc
            .store(cc.map_or(i64::MIN, i64::from), Relaxed);
    }

    /// Temperature of the hottest sensor, in hundredths of a degree.
    pub fn temperature_cc(&self) -> Option<i16> {
        i16::try_from(self.temperature_cc.load(Relaxed)).ok()
    }

    /// The metrics in the Prometheus text format, version 0.0.4.
    pub fn encode(&self, state: State, uptime_s: f64) -> String {
        self.uptime.set(uptime_s);
        match self.temperature_cc() {
            Some(cc) => {
                let gauge = self.temperature.get_or_create(&[]);
                gauge.set(f64::from(cc) / 100.0);
            }
            None => self.temperature.clear(),
        }
        for (gauge, name) in self.states.iter().zip(State::NAMES) {
            gauge.set(i64::from(name == state.name()));
        }
        let mut text = String::with_capacity(16 << 10);
        // Writing to a string cannot fail.
        let _ = prometheus_text::encode(&mut text, &self.registry);
        text
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_encoded_under_their_names() {
        let metrics = Metrics::default();
        metrics.frame_captured();
        metrics.frame_published(3000);
        metrics.frame_dropped(DropReason::WrongSize);
        metrics.count(Event::Hang, 2);
        metrics.observe(Stage::Backbone, 700);
        metrics.set_level(1);
        let text = metrics.encode(State::Running, 2.5);
        assert!(!text.contains("loftup_temperature_celsius "), "{text}");
        metrics.set_temperature_cc(Some(5150));
        let text = metrics.encode(State::Running, 2.5);
        for line in [
            "# TYPE loftup_frames_captured_total counter",
            "loftup_frames_captured_total 1",
            "loftup_outputs_published_total 1",
            "loftup_frames_dropped_total{reason=\"wrong_size\"} 1",
            "loftup_frames_dropped_total{reason=\"stale\"} 0",
            "loftup_events_total{event=\"hang\"} 2",
            "# TYPE loftup_stage_seconds histogram",
            "loftup_stage_seconds_sum{stage=\"backbone\"} 0.0007",
            "loftup_stage_seconds_count{stage=\"backbone\"} 1",
            "loftup_stage_seconds_bucket{stage=\"backbone\",le=\"0.0005\"} 0",
            "loftup_stage_seconds_bucket{stage=\"backbone\",le=\"0.001\"} 1",
            "loftup_latency_seconds_count 1",
            "loftup_uptime_seconds 2.5",
            "loftup_level 1",
            "loftup_temperature_celsius 51.5",
            "loftup_state{state=\"running\"} 1",
            "loftup_state{state=\"failed\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in:\n{text}");
        }
    }
}
