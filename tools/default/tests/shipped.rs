//! The weights that ship are as good as `models/weights/README.md` says.

use loftup_default::{
    evaluate::{bundle, evaluate},
    scenes::write_labeled,
    vit::Shape,
};
use loftup_eval::Method;
use loftup_import::builtin;

/// Points by which LoftUp's outlines must be ahead of bilinear interpolation's. A few scenes say
/// less than the many of the table, and so the margin is below its figure of 24.3.
const OUTLINES: f64 = 15.0;
/// Points of mIoU by which it must be ahead, for the same reason less than the 11.1 of the table.
const CLASSES: f64 = 5.5;

#[test]
fn shipped_weights_convert_and_loftup_keeps_outlines_that_bilinear_loses() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("backbone.safetensors"), builtin::BACKBONE).unwrap();
    std::fs::write(place("upsampler.safetensors"), builtin::UPSAMPLER).unwrap();
    // Conversion verifies what it wrote.
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
    // The backbone itself: chance is a small part of this.
    assert!(bilinear.0 > 58.0, "backbone");
}
