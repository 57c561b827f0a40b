use std::collections::{BTreeMap, BTreeSet, HashSet};

use ::half::f16;
use tract_onnx::{pb::tensor_proto::DataType, prelude::*};

use super::*;
use crate::{Attr, Graph, Tensor};

/// Reproducible numbers in -1 to 1.
fn noise(i: usize) -> f32 {
    ((i as u32).wrapping_mul(0x9E37_79B9) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
}

/// A small model with everything that the project's graphs have: sines, normalization, convolution,
/// linear layers, attention.
fn model() -> Model {
    let tensor = |shape: &[usize], seed: usize| Tensor::from_fn(shape, |i| noise(i * 7 + seed));
    let mut g = Graph::new("small");
    let x = g.input("x", &[1.into(), 3.into(), 5.into(), 4.into()]);
    let frequency = g.constant(
        "frequency",
        &Tensor::from_fn([3, 1, 1], |i| 70.7 + i as f32),
    );
    let turned = g.mul(&x, &frequency);
    let waves = g.op("Sin", &[&turned], &[]);
    let y = g.concat(&[&waves, &x], 1);
    let y = g.normalize(&y, 1, 1e-5);
    let y = g.scope("scale", |g| {
        g.affine(&y, &tensor(&[6, 1, 1], 9), &tensor(&[6, 1, 1], 10))
    });
    let y = g.padded_conv(&y, &tensor(&[8, 6, 3, 3], 1), &tensor(&[8], 2), 1, 1);
    let y = g.op("Relu", &[&y], &[]);
    let y = g.reshape(&y, &[8, -1]);
    let tokens = g.transpose(&y, &[1, 0]);
    let q = g.linear(&tokens, &tensor(&[8, 8], 3), Some(&tensor(&[8], 4)));
    let scores = g.matmul(&q, &y);
    let scores = g.softmax(&scores);
    let y = g.matmul(&scores, &tokens);
    let y = g.add(&y, &tokens);
    let y = g.linear(&y, &tensor(&[16, 8], 5), Some(&tensor(&[16], 6)));
    let y = g.gelu(&y);
    let y = g.linear(&y, &tensor(&[8, 16], 7), Some(&tensor(&[8], 8)));
    g.output(&y, "y", &[20.into(), 8.into()]);
    Model::decode(&g.finish()).unwrap()
}

fn input() -> Vec<f32> {
    (0..60).map(|i| noise(i + 99)).collect()
}

/// Runs a graph in tract; returns the named values.
fn run(model: &Model, input: &[f32], shape: &[usize], outputs: &[&str]) -> Vec<Vec<f32>> {
    let bytes = model.encode();
    let mut graph = tract_onnx::onnx()
        .model_for_read(&mut bytes.as_slice())
        .unwrap();
    graph.select_outputs_by_name(outputs).unwrap();
    graph.set_input_fact(0, f32::fact(shape).into()).unwrap();
    let plan = graph.into_optimized().unwrap().into_runnable().unwrap();
    let x = tract_onnx::prelude::Tensor::from_shape(shape, input).unwrap();
    let answers = plan.run(tvec!(x.into_tvalue())).unwrap();
    let values = |t: &TValue| {
        t.try_as_plain_ram()
            .unwrap()
            .as_slice::<f32>()
            .unwrap()
            .to_vec()
    };
    answers.iter().map(values).collect()
}

fn answer(model: &Model) -> Vec<f32> {
    run(model, &input(), &[1, 3, 5, 4], &["y"]).remove(0)
}

fn apart(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x).powi(2);
    let above: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (above / b.iter().map(|b| square(*b)).sum::<f64>()).sqrt()
}

/// The named values for [`input`].
fn watched(model: &Model, values: &[String]) -> Vec<Vec<f32>> {
    let names: Vec<&str> = values.iter().map(String::as_str).collect();
    run(&model.with_outputs(values), &input(), &[1, 3, 5, 4], &names)
}

fn ranges(model: &Model) -> BTreeMap<String, f32> {
    let values: Vec<String> = layers(model).into_iter().map(|l| l.activation).collect();
    let seen = watched(model, &values);
    let largest = |v: &Vec<f32>| v.iter().fold(0f32, |m, x| m.max(x.abs()));
    values
        .iter()
        .cloned()
        .zip(seen.iter().map(largest))
        .collect()
}

