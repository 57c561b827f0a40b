//! MCAP files, read back with the MCAP library. Messages are validated against their schemas, and the
//! Foxglove schemas against the published ones.

mod common;

use std::{collections::BTreeMap, path::Path};

use loftup_node::{
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    pipeline::Node,
    ros,
    sink::foxglove::{self, Log, RawImage, description, kinds},
    source::{Pace, Recording, Scenes},
};
use prost::Message;
use serde_json::{Value, json};

/// Collects violations of a JSON schema. Supports the keywords that the schemas of this project use;
/// unknown keys are violations.
fn validate(schema: &Value, value: &Value, at: &str, out: &mut Vec<String>) {
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
                expect(holds, format!("{value} is not of type {is}"));
            }
            "minimum" => expect(
                value.as_f64() >= is.as_f64(),
                format!("{value} is less than {is}"),
            ),
            "maximum" => expect(
                value.as_f64() <= is.as_f64(),
                format!("{value} is more than {is}"),
            ),
            "required" => {
                for key in is.as_array().unwrap() {
                    expect(
                        value.get(key.as_str().unwrap()).is_some(),
                        format!("{key} is missing"),
                    );
                }
            }
            other => panic!("{at}: the schema uses {other:?}, which this test does not know"),
        }
    }
    if let (Some(properties), Some(values)) = (schema.get("properties"), value.as_object()) {
        for (key, value) in values {
            match properties.get(key) {
                Some(schema) => validate(schema, value, &format!("{at}.{key}"), out),
                None => out.push(format!("{at}: {key} is not in the schema")),
            }
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (i, value) in values.iter().enumerate() {
            validate(items, value, &format!("{at}[{i}]"), out);
        }
    }
}

fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut out = Vec::new();
    validate(schema, value, "message", &mut out);
    out
}

