use std::{fs, path::PathBuf};

use loftup_onnx::pb::{
    ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    tensor_proto::{DataLocation, DataType},
};
use prost::Message;

use super::*;
use loftup_onnx::{Graph, Tensor, rewrite::tensors};

/// A convolution of 2 x 2 pixels to 4 channels.
fn model() -> ModelProto {
    let mut g = Graph::new("test");
    let x = g.input("x", &["batch".into(), 3.into(), "H".into(), "W".into()]);
    let weight = Tensor::from_fn([4, 3, 2, 2], |i| i as f32 / 16.0 - 1.0);
    let y = g.conv(&x, &weight, &Tensor::from_fn([4], |i| i as f32), 2);
    g.output(&y, "y", &["batch".into(), 4.into(), "h".into(), "w".into()]);
    ModelProto::decode(&*g.finish()).unwrap()
}

fn graph(model: &mut ModelProto) -> &mut GraphProto {
    model.graph.as_mut().unwrap()
}

fn written(dir: &tempfile::TempDir, model: &ModelProto) -> PathBuf {
    let path = dir.path().join("m.onnx");
    fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn border(output: &str) -> Border<'_> {
    Border {
        input: "x",
        channels_last: false,
        size: Some([4, 6]),
        output,
        element: ElementType::FLOAT32,
        arrangement: Arrangement::Keep,
        shape: None,
    }
}

/// Moves the first constant to `m.data`, with the given entries.
fn moved(model: &mut ModelProto, entries: &[(&str, &str)]) -> Vec<u8> {
    let tensor = &mut graph(model).initializer[0];
    tensor.data_location = Some(DataLocation::External as i32);
    tensor.external_data = entries
        .iter()
        .map(|(key, value)| StringStringEntryProto {
            key: (*key).into(),
            value: (*value).into(),
        })
        .collect();
    std::mem::take(&mut tensor.raw_data)
}

#[test]
fn external_weights_are_read_and_anything_but_a_plain_file_with_them_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = model();
    let bytes = whole.graph.as_ref().unwrap().initializer[0]
        .raw_data
        .clone();
    let mut file = vec![7; 16];
    file.extend(&bytes);
    fs::write(dir.path().join("m.data"), &file).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    let open = |entries: &[(&str, &str)]| {
        let mut model = model();
        moved(&mut model, entries);
        Import::open(&written(&dir, &model))
    };

    let good = [("location", "m.data"), ("offset", "16"), ("length", "192")];
    let dotted = [("location", "./m.data"), ("offset", "16")];
    for entries in [&good[..], &good[..2], &dotted] {
        let import = open(entries).unwrap();
        assert_eq!(import.interface().external_files, [entries[0].1]);
        assert_eq!(import.graph.initializer[0].raw_data, bytes);
        assert_eq!(import.files()[1].0, "m.data");
        assert_eq!(import.files()[1].1, loftup_bundle::sha256_hex(&file));
    }

    let wrong = [
        (&[("location", "gone.data")][..], "gone.data"),
        (&[("location", "../m.data")], "plain file name"),
        (&[("location", "folder/m.data")], "plain file name"),
        (&[("location", "/etc/hostname")], "plain file name"),
        (&[("location", "..")], "plain file name"),
        (&[("location", "")], "plain file name"),
        (&[("offset", "0")], "plain file name"),
        (&[("location", "folder")], "not a file"),
        (&[("location", "m.data"), ("offset", "-1")], "offset"),
        (&[("location", "m.data"), ("length", "x")], "length"),
        (
            &[("location", "m.data"), ("offset", "17")],
            "208 bytes long",
        ),
        (
            &[("location", "m.data"), ("offset", "18446744073709551615")],
            "208 bytes long",
        ),
        (
            &[("location", "m.data"), ("length", "191")],
            "takes 192 bytes",
        ),
    ];
    for (entries, what) in wrong {
        let error = open(entries).unwrap_err().to_string();
        assert!(error.contains(what), "{what}: {error}");
        assert!(error.contains("m.onnx: tensor "), "{error}");
    }
}

#[test]
fn external_weights_of_more_than_a_bundle_holds_are_refused_before_they_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = model();
    let name = graph(&mut model).initializer[0].name.clone();
    graph(&mut model).initializer = (0..3)
        .map(|i| TensorProto {
            name: format!("{name}_{i}"),
            data_type: DataType::Int8 as i32,
            dims: vec![1 << 30],
            data_location: Some(DataLocation::External as i32),
            external_data: vec![StringStringEntryProto {
                key: "location".into(),
                value: "m.data".into(),
            }],
            ..Default::default()
        })
        .collect();
    let error = Import::open(&written(&dir, &model))
        .unwrap_err()
        .to_string();
    assert!(error.contains(&format!("{name}_2")), "{error}");
    assert!(error.contains("2147483648"), "{error}");
}

