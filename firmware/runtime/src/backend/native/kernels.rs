//! Which kernels run queries graphs: chosen by the environment, or the fastest for this CPU.

use std::env;

use loftup_kernels::{Arithmetic, Isa};

use super::BACKEND;
use crate::backend::{BackendError, Graph};

/// Environment variable that selects the kernels.
pub(in crate::backend) const VARIABLE: &str = "LOFTUP_KERNELS";

/// Which kernels to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::backend) enum Kernels {
    Off,
    On(Isa, Arithmetic),
}

impl Kernels {
    /// The kernels selected by `LOFTUP_KERNELS`, by default the fastest for this CPU, with products in 32
    /// bits.
    pub fn from_environment(graph: &Graph) -> Result<Self, BackendError> {
        Self::selected().map_err(|what| graph.rejected(BACKEND, what))
    }

    /// The same kernels with this arithmetic of the products.
    pub fn with_products(self, arithmetic: Arithmetic) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::On(isa, _) => Self::On(isa, arithmetic),
        }
    }

    fn selected() -> Result<Self, String> {
        Self::parse(env::var(VARIABLE).ok().as_deref())
    }

    fn parse(value: Option<&str>) -> Result<Self, String> {
        let isa = match value {
            None | Some("") => Isa::detect(),
            Some("off") => return Ok(Self::Off),
            Some(name) => match name.parse::<Isa>() {
                Ok(isa) if isa.is_available() => isa,
                _ => {
                    return Err(format!(
                        "{VARIABLE}={name}: not supported by this CPU; use {}, or unset it for the fastest",
                        available()
                    ));
                }
            },
        };
        Ok(Self::On(isa, Arithmetic::Fp32))
    }
}

/// Returns the instruction set of the kernels; `None` if they are disabled. If `LOFTUP_KERNELS` is wrong, which is an
/// error when a graph is loaded, the fastest.
pub(in crate::backend) fn instruction_set() -> Option<Isa> {
    match Kernels::selected() {
        Ok(Kernels::On(isa, _)) => Some(isa),
        Ok(Kernels::Off) => None,
        Err(_) => Some(Isa::detect()),
    }
}

/// Returns the instruction set used for a queries graph, or `off` if kernels are disabled.
pub(crate) fn kernel_isa() -> String {
    match Kernels::selected() {
        Ok(Kernels::On(isa, _)) => isa.to_string(),
        _ => "off".into(),
    }
}

/// Returns the instruction set for an upsampler without graphs: the one in `LOFTUP_KERNELS`, if the CPU has it.
pub(crate) fn kernels() -> Isa {
    match Kernels::selected() {
        Ok(Kernels::On(isa, _)) => isa,
        Ok(Kernels::Off) => Isa::Generic,
        Err(what) => {
            log::warn!("{what}");
            Isa::detect()
        }
    }
}

fn available() -> String {
    let isas = Isa::ALL.iter().filter(|isa| isa.is_available());
    isas.map(|isa| isa.to_string())
        .chain(["off".into()])
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_chooses_kernels_or_is_told_what_there_is() {
        let exact = |isa| Some(Kernels::On(isa, Arithmetic::Fp32));
        assert_eq!(Kernels::parse(None).ok(), exact(Isa::detect()));
        assert_eq!(Kernels::parse(Some("off")).ok(), Some(Kernels::Off));
        assert_eq!(Kernels::parse(Some("generic")).ok(), exact(Isa::Generic));
        let e = Kernels::parse(Some("mmx")).expect_err("no such kernels");
        let e = e.to_string();
        assert!(
            e.contains("LOFTUP_KERNELS=mmx") && e.contains("generic"),
            "{e}"
        );
        assert_eq!(e.lines().count(), 1);
    }
}
