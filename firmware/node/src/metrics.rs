//! What is counted, and how it is told.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
};

use crate::{health::State, histogram::Histogram};

macro_rules! named {
    ($(#[$meta:meta])* $name:ident { $( $(#[$m:meta])* $variant:ident = $text:literal ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$m])* $variant ),* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[ $( Self::$variant ),* ];

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

named! {
    /// A stage of the pipeline. `Head` is measured inside `Upsample`'s thread.
    Stage {
        /// Waiting for the camera and checking what it gave.
        Capture = "capture",
        /// Resizing and normalizing.
        Preprocess = "preprocess",
        /// The vision foundation model.
        Backbone = "backbone",
        /// The upsampler, with the linear part of a head, which runs tile by tile.
        Upsample = "upsample",
        /// Classes from scores, connected areas.
        Head = "head",
        /// Handing the output to the sinks.
        Publish = "publish",
    }
}

named! {
    /// What became of a frame that was not published. Every frame the source gave is counted
    /// here or as published, exactly once.
    DropReason {
        /// Its number came before: the source repeats itself.
        Duplicate = "duplicate",
        /// A later one had come before.
        Reordered = "reordered",
        /// Fewer or more bytes than its size needs.
        Truncated = "truncated",
        /// Another size than configured.
        WrongSize = "wrong_size",
        /// More frames than the rate that is set.
        Rate = "rate",
        /// Outputs are switched off, by a command or because it is too hot.
        Paused = "paused",
        /// A newer one came before pre-processing began.
        BeforePreprocess = "before_preprocess",
        /// A newer one came before the backbone began.
        BeforeBackbone = "before_backbone",
        /// A newer one came before upsampling began.
        BeforeUpsample = "before_upsample",
        /// A newer one came before it was published.
        BeforePublish = "before_publish",
        /// Too old to be worth more work.
        Stale = "stale",
        /// A stage failed on it.
        Failed = "failed",
        /// The stage that had it was given up.
        Abandoned = "abandoned",
        /// The node was stopped.
        Shutdown = "shutdown",
    }
}

named! {
    /// What else happened.
    Event {
        /// Frames that the source never gave, by the gaps in its numbers.
        SourceLost = "source_lost",
        /// Time stamps of the source that cannot be true; the time of arrival was taken.
        TimeJump = "source_time_jump",
        /// Times the source began counting again.
        SourceRestart = "source_restart",
        /// Errors of the source.
        SourceError = "source_error",
        /// Times the source was silent for too long.
        Silence = "source_silent",
        /// Outputs later than the deadline.
        DeadlineMissed = "deadline_missed",
        /// Steps down.
        StepDown = "step_down",
        /// Steps up.
        StepUp = "step_up",
        /// Stages that hung and were given up.
        Hang = "hang",
        /// Frames on which the engine gave NaN or an infinity. They are dropped as failed.
        NotFinite = "not_finite",
        /// Stages and models started again.
        Restart = "restart",
        /// Changes of the node's state.
        StateChange = "state_change",
        /// Commands carried out.
        Command = "command",
        /// Commands refused.
        CommandRefused = "command_refused",
        /// Outputs that a sink had no time for.
        SinkDropped = "sink_dropped",
        /// Errors of sinks.
        SinkError = "sink_error",
        /// Messages and images that a sink could not write to its files.
        NotWritten = "not_written",
        /// Tiles of class maps that were computed, where the backbone does not run on every frame.
        TileComputed = "tile_computed",
        /// Tiles of class maps that had not changed, and were kept.
        TileKept = "tile_kept",
        /// Frames of serial and UDP links that were lost or refused.
        LinkError = "link_error",
    }
}

/// All counters of a node. Fixed in size.
#[derive(Debug)]
pub struct Metrics {
    /// Frames that the source gave, good or bad.
    pub captured: AtomicU64,
    /// Outputs published.
    pub published: AtomicU64,
    /// Time in each stage.
    pub stages: [Histogram; 6],
    /// From the moment an image was taken to its publication.
    pub latency: Histogram,
    /// Hottest sensor, hundredths of a degree; `i64::MIN` where there is none.
    pub temperature_cc: AtomicI64,
    /// Step of degradation, 0 for none.
    pub level: AtomicU64,
    drops: [AtomicU64; DropReason::ALL.len()],
    events: [AtomicU64; Event::ALL.len()],
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            captured: AtomicU64::new(0),
            published: AtomicU64::new(0),
            stages: Default::default(),
            latency: Histogram::default(),
            temperature_cc: AtomicI64::new(i64::MIN),
            level: AtomicU64::new(0),
            drops: [const { AtomicU64::new(0) }; DropReason::ALL.len()],
            events: [const { AtomicU64::new(0) }; Event::ALL.len()],
        }
    }
}

impl Metrics {
    /// Counts a frame that is not published.
    pub fn dropped(&self, why: DropReason) {
        self.drops[why as usize].fetch_add(1, Relaxed);
    }

    /// Frames not published for this reason.
    pub fn drops(&self, why: DropReason) -> u64 {
        self.drops[why as usize].load(Relaxed)
    }

    /// Frames not published.
    pub fn all_drops(&self) -> u64 {
        self.drops.iter().map(|n| n.load(Relaxed)).sum()
    }

    /// Counts `n` events.
    pub fn count(&self, event: Event, n: u64) {
        self.events[event as usize].fetch_add(n, Relaxed);
    }

    /// Events so far.
    pub fn events(&self, event: Event) -> u64 {
        self.events[event as usize].load(Relaxed)
    }

    /// Outputs published.
    pub fn answers(&self) -> u64 {
        self.published.load(Relaxed)
    }

    /// In Prometheus' text format, version 0.0.4.
    pub fn prometheus(&self, state: State, uptime_s: f64) -> String {
        let mut out = String::with_capacity(8192);
        // Writing into a string cannot fail.
        let _ = self.write(&mut out, state, uptime_s);
        out
    }

    fn write(&self, out: &mut String, state: State, uptime_s: f64) -> std::fmt::Result {
        let counter = |out: &mut String, name: &str, help: &str| {
            writeln!(
                out,
                "# HELP loftup_{name} {help}\n# TYPE loftup_{name} counter"
            )
        };
        counter(out, "frames_captured_total", "Frames that the source gave.")?;
        writeln!(
            out,
            "loftup_frames_captured_total {}",
            self.captured.load(Relaxed)
        )?;
        counter(out, "answers_published_total", "Answers published.")?;
        writeln!(out, "loftup_answers_published_total {}", self.answers())?;
        counter(
            out,
            "frames_dropped_total",
            "Frames not published, by reason.",
        )?;
        for why in DropReason::ALL {
            writeln!(
                out,
                "loftup_frames_dropped_total{{reason=\"{why}\"}} {}",
                self.drops(*why)
            )?;
        }
        counter(out, "events_total", "Other events.")?;
        for event in Event::ALL {
            writeln!(
                out,
                "loftup_events_total{{event=\"{event}\"}} {}",
                self.events(*event)
            )?;
        }
        writeln!(
            out,
            "# HELP loftup_stage_seconds Time in each stage.\n# TYPE loftup_stage_seconds summary"
        )?;
        for stage in Stage::ALL {
            let label = format!("stage=\"{stage}\",");
            summary(
                out,
                "loftup_stage_seconds",
                &label,
                &self.stages[*stage as usize],
            )?;
        }
        writeln!(
            out,
            "# HELP loftup_latency_seconds From picture to answer.\n# TYPE loftup_latency_seconds summary"
        )?;
        summary(out, "loftup_latency_seconds", "", &self.latency)?;
        let mut gauge = |name: &str, help: &str, value: f64| {
            writeln!(
                out,
                "# HELP loftup_{name} {help}\n# TYPE loftup_{name} gauge\nloftup_{name} {value}"
            )
        };
        gauge("uptime_seconds", "Since the start.", uptime_s)?;
        gauge(
            "level",
            "Step of degradation, 0 for none.",
            self.level.load(Relaxed) as f64,
        )?;
        let cc = self.temperature_cc.load(Relaxed);
        if cc != i64::MIN {
            gauge("temperature_celsius", "Hottest sensor.", cc as f64 / 100.0)?;
        }
        writeln!(
            out,
            "# HELP loftup_state 1 for the present state.\n# TYPE loftup_state gauge"
        )?;
        for name in State::NAMES {
            let now = u8::from(*name == state.name());
            writeln!(out, "loftup_state{{state=\"{name}\"}} {now}")?;
        }
        Ok(())
    }
}

fn summary(out: &mut String, name: &str, label: &str, times: &Histogram) -> std::fmt::Result {
    let q = times.quantiles();
    let seconds = |us: u64| us as f64 / 1e6;
    for (quantile, us) in [
        ("0.5", q.p50_us),
        ("0.9", q.p90_us),
        ("0.99", q.p99_us),
        ("1", q.max_us),
    ] {
        writeln!(
            out,
            "{name}{{{label}quantile=\"{quantile}\"}} {}",
            seconds(us)
        )?;
    }
    let labels = match label.trim_end_matches(',') {
        "" => String::new(),
        label => format!("{{{label}}}"),
    };
    writeln!(out, "{name}_sum{labels} {}", seconds(times.sum_us()))?;
    writeln!(out, "{name}_count{labels} {}", q.count)
}