fn all_layers(model: &Model) -> HashSet<String> {
    layers(model).into_iter().map(|l| l.output).collect()
}

fn int8(model: &Model) -> Model {
    to_int8(model, &all_layers(model), &ranges(model)).unwrap()
}

fn operators(model: &Model) -> Vec<(String, String)> {
    let nodes = model.graph().node.iter();
    nodes.map(|n| (n.name.clone(), n.op_type.clone())).collect()
}

/// As TensorRT requires of a strongly typed network: all operands have the same type.
fn check_types(model: &Model) {
    let graph = model.graph();
    let types = element_types(graph);
    for node in &graph.node {
        let op = node.op_type.as_str();
        if matches!(op, "Cast" | "QuantizeLinear" | "DequantizeLinear") {
            continue;
        }
        let floats: HashSet<i32> = node
            .input
            .iter()
            .chain(&node.output)
            .filter_map(|name| types.get(name).copied())
            .filter(|t| fp32::is_float(*t))
            .collect();
        assert!(floats.len() <= 1, "{} ({op}): {floats:?}", node.name);
    }
    for (i, node) in graph.node.iter().enumerate() {
        let made = producers(graph);
        for input in &node.input {
            assert!(
                made.get(input.as_str()).is_none_or(|m| *m < i),
                "{input} is used before it is computed"
            );
        }
    }
}

#[test]
fn half_is_strongly_typed_and_keeps_what_needs_32_bits() {
    let model = model();
    let half = to_half(&model, &BTreeSet::new()).unwrap();
    check_types(&half);
    let types = element_types(half.graph());
    for node in &half.graph().node {
        let wide = types[&node.output[0]] == DataType::Float as i32;
        match node.op_type.as_str() {
            "Sin" | "ReduceMean" | "Sqrt" | "Softmax" | "Sub" => assert!(wide, "{}", node.name),
            "Conv" | "MatMul" | "Relu" | "Erf" => assert!(!wide, "{}", node.name),
            _ => {}
        }
    }
    assert!(half.encode().len() < model.encode().len());
    assert!(half.is_quantized() && !model.is_quantized());
}

#[test]
fn wide_again_is_the_same_graph_with_rounded_weights() {
    let model = model();
    let rewritten = [
        to_half(&model, &BTreeSet::new()).unwrap(),
        half_weights(&model).unwrap(),
        int8(&model),
    ];
    for (rewritten, allowed) in rewritten.iter().zip([2e-3, 2e-3, 3e-2]) {
        check_types(rewritten);
        let back = to_fp32(rewritten).unwrap();
        assert_eq!(operators(&back), operators(&model));
        assert!(!back.is_quantized());
        let d = apart(&answer(&back), &answer(&model));
        println!("rounded weights: relative error {d:.1e}");
        assert!(d > 1e-6 && d < allowed, "{d}");
        // There is nothing left to convert.
        assert_eq!(to_fp32(&back).unwrap(), back);
    }
    assert_eq!(to_fp32(&model).unwrap(), model);
}

#[test]
fn emulation_rounds_every_16_bit_value() {
    let model = model();
    let half = to_half(&model, &BTreeSet::new()).unwrap();
    let fake_quantized = fake_quantize(&half).unwrap();
    let types = element_types(half.graph());
    let mut values: Vec<String> = half_values(&model);
    values.retain(|v| types.get(v) == Some(&(DataType::Float16 as i32)));
    assert!(values.len() > 10);
    let seen = watched(&fake_quantized, &values);
    for (name, values) in values.iter().zip(seen) {
        for x in values {
            assert_eq!(f16::from_f32(x).to_f32(), x, "{name}");
        }
    }
    let d = apart(&answer(&fake_quantized), &answer(&model));
    println!("16 bits: relative error {d:.1e}");
    assert!(d > 1e-5 && d < 5e-3, "{d}");
}

