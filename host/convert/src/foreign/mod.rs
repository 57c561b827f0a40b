//! Any ONNX model as a backbone.

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

/// An ONNX model exported by another tool, and how to interpret it.
#[derive(Debug, Clone)]
pub struct OnnxBackbone {
    /// The file.
    pub path: PathBuf,
    /// Patch size in pixels.
    pub patch: usize,
    /// Normalization of its input; `None` for ImageNet's, or for values from 0 to 255 if its input is
    /// uint8.
    pub normalization: Option<Normalization>,
    /// The output with the features, if there are several outputs.
    pub output: Option<String>,
    /// Layout of that output, if its shape is ambiguous.
    pub layout: Option<Layout>,
    /// Number of tokens before the patch tokens, if it is unusual.
    pub extra_tokens: Option<usize>,
}

/// An imported model and its detected properties.
pub(crate) struct Foreign {
    pub onnx: Vec<u8>,
    pub input: String,
    pub output: String,
    pub dim: usize,
    pub layout: FeatureLayout,
    pub size: Size,
    pub any_size: bool,
    pub normalization: Normalization,
    /// Name and SHA-256 of each input file.
    pub files: Vec<(String, String)>,
}

impl Foreign {
    /// The input files.
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

/// Side of the input if neither the model nor the user determines it.
const DEFAULT_SIDE: usize = 224;

/// Normalization of a uint8 input: values from 0 to 255.
const BYTES: Normalization = Normalization {
    mean: [0.0; 3],
    std: [1.0 / 255.0; 3],
};

/// Reads the model and detects the layout of its features. `size` is a multiple of the patch size.
pub(crate) fn read(source: &OnnxBackbone, size: Option<Size>) -> Result<Foreign, ConvertError> {
    let import = Import::open(&source.path)?;
    examine(source, size, &import).map_err(|what| ConvertError::ForeignOnnx {
        path: source.path.clone(),
        what,
    })
}

fn examine(source: &OnnxBackbone, size: Option<Size>, import: &Import) -> Result<Foreign, String> {
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
            "input {} is uint8 and takes values from 0 to 255; omit --mean and --std",
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
            format!("{e} (tried at {size}; choose another size with --size)")
        }
    })?;
    let reading = guarded(|| detect_layout(plan.as_ref(), source, &output.name, size, units))?;
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
                "{}: the input size is dynamic, but the model fails at {other}; the bundle supports only {size}",
                path.display()
            );
            any_size = false;
            onnx = import.graph(&border(true, Some(&reading)));
        }
    }
    if reading.extra > 0 {
        log::info!(
            "{}: the first {} tokens are not patch tokens and are dropped",
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

/// The image input.
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
                "a backbone must have one input, the image, but this model has {names}; export it with only the image as input, or with initializers for the others"
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
            return wrong("a backbone takes a single image");
        };
        if batch.is_some_and(|n| n != 1) {
            return wrong("export it with a batch of 1 or a dynamic batch");
        }
        let channels_last = match (a, b, c) {
            (Some(3), _, _) => false,
            (_, _, Some(3)) => true,
            (None, _, _) => false,
            _ => return wrong("a backbone takes three color channels"),
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

    /// The input size, and whether the model fixes it in either direction. Dynamic sides are those of
    /// `wanted` or the default.
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
                "the input would be {size}, but sides are limited to {}; check --patch",
                Size::LONGEST_SIDE
            ));
        }
        if size != size.rounded_to(patch) {
            return Err(format!(
                "the input is {size}, which is not a multiple of the patch size {patch}; check --patch"
            ));
        }
        Ok((size, fixed(x).is_some() || fixed(y).is_some()))
    }
}

/// The output with the features.
fn features<'a>(interface: &'a Interface, name: Option<&str>) -> Result<&'a Port, String> {
    let outputs = &interface.outputs;
    match (name, &outputs[..]) {
        (Some(name), [_, ..]) => outputs
            .iter()
            .find(|o| o.name == name)
            .ok_or_else(|| format!("there is no output {name}, only {}", names(outputs))),
        (_, []) => Err("the model has no outputs; export it with the features as output".into()),
        (None, [only]) => Ok(only),
        (None, several) => Err(format!(
            "several outputs: {}; choose the features with --backbone-output",
            names(several)
        )),
    }
}

/// Detects the layout of the output from its shape, and verifies it on test images.
fn detect_layout(
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
            "output {output} contains NaN or infinities for a test image; check the weights, --mean and --std"
        ));
    }
    if probe.ignores_image() {
        return Err(format!(
            "output {output} is the same for different images; choose another with --backbone-output"
        ));
    }
    let scattered = probe.scattered().map_err(|e| e.to_string())?;
    let fine = |reading: &Reading| probe.follows(&scattered, reading, reading.strides());
    let [reading] = readings[..] else {
        return Err(ambiguous(&what, &readings, fine));
    };
    // A single patch has no spatial layout.
    if reading.rows * reading.columns == 1 {
        return Ok(reading);
    }
    let score = fine(&reading);
    log::info!(
        "{}: layout {}; correlation of the features with single patches of test images {score:.3} (threshold {FINE})",
        source.path.display(),
        reading.layout
    );
    if score >= FINE {
        return Ok(reading);
    }
    // Features with a large receptive field. Without extra tokens they cannot be shifted by a token.
    let halves = probe.halves().map_err(|e| e.to_string())?;
    let coarse = halves
        .iter()
        .map(|mixed| probe.follows(mixed, &reading, reading.strides()))
        .fold(1.0, f32::min);
    log::info!(
        "{}: correlation with halves of test images {coarse:.3} (threshold {COARSE})",
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
            "it may not be a spatial feature map, or have another layout or patch size (--layout, --patch, --backbone-output)",
            |(what, _)| what,
        );
    Err(format!(
        "{what}, but its features do not follow the patches of the image (correlation {score:.2} as {}, expected at least {FINE}): {why}",
        reading.layout
    ))
}

/// The error for an ambiguous shape.
fn ambiguous(what: &str, readings: &[Reading], fine: impl Fn(&Reading) -> f32) -> String {
    let scores: Vec<_> = readings.iter().map(|r| (r.layout, fine(r))).collect();
    let list: Vec<_> = scores
        .iter()
        .map(|(layout, score)| format!("--layout {layout} (correlation {score:.2})"))
        .collect();
    let best = scores.iter().max_by(|a, b| a.1.total_cmp(&b.1));
    let advice = match best {
        Some((layout, score)) if *score >= FINE => {
            format!("test images suggest --layout {layout}")
        }
        _ => "choose one".into(),
    };
    format!(
        "{what}, which is ambiguous: {}; {advice}",
        list.join(" or ")
    )
}

/// Compiles the model for images of `size`.
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

/// Explains the error of an unsupported operator.
fn explained(error: String) -> String {
    let missing = error
        .split_once("Unimplemented(")
        .and_then(|(_, rest)| rest.split_once(')'));
    match missing {
        Some((operator, _)) => format!(
            "operator {operator} is not supported by tract, which verifies every model; export the model without it"
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
