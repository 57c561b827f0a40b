//! The source of kind `ros2`, behind a router of zenoh in this process that publishes as `rmw_zenoh` does.
//! The messages are those of another encoder (`tools/make_ros_fixtures.py`).

mod common;

use std::{
    collections::HashSet,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread,
};

use loftup_node::{
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    metrics::Event,
    output::FrameOutput,
    pipeline::{Node, SinkHandle},
    ros::{self, Attachment, Distro, ENCODINGS},
    sink::{Context, Sink, SinkError},
    source::{Clock, Listener, Poll, Ros2, Source, Topic},
};
use loftup_runtime::image::Orientation;
use zenoh::{Session, Wait};

const DOMAIN: u32 = 9;
const STAMP_NS: u64 = 1_700_000_000_000_000_007;

fn message(name: &str) -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/ros/images/");
    std::fs::read(format!("{folder}{name}.cdr")).unwrap()
}

fn endpoint() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("tcp/{}", listener.local_addr().unwrap())
}

/// A router that publishes on a topic, and sees the tokens of the graph.
struct Router {
    session: Session,
    tokens: Arc<Mutex<HashSet<String>>>,
    sequence: Mutex<i64>,
}

impl Router {
    fn start(endpoint: &str) -> Self {
        let mut config = zenoh::Config::default();
        for (key, value) in [
            ("mode", "\"router\"".to_owned()),
            ("listen/endpoints", format!("[{endpoint:?}]")),
            ("scouting/multicast/enabled", "false".into()),
        ] {
            config.insert_json5(key, &value).unwrap();
        }
        let session = zenoh::open(config).wait().unwrap();
        let tokens = Arc::new(Mutex::new(HashSet::new()));
        let seen = tokens.clone();
        session
            .liveliness()
            .declare_subscriber(format!("@ros2_lv/{DOMAIN}/**"))
            .history(true)
            .callback(move |sample| {
                let key = sample.key_expr().to_string();
                seen.lock().unwrap().insert(key);
            })
            .background()
            .wait()
            .unwrap();
        Self {
            session,
            tokens,
            sequence: Mutex::new(0),
        }
    }

    /// Whether a subscription is in the ROS graph. It has been declared before.
    fn sees(&self, part: &str) -> bool {
        let tokens = self.tokens.lock().unwrap();
        tokens.iter().any(|token| token.contains(part))
    }

    fn put(&self, topic: &str, of: ros::Type, distro: Distro, body: &[u8]) {
        let mut sequence = self.sequence.lock().unwrap();
        *sequence += 1;
        let attachment = Attachment {
            sequence: *sequence,
            sent_ns: 0,
            publisher: [5; 16],
        };
        let key = ros::topic_key(DOMAIN, topic, of, distro);
        let put = self.session.put(key, body);
        let put = put.attachment(attachment.to_bytes().as_slice());
        put.wait().unwrap();
    }
}

fn listen(endpoint: &str, topic: &str, queue: usize) -> Ros2 {
    let listener = Listener::start(Topic {
        endpoint: endpoint.into(),
        domain: DOMAIN,
        distro: Distro::Humble,
        name: topic.into(),
        compressed: topic.ends_with("/compressed"),
        queue,
        orientation: Orientation::Upright,
    });
    Ros2::new(Arc::new(listener.unwrap()))
}

/// The next result that is not nothing.
fn next(source: &mut Ros2, frame: &mut RawFrame) -> Result<(), String> {
    let clock = Clock::start();
    let mut found = None;
    common::until("an image", 30, || match source.next(&clock, frame) {
        Ok(Poll::Nothing) => false,
        Ok(polled) => {
            assert_eq!(polled, Poll::Frame);
            found = Some(Ok(()));
            true
        }
        Err(e) => {
            found = Some(Err(e.to_string()));
            true
        }
    });
    found.unwrap()
}

#[test]
fn every_encoding_is_received_from_every_distribution() {
    let endpoint = endpoint();
    let router = Router::start(&endpoint);
    let mut raw = listen(&endpoint, "/camera/image", 1);
    let mut compressed = listen(&endpoint, "/camera/image/compressed", 1);
    common::until("subscriptions", 30, || {
        router.sees("/MS/%/%/loftup_source/%camera%image/sensor_msgs::msg::dds_::Image_/TypeHashNotSupported/2:2:1,1:,:,:,,")
            && router.sees("%camera%image%compressed/sensor_msgs::msg::dds_::CompressedImage_/")
    });
    assert!(router.sees("/NN/%/%/loftup_source"));
    let mut frame = RawFrame::default();
    for distro in [Distro::Humble, Distro::Iron, Distro::Lyrical] {
        let raw_names = ENCODINGS.map(|(name, _)| name);
        for name in raw_names.into_iter().chain(["jpeg", "png"]) {
            let body = message(name);
            let (width, height) = if raw_names.contains(&name) {
                router.put("/camera/image", ros::IMAGE, distro, &body);
                next(&mut raw, &mut frame).unwrap();
                (7, 5)
            } else {
                let of = ros::COMPRESSED_IMAGE;
                router.put("/camera/image/compressed", of, distro, &body);
                next(&mut compressed, &mut frame).unwrap();
                (56, 40)
            };
            assert_eq!((frame.width, frame.height), (width, height), "{name}");
            assert_eq!(frame.bytes.len(), 3 * width * height);
            let header = frame.header.as_ref().unwrap();
            assert_eq!(header.stamp_ns, STAMP_NS);
            assert_eq!(&*header.frame_id, "front_optical");
        }
    }
}

