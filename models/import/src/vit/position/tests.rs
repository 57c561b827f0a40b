use std::{fs, path::Path};

use safetensors::SafeTensors;

use super::*;

/// Weighted means of 16 or more numbers of magnitude 1 to 4, added in another order.
const TOLERANCE: f32 = 1e-6;

fn fixture<T>(f: impl FnOnce(&SafeTensors<'_>) -> T) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/vit_posembed.safetensors");
    f(&SafeTensors::deserialize(&fs::read(path).unwrap()).unwrap())
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let data = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    Tensor::new(view.shape(), data.collect()).unwrap()
}

fn worst_against_pytorch(method: Method, key: &str) -> f32 {
    fixture(|file| {
        let mut worst = 0.0f32;
        let mut cases = 0;
        for name in file.names() {
            let [kind, n, size] = name.split('.').collect::<Vec<_>>()[..] else {
                continue;
            };
            if kind != key {
                continue;
            }
            let (rows, columns) = size.split_once('x').unwrap();
            let grid = tensor(file, &format!("grid.{n}"));
            let expected = tensor(file, name);
            let found = resample(
                &grid,
                rows.parse().unwrap(),
                columns.parse().unwrap(),
                method,
            );
            assert_eq!(found.shape(), expected.shape(), "{name}");
            for (a, b) in found.data().iter().zip(expected.data()) {
                worst = worst.max((a - b).abs());
            }
            cases += 1;
        }
        assert!(cases >= 10, "{cases} cases");
        worst
    })
}

#[test]
fn offset_bicubic_is_pytorchs() {
    let worst = worst_against_pytorch(Method::Offset, "offset");
    println!("offset: worst error {worst:e}");
    assert!(worst <= TOLERANCE, "{worst:e}");
}

#[test]
fn antialiased_bicubic_is_pytorchs() {
    let worst = worst_against_pytorch(Method::Antialiased, "antialias");
    println!("antialiased: worst error {worst:e}");
    assert!(worst <= TOLERANCE, "{worst:e}");
}

#[test]
fn plain_bicubic_is_pytorchs() {
    let worst = worst_against_pytorch(Method::Bicubic, "bicubic");
    println!("bicubic: worst error {worst:e}");
    // PyTorch's own results differ by 4e-6 between CPUs with and without FMA.
    assert!(worst <= 1e-5, "{worst:e}");
}

#[test]
fn the_methods_differ_where_the_grid_does() {
    fixture(|file| {
        let grid = tensor(file, "grid.7");
        let methods = [Method::Offset, Method::Antialiased, Method::Bicubic];
        let [a, b, c] = methods.map(|m| resample(&grid, 5, 9, m));
        for (a, b) in [(&a, &b), (&a, &c), (&b, &c)] {
            let difference = a.data().iter().zip(b.data()).map(|(a, b)| (a - b).abs());
            assert!(difference.fold(0.0, f32::max) > 0.01);
        }
    });
}

#[test]
fn the_training_grid_stays_as_it_is() {
    let grid = Tensor::from_fn([5, 5, 2], |i| (i as f32).sin());
    for method in [Method::Offset, Method::Antialiased, Method::Bicubic] {
        assert_eq!(resample(&grid, 5, 5, method), grid);
    }
}

#[test]
fn a_constant_stays_constant() {
    let grid = Tensor::from_fn([4, 4, 1], |_| 0.75);
    for method in [Method::Offset, Method::Antialiased, Method::Bicubic] {
        let y = resample(&grid, 3, 11, method);
        assert!(
            y.data().iter().all(|x| (x - 0.75).abs() < 1e-6),
            "{method:?}: {y:?}"
        );
    }
}
