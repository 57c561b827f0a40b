//! Outputs received by an independent program that uses only zenoh and the ROS 2 message
//! layouts.

mod common;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use loftup_node::{
    assemble,
    config::Config,
    health::{Reason, State},
    inject::Plan,
    output::FrameOutput,
    pipeline::{Node, SinkHandle},
    sink::{Context, Sink, SinkError},
};

const MESSAGES: usize = 150;
const DOMAIN: u32 = 7;

/// All published maps, in hexadecimal, after their slot.
#[derive(Clone, Default)]
struct Maps(Arc<Mutex<HashSet<String>>>);

impl Sink for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        for output in frame.outputs() {
            let mut text = format!("{} ", output.slot);
            let depth = output.depth.iter().flat_map(|depth| depth.to_le_bytes());
            for byte in output.classes.iter().copied().chain(depth) {
                write!(text, "{byte:02x}").unwrap();
            }
            self.0.lock().unwrap().insert(text);
        }
        Ok(())
    }
}

fn listener() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples/zenoh_listener");
    let build = "cargo build --workspace --features loftup-node/zenoh --example zenoh_listener";
    assert!(path.exists(), "{} is missing: {build}", path.display());
    path
}

#[test]
fn another_program_receives_maps_labels_and_tokens() {
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let endpoint = format!("tcp/127.0.0.1:{port}");
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let sink = format!(
        "{}[[query]]\nslot = 0\nwant = \"classes\"\n\
         [[query]]\nslot = 2\nwant = \"features-f16\"\npoints = [[3, 4], [90, 60]]\n\
         [[sink]]\nkind = \"zenoh\"\nendpoint = {endpoint:?}\ndomain = {DOMAIN}\nqueue = 2\n",
        common::DENSE_QUERIES
    );
    let text = common::config_text(&sink).replace("threads = 1", common::DEPTH);
    let config = Config::parse(&text, &folder.path().join("node.toml"));
    let (mut parts, _) = assemble::parts(config.unwrap(), &Plan::default()).unwrap();
    let maps = Maps::default();
    parts.sinks.push(SinkHandle {
        sink: Box::new(maps.clone()),
        queue: 64,
    });
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());

    // Without a router the node keeps running, degraded.
    common::until("no router", 30, || {
        handle.monitor().state() == State::Degraded(Reason::Link)
            && handle.metrics().published() > 5
    });
    let mut child = Command::new(listener())
        .args([&endpoint, &DOMAIN.to_string(), &MESSAGES.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let out = BufReader::new(child.stdout.take().unwrap());
    let mut child = common::KillOnDrop(child);
    let lines: Vec<String> = out.lines().map(Result::unwrap).collect();
    let status = child.0.wait().unwrap();
    handle.stop();
    thread.join().unwrap().unwrap();
    assert!(status.success(), "{status}: {lines:?}");

    let of = |kind: &str| -> Vec<Vec<&str>> {
        let words = lines.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        words.filter(|words| words[0] == kind).collect()
    };
    let (tokens, images, labels) = (of("token"), of("image"), of("labels"));
    let (tracks, points, status) = (of("tracks"), of("points"), of("status"));
    println!(
        "{} tokens, {} images, {} labels, {} tracks",
        tokens.len(),
        images.len(),
        labels.len(),
        tracks.len()
    );
    assert!(
        tokens.iter().any(|t| t[2].contains("/NN/%/%/loftup_node")),
        "{tokens:?}"
    );
    for topic in [
        "%loftup%slot_0%classes",
        "%loftup%slot_0%label_info",
        "%loftup%slot_2%features",
        "%loftup%slot_3%depth",
        "%loftup%slot_4%tracks",
        "%loftup%slot_4%mask",
        "%loftup%slot_5%classes",
        "%loftup%slot_5%label_info",
        "%diagnostics",
    ] {
        let declared = tokens
            .iter()
            .any(|t| t[1] == "PUT" && t[2].contains("/MP/") && t[2].contains(topic));
        assert!(declared, "{topic}: {tokens:?}");
    }
    let mut last = HashMap::new();
    for words in &images {
        let [_, key, number, _, frame, size, encoding, big, step, data] = words[..] else {
            panic!("{words:?}");
        };
        let (topic, slot) = [
            ("slot_0/classes", 0),
            ("slot_3/depth", 3),
            ("slot_4/mask", 4),
            ("slot_5/classes", 5),
        ]
        .into_iter()
        .find(|(topic, _)| {
            key.starts_with(&format!(
                "7/loftup/{topic}/sensor_msgs::msg::dds_::Image_/RIHS01_"
            ))
        })
        .unwrap_or_else(|| panic!("{key}"));
        let (expected, bytes) = if slot == 3 {
            ("16UC1", "84")
        } else {
            ("mono8", "42")
        };
        assert_eq!(
            [frame, size, encoding, big, step],
            ["camera", "42x42", expected, "0", bytes]
        );
        let number: i64 = number.parse().unwrap();
        let before = last.insert(topic, number).unwrap_or(0);
        assert!(number > before, "{topic}: {number} after {before}");
        assert!(
            maps.0.lock().unwrap().contains(&format!("{slot} {data}")),
            "{topic}: the node did not publish this map"
        );
    }
    assert!(last.len() == 4 && last.values().all(|n| *n > 5), "{last:?}");
    assert!(tracks.len() > 5);
    for words in &tracks {
        assert!(words[1].starts_with(
            "7/loftup/slot_4/tracks/vision_msgs::msg::dds_::Detection2DArray_/RIHS01_"
        ));
        assert_eq!(words[4], "camera");
        // The object may be out of sight.
        assert!(
            words
                .get(5)
                .is_none_or(|found| found.starts_with("2=first:")),
            "{words:?}"
        );
    }
    assert!(points.len() > 5 && !status.is_empty());
    for words in &points {
        assert!(
            words[1].starts_with(
                "7/loftup/slot_2/features/sensor_msgs::msg::dds_::PointCloud2_/RIHS01_"
            )
        );
        let fields = ["camera", "2x1", "x=1", "y=1", "z=1", "descriptor=3"];
        assert_eq!(words[4..10], fields);
        assert_eq!(words[10..13], ["3", "4", "0"]);
        assert_eq!(words[16..19], ["90", "60", "0"]);
        assert_eq!(words.len(), 22);
    }
    for words in &status {
        assert!(
            words[1]
                .starts_with("7/diagnostics/diagnostic_msgs::msg::dds_::DiagnosticArray_/RIHS01_")
        );
        let text = words[4..].join(" ");
        assert!(text.contains("|loftup_node: pipeline|"), "{text}");
        assert!(text.contains("|outputs published="), "{text}");
    }
    assert!(!labels.is_empty());
    for words in &labels {
        let (topic, of) = words[1].split_once("/label_info/").unwrap();
        assert!(of.starts_with("vision_msgs::msg::dds_::LabelInfo_/"));
        if topic == "7/loftup/slot_5" {
            assert_eq!(words[4..], ["camera", "0=mug", "1=cable", "2=floor", "0"]);
            continue;
        }
        assert_eq!(topic, "7/loftup/slot_0");
        let expected = [
            "camera",
            "0=road",
            "1=wall",
            "2=sky",
            "3=obstacle",
            "4=grass",
            "0",
        ];
        assert_eq!(words[4..], expected);
    }
}
