//! A dense tensor, as used by checkpoints and graphs.

/// A dense, row-major, 32-bit tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// Wraps `data` as a tensor of `shape`. `None` if the sizes differ.
    pub fn new(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Option<Self> {
        let shape = shape.into();
        let len = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        (len == data.len()).then_some(Self { shape, data })
    }

    /// A tensor of `shape` filled by calling `f` with each flat index.
    pub fn from_fn(shape: impl Into<Vec<usize>>, f: impl FnMut(usize) -> f32) -> Self {
        let shape = shape.into();
        let data = (0..shape.iter().product()).map(f).collect();
        Self { shape, data }
    }

    /// Size of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, row-major.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// Returns the elements.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Rows `start..start + len` of the first axis.
    ///
    /// # Panics
    /// If the rows are out of range.
    pub fn rows(&self, start: usize, len: usize) -> Tensor {
        let row = self.data.len() / self.shape[0].max(1);
        let mut shape = self.shape.clone();
        shape[0] = len;
        Tensor {
            shape,
            data: self.data[start * row..(start + len) * row].to_vec(),
        }
    }

    /// Reshapes the tensor.
    ///
    /// # Panics
    /// If the sizes differ.
    pub fn reshaped(self, shape: impl Into<Vec<usize>>) -> Tensor {
        let shape = shape.into();
        assert_eq!(
            shape.iter().product::<usize>(),
            self.data.len(),
            "reshape to {shape:?}"
        );
        Tensor {
            shape,
            data: self.data,
        }
    }

    /// The transpose of a matrix.
    ///
    /// # Panics
    /// If the tensor is not 2-D.
    pub fn transposed(&self) -> Tensor {
        let [rows, cols] = self.shape[..] else {
            panic!("transpose of shape {:?}", self.shape)
        };
        let mut data = Vec::with_capacity(self.data.len());
        for c in 0..cols {
            data.extend((0..rows).map(|r| self.data[r * cols + c]));
        }
        Tensor {
            shape: vec![cols, rows],
            data,
        }
    }

    /// Applies `f` to each flat index and element.
    pub fn map(mut self, mut f: impl FnMut(usize, f32) -> f32) -> Tensor {
        for (i, x) in self.data.iter_mut().enumerate() {
            *x = f(i, *x);
        }
        self
    }
}
