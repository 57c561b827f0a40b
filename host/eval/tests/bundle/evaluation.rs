use std::fs;

use loftup_eval::{Method, probe, segmentation, video};
use loftup_runtime::ColorRange;

use crate::{quiet, support::Place};

fn request(data: &std::path::Path) -> segmentation::Request<'_> {
    segmentation::Request {
        data,
        size: None,
        range: ColorRange::PerImage,
        orientation: loftup_runtime::image::Orientation::Upright,
        methods: Vec::new(),
        samples: 300,
        most: None,
        tolerance: None,
        probe: probe::Options::default(),
    }
}

/// Where whole patches are of one class, the cell that a pixel lies in says it all, and blurring
/// across cells loses some.
#[test]
fn methods_are_told_apart_by_what_they_lose() {
    let place = Place::new();
    let data = place.patches("patches");
    let perceptor = place.perceptor();
    let report = segmentation::evaluate(&perceptor, &request(&data), &mut quiet()).unwrap();
    let of = |method| report.results.iter().find(|r| r.method == method).unwrap();
    for r in &report.results {
        println!(
            "{:8} mIoU {:.3}, boundary F {:.3}, accuracy {:.3}",
            r.method.name(),
            r.mean_iou,
            r.boundary_f,
            r.accuracy
        );
        assert_eq!((r.iou.len(), r.boundary.len()), (3, 3));
    }
    assert_eq!(
        (report.train_images, report.val_images, report.train_pixels),
        (6, 3, 1800)
    );
    assert_eq!(of(Method::Nearest).mean_iou, 1.0);
    assert_eq!(of(Method::Nearest).boundary_f, 1.0);
    assert!((0.6..0.99).contains(&of(Method::Bilinear).mean_iou));
    assert!((0.6..0.995).contains(&of(Method::Bicubic).mean_iou));
    assert!(of(Method::LoftUp).mean_iou > 0.3);

    let again = segmentation::evaluate(&perceptor, &request(&data), &mut quiet()).unwrap();
    for (a, b) in report.results.iter().zip(&again.results) {
        assert_eq!(
            (a.mean_iou, a.boundary_f, a.train_loss),
            (b.mean_iou, b.boundary_f, b.train_loss)
        );
    }
}

#[test]
fn data_that_cannot_be_used_is_skipped_or_refused() {
    let place = Place::new();
    let data = place.patches("patches");
    let perceptor = place.perceptor();
    fs::write(data.join("val/labels/1.png"), b"broken").unwrap();
    let mut request = request(&data);
    request.methods = vec![Method::Bilinear];
    let report = segmentation::evaluate(&perceptor, &request, &mut quiet()).unwrap();
    assert_eq!(
        (
            report.val_images,
            report.skipped.len(),
            report.results.len()
        ),
        (2, 1, 1)
    );
    fs::remove_dir_all(data.join("val")).unwrap();
    let error = segmentation::evaluate(&perceptor, &request, &mut quiet())
        .unwrap_err()
        .to_string();
    assert!(error.contains("no val directory"), "{error}");
}

fn film(rate: f64) -> video::Report {
    let place = Place::new();
    let request = video::Request {
        seed: 3,
        frames: 3,
        rate,
        size: None,
        samples: 200,
        noise: 0.0,
    };
    video::evaluate(&place.perceptor(), &request, &mut quiet()).unwrap()
}

#[test]
fn what_does_not_move_does_not_flicker() {
    let still = film(1e9);
    let moving = film(10.0);
    for (still, moving) in still.results.iter().zip(&moving.results) {
        println!(
            "{:30} still {:.5}, moving {:.5}, 95 % below {:.5}",
            still.method, still.change, moving.change, moving.change_p95
        );
        assert!(still.change < 1e-3, "{}", still.method);
        assert!(moving.change > 0.005 && moving.worst_pair >= moving.change);
    }
    assert_eq!(moving.results.len(), 3);
    println!(
        "{} pixels moved {:.3} on average",
        moving.followed, moving.motion
    );
    assert!(still.motion < 1e-4 && moving.motion > 0.1 && moving.followed > 200);
}

#[test]
fn a_film_of_one_frame_is_refused() {
    let place = Place::new();
    let request = video::Request {
        seed: 3,
        frames: 1,
        rate: 5.0,
        size: None,
        samples: 9,
        noise: 0.0,
    };
    let error = video::evaluate(&place.perceptor(), &request, &mut quiet())
        .unwrap_err()
        .to_string();
    assert!(error.contains("at least 2 frames"), "{error}");
}
