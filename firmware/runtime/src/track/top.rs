//! The most similar cells, with ties.

/// Running selection of the `k` largest scores and all scores equal to the smallest of these, with the
/// sum of the labels for each distinct score. Ties take no extra memory: the cells of a flat surface,
/// or of features upsampled by nearest neighbor, are all equally similar.
#[derive(Debug, Clone)]
pub(super) struct Top {
    k: usize,
    /// Distinct scores, largest first.
    entries: Vec<Entry>,
    /// Number of scores in `entries`.
    total: usize,
    /// Sums of labels, `[k + 1, stride]`, by [`Entry::slot`].
    sums: Vec<f32>,
    stride: usize,
    /// Slots that no entry uses.
    free: Vec<usize>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    score: f32,
    /// Number of cells with this score.
    count: usize,
    slot: usize,
}

impl Top {
    /// Creates an empty selection for labels of at most `stride` channels.
    pub fn new(k: usize, stride: usize) -> Self {
        Self {
            k,
            entries: Vec::with_capacity(k + 1),
            total: 0,
            sums: vec![0.0; (k + 1) * stride],
            stride,
            free: (0..=k).collect(),
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.total = 0;
        self.free.clear();
        self.free.extend(0..=self.k);
    }

    /// Scores below this do not count.
    pub fn threshold(&self) -> f32 {
        match self.entries.last() {
            Some(last) if self.total >= self.k => last.score,
            _ => f32::NEG_INFINITY,
        }
    }

    /// Adds a cell with its labels.
    pub fn push(&mut self, score: f32, labels: &[f32]) {
        if score < self.threshold() {
            return;
        }
        let at = self.entries.partition_point(|e| e.score > score);
        self.total += 1;
        if let Some(entry) = self.entries.get_mut(at)
            && entry.score == score
        {
            entry.count += 1;
            let sum = &mut self.sums[entry.slot * self.stride..][..labels.len()];
            for (sum, label) in sum.iter_mut().zip(labels) {
                *sum += label;
            }
        } else if let Some(slot) = self.free.pop() {
            self.sums[slot * self.stride..][..labels.len()].copy_from_slice(labels);
            let count = 1;
            self.entries.insert(at, Entry { score, count, slot });
        }
        while let Some(last) = self.entries.last()
            && self.total - last.count >= self.k
        {
            self.total -= last.count;
            self.free.push(last.slot);
            self.entries.pop();
        }
    }

    /// The mean of the labels, weighted by exp(score / temperature). All zero if there is no cell.
    pub fn mean(&self, temperature: f32, labels: &mut [f32]) {
        labels.fill(0.0);
        let Some(largest) = self.entries.first() else {
            return;
        };
        // Relative to the largest score, to avoid overflow.
        let weight = |e: &Entry| ((e.score - largest.score) / temperature).exp();
        let total: f32 = self
            .entries
            .iter()
            .map(|e| weight(e) * e.count as f32)
            .sum();
        for entry in &self.entries {
            let weight = weight(entry) / total;
            let sum = &self.sums[entry.slot * self.stride..];
            for (label, sum) in labels.iter_mut().zip(sum) {
                *label += weight * sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(k: usize, scores: &[f32]) -> Vec<f32> {
        let mut top = Top::new(k, scores.len().max(1));
        top.push(9.0, &[1.0]);
        top.clear();
        for (i, score) in scores.iter().enumerate() {
            let labels: Vec<f32> = (0..scores.len()).map(|j| f32::from(i == j)).collect();
            top.push(*score, &labels);
        }
        let mut labels = vec![7.0; scores.len()];
        top.mean(0.5, &mut labels);
        labels
    }

    /// The definition: everything at least as large as the k-th largest.
    fn reference(k: usize, scores: &[f32]) -> Vec<f32> {
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let least = sorted[k.min(sorted.len()) - 1];
        let weights: Vec<f64> = scores
            .iter()
            .map(|s| {
                if *s < least {
                    0.0
                } else {
                    (f64::from(*s) / 0.5).exp()
                }
            })
            .collect();
        let total: f64 = weights.iter().sum();
        weights.iter().map(|w| (w / total) as f32).collect()
    }

    #[test]
    fn the_largest_are_kept_with_their_ties() {
        let mut random = loftup_spec::SplitMix64::new(1);
        let mut cases: Vec<Vec<f32>> =
            vec![vec![0.5], vec![0.25; 9], vec![0.1, 0.2, 0.2, 0.3, 0.2]];
        // Few distinct values, in rising, falling and random order.
        for n in [3, 6, 40] {
            let mut scores: Vec<f32> = (0..n)
                .map(|_| random.below(7) as f32 / 8.0 - 0.25)
                .collect();
            cases.push(scores.clone());
            scores.sort_by(f32::total_cmp);
            cases.push(scores.clone());
            scores.reverse();
            cases.push(scores);
        }
        for scores in cases {
            for k in [1, 2, 5] {
                let (found, expected) = (mean(k, &scores), reference(k, &scores));
                for (a, b) in found.iter().zip(&expected) {
                    // A few roundings of values below 1.
                    assert!(
                        (a - b).abs() < 1e-6,
                        "{k}: {scores:?}: {found:?} {expected:?}"
                    );
                }
            }
        }
        assert!(mean(5, &[]).is_empty());
    }
}
