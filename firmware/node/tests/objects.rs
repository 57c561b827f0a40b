//! Tracked objects, depth and words of a running node: over a link, and across restarts of the model.

mod common;

use std::{
    net::{SocketAddr, UdpSocket},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_node::{
    assemble,
    config::Config,
    health::State,
    inject::Plan,
    metrics::Event,
    output::{FrameOutput, OutputKind},
    pipeline::{Node, SinkHandle},
    sink::{Context, Sink, SinkError},
};
use loftup_runtime::backend::fault::{Fault, Faults};
use loftup_wire::{
    Bytes, Decoder, Encoder, Handshake, MAX_FRAME, MAX_PACKET, Message, Text,
    assemble::{DepthAssembler, MapAssembler, Progress},
    command::{Action, Command, Outcome, Refusal, Seed},
    message::{Content, Point, Rect, Role},
};
use parking_lot::Mutex;

const SLOT_DEPTH: u8 = 3;
const SLOT_OBJECTS: u8 = 4;
const SLOT_WORDS: u8 = 5;

fn config(folder: &Path, more: &str) -> Config {
    common::bundle(folder);
    let text = common::config_text(&format!("{}{more}", common::DENSE_QUERIES));
    let text = text.replace("threads = 1", common::DEPTH);
    Config::parse(&text, &folder.join("node.toml")).unwrap()
}

/// An object of a frame: number, name, pixels.
type Seen = (u8, String, u32);

/// A controller on a UDP link.
struct Peer {
    socket: UdpSocket,
    node: Option<SocketAddr>,
    encoder: Encoder,
    decoder: Decoder<MAX_PACKET>,
    handshake: Handshake<'static>,
    id: u16,
    outcome: Option<Outcome>,
    depth: Box<DepthAssembler<4096>>,
    masks: Box<MapAssembler<4096>>,
    /// Objects of the frame whose messages arrive.
    arriving: (u32, Vec<Seen>),
    /// Those of the last frame of which everything has arrived.
    objects: Vec<Seen>,
    frames: u32,
    depth_maps: u32,
    labels: Vec<(u16, u8, String)>,
    word_set: u16,
}

impl Peer {
    fn new(socket: UdpSocket) -> Self {
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        Self {
            socket,
            node: None,
            encoder: Encoder::new(),
            decoder: Decoder::new(),
            handshake: Handshake::new(Role::Controller, Text::new("test").unwrap()),
            id: 0,
            outcome: None,
            depth: Box::default(),
            masks: Box::default(),
            arriving: (0, Vec::new()),
            objects: Vec::new(),
            frames: 0,
            depth_maps: 0,
            labels: Vec::new(),
            word_set: 0,
        }
    }

    fn send(&mut self, message: &Message<'_>) {
        let mut frame = [0; MAX_FRAME];
        let bytes = self.encoder.encode(message, &mut frame).unwrap();
        self.socket.send_to(bytes, self.node.unwrap()).unwrap();
    }

    /// Receives one datagram.
    fn receive(&mut self) {
        let mut buffer = [0; 2048];
        let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
            return;
        };
        self.node = Some(from);
        let mut bytes = &buffer[..length];
        while !bytes.is_empty() {
            let (taken, _) = self.decoder.feed(bytes);
            bytes = &bytes[taken..];
            let Some(frame) = self.decoder.frame() else {
                continue;
            };
            match frame.message().unwrap() {
                Message::Hello(hello) => {
                    if let Some(reply) = self.handshake.receive(&hello) {
                        let message = reply.into();
                        self.send(&message);
                    }
                }
                Message::Reply(reply) if reply.id == self.id => self.outcome = Some(reply.outcome),
                Message::Label(label) => {
                    let name = label.name.get().to_owned();
                    self.labels.push((label.set, label.class, name));
                }
                Message::Answer(answer) => match (answer.slot, answer.content) {
                    (SLOT_OBJECTS, Content::Objects { total, .. }) => {
                        self.arriving = (answer.frame, Vec::with_capacity(total.into()));
                    }
                    (SLOT_WORDS, Content::Classes { labels, .. }) => self.word_set = labels,
                    (SLOT_DEPTH, Content::Depth { width, height }) => {
                        assert_eq!((width, height), (42, 42));
                    }
                    other => panic!("{other:?}"),
                },
                Message::Object(object) => {
                    assert_eq!(object.slot, SLOT_OBJECTS);
                    assert_eq!(object.frame, self.arriving.0);
                    assert_eq!(usize::from(object.index), self.arriving.1.len());
                    let visible = object.bounds.width > 0 && object.bounds.height > 0;
                    assert_eq!(visible, object.pixels > 0);
                    let name = object.name.get().to_owned();
                    self.arriving.1.push((object.object, name, object.pixels));
                }
                Message::MapChunk(chunk)
                    if chunk.slot == SLOT_OBJECTS
                        && self.masks.push(&chunk) == Ok(Progress::Complete) =>
                {
                    let mask = self.masks.map().unwrap();
                    assert_eq!(mask.frame, self.arriving.0);
                    for (object, _, pixels) in &self.arriving.1 {
                        let found = mask.classes.iter().filter(|c| *c == object).count();
                        assert_eq!(found, *pixels as usize, "object {object}");
                    }
                    self.frames += 1;
                    self.objects.clone_from(&self.arriving.1);
                }
                Message::DepthChunk(chunk) if self.depth.push(&chunk) == Ok(Progress::Complete) => {
                    let map = self.depth.map().unwrap();
                    assert!(map.millimeters.iter().all(|d| (250..=20_000).contains(d)));
                    self.depth_maps += 1;
                }
                _ => {}
            }
        }
    }

    fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !condition(self) {
            assert!(
                Instant::now() < end,
                "{what}: {:?} after {} frames",
                self.objects,
                self.frames
            );
            self.receive();
        }
    }

    /// Sends a command until it is answered. UDP may lose it.
    fn command(&mut self, action: &Action<'_>) -> Outcome {
        self.id += 1;
        self.outcome = None;
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            let (id, action) = (self.id, action.clone());
            self.send(&Command { id, action }.into());
            let wait = Instant::now() + Duration::from_secs(2);
            while Instant::now() < wait {
                self.receive();
                if let Some(outcome) = self.outcome {
                    return outcome;
                }
            }
            assert!(Instant::now() < end, "no reply");
        }
    }

    fn has(&self, object: u8, name: &str) -> bool {
        let mut objects = self.objects.iter();
        objects.any(|(number, of, _)| (*number, of.as_str()) == (object, name))
    }
}

