//! The weights that ship are as good as `models/weights/README.md` says.

use loftup_default::{
    judge::{bundle, judge},
    scenes::write_labelled,
    vit::Shape,
};
use loftup_eval::Method;
use loftup_models::builtin;

/// Points of the boundary F-score by which LoftUp must be ahead of bilinear interpolation. A few
/// scenes say less than the many of the table, and so the margin is below its figure.
const SHARPER: f64 = 1.0;
/// Points of mIoU by which it may be behind.
const BEHIND: f64 = 3.0;

#[test]
fn shipped_weights_convert_and_loftup_has_better_outlines_than_bilinear_on_held_out_scenes() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    std::fs::write(place("backbone.safetensors"), builtin::BACKBONE).unwrap();
    std::fs::write(place("upsampler.safetensors"), builtin::UPSAMPLER).unwrap();
    assert_eq!(builtin::HEADS, Shape::SHIPPED.heads);
    // Conversion verifies what it wrote.
    bundle(
        &Shape::SHIPPED,
        &place("backbone.safetensors"),
        Some(&place("upsampler.safetensors")),
        &place("default.loftup"),
    )
    .unwrap();
    write_labelled(&place("data"), 48, 16, &mut |_, _, _, _| {}).unwrap();
    let report = judge(
        &place("default.loftup"),
        &place("data"),
        &mut |_, _, _, _| {},
    )
    .unwrap();
    let of = |method| {
        let found = report.results.iter().find(|r| r.method == method);
        found
            .map(|r| (100.0 * r.mean_iou, 100.0 * r.boundary_f))
            .unwrap()
    };
    let (bilinear, loftup) = (of(Method::Bilinear), of(Method::LoftUp));
    println!("mIoU and boundary F: bilinear {bilinear:.1?}, LoftUp {loftup:.1?}");
    assert!(
        loftup.0 > bilinear.0 - BEHIND && loftup.1 > bilinear.1 + SHARPER,
        "LoftUp {loftup:.1?}, bilinear {bilinear:.1?}"
    );
}
