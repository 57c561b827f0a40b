//! Compatibility of the messages with another implementation.

use loftup_onnx::pb;
use prost::Message;
use tract_onnx::pb as theirs;

fn model() -> pb::ModelProto {
    let tensor = pb::TensorProto {
        dims: vec![2, 300],
        data_type: pb::tensor_proto::DataType::Float16 as i32,
        float_data: vec![1.0, -2.5],
        int32_data: vec![-1, 70_000],
        int64_data: vec![i64::MIN, 5],
        string_data: vec![b"s".to_vec()],
        double_data: vec![0.1],
        uint64_data: vec![u64::MAX],
        name: "w".into(),
        raw_data: vec![1, 2, 3],
        doc_string: "d".into(),
        external_data: vec![pb::StringStringEntryProto {
            key: "location".into(),
            value: "w.data".into(),
        }],
        data_location: Some(pb::tensor_proto::DataLocation::External as i32),
        ..Default::default()
    };
    let dims = [
        Some(pb::tensor_shape_proto::dimension::Value::DimValue(7)),
        Some(pb::tensor_shape_proto::dimension::Value::DimParam(
            "n".into(),
        )),
        None,
    ];
    let info = pb::ValueInfoProto {
        name: "x".into(),
        r#type: Some(pb::TypeProto {
            denotation: "IMAGE".into(),
            value: Some(pb::type_proto::Value::TensorType(pb::type_proto::Tensor {
                elem_type: pb::tensor_proto::DataType::Uint8 as i32,
                shape: Some(pb::TensorShapeProto {
                    dim: dims
                        .map(|value| pb::tensor_shape_proto::Dimension {
                            denotation: String::new(),
                            value,
                        })
                        .to_vec(),
                }),
            })),
        }),
        ..Default::default()
    };
    let attribute = pb::AttributeProto {
        name: "a".into(),
        f: 1.5,
        i: -3,
        s: b"bytes".to_vec(),
        t: Some(tensor.clone()),
        g: Some(pb::GraphProto {
            name: "inner".into(),
            ..Default::default()
        }),
        floats: vec![0.0, 1.0],
        ints: vec![-1, 1 << 40],
        strings: vec![vec![0xff]],
        r#type: pb::attribute_proto::AttributeType::Ints as i32,
        ..Default::default()
    };
    pb::ModelProto {
        ir_version: 8,
        producer_name: "p".into(),
        producer_version: "1".into(),
        domain: "d".into(),
        model_version: 2,
        doc_string: "doc".into(),
        opset_import: vec![pb::OperatorSetIdProto {
            domain: "ai.onnx".into(),
            version: 17,
        }],
        graph: Some(pb::GraphProto {
            node: vec![pb::NodeProto {
                input: vec!["x".into(), String::new()],
                output: vec!["y".into()],
                name: "n".into(),
                op_type: "Conv".into(),
                domain: "com.example".into(),
                attribute: vec![attribute],
                doc_string: "node".into(),
                ..Default::default()
            }],
            name: "g".into(),
            initializer: vec![tensor],
            input: vec![info.clone()],
            output: vec![info.clone()],
            value_info: vec![info],
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[test]
fn another_implementation_reads_every_field_and_writes_the_same_bytes() {
    let bytes = model().encode_to_vec();
    let read = theirs::ModelProto::decode(&bytes[..]).unwrap();
    let graph = read.graph.as_ref().unwrap();
    assert_eq!(graph.node[0].attribute[0].ints, [-1, 1 << 40]);
    assert_eq!(graph.initializer[0].raw_data, [1, 2, 3]);
    assert_eq!(read.encode_to_vec(), bytes);
    assert_eq!(pb::ModelProto::decode(&bytes[..]).unwrap(), model());
}
