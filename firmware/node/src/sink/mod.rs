//! Output sinks.

mod files;
pub mod foxglove;
mod mcap;
mod png;
mod recording;
mod series;
#[cfg(test)]
mod testing;
mod udp;
mod wire;
#[cfg(feature = "zenoh")]
mod zenoh;

use std::{
    fmt::Debug,
    path::PathBuf,
    sync::{Arc, atomic::AtomicU64},
    time::{SystemTime, UNIX_EPOCH},
};

pub use mcap::{McapSink, schema};
pub use png::PngSink;
pub use recording::RecordingSink;
pub use udp::UdpLink;
pub use wire::{Line, WireSink};
#[cfg(feature = "zenoh")]
pub use zenoh::ZenohSink;

use loftup_board::linux;
use loftup_wire::faults::Faults;

use crate::{
    config::{self, SinkKind},
    control::Control,
    health::{Reason, State},
    inject::FaultyLine,
    metrics::Metrics,
    model::Model,
    output::FrameOutput,
    ros,
    source::Clock,
};

/// Why a sink failed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file or device failed.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Its path.
        path: PathBuf,
        /// The cause.
        cause: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// The health of the node, as sent to sinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealthReport {
    /// State.
    pub state: State,
    /// Microseconds since the start.
    pub uptime_us: u64,
    /// Outputs per second, over the last second.
    pub rate_hz: f64,
    /// Median latency from capture to publication, over the last seconds.
    pub latency_p50_us: u64,
    /// 99th percentile of the same latency.
    pub latency_p99_us: u64,
    /// Hottest sensor, hundredths of a degree.
    pub temperature_cc: Option<i16>,
    /// Outputs published since the start.
    pub published: u64,
    /// Frames dropped since the start.
    pub dropped: u64,
}

impl Default for HealthReport {
    fn default() -> Self {
        Self {
            state: State::Starting,
            uptime_us: 0,
            rate_hz: 0.0,
            latency_p50_us: 0,
            latency_p99_us: 0,
            temperature_cc: None,
            published: 0,
            dropped: 0,
        }
    }
}

/// The parts of the node that a sink may access.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Class names; empty until the model is loaded.
    pub labels: &'a [String],
    /// The model, to read words; `None` until it is loaded.
    pub model: Option<&'a dyn Model>,
    /// Settings that commands change.
    pub control: &'a Control,
    /// The node's clock.
    pub clock: Clock,
    /// The node's metrics.
    pub metrics: &'a Metrics,
}

/// The status of a sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SinkStatus {
    /// Whether the last attempt to write succeeded.
    pub healthy: bool,
    /// The reason for which the node is degraded while the sink fails.
    pub reason: Reason,
    /// Frames lost or rejected on a link, since the start.
    pub link_errors: u64,
    /// Messages and images that could not be written to files, since the start.
    pub not_written: u64,
}

impl Default for SinkStatus {
    fn default() -> Self {
        Self {
            healthy: true,
            reason: Reason::Link,
            link_errors: 0,
            not_written: 0,
        }
    }
}

/// An output sink. Each runs on its own thread, so a slow sink does not block the others.
pub trait Sink: Send {
    /// Name in messages.
    fn name(&self) -> &str;

