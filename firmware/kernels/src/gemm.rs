//! Products of a left matrix, read value by value, with a right one, read vector by vector.

use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Values in a line of the cache.
const LINE: usize = 16;
/// Rows of the register block, at most.
const MOST_ROWS: usize = 12;

/// `n` rows in as few near-equal chunks of at most `most` as there can be: `(start, length)`.
pub(crate) fn chunks(n: usize, most: usize) -> impl Iterator<Item = (usize, usize)> {
    let count = n.div_ceil(most).max(1);
    let (each, longer) = (n / count, n % count);
    (0..count).map(move |i| (i * each + i.min(longer), each + usize::from(i < longer)))
}

/// Rows of the register block of an instruction set.
pub(crate) fn block_rows(isa: Isa) -> usize {
    struct Rows;
    impl Kernel for Rows {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self) -> usize {
            S::ROWS
        }
    }
    dispatch(isa, Rows)
}

/// Values of the right matrix that a register block spans.
pub(crate) fn block_cols(isa: Isa) -> usize {
    struct Cols;
    impl Kernel for Cols {
        type Output = usize;
        #[inline(always)]
        fn run<S: Simd>(self) -> usize {
            2 * S::LANES
        }
    }
    dispatch(isa, Cols)
}

/// A left matrix, packed: chunks of rows, each `[k][rows of the chunk]`.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    rows: usize,
    depth: usize,
    data: Vec<f32>,
    isa: Isa,
}

impl Packed {
    /// Packs the matrix whose element (row, k) is `at(row, k)`.
    pub fn new(isa: Isa, rows: usize, depth: usize, at: impl Fn(usize, usize) -> f32) -> Self {
        let mut packed = Self {
            rows,
            depth,
            data: vec![0.0; rows * depth],
            isa,
        };
        packed.fill(at);
        packed
    }

    /// Puts other values in.
    pub fn fill(&mut self, at: impl Fn(usize, usize) -> f32) {
        let mut out = self.data.iter_mut();
        for (start, len) in chunks(self.rows, block_rows(self.isa)) {
            for k in 0..self.depth {
                for (row, out) in (start..start + len).zip(&mut out) {
                    *out = at(row, k);
                }
            }
        }
    }

    /// Rows of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of the right matrix.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The instruction set it is packed for.
    pub fn isa(&self) -> Isa {
        self.isa
    }
}

/// What becomes of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then<'a> {
    /// It is the answer.
    Store,
    /// The answer is the product plus a value per row.
    Bias(&'a [f32]),
    /// The product and a value per row are added to what is there.
    Accumulate(&'a [f32]),
}

/// `out = packed * right` for panels of columns: panel p of `right` is `[depth][columns]` and starts
/// at `p * from`, panel p of `out` is `[rows][columns]` and starts at `p * to`; `columns` is
/// [`block_cols`].
pub(crate) fn product(
    packed: &Packed,
    right: &[f32],
    from: usize,
    out: &mut [f32],
    to: usize,
    panels: usize,
    then: Then<'_>,
) {
    let columns = block_cols(packed.isa);
    let Some(last) = panels.checked_sub(1) else {
        return;
    };
    assert!(right.len() >= last * from + packed.depth * columns);
    assert!(out.len() >= last * to + packed.rows * columns);
    if let Then::Bias(bias) | Then::Accumulate(bias) = then {
        assert!(bias.len() >= packed.rows);
    }
    dispatch(
        packed.isa,
        Product {
            packed,
            right,
            from,
            out,
            to,
            panels,
            then,
        },
    );
}

struct Product<'a> {
    packed: &'a Packed,
    right: &'a [f32],
    from: usize,
    out: &'a mut [f32],
    to: usize,
    panels: usize,
    then: Then<'a>,
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Packed {
            rows, depth, data, ..
        } = self.packed;
        let columns = 2 * S::LANES;
        for (start, len) in chunks(*rows, S::ROWS) {
            let lines = (len * depth).div_ceil(LINE * self.panels);
            for panel in 0..self.panels {
                // SAFETY: `product` has checked the lengths of `right`, `out` and the bias; the
                // packed data hold `rows * depth` values, those of this chunk from
                // `start * depth`.
                unsafe {
                    let bias = match self.then {
                        Then::Store => None,
                        Then::Bias(b) | Then::Accumulate(b) => Some(b.as_ptr().add(start)),
                    };
                    let block = Block {
                        depth: *depth,
                        left: data.as_ptr().add(start * depth),
                        left_row: 1,
                        left_k: len,
                        right: self.right.as_ptr().add(panel * self.from),
                        right_k: columns,
                        out: (self.out.as_mut_ptr()).add(panel * self.to + start * columns),
                        out_row: columns,
                        bias,
                        accumulate: matches!(self.then, Then::Accumulate(_)),
                        // All panels together ask for the next chunk.
                        ahead: data
                            .as_ptr()
                            .wrapping_add((start + len) * depth + panel * lines * LINE),
                        ahead_step: LINE,
                        ahead_count: lines,
                    };
                    block.run::<S>(len);
                }
            }
        }
    }
}

