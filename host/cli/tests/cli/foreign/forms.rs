//! The forms in which exporters write one and the same backbone.

use std::{fs, path::Path};

use half::f16;
use loftup_onnx::{Attr, Dim, Graph, Tensor, Value};
use loftup_runtime::npy::Array;
use prost::Message;
use tract_onnx::pb::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto,
    tensor_proto::{DataLocation, DataType},
    type_proto,
};

use super::{answer, convert};
use crate::support::*;

/// Rows and columns of the grid, side of a patch.
pub const GRID: (usize, usize) = (5, 8);
pub const PATCH: usize = 8;

/// Patches of 8 x 8 pixels to `dim` channels. The weights are exact in 16 bits.
pub fn patches(g: &mut Graph, image: &Value, dim: usize) -> Value {
    let weight = Tensor::from_fn([dim, 3, PATCH, PATCH], |i| {
        ((i * 37 % 101) as f32 - 50.0) / 512.0
    });
    let bias = Tensor::from_fn([dim], |i| i as f32 / 64.0 - 0.5);
    g.conv(image, &weight, &bias, PATCH)
}

/// A model from an image input to one output. Symbols for its shapes say nothing of the kind.
pub fn model(shape: &[Dim], build: impl FnOnce(&mut Graph, &Value) -> Value) -> ModelProto {
    let mut g = Graph::new("foreign");
    let image = g.input("pixels", shape);
    let output = build(&mut g, &image);
    g.output(&output, "features", &[]);
    let mut model = ModelProto::decode(&*g.finish()).unwrap();
    tensor_type(&mut graph(&mut model).output[0]).shape = None;
    model
}

/// The shape of the image input.
pub fn planes() -> [Dim; 4] {
    let (rows, columns) = GRID;
    [
        1.into(),
        3.into(),
        (rows * PATCH).into(),
        (columns * PATCH).into(),
    ]
}

pub fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

pub fn tensor_type(info: &mut ValueInfoProto) -> &mut type_proto::Tensor {
    let value = info.r#type.as_mut().and_then(|t| t.value.as_mut());
    let type_proto::Value::TensorType(tensor) = value.unwrap();
    tensor
}

/// The features of the test image by this model.
fn features(dir: &Path, name: &str, model: &ModelProto, more: &[&str]) -> Array {
    let onnx = dir.join(format!("{name}.onnx"));
    fs::write(&onnx, model.encode_to_vec()).unwrap();
    let bundle = dir.join(format!("{name}.loftup"));
    done(convert(&onnx, &bundle).args(more));
    answer(&bundle, &png(dir), &[])
}

fn plain(shape: &[Dim]) -> ModelProto {
    model(shape, |g, image| patches(g, image, 48))
}

/// Both must be the same; the arithmetic may be ordered differently.
fn assert_same(what: &str, found: &Array, expected: &Array) {
    assert_eq!(found.shape, expected.shape, "{what}");
    let worst = apart(found, expected);
    println!("{what}: max {worst:.1e}");
    assert!(worst <= 1e-5, "{what}: {worst:.1e}");
}

