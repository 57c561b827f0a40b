//! A plain dense tensor, as checkpoints hold it and graphs take it.

/// A dense, row-major, 32-bit tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    shape: Vec<usize>,
    data: Vec<f32>,
}

impl Tensor {
    /// Wraps `data` as a tensor of `shape`. `None` where the two disagree in size.
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

    /// Extent of each axis.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements, last axis fastest.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// The elements, taken out.
    pub fn into_data(self) -> Vec<f32> {
        self.data
    }

    /// Rows `start..start + len` of the first axis.
    ///
    /// # Panics
    /// Where the rows are not all there.
    pub fn rows(&self, start: usize, len: usize) -> Tensor {
        let row = self.data.len() / self.shape[0].max(1);
        let mut shape = self.shape.clone();
        shape[0] = len;
        Tensor {
            shape,
            data: self.data[start * row..(start + len) * row].to_vec(),
        }
    }

    /// The same elements under another shape.
    ///
    /// # Panics
    /// Where the sizes differ.
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
    /// Where the tensor is not 2-D.
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

    /// Every element through `f`, which also gets the flat index.
    pub fn map(mut self, mut f: impl FnMut(usize, f32) -> f32) -> Tensor {
        for (i, x) in self.data.iter_mut().enumerate() {
            *x = f(i, *x);
        }
        self
    }
}