/// Name, number and type of a field.
type Field = (&'static str, i32, i32);

/// Fields of two Foxglove messages, from its `.proto` files.
const PUBLISHED: [(&str, &[Field]); 2] = [
    (
        "RawImage",
        &[
            ("timestamp", 1, kinds::MESSAGE),
            ("frame_id", 7, kinds::STRING),
            ("width", 2, kinds::FIXED32),
            ("height", 3, kinds::FIXED32),
            ("encoding", 4, kinds::STRING),
            ("step", 5, kinds::FIXED32),
            ("data", 6, kinds::BYTES),
        ],
    ),
    (
        "Log",
        &[
            ("timestamp", 1, kinds::MESSAGE),
            ("level", 2, kinds::ENUM),
            ("message", 3, kinds::STRING),
            ("name", 4, kinds::STRING),
            ("file", 5, kinds::STRING),
            ("line", 6, kinds::FIXED32),
        ],
    ),
];

#[test]
fn schemas_match_the_published_ones() {
    for (name, fields) in PUBLISHED {
        let set = foxglove::describe(&format!("foxglove.{name}")).unwrap();
        let set = description::Set::decode(set.as_slice()).unwrap();
        let [time, file] = &set.files[..] else {
            panic!("{set:?}");
        };
        assert_eq!(time.name, "google/protobuf/timestamp.proto");
        assert_eq!(time.messages[0].fields.len(), 2);
        assert_eq!(file.package, "foxglove");
        assert_eq!(file.dependencies, std::slice::from_ref(&time.name));
        let message = &file.messages[0];
        assert_eq!(message.name, name);
        let found: Vec<_> = message
            .fields
            .iter()
            .map(|f| (f.name.as_str(), f.number, f.kind))
            .collect();
        assert_eq!(found, fields, "{name}");
    }
    assert!(foxglove::describe("foxglove.Nothing").is_none());
}

#[test]
fn invalid_messages_are_detected() {
    let schema = loftup_node::sink::schema("loftup.Regions").unwrap();
    let region = json!({
        "class": 1, "pixels": 9, "x": 1, "y": 2, "width": 3, "height": 3, "center": [2, 3],
    });
    let good = json!({
        "timestamp": {"sec": 5, "nsec": 999_999_999}, "frame": 2, "regions": [region],
    });
    assert_eq!(violations(&schema, &good), Vec::<String>::new());
    for (key, value) in [
        ("timestamp", json!({"sec": 5, "nsec": 1_000_000_000})),
        ("timestamp", json!(5)),
        ("frame", json!(-1)),
        ("frame", json!(0.5)),
        ("regions", Value::Null),
        ("color", json!("red")),
    ] {
        let mut bad = good.clone();
        bad[key] = value.clone();
        assert_eq!(violations(&schema, &bad).len(), 1, "{key} {value}");
    }
    let mut short = good;
    short.as_object_mut().unwrap().remove("frame");
    assert_eq!(violations(&schema, &short).len(), 1);
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

[track]
grid = [14, 12]
radius = 3

[[track.object]]
object = 2
name = "first"
region = [20, 10, 30, 30]

[words]
head = "words"

[[query]]
slot = 3
want = "depth"

[[query]]
slot = 4
want = "objects"

[[query]]
slot = 5
want = "words"

[[sink]]
kind = "mcap"
path = "a.mcap"

[[sink]]
kind = "recording"
path = "a.rec"

[[sink]]
kind = "images"
path = "images"
keep = 3
"#;

/// Runs a node with file sinks for `outputs` outputs.
fn run(folder: &Path, outputs: u64) {
    common::bundle(folder);
    let text = common::config_text(SINKS).replace("threads = 1", common::DEPTH);
    let config = Config::parse(&text, &folder.join("node.toml")).unwrap();
    let (parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = std::thread::spawn(|| node.run());
    common::until("outputs", 60, || handle.metrics().published() >= outputs);
    // On a busy machine a sink can be behind the others.
    common::until("images", 60, || {
        loftup_node::source::list(&folder.join("images")).is_ok_and(|images| images.len() >= 3)
    });
    handle.stop();
    thread.join().unwrap().unwrap();
}

fn drawn(number: u64) -> RawFrame {
    let mut frame = RawFrame::default();
    Scenes::new(5, 96, 64, Pace::new(20.0)).draw(number, &mut frame);
    frame
}

#[test]
fn files_are_written_and_a_recording_can_be_played() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 10);

    let bytes = std::fs::read(folder.path().join("a.mcap")).unwrap();
    let mut topics = BTreeMap::new();
    let mut last = BTreeMap::new();
    // Whether the object is visible, by time, until the mask of the same time is found.
    let mut tracked = BTreeMap::new();
    for message in mcap::MessageStream::new(&bytes).unwrap() {
        let message = message.unwrap();
        let schema = message.channel.schema.as_ref().unwrap();
        let topic = message.channel.topic.clone();
        if let Some(before) = last.insert(topic.clone(), message.log_time) {
            assert!(before <= message.log_time, "{topic} goes back in time");
        }
        let encodings = (
            schema.encoding.as_str(),
            message.channel.message_encoding.as_str(),
        );
        match schema.name.as_str() {
            "foxglove.RawImage" => {
                assert_eq!(encodings, ("protobuf", "protobuf"));
                assert_eq!(Some(schema.data.to_vec()), foxglove::describe(&schema.name));
                let image = RawImage::decode(&message.data[..]).unwrap();
                let time = image.timestamp.unwrap();
                let at = time.seconds as u64 * 1_000_000_000 + time.nanos as u64;
                assert_eq!(at, message.log_time, "{topic}");
                let size = image.step as usize * image.height as usize;
                assert_eq!(image.data.len(), size, "{topic}");
                match (image.encoding.as_str(), image.step / image.width) {
                    ("rgb8", 3) => {
                        let drawn = drawn(message.sequence.into());
                        assert_eq!(image.data, drawn.bytes, "{topic}");
                    }
                    ("mono8", 1) => {
                        let allowed: &[u8] = match topic.as_str() {
                            "/loftup/slot_0/classes" => &[0, 1, 2, 3, 4],
                            "/loftup/slot_4/mask" => &[0, 2],
                            "/loftup/slot_5/classes" => &[0, 1, 2, 255],
                            _ => panic!("{topic}"),
                        };
                        assert!(image.data.iter().all(|c| allowed.contains(c)), "{topic}");
                        if topic == "/loftup/slot_4/mask" {
                            let visible = image.data.contains(&2);
                            assert_eq!(tracked.remove(&message.log_time), Some(visible));
                        }
                    }
                    ("16UC1", 2) => {
                        let depths = image.data.as_chunks::<2>().0.iter();
                        let mut depths = depths.map(|bytes| u16::from_le_bytes(*bytes));
                        assert!(depths.all(|d| (250..=20_000).contains(&d)), "{topic}");
                    }
                    other => panic!("{topic}: {other:?}"),
                }
            }
            "vision_msgs/msg/Detection2DArray" => {
                assert_eq!(encodings, ("ros2msg", "cdr"));
                assert_eq!(schema.data, ros::DETECTIONS_DEFINITION.as_bytes());
                // The encoding has a test of its own. Here: the number of detections, after the stamp and
                // the name of the frame.
                let count = message.data[24];
                assert!(count <= 1, "{topic}");
                tracked.insert(message.log_time, count == 1);
            }
            "sensor_msgs/msg/PointCloud2" => {
                assert_eq!(encodings, ("ros2msg", "cdr"));
                assert_eq!(schema.data, ros::POINTS_DEFINITION.as_bytes());
                // The encoding has a test of its own. Here: two points with three values each, and a byte
                // after them.
                let data = &message.data[message.data.len() - 2 * 24 - 1..];
                let floats = data.as_chunks::<4>().0.iter();
                let floats: Vec<_> = floats.map(|bytes| f32::from_le_bytes(*bytes)).collect();
                assert_eq!([floats[0], floats[1], floats[2]], [3.0, 3.0, 0.0]);
                assert_eq!([floats[6], floats[7], floats[8]], [90.0, 60.0, 0.0]);
                assert!(floats.iter().all(|value| value.is_finite()));
            }
            "foxglove.Log" => {
                assert_eq!(encodings, ("protobuf", "protobuf"));
                let log = Log::decode(&message.data[..]).unwrap();
                assert!(foxglove::LEVELS.get(log.level as usize).is_some());
                assert!(log.message.contains("outputs/s"), "{log:?}");
                assert_eq!(log.name, "loftup-node");
            }
            _ => {
                assert_eq!(encodings, ("jsonschema", "json"));
                let described: Value = serde_json::from_slice(&schema.data).unwrap();
                assert_eq!(described["title"], schema.name);
                let value: Value = serde_json::from_slice(&message.data).unwrap();
                let found = violations(&described, &value);
                assert_eq!(found, Vec::<String>::new(), "{topic}");
            }
        }
        *topics.entry((topic, schema.name.clone())).or_insert(0) += 1;
    }
    for (topic, schema, min) in [
        ("/camera/image", "foxglove.RawImage", 9),
        ("/loftup/slot_0/classes", "foxglove.RawImage", 9),
        ("/loftup/slot_1/regions", "loftup.Regions", 9),
        ("/loftup/slot_2/features", "sensor_msgs/msg/PointCloud2", 9),
        ("/loftup/slot_3/depth", "foxglove.RawImage", 9),
        (
            "/loftup/slot_4/tracks",
            "vision_msgs/msg/Detection2DArray",
            9,
        ),
        ("/loftup/slot_4/mask", "foxglove.RawImage", 9),
        ("/loftup/slot_5/classes", "foxglove.RawImage", 9),
        ("/loftup/health", "foxglove.Log", 1),
    ] {
        let count = topics.remove(&(topic.into(), schema.into())).unwrap_or(0);
        assert!(count >= min, "{count} messages of {topic}");
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
    let index = summary
        .metadata_indexes
        .iter()
        .find(|m| m.name == "words_2")
        .expect("the words");
    let words = mcap::read::metadata(&bytes, index).unwrap();
    for (i, name) in common::WORDS.iter().enumerate() {
        assert_eq!(words.metadata[&i.to_string()], *name);
    }

    let images = loftup_node::source::list(&folder.path().join("images")).unwrap();
    assert_eq!(images.len(), 3);
    assert_eq!(loftup_runtime::image::open(&images[0]).unwrap().width(), 42);

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
fn an_unfinished_file_can_be_read_up_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    run(folder.path(), 60);
    let bytes = std::fs::read(folder.path().join("a.mcap")).unwrap();
    let cut = &bytes[..bytes.len() / 2];
    // Without a footer, as after a power cut.
    let options = mcap::read::Options::IgnoreEndMagic;
    let whole = mcap::MessageStream::new(&bytes).unwrap().count();
    let stream = mcap::MessageStream::new_with_options(cut, options.into()).unwrap();
    let read = stream.take_while(Result::is_ok).count();
    assert!(read > 0 && read < whole, "{read} of {whole}");
}
