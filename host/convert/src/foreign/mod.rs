//! Any ONNX graph as a backbone.

mod layout;
mod probe;
mod remarks;
#[cfg(test)]
mod tests;

use std::{
    iter::repeat,
    path::{Path, PathBuf},
};

use loftup_bundle::{FeatureLayout, Normalization, Size, Source};
use loftup_import::onnx::{Arrangement, Border, Import};
use loftup_onnx::{ElementType, Interface, Port};
use loftup_runtime::backend::{CpuBackend, Plan, compile_once};

pub use self::{layout::Layout, remarks::remarks};
use self::{
    layout::{Reading, Wanted},
    probe::{COARSE, FINE, Probe, Units},
};
use crate::{ConvertError, guard::guarded};

/// An ONNX graph that another tool wrote, and how to take it.
#[derive(Debug, Clone)]
pub struct OnnxBackbone {
    /// The file.
    pub path: PathBuf,
    /// Side of a patch in pixels.
    pub patch: usize,
    /// How it wants its images; `None` for ImageNet's, or for colors from 0 to 255 where its input
    /// is uint8.
    pub normalization: Option<Normalization>,
    /// Which output holds the features, where there are several.
    pub output: Option<String>,
    /// Order of the axes of that output, where its shape can be read in several ways.
    pub layout: Option<Layout>,
    /// Tokens in front of those of the patches, where their number is unusual.
    pub extra_tokens: Option<usize>,
}

/// A foreign graph and what was found out about it.
pub(crate) struct Foreign {
    pub onnx: Vec<u8>,
    pub input: String,
    pub output: String,
    pub dim: usize,
    pub layout: FeatureLayout,
    pub size: Size,
    pub any_size: bool,
    pub normalization: Normalization,
    /// Name and SHA-256 of each file that was read.
    pub files: Vec<(String, String)>,
}

impl Foreign {
    /// The files that it was read from.
    pub fn sources(&self) -> impl Iterator<Item = Source> {
        let roles = ["backbone graph"]
            .into_iter()
            .chain(repeat("backbone weights"));
        roles.zip(&self.files).map(|(role, (file, sha256))| Source {
            role: role.into(),
            file: file.clone(),
            sha256: sha256.clone(),
        })
    }
}

/// The size that is tried where neither the graph nor the user says one.
const DEFAULT_SIDE: usize = 224;

/// What a uint8 input is fed: colors from 0 to 255.
const BYTES: Normalization = Normalization {
    mean: [0.0; 3],
    std: [1.0 / 255.0; 3],
};

/// Reads the graph and finds out how features come out of it. `size` is a multiple of the patch.
pub(crate) fn read(source: &OnnxBackbone, size: Option<Size>) -> Result<Foreign, ConvertError> {
    let import = Import::open(&source.path)?;
    examined(source, size, &import).map_err(|what| ConvertError::ForeignOnnx {
        path: source.path.clone(),
        what,
    })
}

fn examined(source: &OnnxBackbone, size: Option<Size>, import: &Import) -> Result<Foreign, String> {
    let (path, patch) = (&source.path, source.patch);
    let interface = import.interface();
    let input = Image::of(interface)?;
    let output = features(interface, source.output.as_deref())?;
    let units = match input.port.element {
        ElementType::UINT8 => Units::Bytes,
        _ => Units::Normalized,
    };
    if units == Units::Bytes && source.normalization.is_some() {
        return Err(format!(
            "input {} is uint8 and takes colors from 0 to 255 as they are; leave out --mean and --std",
            input.port.name
        ));
    }
    let (size, fixed) = input.size(size, patch)?;
    let border = |fixed: bool, reading: Option<&Reading>| Border {
        input: &input.port.name,
        channels_last: input.channels_last,
        size: fixed.then_some([size.height, size.width]),
        output: &output.name,
        element: output.element,
        arrangement: reading.map_or(Arrangement::Keep, |r| r.layout.arrangement()),
        shape: reading.map(|r| r.shape_where(fixed)),
    };

    let onnx = import.graph(&border(fixed, None));
    let plan = compile(path, &onnx, &input.port.name, &output.name, size).map_err(|e| {
        if fixed {
            e
        } else {
            format!("{e} (tried at {size}; --size chooses another)")
        }
    })?;
    let reading = guarded(|| settle(plan.as_ref(), source, &output.name, size, units))?;
    drop(plan);

    let mut any_size = !fixed;
    let mut onnx = import.graph(&border(fixed, Some(&reading)));
    if any_size {
        let other = Size {
            width: size.width + patch,
            height: size.height + 2 * patch,
        };
        let grows = compile(path, &onnx, &input.port.name, &output.name, other)
            .is_ok_and(|plan| plan.output_shape(0) == reading.at(other, patch).shape());
        if !grows {
            log::warn!(
                "{}: its sides are dynamic, but it does not run at {other}; the bundle is for {size} alone",
                path.display()
            );
            any_size = false;
            onnx = import.graph(&border(true, Some(&reading)));
        }
    }
    if reading.extra > 0 {
        log::info!(
            "{}: the first {} tokens belong to no patch and are left out",
            path.display(),
            reading.extra
        );
    }
    Ok(Foreign {
        dim: reading.dim,
        layout: reading.in_bundle(),
        any_size,
        size,
        normalization: match units {
            Units::Bytes => BYTES,
            Units::Normalized => source.normalization.unwrap_or(Normalization::IMAGENET),
        },
        input: input.port.name.clone(),
        output: output.name.clone(),
        files: import.files().to_vec(),
        onnx,
    })
}