fn start<'a>(object: u8, name: &'a str, seed: Seed<'a>) -> Action<'a> {
    let name = Text::new(name).unwrap();
    Action::StartObject { object, name, seed }
}

fn square(x: u16) -> Seed<'static> {
    Seed::Box(Rect {
        x,
        y: 16,
        width: 24,
        height: 24,
    })
}

#[test]
fn a_controller_starts_renames_and_stops_objects_and_replaces_words() {
    let folder = tempfile::tempdir().unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sink = format!(
        "[[sink]]\nkind = \"udp\"\nbind = \"127.0.0.1:0\"\npeer = \"{}\"\n",
        socket.local_addr().unwrap()
    );
    let config = config(folder.path(), &sink);
    let (parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());

    let mut peer = Peer::new(socket);
    peer.until("the object of the configuration", |p| p.has(2, "first"));
    peer.until("depth", |p| p.depth_maps > 3);
    peer.until("words", |p| p.word_set == 2);
    let done = |peer: &mut Peer, action: &Action<'_>| {
        assert_eq!(peer.command(action), Outcome::Done, "{action:?}");
    };
    done(&mut peer, &start(1, "mug", square(8)));
    peer.until("a box", |p| p.has(1, "mug") && p.has(2, "first"));
    done(
        &mut peer,
        &start(3, "spot", Seed::Point(Point { x: 70, y: 50 })),
    );
    // The lower half of a mask of 4 x 4.
    let runs = Bytes::new(&[8, 8]).unwrap();
    let seed = Seed::Mask {
        width: 4,
        height: 4,
        runs,
    };
    done(&mut peer, &start(10, "", seed));
    peer.until("a point and a mask", |p| p.has(3, "spot") && p.has(10, ""));
    let name = Text::new("cup").unwrap();
    done(&mut peer, &Action::RenameObject { object: 1, name });
    peer.until("another name", |p| p.has(1, "cup"));
    for object in [2, 2, 7] {
        done(&mut peer, &Action::StopObject { object });
    }
    peer.until("stopped", |p| {
        let numbers: Vec<u8> = p.objects.iter().map(|o| o.0).collect();
        numbers == [1, 3, 10]
    });

    let empty = Seed::Mask {
        width: 4,
        height: 4,
        runs: Bytes::new(&[16]).unwrap(),
    };
    let words = |name| Action::SetWords(Text::new(name).unwrap());
    for (action, why) in [
        (start(0, "", square(0)), Refusal::NoSuchObject),
        (start(11, "", square(0)), Refusal::NoSuchObject),
        (start(1, "", square(73)), Refusal::OutOfPicture),
        (start(1, "", empty), Refusal::Mask),
        (Action::StopObject { object: 0 }, Refusal::NoSuchObject),
        (
            Action::RenameObject { object: 2, name },
            Refusal::NoSuchObject,
        ),
        (words("../words/kitchen"), Refusal::NoSuchHead),
        (words("scene"), Refusal::NoSuchHead),
    ] {
        assert_eq!(peer.command(&action), Outcome::Refused(why), "{action:?}");
    }

    let set_of = |p: &Peer, name: &str| {
        let mut labels = p.labels.iter().rev();
        labels.find(|(_, _, of)| of == name).map(|(set, ..)| *set)
    };
    for name in common::WORDS {
        assert_eq!(set_of(&peer, name), Some(2), "{name}");
    }
    done(&mut peer, &words("kitchen"));
    peer.until("other words", |p| {
        p.word_set > 2 && set_of(p, "sink") == Some(p.word_set)
    });
    done(&mut peer, &words("words"));
    let set = peer.word_set;
    peer.until("the words of the bundle", |p| {
        p.word_set > set && set_of(p, "mug") == Some(p.word_set)
    });

    handle.stop();
    thread.join().unwrap().unwrap();
    let m = handle.metrics();
    assert_eq!(m.captured(), m.published() + m.total_drops());
    assert!(m.events(Event::CommandRefused) >= 8);
}