    /// Writes an output.
    ///
    /// # Errors
    /// Errors are counted and logged; later outputs are still delivered.
    fn push(&mut self, frame: &FrameOutput, context: &Context<'_>) -> Result<(), SinkError>;

    /// Writes a health report: on every state change, and once a second.
    ///
    /// # Errors
    /// Same as for [`Sink::push`].
    fn push_health(&mut self, _: &HealthReport, _: &Context<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Handles input and timers without blocking. Called about a hundred times a second.
    ///
    /// # Errors
    /// Same as for [`Sink::push`].
    fn poll(&mut self, _: &Context<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Flushes and closes the sink; it is not used afterwards.
    ///
    /// # Errors
    /// Same as for [`Sink::push`].
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Whether it works, and its error counts.
    fn status(&self) -> SinkStatus {
        SinkStatus::default()
    }

    /// Whether it needs the camera image.
    fn needs_image(&self) -> bool {
        false
    }
}

/// A sink and the length of its queue.
pub struct SinkHandle {
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Length of its queue.
    pub queue: usize,
}

/// Opens the configured sinks. `faults` are injected into links; `corrupted` counts the bytes that
/// they flip or drop.
///
/// Files and devices are opened on first use, and reopened when they fail.
///
/// # Errors
/// If a sink lacks a setting.
pub fn open(
    sinks: &[config::Sink],
    faults: Faults,
    seed: u64,
    corrupted: &Arc<AtomicU64>,
) -> Result<Vec<SinkHandle>, SinkError> {
    let faulty = faults != Faults::default();
    let open = |(i, sink): (usize, &config::Sink)| {
        let path = sink.path.clone().unwrap_or_default();
        let (seed, corrupted) = (seed.wrapping_add(i as u64), corrupted.clone());
        let opened: Box<dyn Sink> = match sink.kind {
            SinkKind::Serial => {
                let (name, baud) = (format!("serial {}", path.display()), sink.baud);
                let line = move || linux::serial(&path, baud).map_err(|e| e.to_string());
                let inject = move |io| FaultyLine::new(io, faults, seed, corrupted.clone());
                link(name, line, faulty.then_some(inject))
            }
            SinkKind::Udp => {
                let (Some(bind), Some(peer)) = (sink.bind, sink.peer) else {
                    return Err(SinkError::Other(
                        "a sink of kind udp needs bind and peer".into(),
                    ));
                };
                let name = format!("udp {peer}");
                let line = move || UdpLink::open(bind, peer).map_err(|e| format!("{bind}: {e}"));
                let inject = move |io| FaultyLine::new(io, faults, seed, corrupted.clone());
                link(name, line, faulty.then_some(inject))
            }
            SinkKind::Images => Box::new(PngSink::new(path, sink.every, sink.keep)),
            SinkKind::Mcap => {
                create_directory_of(&path);
                Box::new(McapSink::new(path, sink.every, sink.max_mib << 20))
            }
            #[cfg(feature = "zenoh")]
            SinkKind::Zenoh => {
                let endpoint = sink.endpoint.as_deref().unwrap_or(crate::ros::ROUTER);
                Box::new(ZenohSink::new(endpoint, sink.domain, sink.distro))
            }
            #[cfg(not(feature = "zenoh"))]
            SinkKind::Zenoh => {
                return Err(SinkError::Other(crate::source::NO_ZENOH.into()));
            }
            SinkKind::Recording => {
                create_directory_of(&path);
                Box::new(RecordingSink::new(path, sink.every, sink.max_mib << 20))
            }
        };
        Ok(SinkHandle {
            sink: opened,
            queue: sink.queue,
        })
    };
    sinks.iter().enumerate().map(open).collect()
}

/// A link over the lines that `open` returns, with faults from `inject`.
fn link<IO>(
    name: String,
    open: impl Fn() -> Result<IO, String> + Send + 'static,
    inject: Option<impl Fn(IO) -> FaultyLine<IO> + Send + 'static>,
) -> Box<dyn Sink>
where
    IO: Line + 'static,
    IO::Error: Debug,
{
    match inject {
        None => Box::new(WireSink::new(name, Box::new(open))),
        Some(inject) => Box::new(WireSink::new(name, Box::new(move || open().map(&inject)))),
    }
}

/// Creates the last directory of a file's path if only that is missing. If that fails, the sink
/// retries as it does for a full disk.
fn create_directory_of(path: &std::path::Path) {
    if let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        match std::fs::create_dir(directory) {
            Ok(()) => log::info!("{}: created", directory.display()),
            Err(e) => log::debug!("{}: {e}", directory.display()),
        }
    }
}

/// Default frame of reference of images.
const FRAME_ID: &str = "camera";

/// Returns stamp and frame of reference of an output: those of the image's sender, or else the capture time
/// and [`FRAME_ID`].
fn header_of(frame: &FrameOutput, captured_ns: u64) -> ros::Header<'_> {
    let (stamp_ns, frame_id) = match &frame.header {
        Some(header) => (header.stamp_ns, &*header.frame_id),
        None => (captured_ns, FRAME_ID),
    };
    ros::Header { stamp_ns, frame_id }
}

/// Converts a time of the node's clock to nanoseconds since 1970-01-01 UTC.
fn wall_ns(node_us: u64, now_us: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    now.saturating_sub(1000 * now_us.saturating_sub(node_us))
}
