//! The precision of the upsampler's matrix products on the CPU.

use std::{fmt, str::FromStr};

use loftup_bundle::Precision;
use loftup_kernels::Arithmetic;

/// The arithmetic of the matrix products in LoftUp's queries graph on a CPU. Everything else is computed in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuPrecision {
    /// Follows the precision of the bundle's graphs: int8 for int8; for fp16, fp16 on ARM and int16 on
    /// x86-64. Falls back to 32 bits for other graphs, on CPUs without the instructions, and if the error
    /// relative to the bundle's reference outputs is too large.
    Auto,
    /// This arithmetic, whatever the precision of the bundle's graphs.
    Products(Arithmetic),
}

impl Default for CpuPrecision {
    fn default() -> Self {
        Self::FP32
    }
}

impl CpuPrecision {
    /// 32-bit floating point, whatever the precision of the bundle's graphs.
    pub const FP32: Self = Self::Products(Arithmetic::Fp32);

    /// Returns the arithmetic for a graph.
    pub(super) fn of(self, graph: Precision) -> Arithmetic {
        let of_graph = match (self, graph) {
            (Self::Products(arithmetic), _) => return arithmetic,
            (Self::Auto, Precision::Int8) => Arithmetic::Int8,
            (Self::Auto, Precision::Fp16) => match cfg!(target_arch = "aarch64") {
                true => Arithmetic::Fp16,
                false => Arithmetic::Int16,
            },
            (Self::Auto, Precision::Fp32 | Precision::Fp16Weights) => Arithmetic::Fp32,
        };
        match of_graph.is_available() {
            true => of_graph,
            false => Arithmetic::Fp32,
        }
    }

    /// Checks that this CPU has the instructions.
    pub(super) fn check(self) -> Result<(), String> {
        match self {
            Self::Products(arithmetic) if !arithmetic.is_available() => {
                let all = Arithmetic::ALL.into_iter().filter(|a| a.is_available());
                let all: Vec<_> = all.map(|a| a.to_string()).collect();
                Err(format!(
                    "products in {arithmetic} need {}, which this CPU does not have; use auto, {}",
                    arithmetic.needs(),
                    all.join(" or ")
                ))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for CpuPrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Products(arithmetic) => arithmetic.fmt(f),
        }
    }
}

impl FromStr for CpuPrecision {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        match (s, s.parse()) {
            ("auto", _) => Ok(Self::Auto),
            (_, Ok(arithmetic)) => Ok(Self::Products(arithmetic)),
            _ => {
                let all = Arithmetic::ALL.map(|a| a.to_string()).join(", ");
                Err(format!("{s:?}: expected auto, {all}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for name in ["fp32", "auto", "int16", "fp16", "bf16", "int8"] {
            assert_eq!(name.parse::<CpuPrecision>().unwrap().to_string(), name);
        }
        let e = "int4"
            .parse::<CpuPrecision>()
            .expect_err("no such precision");
        assert!(e.contains("int4") && e.contains("auto, fp32, int16"), "{e}");
    }

    #[test]
    fn auto_follows_the_graphs_and_the_cpu() {
        let of = |graph| CpuPrecision::Auto.of(graph);
        assert_eq!(of(Precision::Fp32), Arithmetic::Fp32);
        assert_eq!(of(Precision::Fp16Weights), Arithmetic::Fp32);
        for graph in [Precision::Fp16, Precision::Int8] {
            assert!(of(graph).is_available());
        }
        if Arithmetic::Int8.is_available() {
            assert_eq!(of(Precision::Int8), Arithmetic::Int8);
            assert_ne!(of(Precision::Fp16), Arithmetic::Fp32);
        }
        assert!(CpuPrecision::Auto.check().is_ok());
        for arithmetic in Arithmetic::ALL {
            let checked = CpuPrecision::Products(arithmetic).check();
            assert_eq!(checked.is_ok(), arithmetic.is_available());
            if let Err(e) = checked {
                assert!(e.contains(arithmetic.needs()), "{e}");
            }
        }
    }
}
