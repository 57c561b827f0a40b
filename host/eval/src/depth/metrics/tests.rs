use super::*;

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-6
}

#[test]
fn every_metric_of_a_worked_example() {
    // Ratios 1, 1.5, 2 and 1.25 (which is not below 1.25); the last pixel does not count.
    let truth = [1.0, 2.0, 4.0, 4.0, 9.0];
    let predicted = [1.0, 3.0, 2.0, 5.0, 1.0];
    let keep = [true, true, true, true, false];
    let m = Metrics::of(&predicted, &truth, &keep).unwrap();
    // 1.25^2 = 1.5625, 1.25^3 = 1.953125.
    assert_eq!((m.d1, m.d2, m.d3), (0.25, 0.75, 0.75));
    // 0, 1/2, 2/4, 1/4.
    assert!(close(m.abs_rel, 1.25 / 4.0));
    // 0, 1/2, 4/4, 1/4.
    assert!(close(m.sq_rel, 1.75 / 4.0));
    // 0, 1, 4, 1.
    assert!(close(m.rmse, 1.5f64.sqrt()));
    // Logarithms: 0, ln 1.5, -ln 2, ln 1.25.
    let logs = [0.0, 1.5f64.ln(), -(2f64.ln()), 1.25f64.ln()];
    let mean = logs.iter().sum::<f64>() / 4.0;
    let square = logs.iter().map(|x| x * x).sum::<f64>() / 4.0;
    assert!(close(m.rmse_log, square.sqrt()));
    assert!(close(m.silog, 100.0 * (square - mean * mean).sqrt()));
    // (0 + 0.17609 + 0.30103 + 0.09691) / 4.
    assert!((m.log10 - 0.143_508).abs() < 1e-5);
    assert_eq!(Metrics::of(&predicted, &truth, &[false; 5]), None);
}

#[test]
fn a_constant_factor_has_no_silog() {
    let truth = [1.0, 2.0, 3.0];
    let m = Metrics::of(&[2.0, 4.0, 6.0], &truth, &[true; 3]).unwrap();
    assert!(m.silog < 1e-5 && close(m.rmse_log, 2f64.ln()) && close(m.abs_rel, 1.0));
}

#[test]
fn images_count_the_same() {
    let perfect = Metrics::of(&[1.0; 9], &[1.0; 9], &[true; 9]).unwrap();
    let double = Metrics::of(&[2.0], &[1.0], &[true]).unwrap();
    let mean = Metrics::mean([&perfect, &double]).unwrap();
    assert_eq!((mean.d1, mean.abs_rel, mean.rmse), (0.5, 0.5, 0.5));
    assert_eq!(Metrics::mean([]), None);
}

#[test]
fn alignment_finds_scale_and_shift() {
    // t = 2 p + 1 on the pixels that count.
    let predicted = [1.0, 2.0, 4.0, -3.0];
    let found = aligned(
        &predicted,
        &[3.0, 5.0, 9.0, 7.0],
        &[true, true, true, false],
    );
    assert_eq!(found[..3], [3.0, 5.0, 9.0]);
    // -5, but a depth is positive.
    assert_eq!(found[3], 1e-3);
    // Least squares by hand: p 0, 1, 2 and t 1, 1, 4: scale 3/2, shift 1/2.
    let found = aligned(&[0.0, 1.0, 2.0], &[1.0, 1.0, 4.0], &[true; 3]);
    assert_eq!(found, [0.5, 2.0, 3.5]);
    // A constant prediction, a single pixel, and none.
    assert_eq!(aligned(&[2.0; 3], &[1.0, 2.0, 3.0], &[true; 3]), [2.0; 3]);
    assert_eq!(
        aligned(&[2.0, 5.0], &[3.0, 3.0], &[true, false]),
        [2.0, 5.0]
    );
    assert_eq!(aligned(&[2.0], &[3.0], &[false]), [2.0]);
}

#[test]
fn the_band_is_around_jumps() {
    let size = Size {
        width: 12,
        height: 1,
    };
    // A step of 8 % is none, one of 10 % is; no depth is no step.
    let row =
        |right: f32| -> Vec<f32> { (0..12).map(|x| if x < 6 { 1.0 } else { right }).collect() };
    let columns = |band: Vec<bool>| -> Vec<usize> { (0..12).filter(|x| band[*x]).collect() };
    assert_eq!(columns(jump_band(&row(1.08), size, 2, 1)), [0usize; 0]);
    assert_eq!(columns(jump_band(&row(0.0), size, 2, 1)), [0usize; 0]);
    // Columns 4 and 5 see column 6 within 2 pixels.
    assert_eq!(columns(jump_band(&row(1.1), size, 2, 0)), [4, 5]);
    assert_eq!(columns(jump_band(&row(1.1), size, 2, 1)), [3, 4, 5, 6]);
    // The near side is now on the right.
    assert_eq!(columns(jump_band(&row(0.5), size, 1, 2)), [4, 5, 6, 7, 8]);
    // Corners: a single pixel that is farther is seen by its neighbors, the diagonal ones included.
    let size = Size {
        width: 5,
        height: 5,
    };
    let mut depth = vec![1.0; 25];
    depth[12] = 2.0;
    let band = jump_band(&depth, size, 1, 0);
    let expected = [6, 7, 8, 11, 13, 16, 17, 18];
    assert!(
        (0..25).all(|i| band[i] == expected.contains(&i)),
        "{band:?}"
    );
    // Within 1 of these: all but the corners of the image.
    let band = jump_band(&depth, size, 1, 1);
    assert!(
        (0..25).all(|i| band[i] != [0, 4, 20, 24].contains(&i)),
        "{band:?}"
    );
}