#[test]
fn emulated_8_bits_are_those_of_the_definition() {
    let (inputs, outputs) = (5, 3);
    let weight = Tensor::from_fn([outputs, inputs], |i| {
        noise(i * 3) * [1.0, 0.01, 20.0][i / 5]
    });
    let mut g = Graph::new("linear");
    let x = g.input("x", &[4.into(), inputs.into()]);
    let y = g.linear(&x, &weight, None);
    g.output(&y, "y", &[4.into(), outputs.into()]);
    let model = Model::decode(&g.finish()).unwrap();
    let values: Vec<f32> = (0..20).map(|i| noise(i) * 3.0).collect();
    // Less than the maximum, so that some values are clipped.
    let range = 2.0f32;
    let written = to_int8(
        &model,
        &all_layers(&model),
        &BTreeMap::from([("x".into(), range)]),
    );
    let fake_quantized = fake_quantize(&written.unwrap()).unwrap();
    let found = run(&fake_quantized, &values, &[4, inputs], &["y"]).remove(0);
    let round = |x: f32, scale: f32, low: f32| {
        f64::from((x / scale).round_ties_even().clamp(low, 127.0)) * f64::from(scale)
    };
    let mut worst = 0f64;
    for (row, found) in values.chunks(inputs).zip(found.chunks(outputs)) {
        for (weights, found) in weight.data().chunks(inputs).zip(found) {
            let most = weights.iter().fold(0f32, |m, w| m.max(w.abs()));
            let terms = row.iter().zip(weights);
            let expected: f64 = terms
                .map(|(x, w)| round(*x, range / 127.0, -128.0) * round(*w, most / 127.0, -127.0))
                .sum();
            worst = worst.max((expected - f64::from(*found)).abs() / f64::from(most));
        }
    }
    println!("worst difference to the definition: {worst:.1e} of the largest weight");
    // Sums of five products of numbers below 2, in 32 bits.
    assert!(worst < 5e-6, "{worst}");
}

#[test]
fn layers_are_found_and_can_be_chosen() {
    let model = model();
    let found = layers(&model);
    let operators: Vec<&str> = found.iter().map(|l| l.op.as_str()).collect();
    assert_eq!(operators, ["Conv", "MatMul", "MatMul", "MatMul"]);
    assert_eq!(found[0].axis, 0);
    assert!(found[1..].iter().all(|l| l.axis == 1));
    let one = HashSet::from([found[2].output.clone()]);
    let written = to_int8(&model, &one, &ranges(&model)).unwrap();
    let count = |op: &str| {
        written
            .graph()
            .node
            .iter()
            .filter(|n| n.op_type == op)
            .count()
    };
    assert_eq!((count("QuantizeLinear"), count("DequantizeLinear")), (1, 2));
    let none = to_int8(&model, &HashSet::new(), &BTreeMap::new()).unwrap();
    assert_eq!(none, model);
    // Without a range, or with a range of zero.
    for ranges in [
        BTreeMap::new(),
        BTreeMap::from([(found[2].activation.clone(), 0.0)]),
    ] {
        let error = to_int8(&model, &one, &ranges).unwrap_err().to_string();
        assert!(error.contains(&found[2].activation), "{error}");
    }
}

#[test]
fn a_layer_alone_computes_what_it_does_in_the_graph() {
    let model = model();
    let written = int8(&model);
    let fake_quantized = fake_quantize(&written).unwrap();
    for layer in layers(&model) {
        let values = [layer.activation.clone(), layer.output.clone()];
        let seen = watched(&fake_quantized, &values);
        let shape: Vec<usize> = match layer.op.as_str() {
            "Conv" => vec![1, 6, 5, 4],
            _ => vec![20, seen[0].len() / 20],
        };
        let alone = fake_quantize(&written.alone(&layer, &shape)).unwrap();
        let found = run(&alone, &seen[0], &shape, &[&layer.output]).remove(0);
        assert!(apart(&found, &seen[1]) < 1e-6, "{}", layer.name);
    }
}