#[test]
fn shapes_of_inner_values_and_old_outputs_go_and_the_batch_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = model();
    let inner = graph(&mut model).input[0].clone();
    graph(&mut model).value_info.push(inner);
    let import = Import::open(&written(&dir, &model)).unwrap();
    for (size, expected) in [
        (Some([4, 6]), [Some(1), Some(3), Some(4), Some(6)]),
        (None, [Some(1), Some(3), None, None]),
    ] {
        let bytes = import.graph(&Border {
            size,
            shape: Some(vec![Some(1), Some(4), None, None]),
            ..border("y")
        });
        let interface = Interface::of(&bytes).unwrap();
        assert_eq!(interface.inputs[0].shape.as_deref(), Some(&expected[..]));
        let output = interface.outputs[0].shape.as_deref();
        assert_eq!(output, Some(&[Some(1), Some(4), None, None][..]));
        let written = ModelProto::decode(&*bytes).unwrap().graph.unwrap();
        assert!(written.value_info.is_empty());
        assert_eq!(written.node.len(), graph(&mut model).node.len());
    }
}

#[test]
fn floats_of_other_widths_become_32_bit_ones_of_the_same_values() {
    let values = [1.5f32, -0.25, 3.0e4, 0.0];
    let half = |x: &f32| half::f16::from_f32(*x).to_le_bytes().to_vec();
    let bfloat = |x: &f32| half::bf16::from_f32(*x).to_le_bytes().to_vec();
    let double = |x: &f32| f64::from(*x).to_le_bytes().to_vec();
    type Bytes<'a> = &'a dyn Fn(&f32) -> Vec<u8>;
    let cases: [(DataType, Bytes<'_>); 3] = [
        (DataType::Float16, &half),
        (DataType::Bfloat16, &bfloat),
        (DataType::Double, &double),
    ];
    for (kind, bytes) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut model = model();
        let g = graph(&mut model);
        g.initializer.push(TensorProto {
            name: "c".into(),
            data_type: kind as i32,
            dims: vec![4],
            raw_data: values.iter().flat_map(bytes).collect(),
            ..Default::default()
        });
        *precision::element_mut(&mut g.input[0]).unwrap() = kind as i32;
        g.node.push(loftup_onnx::rewrite::cast("y", "z", kind));
        let import = Import::open(&written(&dir, &model)).unwrap();
        assert_eq!(
            import.interface().inputs[0].element,
            ElementType::from(kind)
        );
        let constant = import.graph.initializer.last().unwrap();
        let found = tensors::floats(constant).unwrap();
        for (found, wanted) in found.iter().zip(&values) {
            assert!((found - wanted).abs() <= wanted.abs() / 256.0, "{kind:?}");
        }
        let cast = import.graph.node.last().unwrap();
        assert_eq!(cast.attribute[0].i, DataType::Float as i64);
        assert!(!precision::mentions(&mut import.graph.clone(), kind));
    }
}

#[test]
fn a_constant_shorter_than_its_shape_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = model();
    graph(&mut model).initializer.push(TensorProto {
        name: "short".into(),
        data_type: DataType::Float16 as i32,
        dims: vec![4],
        raw_data: vec![0; 6],
        ..Default::default()
    });
    let error = Import::open(&written(&dir, &model))
        .unwrap_err()
        .to_string();
    assert!(error.contains("tensor short"), "{error}");
}

#[test]
fn bytes_stay_out_of_the_graph_where_it_casts_them_at_once() {
    let casts = |nodes: Vec<NodeProto>| {
        let dir = tempfile::tempdir().unwrap();
        let mut model = model();
        let g = graph(&mut model);
        *precision::element_mut(&mut g.input[0]).unwrap() = DataType::Uint8 as i32;
        g.node[0].input[0] = "f".into();
        g.node.splice(0..0, nodes);
        let import = Import::open(&written(&dir, &model)).unwrap();
        let bytes = import.graph(&border("y"));
        let graph = ModelProto::decode(&*bytes).unwrap().graph.unwrap();
        let to_bytes =
            |n: &&NodeProto| n.op_type == "Cast" && n.attribute[0].i == DataType::Uint8 as i64;
        (graph.node.iter().filter(to_bytes).count(), graph)
    };
    let node = |op: &str, from: &[&str], to: &str| loftup_onnx::rewrite::node(op, from, to);
    let float = |from: &str| loftup_onnx::rewrite::cast(from, "f", DataType::Float);
    let (count, graph) = casts(vec![float("x")]);
    assert_eq!(count, 0);
    let operators: Vec<_> = graph.node.iter().map(|n| n.op_type.as_str()).collect();
    assert_eq!(&operators[..5], ["Max", "Min", "Add", "Floor", "Cast"]);
    assert_eq!(casts(vec![node("Identity", &["x"], "i"), float("i")]).0, 0);
    // Arithmetic on bytes wraps around.
    assert_eq!(casts(vec![node("Add", &["x", "x"], "i"), float("i")]).0, 1);
    assert_eq!(casts(vec![node("Neg", &["x"], "i"), float("i")]).0, 1);
}