/// `out[rows][cols] = left[rows][depth] * right`, `left` and `out` row by row with the given
/// distances between rows, `right` in panels of [`block_cols`] columns, each `[depth][columns]`.
/// `cols` is a multiple of [`block_cols`].
#[derive(Debug)]
pub(crate) struct ByPanels<'a> {
    pub rows: usize,
    pub depth: usize,
    pub cols: usize,
    pub left: &'a [f32],
    pub left_row: usize,
    pub right: &'a [f32],
    pub out: &'a mut [f32],
    pub out_row: usize,
}

impl ByPanels<'_> {
    pub fn compute(self, isa: Isa) {
        assert_eq!(self.cols % block_cols(isa), 0);
        assert!(self.right.len() >= self.depth * self.cols);
        if let Some(last) = self.rows.checked_sub(1) {
            assert!(self.left.len() >= last * self.left_row + self.depth);
            assert!(self.out.len() >= last * self.out_row + self.cols);
            dispatch(isa, self);
        }
    }
}

impl Kernel for ByPanels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for col in (0..self.cols).step_by(2 * S::LANES) {
            let blocks = self.rows.div_ceil(S::ROWS);
            for (i, (start, len)) in chunks(self.rows, S::ROWS).enumerate() {
                // SAFETY: `compute` has checked that the last row of `left` and `out` and the
                // last panel of `right` are within their slices.
                unsafe {
                    let block = Block {
                        depth: self.depth,
                        left: self.left.as_ptr().add(start * self.left_row),
                        left_row: self.left_row,
                        left_k: 1,
                        right: self.right.as_ptr().add(col * self.depth),
                        right_k: 2 * S::LANES,
                        out: self.out.as_mut_ptr().add(start * self.out_row + col),
                        out_row: self.out_row,
                        bias: None,
                        accumulate: false,
                        // All blocks of this panel together ask for the next panel. Here it is
                        // faster to ask evenly, in part lines.
                        ahead: (self.right.as_ptr()).wrapping_add(
                            (col + 2 * S::LANES + i * 2 * S::LANES / blocks) * self.depth,
                        ),
                        ahead_step: (2 * S::LANES).div_ceil(blocks),
                        ahead_count: self.depth,
                    };
                    block.run::<S>(len);
                }
            }
        }
    }
}

/// One register block: some rows by two vectors.
#[derive(Clone, Copy)]
struct Block {
    depth: usize,
    /// Element (row, k) at `row * left_row + k * left_k`.
    left: *const f32,
    left_row: usize,
    left_k: usize,
    /// Row k at `k * right_k`.
    right: *const f32,
    right_k: usize,
    out: *mut f32,
    out_row: usize,
    bias: Option<*const f32>,
    accumulate: bool,
    /// What is to be in the cache next: places so far apart, and how many, one for each k.
    ahead: *const f32,
    ahead_step: usize,
    ahead_count: usize,
}

