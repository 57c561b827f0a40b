//! The precision of the upsampler's matrix products on the CPU.

use std::{fmt, str::FromStr};

use loftup_bundle::Precision;
use loftup_kernels::{Arithmetic, Isa};

use super::native;

/// The arithmetic of the matrix products in LoftUp's queries graph on a CPU. Everything else is computed in 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuPrecision {
    /// Follows the precision of the bundle's graphs: int8 for int8, or int16 on x86-64 CPUs without
    /// instructions for int8; for fp16, fp16 on ARM and int16 on x86-64. Falls back to 32 bits for other
    /// graphs, on CPUs without the instructions, and if the error relative to the bundle's reference outputs
    /// is too large.
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
        self.with_kernels(graph, native::instruction_set())
    }

    /// Same as [`CpuPrecision::of`] for kernels of an instruction set; `None` if kernels are disabled.
    fn with_kernels(self, graph: Precision, isa: Option<Isa>) -> Arithmetic {
        let preferred: &[Arithmetic] = match (self, graph, cfg!(target_arch = "aarch64")) {
            (Self::Products(arithmetic), ..) => return arithmetic,
            (Self::Auto, Precision::Int8, true) => &[Arithmetic::Int8],
            (Self::Auto, Precision::Int8, false) => &[Arithmetic::Int8, Arithmetic::Int16],
            (Self::Auto, Precision::Fp16, true) => &[Arithmetic::Fp16],
            (Self::Auto, Precision::Fp16, false) => &[Arithmetic::Int16],
            (Self::Auto, Precision::Fp32 | Precision::Fp16Weights, _) => &[],
        };
        let mut preferred = preferred.iter().copied();
        preferred
            .find(|arithmetic| available(*arithmetic, isa))
            .unwrap_or(Arithmetic::Fp32)
    }

    /// Checks that this CPU has the instructions, also with the kernels selected by `LOFTUP_KERNELS`.
    pub(super) fn check(self) -> Result<(), String> {
        self.check_with_kernels(native::instruction_set())
    }

    fn check_with_kernels(self, isa: Option<Isa>) -> Result<(), String> {
        let arithmetic = match self {
            Self::Products(arithmetic) if !available(arithmetic, isa) => arithmetic,
            _ => return Ok(()),
        };
        let all = Arithmetic::ALL.into_iter().filter(|a| available(*a, isa));
        let all: Vec<_> = all.map(|a| a.to_string()).collect();
        let (without, remedy) = match (arithmetic.is_available(), isa) {
            (false, _) => ("this CPU does not have".to_owned(), ""),
            (true, isa) => {
                let kernels = isa.map_or("off".to_owned(), |isa| isa.to_string());
                let without = format!("{}={kernels} does not have", native::VARIABLE);
                (without, ", or unset the variable")
            }
        };
        Err(format!(
            "products in {arithmetic} need {}, which {without}; use auto, {}{remedy}",
            arithmetic.needs(),
            all.join(" or "),
        ))
    }
}

/// Whether kernels of an instruction set have an arithmetic; 32 bits need no kernels.
fn available(arithmetic: Arithmetic, isa: Option<Isa>) -> bool {
    arithmetic == Arithmetic::Fp32 || isa.is_some_and(|isa| arithmetic.is_available_in(isa))
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

    /// The instruction sets of this CPU, and no kernels.
    fn kernels() -> impl Iterator<Item = Option<Isa>> {
        let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        isas.map(Some).chain([None])
    }

    #[test]
    fn auto_follows_the_graphs_and_the_cpu() {
        for isa in kernels() {
            let of = |graph| CpuPrecision::Auto.with_kernels(graph, isa);
            assert_eq!(of(Precision::Fp32), Arithmetic::Fp32);
            assert_eq!(of(Precision::Fp16Weights), Arithmetic::Fp32);
            for graph in [Precision::Fp16, Precision::Int8] {
                assert!(available(of(graph), isa));
            }
            if available(Arithmetic::Int8, isa) {
                assert_eq!(of(Precision::Int8), Arithmetic::Int8);
                assert_ne!(of(Precision::Fp16), Arithmetic::Fp32);
            }
            if isa == Some(Isa::Avx2) {
                assert_eq!(of(Precision::Int8), Arithmetic::Int16);
            }
            assert!(CpuPrecision::Auto.check_with_kernels(isa).is_ok());
        }
    }

    #[test]
    fn an_arithmetic_without_instructions_is_an_error_that_names_them() {
        for isa in kernels() {
            for arithmetic in Arithmetic::ALL {
                let checked = CpuPrecision::Products(arithmetic).check_with_kernels(isa);
                assert_eq!(checked.is_ok(), available(arithmetic, isa));
                if let Err(e) = checked {
                    assert!(
                        e.contains(arithmetic.needs()) && e.lines().count() == 1,
                        "{e}"
                    );
                    assert!(
                        !arithmetic.is_available() || e.contains(native::VARIABLE),
                        "{e}"
                    );
                }
            }
        }
    }
}