#[test]
fn the_newest_messages_win_and_the_others_are_missing_in_the_numbers() {
    let endpoint = endpoint();
    let router = Router::start(&endpoint);
    let mut source = listen(&endpoint, "/image", 2);
    common::until("a subscription", 30, || router.sees("%image/"));
    let mut frame = RawFrame::default();
    router.put("/image", ros::IMAGE, Distro::Jazzy, &message("rgb8"));
    next(&mut source, &mut frame).unwrap();
    let first = frame.number;
    // Nobody reads.
    for _ in 0..6 {
        router.put("/image", ros::IMAGE, Distro::Jazzy, &message("mono8"));
    }
    // The last of them is an error, so that it is known to have arrived.
    router.put("/image", ros::IMAGE, Distro::Jazzy, b"\x00\x01\x00\x00");
    let clock = Clock::start();
    let mut numbers = Vec::new();
    common::until("the last message", 30, || {
        thread::sleep(std::time::Duration::from_millis(200));
        loop {
            match source.next(&clock, &mut frame) {
                Ok(Poll::Frame) => numbers.push(frame.number - first),
                Ok(_) => return false,
                Err(e) => {
                    assert!(e.to_string().contains("header.stamp.sec"), "{e}");
                    return true;
                }
            }
        }
    });
    assert_eq!(numbers.last(), Some(&6));
    // A message without the attachment of rmw_zenoh has the next number.
    let key = ros::topic_key(DOMAIN, "/image", ros::IMAGE, Distro::Jazzy);
    router.session.put(key, message("bgr8")).wait().unwrap();
    next(&mut source, &mut frame).unwrap();
    assert_eq!(frame.number - first, 8);
}

#[test]
fn a_source_survives_bad_messages_and_a_router_that_restarts() {
    let endpoint = endpoint();
    let mut source = listen(&endpoint, "/image", 1);
    let mut frame = RawFrame::default();
    let e = next(&mut source, &mut frame).unwrap_err();
    assert!(e.starts_with("/image: ") && !e.contains('\n'), "{e}");
    let png = message("png");
    let unknown = ros::RawImage::parse(&png).unwrap_err().to_string();
    for round in 0..2 {
        let router = Router::start(&endpoint);
        common::until("a subscription", 30, || router.sees("%image/"));
        for (body, text) in [
            (&b""[..], "encapsulation"),
            (&b"\x00\x00\x00\x00"[..], "little-endian"),
            (&message("rgb8")[..60], "data"),
            (&png[..], &unknown),
        ] {
            router.put("/image", ros::IMAGE, Distro::Rolling, body);
            // A fault of the connection may come first.
            common::until("the error", 30, || {
                let e = next(&mut source, &mut frame).unwrap_err();
                e.contains(text)
            });
        }
        router.put("/image", ros::IMAGE, Distro::Rolling, &message("bgra8"));
        next(&mut source, &mut frame).unwrap();
        assert_eq!(frame.width, 7, "{round}");
        router.session.close().wait().unwrap();
    }
}

/// Stamp, frame and image size of an output.
type Line = (u64, String, (usize, usize));

/// Those of all outputs.
#[derive(Clone, Default)]
struct Headers(Arc<Mutex<Vec<Line>>>);

impl Sink for Headers {
    fn name(&self) -> &str {
        "headers"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let header = frame.header.as_ref().unwrap();
        let line = (header.stamp_ns, header.frame_id.to_string(), frame.camera);
        self.0.lock().unwrap().push(line);
        Ok(())
    }
}

#[test]
fn a_node_keeps_stamp_and_frame_of_images_whose_size_changes() {
    let endpoint = endpoint();
    let router = Router::start(&endpoint);
    let folder = tempfile::tempdir().unwrap();
    common::bundle(folder.path());
    let source = format!(
        "kind = \"ros2\"\ntopic = \"/image\"\nendpoint = {endpoint:?}\ndomain = {DOMAIN}\n"
    );
    let text = common::config_text("");
    let start = text.find("kind = \"scenes\"").unwrap();
    let text = text[..start].to_owned() + &source;
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let (mut parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    let headers = Headers::default();
    parts.sinks.push(SinkHandle {
        sink: Box::new(headers.clone()),
        queue: 64,
    });
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    common::until("a subscription", 60, || router.sees("%image/"));
    // Stamps of 2023 are replaced by the time of arrival in the node, and kept in outputs.
    let put = |(width, height)| {
        let image = ros::Image {
            header: ros::Header {
                stamp_ns: STAMP_NS,
                frame_id: "front_optical",
            },
            width,
            height,
            pixels: ros::Pixels::Mono8(&vec![90; width * height]),
        };
        let mut body = Vec::new();
        image.encode(&mut body);
        router.put("/image", ros::IMAGE, Distro::Jazzy, &body);
    };
    common::until("an output, and a stamp that was replaced", 60, || {
        put((40, 30));
        thread::sleep(std::time::Duration::from_millis(100));
        let jumps = handle.metrics().events(Event::TimeJump);
        jumps > 0 && !headers.0.lock().unwrap().is_empty()
    });
    let before = headers.0.lock().unwrap().len();
    put((56, 20));
    common::until("an output of the other size", 60, || {
        headers.0.lock().unwrap().len() > before
    });
    handle.stop();
    thread.join().unwrap().unwrap();
    let headers = headers.0.lock().unwrap();
    assert_eq!(headers.last().map(|(.., size)| *size), Some((56, 20)));
    for (stamp_ns, frame_id, size) in headers.iter() {
        assert_eq!((*stamp_ns, frame_id.as_str()), (STAMP_NS, "front_optical"));
        assert!(*size == (40, 30) || *size == (56, 20), "{size:?}");
    }
}
