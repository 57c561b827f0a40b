//! Reproducible random numbers.

use loftup_spec::SplitMix64;

#[derive(Debug, Clone)]
pub struct Random(SplitMix64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    /// A uniform random number from 0 to `n - 1`.
    pub fn below(&mut self, n: usize) -> usize {
        self.0.below(n)
    }

    /// Moves a random selection of `count` items to the front, in random order, and returns it.
    pub fn choose<'a, T>(&mut self, items: &'a mut [T], count: usize) -> &'a mut [T] {
        let count = count.min(items.len());
        for i in 0..count {
            let j = i + self.below(items.len() - i);
            items.swap(i, j);
        }
        &mut items[..count]
    }
}
