//! Outputs as NumPy arrays over memory that Rust owns.

use numpy::{
    Element, PyArray,
    ndarray::{Array, Dim, Dimension, IntoDimension, Ix},
};
use pyo3::prelude::*;

use crate::error::failed;

/// An array of this shape over `values`, which are not copied.
pub fn array<'py, T: Element, const N: usize>(
    py: Python<'py>,
    shape: [usize; N],
    values: Vec<T>,
) -> PyResult<Bound<'py, PyArray<T, Dim<[Ix; N]>>>>
where
    [Ix; N]: IntoDimension<Dim = Dim<[Ix; N]>>,
    Dim<[Ix; N]>: Dimension,
{
    let array = Array::from_shape_vec(shape, values).map_err(failed)?;
    Ok(PyArray::from_owned_array(py, array))
}

/// What serializes as JSON, as Python's lists and dictionaries.
pub fn json<'py>(py: Python<'py>, value: &impl serde::Serialize) -> PyResult<Bound<'py, PyAny>> {
    let text = serde_json::to_string(value).map_err(failed)?;
    py.import("json")?.call_method1("loads", (text,))
}