/// The one input, an image.
struct Image<'a> {
    port: &'a Port,
    /// `[1, H, W, 3]`
    channels_last: bool,
}

impl<'a> Image<'a> {
    fn of(interface: &'a Interface) -> Result<Self, String> {
        let [port] = &interface.inputs[..] else {
            let names = names(&interface.inputs);
            return Err(format!(
                "a backbone has one input, the image; this has {names}; export it with the image alone, or with defaults (initializers) for the others"
            ));
        };
        let (name, element) = (&port.name, port.element);
        if !element.is_float() && element != ElementType::UINT8 {
            return Err(format!(
                "input {name} is {element}, expected a float type or uint8; export it with a float32 input"
            ));
        }
        let Some(shape) = &port.shape else {
            return Ok(Self {
                port,
                channels_last: false,
            });
        };
        let extents: Vec<_> = shape
            .iter()
            .map(|n| n.map_or("?".into(), |n| n.to_string()))
            .collect();
        let wrong = |remedy: &str| {
            Err(format!(
                "input {name} has shape [{}], expected [1, 3, H, W] or [1, H, W, 3]; {remedy}",
                extents.join(", ")
            ))
        };
        let [batch, a, b, c] = shape[..] else {
            return wrong("a backbone takes one image");
        };
        if batch.is_some_and(|n| n != 1) {
            return wrong("export it with a batch of 1 or a dynamic batch");
        }
        let channels_last = match (a, b, c) {
            (Some(3), _, _) => false,
            (_, _, Some(3)) => true,
            (None, _, _) => false,
            _ => return wrong("a backbone takes three colors"),
        };
        Ok(Self {
            port,
            channels_last,
        })
    }

    /// The axes of height and width.
    fn axes(&self) -> (usize, usize) {
        if self.channels_last { (1, 2) } else { (2, 3) }
    }

    /// The size to work with, and whether the graph fixes it in either direction. What the graph
    /// leaves open is `wanted` or the default.
    fn size(&self, wanted: Option<Size>, patch: usize) -> Result<(Size, bool), String> {
        let (y, x) = self.axes();
        let fixed = |axis: usize| self.port.shape.as_ref().and_then(|s| s[axis]);
        let wanted = wanted
            .unwrap_or(Size {
                width: DEFAULT_SIDE,
                height: DEFAULT_SIDE,
            })
            .rounded_to(patch);
        let size = Size {
            width: fixed(x).unwrap_or(wanted.width),
            height: fixed(y).unwrap_or(wanted.height),
        };
        if size.width.max(size.height) > Size::LONGEST_SIDE {
            return Err(format!(
                "its input would be {size}, and no side may be over {}; check --patch",
                Size::LONGEST_SIDE
            ));
        }
        if size != size.rounded_to(patch) {
            return Err(format!(
                "its input is {size}, which is not a multiple of the patch {patch}; check --patch"
            ));
        }
        Ok((size, fixed(x).is_some() || fixed(y).is_some()))
    }
}

/// The output that holds the features.
fn features<'a>(interface: &'a Interface, name: Option<&str>) -> Result<&'a Port, String> {
    let outputs = &interface.outputs;
    match (name, &outputs[..]) {
        (Some(name), [_, ..]) => outputs
            .iter()
            .find(|o| o.name == name)
            .ok_or_else(|| format!("no output is called {name}; there are {}", names(outputs))),
        (_, []) => {
            Err("it has no outputs; export it again, with the features as its output".into())
        }
        (None, [only]) => Ok(only),
        (None, several) => Err(format!(
            "several outputs: {}; name the features with --backbone-output",
            names(several)
        )),
    }
}

