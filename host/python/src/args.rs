//! Arguments that several functions take.

use loftup_bundle::{Manifest, Precision, Size};
use loftup_runtime::{
    ColorRange, ExecutionOptions, Rect,
    backend::{Choice, CpuPrecision},
};
use pyo3::{exceptions::PyTypeError, prelude::*};

use crate::error::wrong;

/// An argument of another type than `expected`.
pub fn unexpected(given: &Bound<'_, PyAny>, expected: &str) -> PyErr {
    match given.repr() {
        Ok(repr) => PyTypeError::new_err(format!("{repr}: expected {expected}")),
        Err(error) => error,
    }
}

/// One of `names`.
fn one_of<T: Copy>(what: &str, given: &str, names: &[(&str, T)]) -> PyResult<T> {
    let found = names.iter().find(|(name, _)| *name == given);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<String> = names.iter().map(|(name, _)| format!("{name:?}")).collect();
        wrong(format!("{what} {given:?}: expected {}", names.join(" or ")))
    })
}

/// `engine`.
pub fn engine(name: &str) -> PyResult<Choice> {
    let names = [
        ("auto", Choice::Auto),
        ("cpu", Choice::Tract),
        ("tensorrt", Choice::TensorRt),
    ];
    one_of("engine", name, &names)
}

/// `precision`.
pub fn precision(name: &str) -> PyResult<Precision> {
    one_of("precision", name, &Precision::ALL.map(|p| (p.name(), p)))
}

/// `cpu_precision`.
pub fn cpu_precision(name: &str) -> PyResult<CpuPrecision> {
    name.parse()
        .map_err(|e| wrong(format!("cpu_precision {e}")))
}

/// `threads` and `tile`.
pub fn execution(threads: Option<usize>, tile: Option<usize>) -> PyResult<ExecutionOptions> {
    for (name, value) in [("threads", threads), ("tile", tile)] {
        if value == Some(0) {
            return Err(wrong(format!("{name} 0: give at least 1")));
        }
    }
    let threads = threads.unwrap_or(ExecutionOptions::default().threads);
    Ok(ExecutionOptions { threads, tile })
}

/// `upsampler`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upsampler {
    /// That of the bundle.
    OfBundle,
    /// Joint bilateral upsampling.
    Jbu,
}

impl Upsampler {
    /// The names are those of the command line.
    pub fn parse(name: &str) -> PyResult<Self> {
        let names = [("loftup", Self::OfBundle), ("jbu", Self::Jbu)];
        one_of("upsampler", name, &names)
    }
}

/// `size`: the side of a square, or rows and columns, as in the shape of an array.
#[derive(Debug, Clone, Copy)]
pub enum SizeArg {
    /// `224`
    Side(usize),
    /// `(480, 640)`
    Sides((usize, usize)),
}

impl FromPyObject<'_, '_> for SizeArg {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(side) = given.extract() {
            return Ok(Self::Side(side));
        }
        let sides = given.extract().map(Self::Sides);
        sides.map_err(|_| unexpected(&given, "(height, width) or one whole number"))
    }
}

impl SizeArg {
    /// As a size, if it can be one.
    pub fn size(self) -> PyResult<Size> {
        let (height, width) = match self {
            Self::Side(side) => (side, side),
            Self::Sides(sides) => sides,
        };
        let sides = 1..=Size::LONGEST_SIDE;
        if !sides.contains(&height) || !sides.contains(&width) {
            return Err(wrong(format!(
                "size ({height}, {width}): each side must be from 1 to {}",
                Size::LONGEST_SIDE
            )));
        }
        Ok(Size { width, height })
    }
}

/// `size`, if given.
pub fn size(given: Option<SizeArg>) -> PyResult<Option<Size>> {
    given.map(SizeArg::size).transpose()
}

/// Rows and columns.
pub fn rows_and_columns(size: Size) -> (usize, usize) {
    (size.height, size.width)
}

/// `(x, y, width, height)`.
pub fn rect((x, y, width, height): (usize, usize, usize, usize)) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// `range`: a name, or two levels.
#[derive(Debug, Clone)]
pub enum RangeArg {
    /// `"image"` or `"full"`
    Name(String),
    /// `(0, 255)`
    Levels((f32, f32)),
}

impl FromPyObject<'_, '_> for RangeArg {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if let Ok(name) = given.extract() {
            return Ok(Self::Name(name));
        }
        let levels = given.extract().map(Self::Levels);
        levels.map_err(|_| unexpected(&given, "\"image\", \"full\" or (low, high)"))
    }
}

impl RangeArg {
    /// The range of each image, as in LoftUp's training.
    pub fn per_image() -> Self {
        Self::Name("image".into())
    }

    /// In the units of a normalized image.
    pub fn color_range(&self, manifest: &Manifest) -> PyResult<ColorRange> {
        let (low, high) = match self {
            Self::Name(name) => match name.as_str() {
                "image" => return Ok(ColorRange::PerImage),
                "full" => (0.0, 255.0),
                _ => {
                    return Err(wrong(format!(
                        "range {name:?}: expected \"image\", \"full\" or (low, high)"
                    )));
                }
            },
            Self::Levels(levels) => *levels,
        };
        if !(low >= 0.0 && low < high && high <= 255.0) {
            return Err(wrong(format!(
                "range ({low}, {high}): expected 0 <= low < high <= 255"
            )));
        }
        Ok(ColorRange::of_levels(low, high, &manifest.normalization))
    }
}
