//! Images from Python: files, Pillow's images, and arrays of bytes.

use std::path::PathBuf;

use loftup_runtime::image::{self, RgbImage};
use numpy::{
    PyReadonlyArrayDyn, PyUntypedArray, PyUntypedArrayMethods,
    ndarray::{ArrayView1, ArrayView3, Axis, Ix2, Ix3},
};
use pyo3::{exceptions::PyTypeError, prelude::*, types::PyString};

use crate::error::{failed, wrong};

/// Pillow's modes of 8 bits, which convert to RGB without a change of scale.
const PILLOW_MODES: [&str; 11] = [
    "1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV",
];

/// What the last axis of an array means.
#[derive(Debug, Clone, Copy)]
struct Format {
    name: &'static str,
    channels: usize,
    /// Channels of red, green and blue.
    order: [usize; 3],
}

impl Format {
    const ALL: [Self; 5] = [
        Self::new("rgb", 3, [0, 1, 2]),
        Self::new("bgr", 3, [2, 1, 0]),
        Self::new("rgba", 4, [0, 1, 2]),
        Self::new("bgra", 4, [2, 1, 0]),
        Self::new("gray", 1, [0, 0, 0]),
    ];

    const fn new(name: &'static str, channels: usize, order: [usize; 3]) -> Self {
        Self {
            name,
            channels,
            order,
        }
    }

    fn parse(given: &str) -> PyResult<Self> {
        let found = Self::ALL.into_iter().find(|f| f.name == given);
        found.ok_or_else(|| {
            let names = Self::ALL.map(|f| format!("{:?}", f.name)).join(", ");
            wrong(format!("format {given:?}: expected one of {names}"))
        })
    }
}

/// The image `source`: a path, an image of Pillow, or an array of uint8. Alpha is dropped.
pub fn extract(source: &Bound<'_, PyAny>, format: Option<&str>) -> PyResult<RgbImage> {
    let is_path = source.is_instance_of::<PyString>() || source.hasattr("__fspath__")?;
    let is_pillow = !is_path && source.hasattr("mode")? && source.hasattr("convert")?;
    if format.is_some() && (is_path || is_pillow) {
        let what = if is_path { "a file" } else { "a Pillow image" };
        return Err(wrong(format!(
            "format is for arrays: {what} has its own; leave it out"
        )));
    }
    if is_path {
        let path: PathBuf = source.extract()?;
        return source.py().detach(|| image::open(&path)).map_err(failed);
    }
    if is_pillow {
        return from_array(&pillow_rgb(source)?, Format::ALL[0]);
    }
    from_array(source, Format::parse(format.unwrap_or("rgb"))?)
}

fn pillow_rgb<'py>(source: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let mode: String = source.getattr("mode")?.extract()?;
    match mode.as_str() {
        "RGB" => Ok(source.clone()),
        mode if PILLOW_MODES.contains(&mode) => source.call_method1("convert", ("RGB",)),
        _ => Err(wrong(format!(
            "Pillow image of mode {mode:?}: its values are not of 8 bits; scale them to uint8 first"
        ))),
    }
}

fn from_array(source: &Bound<'_, PyAny>, format: Format) -> PyResult<RgbImage> {
    let py = source.py();
    let array = match source.cast::<PyUntypedArray>() {
        Ok(array) => array.clone().into_any(),
        Err(_) => py.import("numpy")?.call_method1("asarray", (source,))?,
    };
    let Ok(bytes) = array.extract::<PyReadonlyArrayDyn<'_, u8>>() else {
        let kind = source.get_type().name()?;
        let dtype = match array.cast::<PyUntypedArray>() {
            Ok(array) => array.dtype().str()?.to_string(),
            Err(_) => "no array".into(),
        };
        return Err(PyTypeError::new_err(format!(
            "image of type {kind} and dtype {dtype}: expected uint8, 0 to 255, as an array \
             [height, width, channels], an image of Pillow, or a path"
        )));
    };
    let view = bytes.as_array();
    let shape = view.shape().to_vec();
    let shaped = match view.ndim() {
        2 if format.channels == 1 => view
            .into_dimensionality::<Ix2>()
            .map(|v| v.insert_axis(Axis(2))),
        _ => view.into_dimensionality::<Ix3>(),
    };
    match shaped {
        Ok(view) if view.shape()[2] == format.channels => rgb(view, format.order),
        _ => Err(wrong(format!(
            "image of shape {shape:?}: format {:?} is [height, width{}]; formats are {}",
            format.name,
            match format.channels {
                1 => String::new(),
                n => format!(", {n}"),
            },
            Format::ALL.map(|f| f.name).join(", ")
        ))),
    }
}

/// Copies the pixels, whatever the strides.
fn rgb(mut view: ArrayView3<'_, u8>, mut order: [usize; 3]) -> PyResult<RgbImage> {
    let (height, width, channels) = view.dim();
    if let (Some(packed), [0, 1, 2], 3) = (view.as_slice(), order, channels) {
        return RgbImage::new(width, height, packed.to_vec()).map_err(wrong);
    }
    // `image[..., ::-1]`: the channels of a pixel are next to each other in memory.
    if view.strides()[2] < 0 {
        view.invert_axis(Axis(2));
        order = order.map(|channel| channels - 1 - channel);
    }
    let mut image = RgbImage::filled(width, height, [0; 3]).map_err(wrong)?;
    for (y, row) in view.outer_iter().enumerate() {
        let out = image.row_mut(y);
        match row.as_slice() {
            Some(row) if (order, channels) == ([0, 1, 2], 3) => out.copy_from_slice(row),
            Some(row) => {
                let pixels = row.chunks_exact(channels);
                for (out, pixel) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                    *out = order.map(|channel| pixel[channel]);
                }
            }
            None => {
                let [r, g, b]: [ArrayView1<'_, u8>; 3] =
                    order.map(|channel| row.index_axis_move(Axis(1), channel));
                let pixels = r.iter().zip(g).zip(b);
                for (out, ((r, g), b)) in out.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
                    *out = [*r, *g, *b];
                }
            }
        }
    }
    Ok(image)
}
