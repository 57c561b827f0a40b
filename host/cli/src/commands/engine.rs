//! `loftup engine`

use std::{path::PathBuf, str::FromStr, sync::Arc};

use anyhow::{Result, bail};
use clap::Subcommand;
use loftup_bundle::{Bundle, Size};
use loftup_runtime::{
    ExecutionOptions, Perceptor,
    backend::{
        Backend, TensorRt,
        engine_cache::{EngineCache, Entry},
        tensorrt::AheadOfTime,
    },
};
use serde_json::{Value, json};

use crate::{
    args::TensorRtArgs,
    engines::{Bar, Ready},
    output,
};

/// Build TensorRT engines in advance, and manage the engine cache.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Build(BuildArgs),
    List(ListArgs),
    Clean(CleanArgs),
}

/// Build the engines of a bundle.
///
/// The first frame then does not have to wait for them. The outputs of the engines are compared with
/// the bundle's reference outputs. Building takes minutes on a Jetson; engines in the cache are not
/// built again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  loftup engine build robot.loftup
  loftup engine build robot.loftup --size 448x448
  loftup engine build robot.loftup --target 8.6 --target 8.9    (TensorRT-RTX, no GPU needed)")]
struct BuildArgs {
    /// The bundle
    bundle: PathBuf,
    /// Output size [default: the backbone's input size, or 224x224 without a backbone]
    #[arg(long, value_name = "WxH")]
    size: Option<Size>,
    /// Size of the feature grid, for a bundle without a backbone [default: 16x16]
    #[arg(long, value_name = "WxH")]
    grid: Option<Size>,
    /// Side of a tile in pixels; must be the same as in `run` [default: 224]
    #[arg(long, value_name = "PIXELS")]
    tile: Option<std::num::NonZeroUsize>,
    /// Compute capability of the target GPU, as in 8.6, which does not have to be present; can be
    /// repeated. Requires TensorRT-RTX
    #[arg(long, value_name = "MAJOR.MINOR")]
    target: Vec<Target>,
    /// Print the engines as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tensorrt: TensorRtArgs,
}

/// A compute capability.
#[derive(Debug, Clone, Copy)]
struct Target(u32, u32);

impl FromStr for Target {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.split_once('.')
            .and_then(|(major, minor)| Some(Self(major.parse().ok()?, minor.parse().ok()?)))
            .filter(|Self(major, minor)| *major < 100 && *minor < 10)
            .ok_or_else(|| "expected MAJOR.MINOR, as in 8.6".into())
    }
}

/// List the engines in the cache and verify their checksums.
#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Print as JSON
    #[arg(long)]
    json: bool,
    /// Engine cache [default: loftup-edge/engines in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
}

/// Delete the engines in the cache, except those that another process is using.
#[derive(Debug, clap::Args)]
struct CleanArgs {
    /// Engine cache [default: loftup-edge/engines in the user's cache directory]
    #[arg(long, value_name = "DIR")]
    engine_cache: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Build(args) => build(args),
        Command::List(args) => list(args),
        Command::Clean(args) => clean(args),
    }
}

