//! How objects are tracked.

use loftup_bundle::Size;
use loftup_runtime::track::TrackOptions;

use super::EngineArgs;

/// How labels are propagated.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct TrackArgs {
    /// The grid on which labels are propagated
    #[arg(long, value_name = "WxH", default_value = "112x112")]
    pub grid: Size,
    /// How far an object can move between frames, in cells of the grid
    #[arg(long, value_name = "CELLS", default_value_t = TrackOptions::default().radius)]
    radius: usize,
    /// Last frames that labels are taken from, besides the first
    #[arg(long, value_name = "N", default_value_t = TrackOptions::default().last_frames)]
    last_frames: usize,
    /// Most similar cells that a label is the mean of
    #[arg(long, value_name = "N", default_value_t = TrackOptions::default().top_k)]
    top_k: usize,
    /// An object whose soft label is nowhere above this is not visible; 0 is the published protocol, in
    /// which an object is always visible
    #[arg(long, value_name = "0..1", default_value_t = TrackOptions::default().min_label)]
    min_label: f32,
}

impl TrackArgs {
    /// The options; threads are those of the engine.
    pub fn options(&self, engine: &EngineArgs) -> TrackOptions {
        TrackOptions {
            radius: self.radius,
            last_frames: self.last_frames,
            top_k: self.top_k,
            min_label: self.min_label,
            threads: engine.options().threads,
            ..TrackOptions::default()
        }
    }
}
