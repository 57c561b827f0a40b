//! Graphs that are no backbone, or are read wrongly: what is wrong, and what would fit.

use std::fs;

use loftup_onnx::{Attr, Dim, Graph, Tensor, Value};
use prost::Message;
use tract_onnx::pb::{ModelProto, tensor_proto::DataType};

use super::{
    answer, convert,
    forms::{GRID, graph, model, patches, planes, tensor_type},
};
use crate::support::*;

/// An input of `side` x `side` pixels.
fn square(side: usize) -> [Dim; 4] {
    [1.into(), 3.into(), side.into(), side.into()]
}

/// `[1, d, h, w]` to `[1, h * w, d]`.
fn tokens(g: &mut Graph, map: &Value, dim: i64) -> Value {
    let flat = g.reshape(map, &[1, dim, -1]);
    g.transpose(&flat, &[0, 2, 1])
}

/// With `extra` more tokens behind.
fn followed(g: &mut Graph, tokens: &Value, extra: usize, dim: usize) -> Value {
    let more = g.constant(
        "more",
        &Tensor::from_fn([1, extra, dim], |i| i as f32 / 9.0),
    );
    g.concat(&[tokens, &more], 1)
}

fn typed(kind: DataType) -> ModelProto {
    let mut model = model(&planes(), |g, image| {
        let image = g.op("Cast", &[image], &[Attr::Int("to", DataType::Float as i64)]);
        patches(g, &image, 48)
    });
    tensor_type(&mut graph(&mut model).input[0]).elem_type = kind as i32;
    model
}

/// Each model is refused with a line that names these parts.
#[test]
fn what_holds_no_features_of_patches_is_refused_with_what_would_fit() {
    let pooled = |g: &mut Graph, image: &Value| {
        let map = patches(g, image, 48);
        g.op("GlobalAveragePool", &[&map], &[])
    };
    let cases: Vec<(&str, ModelProto, &[&str], &[&str])> = vec![
        (
            "classifier",
            model(&planes(), |g, image| {
                let pooled = pooled(g, image);
                g.reshape(&pooled, &[1, 48])
            }),
            &[],
            &["[1, 48]", "64x40", "classifier", "--backbone-output"],
        ),
        (
            "detector",
            // Boxes of three scales, one after another.
            model(&planes(), |g, image| {
                let map = patches(g, image, 15);
                let all = tokens(g, &map, 15);
                followed(g, &all, 13, 15)
            }),
            &[],
            &["[1, 53, 15]", "[1, d, 5, 8]", "--extra-tokens 13"],
        ),
        (
            "behind",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                let all = tokens(g, &map, 48);
                followed(g, &all, 1, 48)
            }),
            &[],
            &["[1, 41, 48]", "after the patch tokens", "drop"],
        ),
        (
            "half-patch",
            // A stride of 16 pixels, which are two patches.
            model(&square(64), |g, image| {
                let map = patches(g, image, 48);
                let pool = [
                    Attr::Ints("kernel_shape", vec![2, 2]),
                    Attr::Ints("strides", vec![2, 2]),
                ];
                g.op("AveragePool", &[&map], &pool)
            }),
            &[],
            &["[1, 48, 4, 4]", "[1, d, 8, 8]", "--patch 16 fits"],
        ),
        (
            "tokens-of-16",
            model(&square(64), |g, image| {
                let map = patches(g, image, 48);
                let pool = [
                    Attr::Ints("kernel_shape", vec![2, 2]),
                    Attr::Ints("strides", vec![2, 2]),
                ];
                let map = g.op("AveragePool", &[&map], &pool);
                tokens(g, &map, 48)
            }),
            &[],
            &["[1, 16, 48]", "--patch 16 fits"],
        ),
        (
            "exchanged",
            model(&square(64), |g, image| {
                let map = patches(g, image, 48);
                g.transpose(&map, &[0, 1, 3, 2])
            }),
            &[],
            &["[1, 48, 8, 8]", "rows and columns are swapped"],
        ),
        (
            "exchanged-oblong",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                g.transpose(&map, &[0, 1, 3, 2])
            }),
            &[],
            &["[1, 48, 8, 5]", "rows and columns are swapped"],
        ),
        (
            "channels-as-places",
            model(&square(64), |g, image| {
                let map = patches(g, image, 64);
                tokens(g, &map, 64)
            }),
            &["--layout", "tokens-transposed"],
            &["[1, 64, 64]", "do not follow the patches of the image"],
        ),
        (
            "wrong-layout",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                tokens(g, &map, 48)
            }),
            &["--layout", "map"],
            &["[1, 40, 48]", "--layout tokens fits"],
        ),
        (
            "wrong-extra",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                tokens(g, &map, 48)
            }),
            &["--extra-tokens", "1"],
            &["[1, 40, 48]", "expected", "--extra-tokens 0 fits"],
        ),
        (
            "one-vector-everywhere",
            model(&planes(), |g, image| {
                let pooled = pooled(g, image);
                let places = Tensor::from_fn([1, 1, GRID.0, GRID.1], |i| 1.0 + (i * 7 % 5) as f32);
                let places = g.constant("places", &places);
                g.mul(&pooled, &places)
            }),
            &[],
            &["[1, 48, 5, 8]", "do not follow the patches of the image"],
        ),
        (
            "constant",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                let zero = g.scalar("zero", 0.0);
                g.mul(&map, &zero)
            }),
            &[],
            &["features", "same for different images"],
        ),
        (
            "not-a-number",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                g.op("Sqrt", &[&map], &[])
            }),
            &[],
            &["features", "NaN"],
        ),
        (
            "int32",
            typed(DataType::Int32),
            &[],
            &["pixels is int32", "float32"],
        ),
        (
            "bool",
            typed(DataType::Bool),
            &[],
            &["pixels is bool", "float32"],
        ),
        (
            "batch-of-4",
            model(&[4.into(), 3.into(), 40.into(), 64.into()], |g, image| {
                patches(g, image, 48)
            }),
            &[],
            &["pixels", "[4, 3, 40, 64]", "batch"],
        ),
        (
            "gray",
            model(&[1.into(), 1.into(), 40.into(), 64.into()], |g, image| {
                let colors = g.concat(&[image, image, image], 1);
                patches(g, &colors, 48)
            }),
            &[],
            &["pixels", "[1, 1, 40, 64]", "three color channels"],
        ),
    ];
    let dir = dir();
    for (name, model, more, parts) in cases {
        let onnx = dir.path().join(format!("{name}.onnx"));
        fs::write(&onnx, model.encode_to_vec()).unwrap();
        let line = refused(
            dir.path(),
            convert(&onnx, &dir.path().join("b.loftup")).args(more),
        );
        names(&line, &[&format!("{name}.onnx")]);
        names(&line, parts);
    }
}

