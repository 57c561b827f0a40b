//! tract passes the conformance suite.

use loftup_runtime::backend::Tract;
use loftup_tests::conformance;

/// What tract cannot do.
const KNOWN_GAPS: &[&str] = &[];

#[test]
fn tract_conforms() {
    conformance::run(&Tract, KNOWN_GAPS);
}
