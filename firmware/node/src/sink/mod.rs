//! Output sinks.

mod disk;
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
    answer::Answer,
    config::{self, SinkKind},
    control::Control,
    health::{Reason, State},
    inject::FaultyLine,
    metrics::Metrics,
    source::Clock,
};

/// A sink that failed. The message is one line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// A file or device.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: std::io::Error,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// How the node is, for those who listen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Its state.
    pub state: State,
    /// Microseconds since its start.
    pub uptime_us: u64,
    /// Outputs a second, over the last second.
    pub rate_hz: f64,
    /// Median from picture to answer, of the last seconds.
    pub latency_p50_us: u64,
    /// 99th percentile of the same.
    pub latency_p99_us: u64,
    /// Hottest sensor, hundredths of a degree.
    pub temperature_cc: Option<i16>,
    /// Frames processed.
    pub answered: u64,
    /// Frames not processed.
    pub dropped: u64,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            state: State::Starting,
            uptime_us: 0,
            rate_hz: 0.0,
            latency_p50_us: 0,
            latency_p99_us: 0,
            temperature_cc: None,
            answered: 0,
            dropped: 0,
        }
    }
}

/// What a sink may use.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Names of the classes; none while no model is loaded.
    pub labels: &'a [String],
    /// What commands change.
    pub control: &'a Control,
    /// The node's clock.
    pub clock: Clock,
    /// The node's counters.
    pub metrics: &'a Metrics,
}

/// An output sink. Each runs on its own thread, so a slow sink does not block the others.
pub trait Sink: Send {
    /// What messages call it.
    fn name(&self) -> &str;

    /// Takes an output.
    ///
    /// # Errors
    /// Counted and logged; later outputs are still delivered.
    fn answer(&mut self, answer: &Answer, context: &Context<'_>) -> Result<(), SinkError>;

    /// Takes news of the node: on every change, and once a second.
    ///
    /// # Errors
    /// As [`Sink::answer`].
    fn health(&mut self, _: &Report, _: &Context<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Listens, without waiting. Called a hundred times a second.
    ///
    /// # Errors
    /// As [`Sink::answer`].
    fn poll(&mut self, _: &Context<'_>) -> Result<(), SinkError> {
        Ok(())
    }

    /// Puts everything in its place; nothing follows.
    ///
    /// # Errors
    /// As [`Sink::answer`].
    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// Frames of a link that were lost or refused.
    fn link_errors(&self) -> u64 {
        0
    }

    /// Messages, or images, that should have been in its files and are not.
    fn not_written(&self) -> u64 {
        0
    }

    /// What the node is degraded by while it fails.
    fn reason(&self) -> Reason {
        Reason::Link
    }

    /// Whether it works, as far as it knows.
    fn is_well(&self) -> bool {
        true
    }

    /// Whether it needs the camera's image.
    fn wants_picture(&self) -> bool {
        false
    }
}

/// A sink and the length of the queue before it.
pub struct SinkHandle {
    /// The sink.
    pub sink: Box<dyn Sink>,
    /// Outputs that may wait for it.
    pub queue: usize,
}

/// Opens the sinks of a configuration; links have `faults`, and `corrupted` counts the bytes that
/// these flip or drop.
///
/// Files and devices are opened when they are first used, and again when they fail.
///
/// # Errors
/// Where the configuration lacks what a kind needs.
pub fn open(
    sinks: &[config::Sink],
    faults: Faults,
    seed: u64,
    corrupted: &Arc<AtomicU64>,
) -> Result<Vec<SinkHandle>, SinkError> {
    let bad = faults != Faults::default();
    let open = |(i, sink): (usize, &config::Sink)| {
        let path = sink.path.clone().unwrap_or_default();
        let (seed, corrupted) = (seed.wrapping_add(i as u64), corrupted.clone());
        let opened: Box<dyn Sink> = match sink.kind {
            SinkKind::Serial => {
                let (name, baud) = (format!("serial {}", path.display()), sink.baud);
                let line = move || linux::serial(&path, baud).map_err(|e| e.to_string());
                let spoil = move |io| FaultyLine::new(io, faults, seed, corrupted.clone());
                link(name, line, bad.then_some(spoil))
            }
            SinkKind::Udp => {
                let (Some(bind), Some(peer)) = (sink.bind, sink.peer) else {
                    return Err(SinkError::Other(
                        "a sink of kind udp needs bind and peer".into(),
                    ));
                };
                let name = format!("udp {peer}");
                let line = move || UdpLink::open(bind, peer).map_err(|e| format!("{bind}: {e}"));
                let spoil = move |io| FaultyLine::new(io, faults, seed, corrupted.clone());
                link(name, line, bad.then_some(spoil))
            }
            SinkKind::Pictures => Box::new(PngSink::new(path, sink.every, sink.keep)),
            SinkKind::Mcap => {
                create_directory_of(&path);
                Box::new(McapSink::new(path, sink.every, sink.max_mib << 20))
            }
            #[cfg(feature = "zenoh")]
            SinkKind::Zenoh => {
                let endpoint = sink.endpoint.as_deref().unwrap_or(zenoh::ROUTER);
                Box::new(ZenohSink::new(endpoint, sink.domain))
            }
            #[cfg(not(feature = "zenoh"))]
            SinkKind::Zenoh => {
                let what = "a sink of kind zenoh needs a program built with --features zenoh";
                return Err(SinkError::Other(what.into()));
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

/// A link over the lines that `open` opens; over bad ones where `bad` says how to make them so.
fn link<IO>(
    name: String,
    open: impl Fn() -> Result<IO, String> + Send + 'static,
    bad: Option<impl Fn(IO) -> FaultyLine<IO> + Send + 'static>,
) -> Box<dyn Sink>
where
    IO: Line + 'static,
    IO::Error: Debug,
{
    match bad {
        None => Box::new(WireSink::new(name, Box::new(open))),
        Some(bad) => Box::new(WireSink::new(name, Box::new(move || open().map(&bad)))),
    }
}

/// Creates the last directory of a file's path where only that is missing. If that fails, the sink
/// waits for the directory as for a full disk.
fn create_directory_of(path: &std::path::Path) {
    if let Some(directory) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        match std::fs::create_dir(directory) {
            Ok(()) => log::info!("{}: created", directory.display()),
            Err(e) => log::debug!("{}: {e}", directory.display()),
        }
    }
}

/// Nanoseconds of the calendar's clock for a moment of the node's clock.
fn wall_ns(node_us: u64, now_us: u64) -> u64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    now.saturating_sub(1000 * now_us.saturating_sub(node_us))
}
