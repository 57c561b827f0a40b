use super::*;

const CAMERA: Pinhole = Pinhole {
    fx: 60.0,
    fy: 55.0,
    cx: 11.3,
    cy: 8.6,
};

fn size(width: usize, height: usize) -> Size {
    Size { width, height }
}

fn of(meters: &[f32], size: Size, options: &NormalOptions) -> Vec<[f32; 3]> {
    let mut found = vec![9.0; 7];
    normals(meters, size, &CAMERA, options, &mut found).unwrap();
    found.as_chunks::<3>().0.to_vec()
}

/// A pixel's ray, at depth 1.
fn ray(camera: &Pinhole, x: usize, y: usize) -> [f64; 3] {
    let [fx, fy, cx, cy] = [camera.fx, camera.fy, camera.cx, camera.cy].map(f64::from);
    [(x as f64 - cx) / fx, (y as f64 - cy) / fy, 1.0]
}

fn dot(a: [f64; 3], b: [f64; 3]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn unit(a: [f64; 3]) -> [f64; 3] {
    a.map(|x| x / dot(a, a).sqrt())
}

/// Degrees between two directions.
fn angle(a: [f64; 3], b: [f32; 3]) -> f64 {
    let b = b.map(f64::from);
    let cross = [
        a[1] * b[2] - a[2] * b[1],
        a[2] * b[0] - a[0] * b[2],
        a[0] * b[1] - a[1] * b[0],
    ];
    dot(cross, cross).sqrt().atan2(dot(a, b)).to_degrees()
}

/// The depth of the plane with this normal at a distance of 2 m.
fn plane(normal: [f64; 3], size: Size) -> Vec<f32> {
    let depth = |i: usize| -2.0 / dot(normal, ray(&CAMERA, i % size.width, i / size.width));
    (0..size.width * size.height)
        .map(|i| depth(i) as f32)
        .collect()
}

#[test]
fn planes_have_their_normals_at_every_pixel() {
    // Facing the camera, a floor, walls to the left and right, and one in no special direction.
    for normal in [
        [0.0, 0.0, -1.0],
        [0.0, -0.9, -0.5],
        [0.8, 0.0, -0.6],
        [-0.8, 0.1, -0.6],
        [0.3, -0.5, -0.8],
    ] {
        let normal = unit(normal);
        for (width, height) in [(24, 17), (2, 2), (3, 2), (7, 31)] {
            let size = size(width, height);
            let meters = plane(normal, size);
            assert!(meters.iter().all(|z| *z > 0.0));
            for radius in [1, 2, 5] {
                let options = NormalOptions {
                    radius,
                    within: 10.0,
                    ..NormalOptions::default()
                };
                for (i, found) in of(&meters, size, &options).into_iter().enumerate() {
                    // Depths are rounded to 2^-24 of themselves; a difference of 1 / 60 in the ray
                    // makes 3e-6 of it, 1e-3 degrees with a window of 2 x 2.
                    let off = angle(normal, found);
                    assert!(off < 2e-3, "{normal:?} at {i}: {found:?}, {off}");
                }
            }
        }
    }
}

/// The same by Gauss's elimination of the normal equations of `a · ray = 1 / z`.
fn slow(meters: &[f32], size: Size, options: &NormalOptions, x: usize, y: usize) -> [f32; 3] {
    let depth = |x: usize, y: usize| f64::from(meters[y * size.width + x]);
    let good = |z: f64| z.is_finite() && z > 0.0;
    let center = depth(x, y);
    let mut rows = [[0f64; 4]; 3];
    let mut places = Vec::new();
    for row in 0..size.height {
        for column in 0..size.width {
            let z = depth(column, row);
            let near = column.abs_diff(x) <= options.radius && row.abs_diff(y) <= options.radius;
            if !near || !good(center) || !good(z) {
                continue;
            }
            if (z - center).abs() > f64::from(options.within * meters[y * size.width + x]) {
                continue;
            }
            places.push((column as i64 - x as i64, row as i64 - y as i64));
            let r = ray(&CAMERA, column, row);
            for (i, equation) in rows.iter_mut().enumerate() {
                (0..3).for_each(|j| equation[j] += r[i] * r[j]);
                equation[3] += r[i] / z;
            }
        }
    }
    // Of three places, two directions that differ.
    let spread = places.iter().any(|a| {
        places.iter().any(|b| {
            let [first, ..] = places[..] else {
                return false;
            };
            let (p, q) = (
                (a.0 - first.0, a.1 - first.1),
                (b.0 - first.0, b.1 - first.1),
            );
            p.0 * q.1 != p.1 * q.0
        })
    });
    if places.len() < options.least.max(3) || !spread {
        return [0.0; 3];
    }
    for i in 0..3 {
        let pivot = (i..3)
            .max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs()))
            .unwrap();
        rows.swap(i, pivot);
        for j in 0..3 {
            if j != i {
                let factor = rows[j][i] / rows[i][i];
                (0..4).for_each(|k| rows[j][k] -= factor * rows[i][k]);
            }
        }
    }
    let a = [0, 1, 2].map(|i| rows[i][3] / rows[i][i]);
    match dot(a, ray(&CAMERA, x, y)) > 0.0 {
        true => unit(a).map(|x| -x as f32),
        false => [0.0; 3],
    }
}