impl Block {
    /// # Safety
    /// All elements of `rows` rows and two vectors of columns are within what the pointers point
    /// into.
    #[inline(always)]
    unsafe fn run<S: Simd>(self, rows: usize) {
        debug_assert!(rows <= S::ROWS && S::ROWS <= MOST_ROWS);
        // SAFETY: the caller's promise, for the number of rows at hand.
        unsafe {
            match rows {
                1 => self.rows::<S, 1>(),
                2 => self.rows::<S, 2>(),
                3 => self.rows::<S, 3>(),
                4 => self.rows::<S, 4>(),
                5 => self.rows::<S, 5>(),
                6 => self.rows::<S, 6>(),
                7 if S::ROWS >= 7 => self.rows::<S, 7>(),
                8 if S::ROWS >= 8 => self.rows::<S, 8>(),
                9 if S::ROWS >= 9 => self.rows::<S, 9>(),
                10 if S::ROWS >= 10 => self.rows::<S, 10>(),
                11 if S::ROWS >= 11 => self.rows::<S, 11>(),
                12 if S::ROWS >= 12 => self.rows::<S, 12>(),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As [`Block::run`], for `M` rows.
    #[inline(always)]
    unsafe fn rows<S: Simd, const M: usize>(self) {
        let mut sums = [[S::splat(0.0); 2]; M];
        let mut ahead = self.ahead;
        // SAFETY: the caller's promise.
        unsafe {
            if self.left_row == 1 {
                // Asking takes a place in the queue to memory, even for what is on its way already:
                // each line is asked for once.
                let asking = self.ahead_count.min(self.depth);
                let (mut left, mut right) = (self.left, self.right);
                for ks in [0..asking, asking..self.depth] {
                    let ask = ks.start == 0;
                    for _ in ks {
                        if ask {
                            S::prefetch(ahead);
                            ahead = ahead.wrapping_add(self.ahead_step);
                        }
                        let r = [S::load(right), S::load(right.wrapping_add(S::LANES))];
                        for (m, sum) in sums.iter_mut().enumerate() {
                            let l = S::splat_at(left.wrapping_add(m));
                            *sum = [S::fma(l, r[0], sum[0]), S::fma(l, r[1], sum[1])];
                        }
                        // Beyond the last row these point outside and are not read.
                        left = left.wrapping_add(self.left_k);
                        right = right.wrapping_add(self.right_k);
                    }
                }
            } else {
                let rows: [*const f32; M] =
                    std::array::from_fn(|m| self.left.wrapping_add(m * self.left_row));
                let mut right = self.right;
                for k in 0..self.depth {
                    S::prefetch(ahead);
                    ahead = ahead.wrapping_add(self.ahead_step);
                    let r = [S::load(right), S::load(right.wrapping_add(S::LANES))];
                    for (row, sum) in rows.iter().zip(&mut sums) {
                        let l = S::splat_at(row.wrapping_add(k));
                        *sum = [S::fma(l, r[0], sum[0]), S::fma(l, r[1], sum[1])];
                    }
                    right = right.wrapping_add(self.right_k);
                }
            }
            for (m, [mut a, mut b]) in sums.into_iter().enumerate() {
                let out = self.out.wrapping_add(m * self.out_row);
                if let Some(bias) = self.bias {
                    let bias = S::splat_at(bias.wrapping_add(m));
                    (a, b) = (S::add(a, bias), S::add(b, bias));
                }
                if self.accumulate {
                    a = S::add(S::load(out), a);
                    b = S::add(S::load(out.wrapping_add(S::LANES)), b);
                }
                S::store(out, a);
                S::store(out.wrapping_add(S::LANES), b);
            }
        }
    }
}

#[cfg(test)]
mod tests;
