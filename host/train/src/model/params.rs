//! Named weights.

use std::collections::BTreeMap;

use burn::tensor::{Device, Gradients, Tensor, TensorData};
use loftup_onnx::Tensor as HostTensor;

/// Weights by name.
///
/// Each is stored as a matrix: the first extent of its true shape against the rest, vectors as one
/// row. So one list serves the optimizer, the teacher, the checkpoints and the sums over several
/// GPUs, whatever the rank.
#[derive(Debug, Clone, Default)]
pub struct Params {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    shape: Vec<usize>,
    value: Tensor<2>,
}

/// A matrix for a tensor of that shape.
fn matrix_shape(shape: &[usize]) -> [usize; 2] {
    match shape {
        [] => [1, 1],
        [n] => [1, *n],
        [first, rest @ ..] => [*first, rest.iter().product()],
    }
}

impl Params {
    /// Weights on `device`.
    pub fn new(tensors: impl IntoIterator<Item = (String, HostTensor)>, device: &Device) -> Self {
        let mut params = Self::default();
        for (name, tensor) in tensors {
            params.insert(name, &tensor, device);
        }
        params
    }

    /// Puts in or replaces one.
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

    /// The matrix of that name.
    ///
    /// # Panics
    /// Where there is none: names are those of this crate.
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

    /// How many numbers they are.
    pub fn count(&self) -> usize {
        self.entries
            .values()
            .map(|e| e.shape.iter().product::<usize>())
            .sum()
    }

    /// The same weights as leaves of a new graph of operations, whose gradients are wanted.
    pub fn tracked(&self) -> Self {
        self.map(|_, value| value.clone().autodiff().require_grad())
    }

    /// The gradients of a loss for all of them; zero where the loss does not depend on one.
    pub fn gradients(&self, found: &mut Gradients) -> Self {
        self.map(|_, value| {
            let zeros = || value.clone().inner().zeros_like();
            value.grad_remove(found).unwrap_or_else(zeros)
        })
    }

    /// Each through `f`, under the same name.
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

    /// Each of two sets with the same names through `f`.
    pub fn zip(&self, other: &Self, mut f: impl FnMut(Tensor<2>, Tensor<2>) -> Tensor<2>) -> Self {
        self.map(|name, value| f(value.clone(), other.get(name)))
    }

    /// The true shape of one.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// Those whose name passes.
    pub fn only(&self, mut keep: impl FnMut(&str) -> bool) -> Self {
        let kept = self.entries.iter().filter(|(name, _)| keep(name));
        Self {
            entries: kept.map(|(n, e)| (n.clone(), e.clone())).collect(),
        }
    }

    /// Both sets together.
    pub fn joined(mut self, other: Self) -> Self {
        self.entries.extend(other.entries);
        self
    }

    /// All of them in ordinary memory, in their true shapes.
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

/// The elements of a matrix, row-major, in ordinary memory.
pub fn host_values<const D: usize>(x: &Tensor<D>) -> Vec<f32> {
    // The framework's own error here is about another element type, which cannot be.
    x.clone().into_data().try_to_vec().unwrap_or_default()
}

/// A matrix on a device.
pub fn device_matrix(data: Vec<f32>, rows: usize, cols: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, [rows, cols]), device)
}
