//! The upsampler's queries by kernels of our own, inside the CPU engine.
//!
//! A graph that is exactly the queries graph of `loftup-models` is not interpreted: its weights are
//! read out and `loftup-kernels` computes what it says. Every other graph is tract's.

use std::{
    collections::hash_map::RandomState,
    env,
    hash::BuildHasher,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use loftup_bundle::Precision;
use loftup_kernels::{Context, Isa, KernelError, Queries};
use loftup_spec::{HALO, io};

use super::{BackendError, GraphSource, Plan, Session};

const BACKEND: &str = "tract";
/// Chooses the kernels.
const VARIABLE: &str = "LOFTUP_KERNELS";

/// Which kernels are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernels {
    Off,
    On(Isa),
}

impl Kernels {
    /// As `LOFTUP_KERNELS` says; the machine's best where it says nothing.
    pub fn from_environment(graph: &GraphSource<'_>) -> Result<Self, BackendError> {
        let value = env::var(VARIABLE).ok();
        Self::parse(value.as_deref()).map_err(|what| BackendError::Load {
            backend: BACKEND,
            graph: graph.name.into(),
            what,
        })
    }

    fn parse(value: Option<&str>) -> Result<Self, String> {
        match value {
            None | Some("") => Ok(Self::On(Isa::detect())),
            Some("off") => Ok(Self::Off),
            Some(name) => match name.parse::<Isa>() {
                Ok(isa) if isa.is_available() => Ok(Self::On(isa)),
                _ => Err(format!(
                    "{VARIABLE}={name}: this machine has no such kernels; write {}, or nothing for the fastest",
                    available()
                )),
            },
        }
    }
}

/// The instruction set that a queries graph would be computed with; `off` without kernels.
pub(crate) fn kernel_isa() -> String {
    match Kernels::parse(env::var(VARIABLE).ok().as_deref()) {
        Ok(Kernels::On(isa)) => isa.to_string(),
        _ => "off".into(),
    }
}

fn available() -> String {
    let names = Isa::ALL.iter().filter(|isa| isa.is_available());
    names
        .map(|isa| isa.to_string())
        .chain(["off".into()])
        .collect::<Vec<_>>()
        .join(", ")
}

/// A plan for `graph`, or `None` where it is no queries graph or no kernels are wanted.
pub(super) fn compile(
    graph: &GraphSource<'_>,
    kernels: Kernels,
) -> Result<Option<NativePlan>, BackendError> {
    let Kernels::On(isa) = kernels else {
        return Ok(None);
    };
    let Some(extents) = Extents::of(graph) else {
        return Ok(None);
    };
    let Some(queries) = queries(graph, extents.layers, isa)? else {
        log::info!(
            "{}: not the queries graph of this version; tract runs it, slower",
            graph.name
        );
        return Ok(None);
    };
    let shape = queries.dims();
    let heads = [shape.heads, shape.head_width, extents.tokens];
    if heads != extents.heads {
        return Ok(None);
    }
    log::debug!("{}: {} kernels", graph.name, queries.isa());
    let Extents {
        tiles,
        height,
        width,
        tokens,
        ..
    } = extents;
    let inputs = graph.inputs.iter();
    Ok(Some(NativePlan {
        about: Arc::new(About {
            graph: graph.name.into(),
            inputs: inputs
                .map(|(name, shape)| ((*name).into(), shape.iter().product()))
                .collect(),
            outputs: tiles * height * width * shape.dim,
        }),
        output: [tiles * height * width, shape.dim],
        size: [tiles, height, width, tokens],
        queries,
    }))
}

/// What the inputs of a queries graph say.
struct Extents {
    tiles: usize,
    height: usize,
    width: usize,
    tokens: usize,
    /// Heads, their width, and tokens.
    heads: [usize; 3],
    layers: usize,
}

impl Extents {
    /// `None` where names, order or shapes are not those of a queries graph.
    fn of(graph: &GraphSource<'_>) -> Option<Self> {
        let [
            (io::GUIDANCE, guidance),
            (io::COORDS, coords),
            (io::MASK, mask),
            pairs @ ..,
        ] = graph.inputs
        else {
            return None;
        };
        let [tiles, 3, rows, cols] = **guidance else {
            return None;
        };
        let (height, width) = (rows.checked_sub(2 * HALO)?, cols.checked_sub(2 * HALO)?);
        let layers = pairs.len() / 2;
        let (_, first) = pairs.first()?;
        let [heads, head_width, tokens] = **first else {
            return None;
        };
        let named = pairs.iter().enumerate().all(|(i, (name, shape))| {
            let (expected, extents) = match i % 2 {
                0 => (io::key(i / 2), [heads, head_width, tokens]),
                _ => (io::value(i / 2), [heads, tokens, head_width]),
            };
            *name == expected && *shape == extents
        });
        let whole = graph.outputs == [io::UPSAMPLED]
            && graph.precision == Precision::Fp32
            && *coords == [tiles, 2, rows, cols]
            && *mask == [tiles, 1, rows, cols]
            && pairs.len() == 2 * layers
            && named
            && tiles * height * width * tokens > 0;
        whole.then_some(Self {
            tiles,
            height,
            width,
            tokens,
            heads: [heads, head_width, tokens],
            layers,
        })
    }
}

/// Weights packed for an instruction set, kept while any plan uses them: a plan for another shape
/// of the same graph packs nothing.
type Packed = (u128, Isa, Weak<Queries>);