#[test]
fn every_layout_of_inputs_and_outputs_gives_the_same_features() {
    let dir = dir();
    let expected = features(dir.path(), "plain", &plain(&planes()), &[]);
    let [_, _, height, width] = planes();
    let images = [1.into(), height, width, 3.into()];
    let channels_last = model(&images, |g, image| {
        let planes = g.transpose(image, &[0, 3, 1, 2]);
        patches(g, &planes, 48)
    });
    let extra =
        |g: &mut Graph, n: usize| g.constant("extra", &Tensor::from_fn([1, n, 48], |_| 2.0));
    let tokens = |g: &mut Graph, image: &Value, n: usize| {
        let map = patches(g, image, 48);
        let flat = g.reshape(&map, &[1, 48, -1]);
        let tokens = g.transpose(&flat, &[0, 2, 1]);
        let extra = extra(g, n);
        g.concat(&[&extra, &tokens], 1)
    };
    let cases: [(&str, ModelProto, &[&str]); 5] = [
        ("nhwc-in", channels_last, &[]),
        (
            "nhwc-out",
            model(&planes(), |g, image| {
                let map = patches(g, image, 48);
                g.transpose(&map, &[0, 2, 3, 1])
            }),
            &[],
        ),
        ("registers", model(&planes(), |g, i| tokens(g, i, 5)), &[]),
        (
            "odd-extra",
            model(&planes(), |g, i| tokens(g, i, 3)),
            &["--extra-tokens", "3"],
        ),
        (
            "transposed",
            model(&planes(), |g, image| {
                let all = tokens(g, image, 1);
                g.transpose(&all, &[0, 2, 1])
            }),
            &[],
        ),
    ];
    for (name, model, more) in cases {
        let found = features(dir.path(), name, &model, more);
        assert_same(name, &found, &expected);
    }
}

#[test]
fn a_dynamic_batch_with_inferred_shapes_is_a_batch_of_one() {
    let dir = dir();
    let [_, colors, height, width] = planes();
    let expected = features(dir.path(), "plain", &plain(&planes()), &[]);
    for (name, sides) in [
        ("fixed", [height, width]),
        ("open", ["H".into(), "W".into()]),
    ] {
        let [height, width] = sides;
        let mut model = plain(&["batch".into(), colors.clone(), height, width]);
        let g = graph(&mut model);
        // What shape inference writes: every inner value, in symbols of the input.
        let mut inner = g.input[0].clone();
        inner.name = g.node[0].output[0].clone();
        tensor_type(&mut inner)
            .shape
            .as_mut()
            .unwrap()
            .dim
            .truncate(1);
        for extent in [48, 5, 8] {
            let dims = &mut tensor_type(&mut inner).shape.as_mut().unwrap().dim;
            dims.push(tract_onnx::pb::tensor_shape_proto::Dimension {
                value: Some(tract_onnx::pb::tensor_shape_proto::dimension::Value::DimValue(extent)),
                ..Default::default()
            });
        }
        tensor_type(&mut g.output[0]).shape = tensor_type(&mut inner).shape.clone();
        g.value_info.push(inner);
        let found = features(dir.path(), name, &model, &["--size", "64x40"]);
        assert_same(name, &found, &expected);
    }
}

#[test]
fn sides_that_are_dynamic_in_name_only_give_a_bundle_of_one_size() {
    let dir = dir();
    let [batch, colors, ..] = planes();
    let model = model(&[batch, colors, "H".into(), "W".into()], |g, image| {
        let map = patches(g, image, 48);
        // A position embedding for one grid, as the TorchScript exporter writes it.
        let positions = Tensor::from_fn([1, 48, 5, 8], |i| (i % 7) as f32 / 8.0);
        let positions = g.constant("positions", &positions);
        g.add(&map, &positions)
    });
    let onnx = dir.path().join("x.onnx");
    fs::write(&onnx, model.encode_to_vec()).unwrap();
    let bundle = dir.path().join("x.loftup");
    let (_, said) = told(convert(&onnx, &bundle).args(["--size", "64x40"]));
    names(&said, &["x.onnx", "dynamic", "only 64x40"]);
    assert_eq!(
        answer(&bundle, &png(dir.path()), &["--size", "80x64"]).shape,
        [1, 48, 5, 8]
    );
}

