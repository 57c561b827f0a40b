//! MCAP files as a viewer sees them: read back with the reader of the format's own library, every
//! message held against its schema, and the schemas against what Foxglove documents.

mod common;

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use loftup_node::{
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    pipeline::Node,
    source::{Pace, Recording, Scenes},
};
use serde_json::{Value, json};

/// What is wrong with `value`, by the keywords of JSON Schema that Foxglove's schemas use. Keys
/// that the schema does not know are mistakes too.
fn mistakes(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
    let mut expect = |ok: bool, what: String| {
        if !ok {
            out.push(format!("{at}: {what}"));
        }
    };
    for (keyword, is) in schema.as_object().expect("a schema is an object") {
        match keyword.as_str() {
            "title" | "description" | "properties" | "items" => {}
            "type" => {
                let holds = match is.as_str() {
                    Some("object") => value.is_object(),
                    Some("array") => value.is_array(),
                    Some("string") => value.is_string(),
                    Some("integer") => value.is_i64() || value.is_u64(),
                    Some("number") => value.is_number(),
                    _ => panic!("{at}: unknown type {is}"),
                };
                expect(holds, format!("{value} is no {is}"));
            }
            "minimum" => expect(
                value.as_f64() >= is.as_f64(),
                format!("{value} is less than {is}"),
            ),
            "maximum" => expect(
                value.as_f64() <= is.as_f64(),
                format!("{value} is more than {is}"),
            ),
            "const" => expect(value == is, format!("{value} is not {is}")),
            "required" => {
                for key in is.as_array().unwrap() {
                    expect(
                        value.get(key.as_str().unwrap()).is_some(),
                        format!("{key} is missing"),
                    );
                }
            }
            "oneOf" => {
                let fits = is.as_array().unwrap().iter().filter(|option| {
                    let mut wrong = Vec::new();
                    mistakes(option, value, at, &mut wrong);
                    wrong.is_empty()
                });
                expect(fits.count() == 1, format!("{value} is not one of {is}"));
            }
            "contentEncoding" => {
                assert_eq!(is, "base64");
                let text = value.as_str().unwrap_or("?");
                expect(STANDARD.decode(text).is_ok(), "this is no base64".into());
            }
            other => panic!("{at}: the schema uses {other:?}, which this test does not know"),
        }
    }
    if let (Some(properties), Some(values)) = (schema.get("properties"), value.as_object()) {
        for (key, value) in values {
            match properties.get(key) {
                Some(schema) => mistakes(schema, value, &format!("{at}.{key}"), out),
                None => out.push(format!("{at}: {key} is not in the schema")),
            }
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (i, value) in values.iter().enumerate() {
            mistakes(items, value, &format!("{at}[{i}]"), out);
        }
    }
}

fn all_mistakes(schema: &Value, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    mistakes(schema, value, "message", &mut out);
    out
}

/// Fields and JSON types of two of Foxglove's schemas, as its documentation has them.
const DOCUMENTED: [(&str, &[(&str, &str)]); 2] = [
    (
        "foxglove.RawImage",
        &[
            ("timestamp", "object"),
            ("frame_id", "string"),
            ("width", "integer"),
            ("height", "integer"),
            ("encoding", "string"),
            ("step", "integer"),
            ("data", "string"),
        ],
    ),
    (
        "foxglove.Log",
        &[
            ("timestamp", "object"),
            ("level", "oneOf"),
            ("message", "string"),
            ("name", "string"),
            ("file", "string"),
            ("line", "integer"),
        ],
    ),
];

#[test]
fn schemas_have_the_fields_that_foxglove_documents() {
    for (name, fields) in DOCUMENTED {
        let schema = loftup_node::sink::schema(name).unwrap();
        assert_eq!(schema["title"], name);
        let properties = schema["properties"].as_object().unwrap();
        assert_eq!(properties.len(), fields.len(), "{name}");
        for (field, kind) in fields {
            let property = &properties[*field];
            assert!(
                property["type"] == *kind || property.get(*kind).is_some(),
                "{name}.{field}: {property}"
            );
        }
        let time = &properties["timestamp"]["properties"];
        assert_eq!(time["sec"], json!({"type": "integer", "minimum": 0}));
        assert_eq!(
            time["nsec"],
            json!({"type": "integer", "minimum": 0, "maximum": 999_999_999})
        );
    }
    assert!(loftup_node::sink::schema("foxglove.Nothing").is_none());
}

#[test]
fn a_message_that_does_not_fit_is_noticed() {
    let schema = loftup_node::sink::schema("foxglove.Log").unwrap();
    let good = json!({
        "timestamp": {"sec": 5, "nsec": 999_999_999}, "level": 2, "message": "m", "name": "n", "file": "", "line": 0,
    });
    assert_eq!(all_mistakes(&schema, &good), Vec::<String>::new());
    for (key, value) in [
        ("timestamp", json!({"sec": 5, "nsec": 1_000_000_000})),
        ("timestamp", json!(5)),
        ("level", json!(6)),
        ("level", json!("info")),
        ("line", json!(-1)),
        ("line", json!(0.5)),
        ("name", Value::Null),
        ("colour", json!("red")),
    ] {
        let mut bad = good.clone();
        bad[key] = value.clone();
        assert_eq!(all_mistakes(&schema, &bad).len(), 1, "{key} {value}");
    }
    let mut short = good;
    short.as_object_mut().unwrap().remove("name");
    assert_eq!(all_mistakes(&schema, &short).len(), 1);
}

const SINKS: &str = r#"
[[query]]
slot = 0
want = "classes"

[[query]]
slot = 1
want = "regions"

[[query]]
slot = 2
want = "features-u8"
points = [[3, 3], [90, 60]]

[[sink]]
kind = "mcap"
path = "a.mcap"

[[sink]]
kind = "recording"
path = "a.rec"

[[sink]]
kind = "pictures"
path = "pictures"
keep = 3
"#;

/// Runs a node with files for `answers` answers.
fn run(folder: &Path, answers: u64) {
    common::bundle(folder);
    let config = Config::parse(&common::config_text(SINKS), &folder.join("node.toml")).unwrap();
    let (parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = std::thread::spawn(|| node.run());
    common::until("answers", 60, || handle.metrics().answers() >= answers);
    handle.stop();
    thread.join().unwrap().unwrap();
}

fn drawn(number: u64) -> RawFrame {
    let mut frame = RawFrame::default();
    Scenes::new(5, 96, 64, Pace::new(20.0)).draw(number, &mut frame);
    frame
}

#[test]
fn files_are_written_and_a_recording_is_played_again() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 10);

    let bytes = std::fs::read(folder.path().join("a.mcap")).unwrap();
    let mut topics = BTreeMap::new();
    let mut last = BTreeMap::new();
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        let schema = message.channel.schema.as_ref().unwrap();
        assert_eq!(
            (
                schema.encoding.as_str(),
                message.channel.message_encoding.as_str()
            ),
            ("jsonschema", "json")
        );
        let described: Value = serde_json::from_slice(&schema.data).unwrap();
        assert_eq!(described["title"], schema.name);
        let value: Value = serde_json::from_slice(&message.data).unwrap();
        assert_eq!(
            all_mistakes(&described, &value),
            Vec::<String>::new(),
            "{}",
            message.channel.topic
        );
        let topic = message.channel.topic.clone();
        if let Some(before) = last.insert(topic.clone(), message.log_time) {
            assert!(before <= message.log_time, "{topic} goes back in time");
        }
        if schema.name == "foxglove.RawImage" {
            let data = STANDARD.decode(value["data"].as_str().unwrap()).unwrap();
            let (step, height) = (
                value["step"].as_u64().unwrap(),
                value["height"].as_u64().unwrap(),
            );
            assert_eq!(data.len() as u64, step * height, "{topic}");
            match value["encoding"].as_str().unwrap() {
                "rgb8" => assert_eq!(data, drawn(message.sequence.into()).bytes, "{topic}"),
                "mono8" => assert!(
                    data.iter().all(|c| usize::from(*c) < common::LABELS.len()),
                    "{topic}"
                ),
                other => panic!("{topic}: {other}"),
            }
        }
        *topics.entry((topic, schema.name.clone())).or_insert(0) += 1;
    }
    for (topic, schema, least) in [
        ("/camera/image", "foxglove.RawImage", 9),
        ("/loftup/slot_0/classes", "foxglove.RawImage", 9),
        ("/loftup/slot_1/regions", "loftup.Regions", 9),
        ("/loftup/slot_2/features", "loftup.Features", 9),
        ("/loftup/health", "foxglove.Log", 1),
    ] {
        let count = topics.remove(&(topic.into(), schema.into())).unwrap_or(0);
        assert!(count >= least, "{count} messages of {topic}");
    }
    assert!(topics.is_empty(), "{topics:?}");
    let summary = mcap::Summary::read(&bytes)
        .unwrap()
        .expect("a finished file has a summary");
    let index = summary
        .metadata_indexes
        .iter()
        .find(|m| m.name == "labels")
        .expect("names of the classes");
    let labels = mcap::read::metadata(&bytes, index).unwrap();
    for (i, name) in common::LABELS.iter().enumerate() {
        assert_eq!(labels.metadata[&i.to_string()], *name);
    }

    let pictures = loftup_node::source::list(&folder.path().join("pictures")).unwrap();
    assert_eq!(pictures.len(), 3);
    assert_eq!(
        loftup_runtime::image::open(&pictures[0]).unwrap().width(),
        42
    );

    let mut recording = Recording::open(&folder.path().join("a.rec")).unwrap();
    let mut frame = RawFrame::default();
    let mut frames = 0;
    while recording.read(&mut frame).unwrap() {
        assert_eq!(frame.bytes, drawn(frame.number).bytes);
        frames += 1;
    }
    assert!(frames >= 9);
}

#[test]
fn a_file_that_was_never_finished_can_be_read_up_to_where_it_breaks_off() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 60);
    let bytes = std::fs::read(folder.path().join("a.mcap")).unwrap();
    let cut = &bytes[..bytes.len() / 2];
    // What a power cut leaves has no footer: the reader is told not to want one.
    let options = mcap::read::Options::IgnoreEndMagic;
    let whole = mcap::MessageStream::new(&bytes).unwrap().count();
    let stream = mcap::MessageStream::new_with_options(cut, options.into()).unwrap();
    let read = stream.take_while(Result::is_ok).count();
    assert!(read > 0 && read < whole, "{read} of {whole}");
}