#[test]
fn outputs_of_attention_that_nothing_reads_go() {
    for (read, left) in [("x", 1), ("key", 2), ("scores", 4)] {
        let dir = tempfile::tempdir().unwrap();
        let mut model = model();
        let mut attention = loftup_onnx::rewrite::node("Attention", &["x", "x", "x"], "a");
        for name in ["key", "value", "scores"] {
            attention.output.push(name.into());
        }
        let reader = loftup_onnx::rewrite::node("Identity", &[read], "r");
        graph(&mut model).node.extend([attention, reader]);
        let import = Import::open(&written(&dir, &model)).unwrap();
        let nodes = &import.graph.node;
        assert_eq!(nodes[nodes.len() - 2].output.len(), left, "{read}");
    }
}

/// Each file is rejected with one line that says what it is and what to do.
#[test]
fn what_is_not_read_is_named_with_a_remedy() {
    let mut with_function = model();
    with_function
        .functions
        .push(loftup_onnx::pb::FunctionProto {
            name: "Patch".into(),
            domain: "my".into(),
            ..Default::default()
        });
    let unused = with_function.encode_to_vec();
    let call = &mut graph(&mut with_function).node[0];
    (call.op_type, call.domain) = ("Patch".into(), "my".into());
    let mut sparse = model();
    graph(&mut sparse)
        .sparse_initializer
        .push(loftup_onnx::pb::SparseTensorProto {
            values: Some(TensorProto {
                name: "few".into(),
                ..Default::default()
            }),
            ..Default::default()
        });
    let cases: [(Vec<u8>, &[&str]); 8] = [
        (
            with_function.encode_to_vec(),
            &["Patch", "inline_local_functions"],
        ),
        (sparse.encode_to_vec(), &["few is sparse", "dense"]),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n".to_vec(),
            &["Git LFS pointer", "git lfs pull"],
        ),
        (
            b"<!DOCTYPE html><html>".to_vec(),
            &["HTML page", "download"],
        ),
        (b"PK\x03\x04\0\0".to_vec(), &["zip archive", "unpack"]),
        (b"\x1f\x8b\x08\0".to_vec(), &["gzip", "unpack"]),
        (b"".to_vec(), &["empty file"]),
        (vec![0xff; 99], &["damaged", "copy it again"]),
    ];
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    for (bytes, parts) in cases {
        fs::write(&path, bytes).unwrap();
        let error = Import::open(&path).unwrap_err().to_string();
        for part in parts.iter().chain(&["m.onnx: "]) {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    fs::write(&path, unused).unwrap();
    Import::open(&path).unwrap();
}

/// PyTorch's exporter writes such masks; tract supports only additive ones.
#[test]
fn boolean_masks_of_attention_become_added_ones() {
    let constant = |kind: DataType| TensorProto {
        name: "mask".into(),
        data_type: kind as i32,
        dims: vec![1],
        raw_data: match kind {
            DataType::Bool => vec![1],
            _ => 0f32.to_le_bytes().to_vec(),
        },
        ..Default::default()
    };
    for (kind, added) in [(DataType::Bool, true), (DataType::Float, false)] {
        let mut model = model();
        let g = graph(&mut model);
        g.initializer.push(constant(kind));
        let node = loftup_onnx::rewrite::node;
        g.node.push(node("Expand", &["mask", "shape"], "wide"));
        for out in ["a", "b"] {
            g.node
                .push(node("Attention", &["q", "k", "v", "wide"], out));
        }
        g.node.push(node("Attention", &["q", "k", "v"], "c"));
        attention::add_masks(g);
        let wheres: Vec<_> = g.node.iter().filter(|n| n.op_type == "Where").collect();
        assert_eq!(wheres.len(), if added { 2 } else { 0 }, "{kind:?}");
        for n in g.node.iter().filter(|n| n.op_type == "Attention") {
            match n.input.get(3) {
                Some(mask) if added => {
                    let made = wheres.iter().find(|w| w.output[0] == *mask).unwrap();
                    assert_eq!(made.input[0], "wide");
                    let value = |name: &String| {
                        let t = g.initializer.iter().find(|t| t.name == *name).unwrap();
                        tensors::floats(t).unwrap()
                    };
                    assert_eq!(value(&made.input[1]), [0.0]);
                    assert!(value(&made.input[2])[0] <= -1e30);
                }
                Some(mask) => assert_eq!(mask, "wide"),
                None => assert_eq!(n.output[0], "c"),
            }
        }
    }
}
