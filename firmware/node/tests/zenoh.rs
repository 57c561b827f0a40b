//! Class maps received by an independent program that uses only zenoh and the ROS 2 message layouts.

mod common;

use std::{
    collections::HashSet,
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

const MESSAGES: usize = 40;
const DOMAIN: u32 = 7;

/// All published class maps, in hexadecimal.
#[derive(Clone, Default)]
struct Maps(Arc<Mutex<HashSet<String>>>);

impl Sink for Maps {
    fn name(&self) -> &str {
        "maps"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let mut text = String::new();
        for class in &frame.outputs()[0].classes {
            write!(text, "{class:02x}").unwrap();
        }
        self.0.lock().unwrap().insert(text);
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
        "[[sink]]\nkind = \"zenoh\"\nendpoint = {endpoint:?}\ndomain = {DOMAIN}\nqueue = 2\n"
    );
    let config = Config::parse(
        &common::config_text(&sink),
        &folder.path().join("node.toml"),
    );
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
    println!(
        "{} tokens, {} images, {} labels",
        tokens.len(),
        images.len(),
        labels.len()
    );
    assert!(
        tokens.iter().any(|t| t[2].contains("/NN/%/%/loftup_node")),
        "{tokens:?}"
    );
    for topic in ["%loftup%slot_0%classes", "%loftup%slot_0%label_info"] {
        let declared = tokens
            .iter()
            .any(|t| t[1] == "PUT" && t[2].contains("/MP/") && t[2].contains(topic));
        assert!(declared, "{topic}: {tokens:?}");
    }
    assert!(images.len() > 20);
    let mut last = 0;
    for words in &images {
        let [_, key, number, _, frame, size, encoding, big, step, data] = words[..] else {
            panic!("{words:?}");
        };
        assert!(key.starts_with("7/loftup/slot_0/classes/sensor_msgs::msg::dds_::Image_/RIHS01_"));
        assert_eq!(
            [frame, size, encoding, big, step],
            ["camera", "42x42", "mono8", "0", "42"]
        );
        let number: i64 = number.parse().unwrap();
        assert!(number > last, "{number} after {last}");
        last = number;
        assert!(
            maps.0.lock().unwrap().contains(data),
            "the node did not publish this map"
        );
    }
    assert!(!labels.is_empty());
    for words in &labels {
        assert!(
            words[1].starts_with("7/loftup/slot_0/label_info/vision_msgs::msg::dds_::LabelInfo_/")
        );
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