#[test]
fn a_second_input_is_refused_unless_it_has_a_default() {
    let dir = dir();
    let mut with_mask = model(&planes(), |g, image| {
        let mask = g.input("mask", &[1.into(), 1.into(), 40.into(), 64.into()]);
        let image = g.mul(image, &mask);
        patches(g, &image, 48)
    });
    let onnx = dir.path().join("two.onnx");
    let bundle = dir.path().join("two.loftup");
    fs::write(&onnx, with_mask.encode_to_vec()).unwrap();
    let line = refused(dir.path(), &mut convert(&onnx, &bundle));
    names(&line, &["two.onnx", "pixels, mask", "initializers"]);

    let default = tract_onnx::pb::TensorProto {
        name: "mask".into(),
        data_type: DataType::Float as i32,
        dims: vec![1, 1, 40, 64],
        float_data: vec![1.0; 40 * 64],
        ..Default::default()
    };
    graph(&mut with_mask).initializer.push(default);
    fs::write(&onnx, with_mask.encode_to_vec()).unwrap();
    done(&mut convert(&onnx, &bundle));
    assert_eq!(answer(&bundle, &png(dir.path()), &[]).shape, [1, 48, 5, 8]);
}

#[test]
fn of_two_readings_the_one_that_follows_the_image_is_proposed_and_either_can_be_asked_for() {
    let dir = dir();
    let square = |transposed: bool| {
        model(&planes(), |g, image| {
            let map = patches(g, image, 40);
            let all = tokens(g, &map, 40);
            if transposed {
                g.transpose(&all, &[0, 2, 1])
            } else {
                all
            }
        })
    };
    let mut found = Vec::new();
    for (transposed, layout) in [(false, "tokens"), (true, "tokens-transposed")] {
        let onnx = dir.path().join(format!("{layout}.onnx"));
        let bundle = onnx.with_extension("loftup");
        fs::write(&onnx, square(transposed).encode_to_vec()).unwrap();
        let line = refused(dir.path(), &mut convert(&onnx, &bundle));
        names(
            &line,
            &[
                "[1, 40, 40]",
                "ambiguous",
                &format!("suggest --layout {layout}"),
            ],
        );
        done(convert(&onnx, &bundle).args(["--layout", layout]));
        found.push(answer(&bundle, &png(dir.path()), &[]));
    }
    let worst = apart(&found[0], &found[1]);
    assert!(worst <= 1e-5, "{worst:.1e}");
}
