//! One check of a bundle and its outcome.

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
    pub least_cosine: Option<LeastCosine>,
}

/// The lowest cosine similarity and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LeastCosine {
    /// What was measured.
    pub found: f64,
    /// Lower limit.
    pub least: f64,
}

/// A number and its upper limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Measured {
    /// What was measured.
    pub found: f64,
    /// Upper limit.
    pub most: f64,
}

impl Check {
    /// A boolean outcome.
    pub(crate) fn yes(name: &str, passed: bool) -> Self {
        Self {
            name: name.into(),
            passed,
            difference: None,
            tolerance: None,
            measured: None,
            least_cosine: None,
        }
    }

    /// A number and its upper limit.
    pub(crate) fn most(name: &str, found: f64, most: f64) -> Self {
        Self {
            name: name.into(),
            // Never with NaN.
            passed: found <= most,
            difference: None,
            tolerance: None,
            measured: Some(Measured { found, most }),
            least_cosine: None,
        }
    }

    /// An error against reference outputs.
    pub(crate) fn error(name: &str, found: ReferenceError, allowed: ReferenceError) -> Self {
        let mut check = Self::most(name, found.relative_error, allowed.relative_error);
        check.passed &= found.cosine >= allowed.cosine;
        check.least_cosine = Some(LeastCosine {
            found: found.cosine,
            least: allowed.cosine,
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
            least_cosine: None,
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
            write!(f, " ({:.2e} of {:.2e})", m.found, m.most)?;
        }
        if let Some(c) = &self.least_cosine {
            write!(f, " (cosine {:.6} of {:.6})", c.found, c.least)?;
        }
        Ok(())
    }
}