fn build(args: &BuildArgs) -> Result<()> {
    let bundle = Bundle::open(&args.bundle)?;
    let own_size = bundle.manifest().backbone.as_ref().map(|b| b.size);
    let square = |side| Size {
        width: side,
        height: side,
    };
    let size = args.size.or(own_size).unwrap_or(square(224));
    let grid = args.grid.unwrap_or(square(16));
    let bar = Arc::new(Bar::new());
    let options = || {
        let mut options = args.tensorrt.options();
        options.watch = bar.clone();
        options
    };
    let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
    for Target(major, minor) in &args.target {
        backends.push(Arc::new(AheadOfTime::open((*major, *minor), options())?));
    }
    if backends.is_empty() {
        if let (Some(reason), Ok((version, _))) =
            (TensorRt::no_gpu(&options()), TensorRt::probe(&options()))
            && version.contains("RTX")
        {
            bail!(
                "{reason}; {version} can build without a GPU: give the compute capability of the target, as in --target 8.6"
            );
        }
        backends.push(Arc::new(TensorRt::open(options())?));
    }
    let compared = args.target.is_empty() && bundle.manifest().references.is_some();
    let mut built = Vec::new();
    for backend in backends {
        let name = backend.describe();
        let tile = args.tile.map(usize::from);
        let options = ExecutionOptions {
            tile,
            ..ExecutionOptions::default()
        };
        let perceptor = Perceptor::with_backend(bundle.clone(), backend, options)?;
        let done = perceptor.compile(size, (grid.height, grid.width));
        let ready = bar.finish();
        done?;
        if !args.json {
            for engine in &ready {
                output::line(format!("{name}: {}", describe(engine)))?;
            }
            let said = match (compared, args.target.is_empty()) {
                (true, _) => "matches the bundle's reference outputs",
                (false, false) => {
                    "not compared with the bundle's reference outputs; that is done on the target GPU before the engine is used"
                }
                (false, true) => "not compared with reference outputs: the bundle has none",
            };
            output::line(format!("{name}: {said}"))?;
            let dim = perceptor.values_per_pixel(None);
            let heads = bundle.manifest().heads.keys();
            for head in heads.filter(|_| dim > 0) {
                let values = perceptor.values_per_pixel(Some(&perceptor.head(head)?));
                let mb = |values: usize| 4e-6 * (values * size.area()) as f64;
                output::line(format!(
                    "{name}: with --head {head}, {values} instead of {dim} values of each pixel leave the GPU: {:.1} instead of {:.1} MB per frame of {size}",
                    mb(values),
                    mb(dim)
                ))?;
            }
        }
        built.extend(ready.into_iter().map(|engine| {
            json!({
                "engine": name,
                "graph": engine.graph,
                "bytes": engine.bytes,
                "built_seconds": engine.seconds,
                "compared": compared,
            })
        }));
    }
    if args.json {
        let cache = args.tensorrt.cache();
        output::line(format!(
            "{:#}",
            json!({ "directory": cache.directory(), "engines": built })
        ))?;
    }
    Ok(())
}

fn describe(engine: &Ready) -> String {
    let mb = engine.bytes as f64 / 1e6;
    match engine.seconds {
        Some(seconds) => format!("{}, {mb:.1} MB, built in {seconds:.1} s", engine.graph),
        None => format!("{}, {mb:.1} MB, from the cache", engine.graph),
    }
}

fn cache(directory: Option<&PathBuf>) -> EngineCache {
    directory.map_or_else(EngineCache::of_user, EngineCache::at)
}

fn list(args: &ListArgs) -> Result<()> {
    let cache = cache(args.engine_cache.as_ref());
    let entries = cache.entries()?;
    if args.json {
        let engines: Vec<Value> = entries.iter().map(entry_json).collect();
        return output::line(format!(
            "{:#}",
            json!({ "directory": cache.directory(), "engines": engines })
        ));
    }
    for entry in &entries {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy();
        let mb = entry.bytes as f64 / 1e6;
        let content = match &entry.content {
            Ok(key) => format!(
                "{} {} for {}, compute capability {}; {}",
                key.graph, key.precision, key.library, key.capability, key.settings
            ),
            Err(why) => format!("unusable, will be rebuilt: {why}"),
        };
        output::line(format!("{name}: {mb:.1} MB, {content}"))?;
    }
    let total: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let place = cache
        .directory()
        .map_or("no cache directory".into(), |path| {
            path.display().to_string()
        });
    output::line(format!(
        "{place}: {}, {:.1} MB",
        count(entries.len()),
        total as f64 / 1e6
    ))
}

/// A number of engines, for a message.
fn count(engines: usize) -> String {
    let plural = if engines == 1 { "" } else { "s" };
    format!("{engines} engine{plural}")
}

fn entry_json(entry: &Entry) -> Value {
    let seconds = entry
        .modified
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
    let mut value = json!({
        "file": entry.path,
        "bytes": entry.bytes,
        "modified": seconds.map(|s| s.as_secs()),
    });
    match &entry.content {
        Ok(key) => {
            value["graph"] = json!(key.graph);
            value["graph_sha256"] = json!(key.sha256);
            value["library"] = json!(key.library);
            value["compute_capability"] = json!(key.capability);
            value["precision"] = json!(key.precision);
            value["profiles"] = json!(key.profiles);
            value["settings"] = json!(key.settings);
        }
        Err(why) => value["unusable"] = json!(why),
    }
    value
}

fn clean(args: &CleanArgs) -> Result<()> {
    let cleaned = cache(args.engine_cache.as_ref()).clean()?;
    let left = match cleaned.in_use {
        0 => String::new(),
        n => format!("; {n} kept, in use by another process"),
    };
    output::line(format!(
        "{} removed, {:.1} MB{left}",
        count(cleaned.engines),
        cleaned.bytes as f64 / 1e6
    ))
}
