//! Enlarging against PyTorch.

use loftup_eval::resize::{Kernel, Resizer};
use loftup_runtime::Features;

fn numbers<T: std::str::FromStr>(line: &str) -> Vec<T>
where
    T::Err: std::fmt::Debug,
{
    line.split_whitespace()
        .skip(1)
        .map(|x| x.parse().unwrap())
        .collect()
}

#[test]
fn kernels_are_those_of_pytorch() {
    let text = include_str!("torch_resize.txt");
    let mut lines = text.lines().filter(|l| !l.starts_with('#'));
    let mut worst = 0f32;
    let mut cases = 0;
    while let Some(case) = lines.next() {
        let &[dim, height, width, rows, columns] = &numbers::<usize>(case)[..] else {
            panic!("{case}")
        };
        let map: Vec<f32> = numbers(lines.next().unwrap());
        let features = Features::from_map(&[1, dim, height, width], &map, dim).unwrap();
        let tokens = features.tokens;
        for kernel in [Kernel::Nearest, Kernel::Bilinear, Kernel::Bicubic] {
            let expected: Vec<f32> = numbers(lines.next().unwrap());
            let resizer = Resizer::new(kernel, (width, height), (columns, rows));
            let (mut scratch, mut row) = (Vec::new(), Vec::new());
            for y in 0..rows {
                resizer.row(&tokens, dim, y, &mut scratch, &mut row);
                for x in 0..columns {
                    let mut pixel = Vec::new();
                    resizer.pixel(&tokens, dim, (x, y), &mut pixel);
                    assert_eq!(pixel, row[x * dim..][..dim], "{kernel:?} ({x}, {y})");
                    for (c, value) in pixel.iter().enumerate() {
                        let torch = expected[(c * rows + y) * columns + x];
                        worst = worst.max((value - torch).abs());
                    }
                }
            }
        }
        cases += 1;
    }
    // Sums of up to 16 products of numbers around 1, in another order.
    println!("{cases} cases, worst difference {worst:e}");
    assert!(cases == 4 && worst < 1e-6);
}
