//! Named weights.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use loftup_onnx::Tensor as HostTensor;

/// Weights by name.
///
/// Each is stored as a matrix: the first dimension of its shape by the product of the others; vectors
/// are one row. So the optimizer, the teacher, the checkpoints and sums over several GPUs can use one
/// list for tensors of any rank.
#[derive(Debug, Clone, Default)]
pub struct Params {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    shape: Vec<usize>,
    value: Tensor<2>,
}

/// Returns the shape of the matrix for a tensor of this shape.
fn matrix_shape(shape: &[usize]) -> [usize; 2] {
    match shape {
        [] => [1, 1],
        [n] => [1, *n],
        [first, rest @ ..] => [*first, rest.iter().product()],
    }
}

impl Params {
    /// Creates weights on `device`.
    pub fn new(tensors: impl IntoIterator<Item = (String, HostTensor)>, device: &Device) -> Self {
        let mut params = Self::default();
        for (name, tensor) in tensors {
            params.insert(name, &tensor, device);
        }
        params
    }

    /// Inserts or replaces a weight.
    pub fn insert(&mut self, name: String, tensor: &HostTensor, device: &Device) {
        let shape = tensor.shape().to_vec();
        let data = TensorData::new(tensor.data().to_vec(), matrix_shape(&shape));
        self.entries.insert(
            name,
            Entry {
                shape,
                value: Tensor::from_data(data, device),
            },
        );
    }

    /// Returns the matrix with this name.
    ///
    /// # Panics
    /// If there is none. All names come from this crate.
    pub fn get(&self, name: &str) -> Tensor<2> {
        match self.entries.get(name) {
            Some(entry) => entry.value.clone(),
            None => panic!("no weights {name}"),
        }
    }

    /// Names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Total number of elements.
    pub fn count(&self) -> usize {
        self.entries
            .values()
            .map(|e| e.shape.iter().product::<usize>())
            .sum()
    }

    /// Returns the same weights as leaves of a new autodiff graph that require gradients.
    pub fn tracked(&self) -> Self {
        self.map(|_, value| value.clone().autodiff().require_grad())
    }

    /// Returns the gradients of a loss with respect to all weights; zero if the loss does not depend on one.
    pub fn gradients(&self, found: &mut Gradients) -> Self {
        self.map(|_, value| {
            let zeros = || value.clone().inner().zeros_like();
            value.grad_remove(found).unwrap_or_else(zeros)
        })
    }

    /// Applies `f` to each weight.
    pub fn map(&self, mut f: impl FnMut(&str, &Tensor<2>) -> Tensor<2>) -> Self {
        let entries = self.entries.iter().map(|(name, e)| {
            (
                name.clone(),
                Entry {
                    shape: e.shape.clone(),
                    value: f(name, &e.value),
                },
            )
        });
        Self {
            entries: entries.collect(),
        }
    }

    /// Applies `f` to each pair of weights of two sets with the same names.
    pub fn zip(&self, other: &Self, mut f: impl FnMut(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Self {
        self.map(|name, value| f(value.clone(), other.get(name)))
    }

    /// Returns the original shape of a weight.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// Returns the weights whose names satisfy `keep`.
    pub fn only(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept = self.entries.iter().filter(|(name, _)| keep(name));
        Self {
            entries: kept.map(|(n, e)| (n.clone(), e.clone())).collect(),
        }
    }

    /// Returns the union of both sets.
    pub fn joined(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// Copies all weights to host memory, in their original shapes.
    pub fn to_host(&self) -> BTreeMap<String, HostTensor> {
        self.entries
            .iter()
            .map(|(name, e)| {
                (
                    name.clone(),
                    HostTensor::from_fn(e.shape.clone(), {
                        let values = host_values(&e.value);
                        move |i| values[i]
                    }),
                )
            })
            .collect()
    }
}

/// Copies the elements of a tensor to host memory, row-major.
pub fn host_values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    // The framework only fails for a different element type, which cannot occur.
    x.clone().into_data().try_to_vec().unwrap_or_default()
}

/// Creates a matrix on a device.
pub fn device_matrix(data: Vec<f32>, rows: usize, cols: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, [rows, cols]), device)
}