/// Reproducible numbers in 0..1.
fn noise(seed: u32) -> impl FnMut() -> f32 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32
    }
}

#[test]
fn any_map_has_the_normals_of_the_slow_fit() {
    let mut surfaces = 0;
    for (i, (width, height)) in [(1, 1), (1, 9), (9, 1), (2, 2), (5, 3), (13, 8)]
        .into_iter()
        .enumerate()
    {
        let mut noise = noise(i as u32 + 1);
        let size = size(width, height);
        // Two levels, so that windows lose pixels, with noise and without depth in places.
        let meters: Vec<f32> = (0..width * height)
            .map(|_| match noise() {
                r if r < 0.05 => f32::NAN,
                r if r < 0.08 => 0.0,
                r if r < 0.10 => f32::INFINITY,
                r if r < 0.12 => -1.0,
                r => (if r < 0.4 { 1.0 } else { 1.7 }) + 0.04 * noise(),
            })
            .collect();
        for options in [
            NormalOptions::default(),
            NormalOptions {
                radius: 1,
                ..NormalOptions::default()
            },
            NormalOptions {
                radius: 4,
                within: 0.5,
                least: 12,
            },
        ] {
            let found = of(&meters, size, &options);
            assert_eq!(found.len(), meters.len());
            for (i, found) in found.iter().enumerate() {
                let expected = slow(&meters, size, &options, i % width, i / width);
                let worst = (0..3)
                    .map(|c| (found[c] - expected[c]).abs())
                    .fold(0.0, f32::max);
                // Both are in 64 bits; the equations of the slow fit are not centered.
                assert!(
                    worst < 1e-5,
                    "{width}x{height} at {i}: {found:?}, {expected:?}"
                );
                let length: f32 = found.iter().map(|x| x * x).sum();
                assert!(length == 0.0 || (length - 1.0).abs() < 1e-6);
                surfaces += usize::from(length > 0.0);
                // No depth, no normal.
                let z = meters[i];
                assert!(length == 0.0 || (z > 0.0 && z.is_finite()));
            }
        }
    }
    assert!(surfaces > 100, "{surfaces}");
}

#[test]
fn a_step_does_not_tilt_the_surfaces_on_its_sides() {
    let size = size(12, 6);
    let meters: Vec<f32> = (0..72)
        .map(|i| if i % 12 < 6 { 1.0 } else { 1.1 })
        .collect();
    for found in of(&meters, size, &NormalOptions::default()) {
        assert!(angle([0.0, 0.0, -1.0], found) < 1e-4, "{found:?}");
    }
    // Within 20 % it is one slanted surface there.
    let wide = NormalOptions {
        within: 0.2,
        ..NormalOptions::default()
    };
    assert!(angle([0.0, 0.0, -1.0], of(&meters, size, &wide)[6]) > 10.0);
}

#[test]
fn what_is_impossible_is_an_error() {
    let mut out = Vec::new();
    let mut of = |meters: &[f32], size, camera: &Pinhole, radius| {
        let options = NormalOptions {
            radius,
            ..NormalOptions::default()
        };
        normals(meters, size, camera, &options, &mut out).map_err(|e| e.to_string())
    };
    let blind = Pinhole { fy: 0.0, ..CAMERA };
    let huge = size(usize::MAX, 2);
    for (result, part) in [
        (of(&[1.0; 5], size(2, 3), &CAMERA, 2), "5 depths for 2x3"),
        (of(&[], huge, &CAMERA, 2), "0 depths"),
        (
            of(&[1.0; 6], size(2, 3), &blind, 2),
            "focal lengths 60 and 0",
        ),
        (of(&[1.0; 6], size(2, 3), &CAMERA, 0), "0 pixels"),
        (of(&[1.0; 6], size(2, 3), &CAMERA, 17), "1 to 16"),
    ] {
        let message = result.unwrap_err();
        assert!(message.contains(part), "{part}: {message}");
    }
    assert_eq!(of(&[], size(0, 0), &CAMERA, 2), Ok(()));
}

#[test]
fn normals_are_written_as_colors_or_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let normals = [
        0.0, 0.0, -1.0, 1.0, -1.0, 0.0, 0.0, 0.0, 0.0, 0.28, 0.0, -0.96,
    ];
    let png = dir.path().join("normals.png");
    save_normals(&png, size(2, 2), &normals).unwrap();
    let read = ::image::open(&png).unwrap().into_rgb8().into_raw();
    assert_eq!(read, [128, 128, 0, 255, 0, 128, 128, 128, 128, 163, 128, 5]);
    let file = dir.path().join("normals.npy");
    save_normals(&file, size(1, 4), &normals).unwrap();
    let array = npy::read(&file).unwrap();
    assert_eq!(array.shape, [4, 1, 3]);
    assert_eq!(array.data, normals);
    assert!(save_normals(&png, size(3, 2), &normals).is_err());
    assert!(save_normals(&png, size(0, 0), &[]).is_err());
}
