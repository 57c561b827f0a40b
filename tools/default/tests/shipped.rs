//! The shipped weights are as accurate as `models/weights/README.md` states.

use loftup_default::{
    evaluate::{bundle, evaluate},
    scenes::write_labeled,
    vit::Shape,
};
use loftup_eval::Method;
use loftup_import::builtin::scenes;

/// Required lead of LoftUp over bilinear interpolation in boundary F, in points. A few scenes vary
/// more than the many of the table, so the margin is below its value of 24.3.
const OUTLINES: f64 = 15.0;
/// Required lead in mIoU, in points; below the table's 11.1 for the same reason.
const CLASSES: f64 = 5.5;

#[test]
fn shipped_weights_convert_and_loftup_keeps_outlines_that_bilinear_loses() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("backbone.safetensors"), scenes::BACKBONE).unwrap();
    std::fs::write(place("upsampler.safetensors"), scenes::UPSAMPLER).unwrap();
    // Conversion verifies what it writes.
    bundle(
        &Shape::SHIPPED,
        &place("backbone.safetensors"),
        Some(&place("upsampler.safetensors")),
        &place("default.loftup"),
    )
    .unwrap();
    write_labeled(&place("data"), 48, 16, &mut |_, _, _, _| {}).unwrap();
    let report = evaluate(
        &place("default.loftup"),
        &place("data"),
        &mut |_, _, _, _| {},
    )
    .unwrap();
    let of = |method| {
        let found = report.results.iter().find(|r| r.method == method).unwrap();
        (100.0 * found.mean_iou, 100.0 * found.boundary_f)
    };
    let (bilinear, loftup) = (of(Method::Bilinear), of(Method::LoftUp));
    println!(
        "bilinear: mIoU {:.1}, boundary F {:.1}; LoftUp: mIoU {:.1}, boundary F {:.1}",
        bilinear.0, bilinear.1, loftup.0, loftup.1
    );
    assert!(loftup.1 > bilinear.1 + OUTLINES, "outlines");
    assert!(loftup.0 > bilinear.0 + CLASSES, "classes");
    // The backbone itself, which is far above chance here.
    assert!(bilinear.0 > 58.0, "backbone");
}
