//! Any ONNX graph as a backbone.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use loftup_bundle::{FeatureLayout, Size};
use loftup_onnx::{Interface, Port};
use loftup_runtime::backend::{Backend, GraphSource, Tract};

use crate::ConvertError;

/// A foreign graph and what was found out about it.
pub(crate) struct Foreign {
    pub onnx: Vec<u8>,
    pub input: String,
    pub output: String,
    pub dim: usize,
    pub layout: FeatureLayout,
    pub size: Size,
    pub any_size: bool,
}

/// The size that is tried where neither the graph nor the user says one.
const DEFAULT_SIDE: usize = 224;

/// Reads the graph and finds out how features come out of it. `size` is a multiple of `patch`.
pub(crate) fn read(
    path: &Path,
    patch: usize,
    size: Option<Size>,
    output: Option<&str>,
) -> Result<Foreign, ConvertError> {
    let fail = |what: String| ConvertError::ForeignOnnx {
        path: path.into(),
        what,
    };
    let onnx = loftup_onnx::read_file(path).map_err(|source| ConvertError::Io {
        path: path.into(),
        source,
    })?;
    let interface = Interface::of(&onnx).ok_or_else(|| {
        fail("not an ONNX model, or only a part of one; export or copy it again".into())
    })?;
    if interface.external_data {
        return Err(fail(
            "its weights lie in a separate file; save it as one file (onnx.save_model(..., save_as_external_data=False))".into(),
        ));
    }
    let input = picture_input(&interface).map_err(fail)?;
    let output = match output {
        Some(name) => interface
            .outputs
            .iter()
            .find(|o| o.name == name)
            .ok_or_else(|| {
                fail(format!(
                    "no output is called {name}; there are {}",
                    names(&interface.outputs)
                ))
            })?,
        None => match &interface.outputs[..] {
            [only] => only,
            several => {
                return Err(fail(format!(
                    "several outputs: {}; name the features with --backbone-output",
                    names(several)
                )));
            }
        },
    };
    // Sides that the graph fixes; what it leaves open is the user's or the default.
    let fixed = |axis: usize| input.shape.as_ref().and_then(|s| s[axis]);
    let wanted = size
        .unwrap_or(Size {
            width: DEFAULT_SIDE,
            height: DEFAULT_SIDE,
        })
        .rounded_to(patch);
    let size = Size {
        width: fixed(3).unwrap_or(wanted.width),
        height: fixed(2).unwrap_or(wanted.height),
    };
    let any_size = fixed(2).is_none() && fixed(3).is_none();
    if size.width.max(size.height) > Size::LONGEST_SIDE {
        return Err(fail(format!(
            "its input would be {size}, and no side may be over {}; check --patch",
            Size::LONGEST_SIDE
        )));
    }
    if size != size.rounded_to(patch) {
        return Err(fail(format!(
            "its input is {size}, which is not a multiple of the patch {patch}; check --patch"
        )));
    }
    let shape = output_shape(path, &onnx, &input.name, &output.name, size).map_err(fail)?;
    let (w, h) = (size.width / patch, size.height / patch);
    let (dim, layout) = match shape[..] {
        [1, d, rows, cols] if (rows, cols) == (h, w) => (d, FeatureLayout::Map),
        [1, tokens, d] if tokens >= h * w => (
            d,
            FeatureLayout::Tokens {
                extra: tokens - h * w,
            },
        ),
        _ => {
            return Err(fail(format!(
                "output {} has shape {shape:?} for a picture of {size}; expected a map [1, d, {h}, {w}] or at least {} tokens [1, n, d] with a patch of {patch}",
                output.name,
                h * w
            )));
        }
    };
    if let FeatureLayout::Tokens { extra: extra @ 1.. } = layout {
        log::info!(
            "{}: the first {extra} tokens belong to no patch and are left out",
            path.display()
        );
    }
    Ok(Foreign {
        dim,
        layout,
        any_size,
        size,
        input: input.name.clone(),
        output: output.name.clone(),
        onnx,
    })
}

/// The one input, `[1, 3, H, W]`.
fn picture_input(interface: &Interface) -> Result<&Port, String> {
    let [input] = &interface.inputs[..] else {
        let names = names(&interface.inputs);
        return Err(format!(
            "a backbone has one input, the picture; this has {names}"
        ));
    };
    match &input.shape {
        Some(shape) => match shape[..] {
            [None | Some(1), None | Some(3), _, _] => Ok(input),
            _ => Err(format!(
                "input {} has shape {shape:?}, expected [1, 3, H, W]",
                input.name
            )),
        },
        None => Ok(input),
    }
}

/// Shape of the output for a picture of `size`, as the engine derives it.
fn output_shape(
    path: &Path,
    onnx: &[u8],
    input: &str,
    output: &str,
    size: Size,
) -> Result<Vec<usize>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plan = guarded(|| {
        Tract.compile(&GraphSource::fixed(
            &name,
            onnx,
            &[(input, &[1, 3, size.height, size.width])],
            &[output],
        ))
    })?;
    Ok(plan.output_shape(0).to_vec())
}

/// Lets an engine work on a graph of unknown origin. Where the graph breaks the rules of ONNX,
/// engines may panic; that is an error of the graph like any other.
pub(crate) fn guarded<T, E: fmt::Display>(
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, String> {
    // What `work` leaves half-done is dropped with it.
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no reason given");
            Err(format!(
                "the engine gave up on a graph ({what}); check it with onnx.checker"
            ))
        }
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
