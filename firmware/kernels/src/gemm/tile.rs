//! The register tile, for any operand type.

use crate::simd::{Operand, Simd};

/// Upper limit of `MR`.
const MAX_MR: usize = 12;

/// The computation of one register tile: at most `MR` rows by two vectors. Strides are in values.
#[derive(Clone, Copy)]
pub(super) struct Tile<T> {
    /// Number of words of a row of A and of a column of B.
    pub depth: usize,
    /// Element (row, k) of A is at `row * a_row + k * a_k`.
    pub a: *const T,
    pub a_row: usize,
    pub a_k: usize,
    /// Row k of B is at `k * b_k`.
    pub b: *const T,
    pub b_k: usize,
    pub c: *mut f32,
    pub c_row: usize,
    /// Initial value of the sums of each row, unless it is zero. Only for integers.
    pub offsets: Option<*const i32>,
    /// Factors of each row and of each column of the product.
    pub scales: Option<[*const f32; 2]>,
    pub bias: Option<*const f32>,
    pub accumulate: bool,
    /// First address to prefetch, the step to the next, and their number; at most one for each k.
    pub prefetch: *const T,
    pub prefetch_step: usize,
    pub prefetch_count: usize,
}

impl<T: Copy> Tile<T> {
    /// # Safety
    /// The elements of `rows` rows and two vectors of columns are in bounds of their allocations.
    #[inline(always)]
    pub unsafe fn eval<O: Operand<Word = T>>(self, rows: usize) {
        let max = <O::S as Simd>::MR;
        debug_assert!(rows <= max && max <= MAX_MR);
        // SAFETY: guaranteed by the caller for `rows` rows.
        unsafe {
            match rows {
                1 => self.rows::<O, 1>(),
                2 => self.rows::<O, 2>(),
                3 => self.rows::<O, 3>(),
                4 => self.rows::<O, 4>(),
                5 => self.rows::<O, 5>(),
                6 => self.rows::<O, 6>(),
                7 if max >= 7 => self.rows::<O, 7>(),
                8 if max >= 8 => self.rows::<O, 8>(),
                9 if max >= 9 => self.rows::<O, 9>(),
                10 if max >= 10 => self.rows::<O, 10>(),
                11 if max >= 11 => self.rows::<O, 11>(),
                12 if max >= 12 => self.rows::<O, 12>(),
                _ => {}
            }
        }
    }

    /// # Safety
    /// As for [`Tile::eval`], with `M` rows.
    #[inline(always)]
    unsafe fn rows<O: Operand<Word = T>, const M: usize>(self) {
        if O::BLOCK < usize::MAX {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.blocks::<O, M>() };
        }
        // SAFETY: as above.
        unsafe {
            for (m, [low, high]) in self.sums::<O, M>().into_iter().enumerate() {
                self.finish::<O>(m, [O::finish(low), O::finish(high)]);
            }
        }
    }

    /// [`Tile::rows`] for operands whose sums must be added to 32-bit sums after a number of products.
    ///
    /// # Safety
    /// As for [`Tile::eval`], with `M` rows.
    #[inline(always)]
    unsafe fn blocks<O: Operand<Word = T>, const M: usize>(self) {
        let mut totals = [[O::S::splat(0.0); 2]; M];
        for k in (0..self.depth).step_by(O::BLOCK) {
            let block = Self {
                depth: O::BLOCK.min(self.depth - k),
                a: self.a.wrapping_add(k * self.a_k),
                b: self.b.wrapping_add(k * self.b_k),
                ..self
            };
            // SAFETY: guaranteed by the caller: the block is part of the tile.
            for (total, sum) in totals.iter_mut().zip(unsafe { block.sums::<O, M>() }) {
                for (total, sum) in total.iter_mut().zip(sum) {
                    *total = O::S::add(*total, O::finish(sum));
                }
            }
        }
        for (m, total) in totals.into_iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe { self.finish::<O>(m, total) };
        }
    }

    /// The sums of `M` rows.
    ///
    /// # Safety
    /// As for [`Tile::eval`], with `M` rows.
    #[inline(always)]
    unsafe fn sums<O: Operand<Word = T>, const M: usize>(&self) -> [[O::Sum; 2]; M] {
        let lanes = <O::S as Simd>::LANES;
        let mut sums = [[O::zero(); 2]; M];
        if let Some(offsets) = self.offsets {
            for (m, sum) in sums.iter_mut().enumerate() {
                // SAFETY: an offset for each of `M` rows is guaranteed by the caller.
                *sum = [unsafe { O::start(offsets.wrapping_add(m)) }; 2];
            }
        }
        let mut prefetch = self.prefetch;
        // SAFETY: guaranteed by the caller.
        unsafe {
            if self.a_row == 1 {
                // A prefetch occupies a slot of the memory queue even if the line is already in
                // flight, so each line is prefetched once.
                let prefetched = self.prefetch_count.min(self.depth);
                let (mut a, mut b) = (self.a, self.b);
                for ks in [0..prefetched, prefetched..self.depth] {
                    let prefetching = ks.start == 0;
                    for _ in ks {
                        if prefetching {
                            O::S::prefetch(prefetch.cast());
                            prefetch = prefetch.wrapping_add(self.prefetch_step);
                        }
                        let r = [O::load(b), O::load(b.wrapping_add(lanes))];
                        for (m, sum) in sums.iter_mut().enumerate() {
                            let l = O::splat(a.wrapping_add(m));
                            *sum = [O::dot(l, r[0], sum[0]), O::dot(l, r[1], sum[1])];
                        }
                        // After the last k these point past the end and are not read.
                        a = a.wrapping_add(self.a_k);
                        b = b.wrapping_add(self.b_k);
                    }
                }
            } else {
                let rows: [*const T; M] =
                    std::array::from_fn(|m| self.a.wrapping_add(m * self.a_row));
                let mut b = self.b;
                for k in 0..self.depth {
                    O::S::prefetch(prefetch.cast());
                    prefetch = prefetch.wrapping_add(self.prefetch_step);
                    let r = [O::load(b), O::load(b.wrapping_add(lanes))];
                    for (row, sum) in rows.iter().zip(&mut sums) {
                        let l = O::splat(row.wrapping_add(k));
                        *sum = [O::dot(l, r[0], sum[0]), O::dot(l, r[1], sum[1])];
                    }
                    b = b.wrapping_add(self.b_k);
                }
            }
        }
        sums
    }

    /// Stores a row of the product.
    ///
    /// # Safety
    /// As for [`Tile::eval`], with more than `m` rows.
    #[inline(always)]
    unsafe fn finish<O: Operand<Word = T>>(&self, m: usize, sums: [<O::S as Simd>::V; 2]) {
        let c = self.c.wrapping_add(m * self.c_row);
        for (i, mut sum) in sums.into_iter().enumerate() {
            let at = i * <O::S as Simd>::LANES;
            // SAFETY: guaranteed by the caller.
            unsafe {
                if let Some([row, column]) = self.scales {
                    let row = O::S::splat_ptr(row.wrapping_add(m));
                    let column = O::S::load_ptr(column.wrapping_add(at));
                    sum = O::S::mul(sum, O::S::mul(row, column));
                }
                if let Some(bias) = self.bias {
                    sum = O::S::add(sum, O::S::splat_ptr(bias.wrapping_add(m)));
                }
                if self.accumulate {
                    sum = O::S::add(O::S::load_ptr(c.wrapping_add(at)), sum);
                }
                O::S::store_ptr(c.wrapping_add(at), sum);
            }
        }
    }
}