#[test]
fn what_is_too_large_for_16_bits_stays() {
    let model = model();
    let conv = layers(&model)[0].clone();
    let kept = to_half(&model, &BTreeSet::from([conv.output.clone()])).unwrap();
    check_types(&kept);
    let types = element_types(kept.graph());
    assert_eq!(types[&conv.output], DataType::Float as i32);
    assert_eq!(types[&conv.weight], DataType::Float as i32);
    // Its input is not rounded either, which it would be if the layer were in 16 bits.
    let scaled = |model: &Model| {
        let types = element_types(model.graph());
        let nodes = model.graph().node.iter();
        let scale = nodes.filter(|n| n.name.starts_with("scale"));
        scale.map(|n| types[&n.output[0]]).collect::<Vec<_>>()
    };
    let half = to_half(&model, &BTreeSet::new()).unwrap();
    assert_eq!(scaled(&half), [DataType::Float16 as i32; 2]);
    assert_eq!(scaled(&kept), [DataType::Float as i32; 2]);

    let mut g = Graph::new("large");
    let x = g.input("x", &[2.into(), 2.into()]);
    let weight = Tensor::from_fn([2, 2], |i| [1.0, 7e4, 3e-5, 1e-9][i]);
    let y = g.linear(&x, &weight, None);
    g.output(&y, "y", &[2.into(), 2.into()]);
    let model = Model::decode(&g.finish()).unwrap();
    let found = weights_in_half(&model).unwrap();
    assert_eq!((found.values, found.subnormal, found.vanishing), (4, 2, 1));
    assert_eq!(found.too_large.len(), 1);
    assert_eq!(to_half(&model, &BTreeSet::new()).unwrap(), model);
    assert_eq!(half_weights(&model).unwrap(), model);
}

#[test]
fn broken_models_are_errors() {
    assert!(matches!(
        Model::decode(b"\xff\xff"),
        Err(RewriteError::NotOnnx(_))
    ));
    assert!(matches!(Model::decode(b""), Err(RewriteError::NotOnnx(_))));
    let broken = |change: &dyn Fn(&mut ModelProto)| {
        let mut proto = int8(&model()).proto;
        change(&mut proto);
        Model::decode(&proto.encode_to_vec()).and_then(|m| fake_quantize(&m).and(to_fp32(&m)))
    };
    let quantized = |g: &mut GraphProto, f: &dyn Fn(&mut crate::pb::TensorProto)| {
        let weight = g
            .initializer
            .iter_mut()
            .find(|t| t.dims.len() == 4)
            .unwrap();
        f(weight);
    };
    let cases: [&dyn Fn(&mut ModelProto); 7] = [
        &|m| m.graph = None,
        &|m| {
            quantized(m.graph.as_mut().unwrap(), &|t| {
                t.dims = vec![i64::MAX, i64::MAX, 2, 2]
            })
        },
        &|m| quantized(m.graph.as_mut().unwrap(), &|t| t.dims = vec![0, -1, 3, 3]),
        &|m| quantized(m.graph.as_mut().unwrap(), &|t| t.raw_data.truncate(7)),
        &|m| {
            let nodes = &mut m.graph.as_mut().unwrap().node;
            let node = nodes.iter_mut().find(|n| n.op_type == "QuantizeLinear");
            node.unwrap().input.clear();
        },
        &|m| m.graph.as_mut().unwrap().node[3].output.clear(),
        // Two nodes with the same output, of which one has too few inputs for a layer.
        &|m| {
            let nodes = &mut m.graph.as_mut().unwrap().node;
            let layer = nodes.iter().find(|n| n.op_type == "MatMul").unwrap();
            let twin = node("Identity", &["x"], &layer.output[0]);
            nodes.push(twin);
        },
    ];
    for (i, change) in cases.iter().enumerate() {
        let error = broken(*change).map(|_| ()).unwrap_err().to_string();
        println!("{i}: {error}");
        assert!(!error.contains('\n'));
    }
    let mut old = model();
    old.proto.opset_import[0].version = 11;
    let error = to_int8(&old, &all_layers(&old), &ranges(&model())).unwrap_err();
    assert!(matches!(error, RewriteError::Opset { found: 11, .. }));
    let mut g = Graph::new("nan");
    let x = g.input("x", &[1.into(), 2.into()]);
    let weight = Tensor::from_fn([2, 2], |i| if i == 3 { f32::NAN } else { 1.0 });
    let y = g.linear(&x, &weight, None);
    let y = g.op("Relu", &[&y], &[Attr::Int("unknown", 0)]);
    g.output(&y, "y", &[1.into(), 2.into()]);
    let nan = Model::decode(&g.finish()).unwrap();
    assert!(nan.not_finite().unwrap().0.contains("weight"));
    let ranges = BTreeMap::from([("x".to_owned(), 1.0)]);
    let error = to_int8(&nan, &all_layers(&nan), &ranges).unwrap_err();
    assert!(error.to_string().contains("NaN"), "{error}");
}