/// Number and pixels of each object, and the label set of the words.
type Found = (Vec<(u8, u32)>, u16);

/// What was found in the last output.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Found>>);

impl Sink for Last {
    fn name(&self) -> &str {
        "last"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        let mut last = self.0.lock();
        for output in frame.outputs() {
            match output.kind {
                OutputKind::Objects => {
                    let objects = output.objects.iter();
                    last.0 = objects.map(|o| (o.object, o.pixels)).collect();
                }
                OutputKind::Classes if output.slot == SLOT_WORDS => last.1 = output.labels,
                _ => {}
            }
        }
        Ok(())
    }
}

#[test]
fn objects_and_words_outlive_a_restart_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), "[watchdog]\nhang_ms = 300\n");
    let (mut parts, _) = assemble::parts(config.clone(), &Plan::default()).unwrap();
    let faults = Faults::none();
    parts.model = assemble::model_factory(&config, Some(faults.clone()));
    let last = Last::default();
    parts.sinks.push(SinkHandle {
        sink: Box::new(last.clone()),
        queue: 2,
    });
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());
    let model = assemble::model_factory(&config, None)().unwrap();
    let visible = |object: u8| {
        let last = last.0.lock();
        last.0.iter().any(|o| o.0 == object && o.1 > 0)
    };
    common::until("the first object", 60, || visible(2));
    let execute = |action: &Action<'_>| handle.control().execute(action, Some(&*model));
    assert_eq!(execute(&start(5, "mug", square(40))), Outcome::Done);
    let words = Action::SetWords(Text::new("kitchen").unwrap());
    assert_eq!(execute(&words), Outcome::Done);
    assert_eq!(
        handle.control().execute(&words, None),
        Outcome::Refused(Refusal::Busy),
        "without a model"
    );
    common::until("both", 60, || {
        visible(2) && visible(5) && last.0.lock().1 == 3
    });
    faults.at_run(faults.runs() + 5, Fault::Hang);
    common::until("a hang", 60, || handle.metrics().events(Event::Hang) == 1);
    let restarted = || handle.monitor().state() == State::Running;
    common::until("running again", 60, restarted);
    let published = handle.metrics().published();
    common::until("outputs", 60, || {
        handle.metrics().published() > published + 5
    });
    assert!(visible(2) && visible(5), "{:?}", last.0.lock());
    assert_eq!(last.0.lock().1, 3, "the replaced words");
    // The abandoned thread comes back, and changes nothing.
    faults.release();
    let published = handle.metrics().published();
    common::until("outputs", 60, || {
        handle.metrics().published() > published + 5
    });
    assert!(visible(2) && visible(5), "{:?}", last.0.lock());
    handle.stop();
    thread.join().unwrap().unwrap();
    let m = handle.metrics();
    assert_eq!(m.captured(), m.published() + m.total_drops());
}
