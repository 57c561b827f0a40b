//! Heads.

use std::sync::Arc;

use loftup_bundle::HeadKind;
use loftup_runtime::heads;
use pyo3::prelude::*;

use crate::{args::unexpected, model::Model};

/// A linear head: classes, words, descriptors or a depth from the features of each pixel.
///
/// From ``Perceptor.head``, ``Perceptor.head_from_file`` or ``Perceptor.custom_head``.
#[pyclass(frozen, module = "loftup")]
pub struct Head {
    pub inner: Arc<heads::Head>,
}

#[pymethods]
impl Head {
    /// ``"classes"``, ``"words"``, ``"descriptors"`` or ``"depth"``.
    #[getter]
    fn kind(&self) -> &'static str {
        match self.inner.kind() {
            HeadKind::Classes { .. } => "classes",
            HeadKind::Words { .. } => "words",
            HeadKind::Descriptors { .. } => "descriptors",
            HeadKind::Depth { .. } => "depth",
        }
    }

    /// Names of the classes or words; None for other kinds.
    #[getter]
    fn names(&self) -> Option<Vec<String>> {
        self.inner.kind().class_names().map(<[String]>::to_vec)
    }

    /// Channels of the features that it takes.
    #[getter]
    fn dim(&self) -> usize {
        self.inner.dim()
    }

    /// Outputs for each pixel.
    #[getter]
    fn outputs(&self) -> usize {
        self.inner.outputs()
    }

    fn __repr__(&self) -> String {
        format!(
            "Head({}, {} channels to {} outputs)",
            self.kind(),
            self.dim(),
            self.outputs()
        )
    }
}

/// A head as an argument: the name of one of the bundle, or a [`Head`].
pub enum HeadArg<'py> {
    Name(String),
    Head(Bound<'py, Head>),
}

impl<'py> FromPyObject<'_, 'py> for HeadArg<'py> {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        match given.cast::<Head>() {
            Ok(head) => Ok(Self::Head(head.to_owned())),
            Err(_) => match given.extract() {
                Ok(name) => Ok(Self::Name(name)),
                Err(_) => Err(unexpected(&given, "the name of a head or a Head")),
            },
        }
    }
}

impl HeadArg<'_> {
    pub fn resolve(&self, model: &Model) -> PyResult<Arc<heads::Head>> {
        match self {
            Self::Name(name) => model.head(name),
            Self::Head(head) => Ok(head.get().inner.clone()),
        }
    }
}

/// The head of an optional argument.
pub fn resolve(head: Option<&HeadArg<'_>>, model: &Model) -> PyResult<Option<Arc<heads::Head>>> {
    head.map(|head| head.resolve(model)).transpose()
}
