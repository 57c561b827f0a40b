//! Checks of bundles.

use std::fmt;

use loftup_bundle::ReferenceError;
use serde::Serialize;

use crate::compare::{Difference, Tolerance};

/// One check and its outcome.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// What was checked.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// The measured difference, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// Its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<Tolerance>,
    /// A measured number other than the difference of two maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The lowest cosine similarity to reference outputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cosine: Option<MinCosine>,
}

/// The lowest cosine similarity and its lower limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MinCosine {
    /// The measured value.
    pub value: f64,
    /// Lower limit.
    pub min: f64,
}

/// A number and its upper limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// The measured value.
    pub value: f64,
    /// Upper limit.
    pub max: f64,
}

impl Check {
    /// A boolean outcome.
    pub(crate) fn passed(name: &str, passed: bool) -> Self {
        Self {
            name: name.into(),
            passed,
            difference: None,
            tolerance: None,
            measured: None,
            min_cosine: None,
        }
    }

    /// A number and its upper limit.
    pub(crate) fn at_most(name: &str, value: f64, max: f64) -> Self {
        Self {
            name: name.into(),
            // False for NaN.
            passed: value <= max,
            difference: None,
            tolerance: None,
            measured: Some(Measured { value, max }),
            min_cosine: None,
        }
    }

    /// An error against reference outputs.
    pub(crate) fn error(name: &str, found: ReferenceError, allowed: ReferenceError) -> Self {
        let mut check = Self::at_most(name, found.relative_error, allowed.relative_error);
        check.passed &= found.cosine >= allowed.cosine;
        check.min_cosine = Some(MinCosine {
            value: found.cosine,
            min: allowed.cosine,
        });
        check
    }

    /// A measured difference. `None`, from mismatched sizes, fails.
    pub(crate) fn within(name: &str, difference: Option<Difference>, tolerance: Tolerance) -> Self {
        let passed = difference.is_some_and(|d| d.within(&tolerance));
        Self {
            name: name.into(),
            passed,
            difference,
            tolerance: Some(tolerance),
            measured: None,
            min_cosine: None,
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = if self.passed { "ok" } else { "FAILED" };
        write!(f, "{}: {outcome}", self.name)?;
        if let (Some(d), Some(t)) = (&self.difference, &self.tolerance) {
            let t = t.scaled(d.scale);
            write!(
                f,
                " (max {:.1e} of {:.0e}, mean {:.1e} of {:.0e}, cosine {:.7} of {})",
                d.max, t.max, d.mean, t.mean, d.cosine, t.cosine
            )?;
        }
        if let Some(m) = &self.measured {
            write!(f, " ({:.2e} of {:.2e})", m.value, m.max)?;
        }
        if let Some(c) = &self.min_cosine {
            write!(f, " (cosine {:.6} of {:.6})", c.value, c.min)?;
        }
        Ok(())
    }
}
