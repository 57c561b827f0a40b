//! Fault injection: in the source, on links, in the engine.

mod line;
mod source;

use std::{str::FromStr, time::Duration};

use loftup_runtime::backend::fault::Fault;
use loftup_wire::faults::Faults;

pub use line::FaultyLine;
pub use source::{FaultySource, Injected, SourceFault, SourceFaults};

/// The faults to inject; none by default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Faults of the source.
    pub source: SourceFaults,
    /// Faults of serial and UDP links.
    pub link: Faults,
    /// Faults of the engine, with their probability per graph run.
    pub backend: Vec<(Fault, f64)>,
    /// Seed of the random numbers.
    pub seed: u64,
}

/// An invalid fault specification. The message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "--inject {0:?}: expected NAME=PROBABILITY, for example source.drop=0.01,backend.nan=0.001; source: drop, duplicate, reorder, truncate, wrong-size, stuck, time-jump; link: flip, drop, split, stall; backend: error, nan, infinity, hang, slow; and seed=NUMBER"
)]
pub struct UnknownFault(String);

impl FromStr for Plan {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        let mut plan = Self {
            source: SourceFaults {
                stuck_ms: 3000,
                ..SourceFaults::default()
            },
            ..Self::default()
        };
        for item in text.split(',') {
            plan.add(item.trim())
                .ok_or_else(|| UnknownFault(item.into()))?;
        }
        Ok(plan)
    }
}

impl Plan {
    /// Whether no faults are injected.
    pub fn is_empty(&self) -> bool {
        self.source.ppm.iter().all(|p| *p == 0)
            && self.link == Faults::default()
            && self.backend.is_empty()
    }

    fn add(&mut self, item: &str) -> Option<()> {
        let (name, value) = item.split_once('=')?;
        if name == "seed" {
            self.seed = value.parse().ok()?;
            return Some(());
        }
        let probability: f64 = value.parse().ok()?;
        if !(0.0..=1.0).contains(&probability) {
            return None;
        }
        let ppm = (probability * 1e6) as u32;
        let (place, name) = name.split_once('.')?;
        match (place, name) {
            ("source", _) => {
                let fault = SourceFault::ALL.into_iter().find(|f| f.name() == name)?;
                self.source.ppm[fault as usize] = ppm;
                let sum: u64 = self.source.ppm.iter().map(|p| u64::from(*p)).sum();
                return (sum <= 1_000_000).then_some(());
            }
            ("link", "flip") => self.link.flip_ppm = ppm,
            ("link", "drop") => self.link.drop_ppm = ppm,
            ("link", "split") => self.link.split_ppm = ppm,
            ("link", "stall") => (self.link.stall_ppm, self.link.stall_polls) = (ppm, 100),
            ("backend", _) => {
                let fault = match name {
                    "error" => Fault::Error,
                    "nan" => Fault::Nan,
                    "infinity" => Fault::Infinity,
                    "hang" => Fault::Hang,
                    "slow" => Fault::Slow(Duration::from_millis(300)),
                    _ => return None,
                };
                self.backend.push((fault, probability));
            }
            _ => return None,
        }
        Some(())
    }

    /// Converts the engine's faults to arguments of [`loftup_runtime::backend::fault::Faults::at_random`]: the
    /// total probability, and the faults in proportion to their probabilities.
    pub fn backend_mix(&self) -> (f64, Vec<Fault>) {
        let sum: f64 = self.backend.iter().map(|(_, p)| p).sum();
        if sum <= 0.0 {
            return (0.0, Vec::new());
        }
        const SHARES: f64 = 1000.0;
        let mut mix = Vec::new();
        for (fault, p) in &self.backend {
            let n = (p / sum * SHARES)
                .round()
                .max(f64::from(u8::from(*p > 0.0))) as usize;
            mix.extend(std::iter::repeat_n(*fault, n));
        }
        (sum.min(1.0), mix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_parsed() {
        let plan: Plan =
            "source.drop=0.01, backend.nan=0.001,backend.hang=0.0001,link.flip=0.02,seed=9"
                .parse()
                .unwrap();
        assert_eq!(plan.source.ppm[0], 10_000);
        assert_eq!((plan.link.flip_ppm, plan.seed), (20_000, 9));
        let (probability, mix) = plan.backend_mix();
        assert!((probability - 0.0011).abs() < 1e-9);
        assert_eq!(mix.iter().filter(|f| **f == Fault::Hang).count(), 91);
        assert!(Plan::default().is_empty() && !plan.is_empty());
        for bad in [
            "source.drop",
            "source.fly=0.1",
            "drop=0.1",
            "link.flip=2",
            "backend.nan=x",
            "source.drop=0.6,source.duplicate=0.6",
            "",
        ] {
            let error = bad.parse::<Plan>().unwrap_err().to_string();
            assert!(
                !error.contains('\n') && error.contains("--inject"),
                "{error}"
            );
        }
    }
}
