//! tract passes the conformance suite.

use loftup_runtime::backend::CpuBackend;
use loftup_tests::conformance;

/// What tract does not support.
const KNOWN_GAPS: &[&str] = &[];

#[test]
fn tract_conforms() {
    conformance::run(&CpuBackend, KNOWN_GAPS);
}