#[test]
fn weights_in_a_file_next_to_the_graph_are_taken_into_the_bundle() {
    let dir = dir();
    let expected = features(dir.path(), "plain", &plain(&planes()), &[]);
    let mut model = plain(&planes());
    let tensor = &mut graph(&mut model).initializer[0];
    fs::write(dir.path().join("weights.data"), &tensor.raw_data).unwrap();
    tensor.raw_data.clear();
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = vec![StringStringEntryProto {
        key: "location".into(),
        value: "weights.data".into(),
    }];
    let found = features(dir.path(), "external", &model, &[]);
    assert_same("external", &found, &expected);
    let bundle = dir.path().join("external.loftup");
    let said = done(&mut loftup!("inspect", &bundle));
    names(
        &said,
        &[
            "external.onnx (backbone graph)",
            "weights.data (backbone weights)",
        ],
    );
    let onnx = dir.path().join("external.onnx");
    names(
        &done(&mut loftup!("inspect", &onnx)),
        &["weights in weights.data\n"],
    );

    fs::remove_file(dir.path().join("weights.data")).unwrap();
    let line = refused(
        dir.path(),
        &mut convert(&onnx, &dir.path().join("b.loftup")),
    );
    names(&line, &["external.onnx", "weights.data", "next to"]);
    let said = done(&mut loftup!("inspect", &onnx));
    names(&said, &["weights in weights.data (missing)"]);
}

#[test]
fn a_uint8_input_is_given_colors_from_0_to_255() {
    let dir = dir();
    let unit = ["--mean", "0,0,0", "--std", "1,1,1"];
    let expected = features(dir.path(), "plain", &plain(&planes()), &unit);
    let scaled = |moves: bool| {
        let mut model = model(&planes(), |g, image| {
            let bytes = if moves {
                g.op("Neg", &[image], &[])
            } else {
                image.clone()
            };
            let floats = g.op(
                "Cast",
                &[&bytes],
                &[Attr::Int("to", DataType::Float as i64)],
            );
            let most = g.scalar("most", 255.0);
            let image = g.op("Div", &[&floats, &most], &[]);
            patches(g, &image, 48)
        });
        tensor_type(&mut graph(&mut model).input[0]).elem_type = DataType::Uint8 as i32;
        model
    };
    let model = scaled(false);
    let found = features(dir.path(), "bytes", &model, &[]);
    assert_same("bytes", &found, &expected);
    let onnx = dir.path().join("bytes.onnx");
    names(
        &done(&mut loftup!("inspect", &onnx)),
        &["input  pixels uint8 [1, 3, 40, 64]", "0 to 255"],
    );
    let line = refused(
        dir.path(),
        convert(&onnx, &dir.path().join("b.loftup")).args(unit),
    );
    names(&line, &["bytes.onnx", "pixels is uint8", "--mean"]);
}

#[test]
fn floats_of_16_and_64_bits_give_the_features_of_32() {
    let dir = dir();
    let expected = features(dir.path(), "plain", &plain(&planes()), &[]);
    let half = |x: f32| f16::from_f32(x).to_le_bytes().to_vec();
    let double = |x: f32| f64::from(x).to_le_bytes().to_vec();
    type Bytes<'a> = &'a dyn Fn(f32) -> Vec<u8>;
    let kinds: [(&str, DataType, Bytes<'_>); 2] = [
        ("float16", DataType::Float16, &half),
        ("float64", DataType::Double, &double),
    ];
    for (name, kind, bytes) in kinds {
        let mut model = plain(&planes());
        let g = graph(&mut model);
        for tensor in &mut g.initializer {
            *tensor = TensorProto {
                data_type: kind as i32,
                raw_data: tensor
                    .raw_data
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .flat_map(|b| bytes(f32::from_le_bytes(*b)))
                    .collect(),
                ..tensor.clone()
            };
        }
        tensor_type(&mut g.input[0]).elem_type = kind as i32;
        tensor_type(&mut g.output[0]).elem_type = kind as i32;
        let found = features(dir.path(), name, &model, &[]);
        assert_same(name, &found, &expected);
        let onnx = dir.path().join(format!("{name}.onnx"));
        let said = done(&mut loftup!("inspect", &onnx));
        names(
            &said,
            &[&format!("input  pixels {name} "), "converted to float32"],
        );
    }
}