fn queries(
    graph: &GraphSource<'_>,
    layers: usize,
    isa: Isa,
) -> Result<Option<Arc<Queries>>, BackendError> {
    static PACKED: Mutex<Vec<Packed>> = Mutex::new(Vec::new());
    let key = fingerprint(graph.onnx);
    // Held while packing, so that no graph is packed twice.
    let mut packed = PACKED.lock().unwrap_or_else(PoisonError::into_inner);
    packed.retain(|(_, _, queries)| queries.strong_count() > 0);
    let known = packed.iter().find(|(k, i, _)| (*k, *i) == (key, isa));
    if let Some(queries) = known.and_then(|(_, _, queries)| queries.upgrade()) {
        return Ok(Some(queries));
    }
    // What cannot be read is for tract to complain about.
    let Some(weights) = loftup_onnx::loftup::read_queries(graph.onnx, layers) else {
        return Ok(None);
    };
    let queries = Queries::new(isa, &weights).map_err(|e| BackendError::Load {
        backend: BACKEND,
        graph: graph.name.into(),
        what: e.to_string(),
    })?;
    let queries = Arc::new(queries);
    packed.push((key, isa, Arc::downgrade(&queries)));
    Ok(Some(queries))
}

/// 128 bits that two graphs share only by a chance of 2^-128: the hashes are seeded anew in every
/// process.
fn fingerprint(bytes: &[u8]) -> u128 {
    static SEEDS: OnceLock<[RandomState; 2]> = OnceLock::new();
    let seeds = SEEDS.get_or_init(|| [RandomState::new(), RandomState::new()]);
    let [high, low] = seeds.each_ref().map(|s| u128::from(s.hash_one(bytes)));
    high << 64 | low
}

/// What messages need to know of a graph, and sizes.
#[derive(Debug)]
struct About {
    graph: String,
    /// Name and number of values.
    inputs: Vec<(String, usize)>,
    /// Values of the output.
    outputs: usize,
}

impl About {
    fn failed(&self, what: String) -> BackendError {
        BackendError::Run {
            backend: BACKEND,
            graph: self.graph.clone(),
            what,
        }
    }
}

/// The queries graph for one shape of tiles.
pub(super) struct NativePlan {
    about: Arc<About>,
    output: [usize; 2],
    /// Tiles, their rows and columns, and tokens.
    size: [usize; 4],
    queries: Arc<Queries>,
}

impl Plan for NativePlan {
    fn output_shape(&self, index: usize) -> &[usize] {
        // One output, whose index the caller has from the graph it compiled.
        [&self.output][index]
    }

    fn session(&self) -> Result<Box<dyn Session>, BackendError> {
        let [tiles, height, width, tokens] = self.size;
        Ok(Box::new(NativeSession {
            context: self.queries.context(tiles, height, width, tokens),
            set: vec![false; self.about.inputs.len()],
            pixels: Default::default(),
            output: Vec::new(),
            about: self.about.clone(),
        }))
    }
}

struct NativeSession {
    about: Arc<About>,
    context: Context,
    /// Which inputs have been set.
    set: Vec<bool>,
    /// Guidance, coordinates and mask.
    pixels: [Vec<f32>; 3],
    output: Vec<f32>,
}

impl Session for NativeSession {
    fn set(&mut self, input: usize, values: &[f32]) -> Result<(), BackendError> {
        let (name, expected) = &self.about.inputs[input];
        if values.len() != *expected {
            return Err(BackendError::Size {
                graph: self.about.graph.clone(),
                tensor: name.clone(),
                expected: *expected,
                found: values.len(),
            });
        }
        let pixels = self.pixels.len();
        let taken: Result<(), KernelError> = if input < pixels {
            self.pixels[input].clear();
            self.pixels[input].extend_from_slice(values);
            Ok(())
        } else if (input - pixels).is_multiple_of(2) {
            self.context.set_keys((input - pixels) / 2, values)
        } else {
            self.context.set_values((input - pixels) / 2, values)
        };
        taken.map_err(|e| self.about.failed(e.to_string()))?;
        self.set[input] = true;
        Ok(())
    }

    fn run(&mut self) -> Result<(), BackendError> {
        if let Some(missing) = self.set.iter().position(|set| !set) {
            let what = format!("input {} has not been set", self.about.inputs[missing].0);
            return Err(self.about.failed(what));
        }
        self.output.resize(self.about.outputs, 0.0);
        let [guidance, coords, mask] = &self.pixels;
        self.context
            .run(guidance, coords, mask, &mut self.output)
            .map_err(|e| self.about.failed(e.to_string()))
    }

    fn output(&self, index: usize) -> &[f32] {
        if index == 0 { &self.output } else { &[] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_kernels_or_is_told_what_there_is() {
        assert_eq!(Kernels::parse(None).ok(), Some(Kernels::On(Isa::detect())));
        assert_eq!(Kernels::parse(Some("off")).ok(), Some(Kernels::Off));
        assert_eq!(
            Kernels::parse(Some("generic")).ok(),
            Some(Kernels::On(Isa::Generic))
        );
        let e = Kernels::parse(Some("mmx")).expect_err("no such kernels");
        let e = e.to_string();
        assert!(
            e.contains("LOFTUP_KERNELS=mmx") && e.contains("generic"),
            "{e}"
        );
        assert_eq!(e.lines().count(), 1);
    }
}