/// The reading of the output that its shape allows and that follows the image.
fn settle(
    plan: &dyn Plan,
    source: &OnnxBackbone,
    output: &str,
    size: Size,
    units: Units,
) -> Result<Reading, String> {
    let shape = plan.output_shape(0);
    let what = format!("output {output} has shape {shape:?} for an image of {size}");
    let wanted = Wanted {
        layout: source.layout,
        extra: source.extra_tokens,
    };
    let readings = layout::readings(shape, size, source.patch, wanted);
    if readings.is_empty() {
        let why = layout::no_reading(shape, size, source.patch, wanted);
        return Err(format!("{what}, {why}"));
    }
    let probe = Probe::new(plan, size, source.patch, units).map_err(|e| e.to_string())?;
    if !probe.is_finite() {
        return Err(format!(
            "output {output} holds NaN or infinities for a test image; check the weights, and --mean and --std"
        ));
    }
    if probe.ignores_image() {
        return Err(format!(
            "output {output} is the same for different images; name another with --backbone-output"
        ));
    }
    let scattered = probe.scattered().map_err(|e| e.to_string())?;
    let fine = |reading: &Reading| probe.follows(&scattered, reading, reading.strides());
    let [reading] = readings[..] else {
        return Err(ambiguous(&what, &readings, fine));
    };
    // One patch tells nothing about places.
    if reading.rows * reading.columns == 1 {
        return Ok(reading);
    }
    let score = fine(&reading);
    log::info!(
        "{}: read as {}, the features follow single patches of a test image with a correlation of {score:.3} (at least {FINE})",
        source.path.display(),
        reading.layout
    );
    if score >= FINE {
        return Ok(reading);
    }
    // Features that see far beyond their patch, of which none can be one token off.
    let halves = probe.halves().map_err(|e| e.to_string())?;
    let coarse = halves
        .iter()
        .map(|mixed| probe.follows(mixed, &reading, reading.strides()))
        .fold(1.0, f32::min);
    log::info!(
        "{}: and its halves with {coarse:.3} (at least {COARSE})",
        source.path.display()
    );
    if coarse >= COARSE && reading.extra == 0 {
        return Ok(reading);
    }
    let why = reading
        .misreadings()
        .into_iter()
        .find(|(_, strides)| probe.follows(&scattered, &reading, *strides) >= FINE)
        .map_or(
            "it may hold no features of places, or have another layout or patch (--layout, --patch, --backbone-output)",
            |(what, _)| what,
        );
    Err(format!(
        "{what}, and does not follow the image when patches of it are exchanged (correlation {score:.2} read as {}, at least {FINE} is expected): {why}",
        reading.layout
    ))
}

/// Of a shape that can be read in several ways.
fn ambiguous(what: &str, readings: &[Reading], fine: impl Fn(&Reading) -> f32) -> String {
    let scores: Vec<_> = readings.iter().map(|r| (r.layout, fine(r))).collect();
    let list: Vec<_> = scores
        .iter()
        .map(|(layout, score)| format!("--layout {layout} (correlation {score:.2})"))
        .collect();
    let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let advice = match best {
        Some((layout, score)) if *score >= FINE => {
            format!("by what it makes of a test image it is --layout {layout}")
        }
        _ => "choose one".into(),
    };
    format!(
        "{what}, which can be read in several ways: {}; {advice}",
        list.join(" or ")
    )
}

/// Compiles a graph for images of `size`.
fn compile(
    path: &Path,
    onnx: &[u8],
    input: &str,
    output: &str,
    size: Size,
) -> Result<Box<dyn Plan>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    guarded(|| {
        let shape = [1, 3, size.height, size.width];
        compile_once(&CpuBackend, &name, onnx, &[(input, &shape)], &[output])
    })
    .map_err(explained)
}

/// The message of the engine, in plain words where an operator is missing.
fn explained(error: String) -> String {
    let missing = error
        .split_once("Unimplemented(")
        .and_then(|(_, rest)| rest.split_once(')'));
    match missing {
        Some((operator, _)) => format!(
            "operator {operator} is not one that tract has, and tract tries every graph; export it without that operator"
        ),
        None => error,
    }
}

fn names(ports: &[Port]) -> String {
    if ports.is_empty() {
        return "none".into();
    }
    ports
        .iter()
        .map(|p| p.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
