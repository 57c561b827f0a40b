//! In the steady state, the node does not allocate.
//!
//! The source, the model and the peer of this test do not allocate, so that only the stages, the
//! metrics, the wire sink and the reader of ROS 2 images are measured. Not included are the runtime and its engine (which allocate
//! buffers for each frame), image decoders, the scene generator, and sinks that encode PNG or JSON.

#![allow(unsafe_code, reason = "a counting allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    net::UdpSocket,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use loftup_bundle::Size;
use loftup_node::{
    config::Config,
    frame::{Header, RawFrame},
    model::{FrameRequest, Model, ModelError},
    output::{FrameOutput, OutputKind},
    pipeline::{Node, Parts, SinkHandle},
    regions::{Placement, RegionFinder},
    ros,
    sink::{Context, Sink, SinkError, UdpLink, WireSink},
    source::{Clock, Poll, Source, SourceError},
};
use loftup_runtime::{Features, FrameInputs, ImageTensor, Rect, image::RgbImage};
use loftup_wire::{
    Decoder, Encoder, Handshake, MAX_FRAME, MAX_PACKET, Message, Text, message::Role,
};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: all calls are forwarded to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller upholds the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const SIZE: Size = Size {
    width: 64,
    height: 48,
};

/// Reads the same image of ROS 2 again and again.
struct Steady {
    number: u64,
    message: Vec<u8>,
    frame_id: Arc<str>,
}

impl Steady {
    fn new() -> Self {
        let image = ros::Image {
            header: ros::Header {
                stamp_ns: 7,
                frame_id: "camera",
            },
            width: SIZE.width,
            height: SIZE.height,
            pixels: ros::Pixels::Mono8(&vec![90; SIZE.area()]),
        };
        let mut message = Vec::new();
        image.encode(&mut message);
        Self {
            number: 0,
            message,
            frame_id: "camera".into(),
        }
    }
}

impl Source for Steady {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        std::thread::sleep(Duration::from_millis(2));
        (into.number, into.stamp_us) = (self.number, clock.now_us());
        let image = ros::RawImage::parse(&self.message).unwrap();
        (into.width, into.height) = (image.frame.width, image.frame.height);
        into.bytes.clear();
        image.frame.append_rgb(&mut into.bytes).unwrap();
        into.header = Some(Header {
            stamp_ns: image.header.stamp_ns,
            frame_id: self.frame_id.clone(),
        });
        self.number += 1;
        Ok(Poll::Frame)
    }
}

struct Nothing;

impl Model for Nothing {
    fn preprocess(&self, _: &RgbImage, size: Size) -> Result<FrameInputs, ModelError> {
        let data = Vec::new();
        Ok(FrameInputs::same_size(ImageTensor { size, data }))
    }

    fn features(&self, _: &FrameInputs) -> Result<Features, ModelError> {
        Ok(Features {
            dim: 0,
            height: 0,
            width: 0,
            tokens: Vec::new(),
        })
    }

    fn upsample(
        &self,
        _: &FrameInputs,
        _: &Features,
        request: &FrameRequest<'_>,
        finder: &mut RegionFinder,
        out: &mut FrameOutput,
    ) -> Result<u64, ModelError> {
        out.clear();
        let output = out.add();
        output.kind = OutputKind::Classes;
        (output.width, output.height) = (SIZE.width, SIZE.height);
        output
            .classes
            .extend((0..SIZE.area()).map(|i| (i % 7 / 3) as u8));
        let output = out.add();
        (output.slot, output.kind) = (1, OutputKind::Regions);
        (output.width, output.height) = (SIZE.width, SIZE.height);
        output
            .classes
            .extend((0..SIZE.area()).map(|i| (i % 7 / 3) as u8));
        let place = Placement {
            rect: Rect::whole(SIZE),
            output: SIZE,
            camera: request.camera,
        };
        finder.find(&output.classes, &place, 1, 64, &mut output.regions);
        let output = out.add();
        (output.slot, output.kind) = (2, OutputKind::Depth);
        (output.width, output.height) = (SIZE.width, SIZE.height);
        output.depth.extend((0..SIZE.area()).map(|i| i as u16));
        Ok(1)
    }

    fn track_features(
        &self,
        image: &RgbImage,
        _: &Features,
        out: &mut Vec<f32>,
    ) -> Result<(), ModelError> {
        let shade = f32::from(image.data()[0]);
        out.clear();
        out.extend((0..8 * 6 * 4).map(|i| shade + (i % 13) as f32));
        Ok(())
    }

    fn labels(&self) -> &[String] {
        &[]
    }
}

struct Count(Arc<AtomicU64>);

impl Sink for Count {
    fn name(&self) -> &str {
        "count"
    }

    fn push(&mut self, frame: &FrameOutput, _: &Context<'_>) -> Result<(), SinkError> {
        assert!(!frame.outputs()[1].regions.is_empty());
        assert_eq!(frame.outputs()[3].objects.len(), 1);
        self.0.fetch_add(1, SeqCst);
        Ok(())
    }
}

/// The peer of the link: completes the handshake and counts chunks and objects.
fn receive(socket: &UdpSocket, received: &AtomicU64) {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::<MAX_PACKET>::new());
    let mut handshake = Handshake::new(Role::Monitor, Text::default());
    let (mut buffer, mut frame) = ([0; 2048], [0; MAX_FRAME]);
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let mut reply = None;
        decoder.push_slice(&buffer[..length], |found| match found.unwrap().message() {
            Ok(Message::Hello(hello)) => reply = handshake.receive(&hello),
            Ok(Message::MapChunk(_) | Message::DepthChunk(_) | Message::Object(_)) => {
                received.fetch_add(1, SeqCst);
            }
            _ => {}
        });
        if let Some(reply) = reply {
            let bytes = encoder.encode(&reply.into(), &mut frame).unwrap();
            socket.send_to(bytes, from).unwrap();
        }
    }
}

#[test]
fn the_steady_state_does_not_allocate() {
    let text = "[model]\nbundle = \"x\"\nhead = \"x\"\nsize = [64, 48]\n[source]\nkind = \"scenes\"\nsize = [64, 48]\n\
                [track]\ngrid = [8, 6]\n[[track.object]]\nobject = 1\nname = \"mug\"\nregion = [8, 8, 24, 24]\n\
                [[query]]\nslot = 3\nwant = \"objects\"\n";
    let config: Config = toml::from_str(text).unwrap();
    let outputs = Arc::new(AtomicU64::new(0));
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let peer = socket.local_addr().unwrap();
    let received = Arc::new(AtomicU64::new(0));
    std::thread::spawn({
        let received = received.clone();
        move || receive(&socket, &received)
    });
    let open =
        move || UdpLink::open("127.0.0.1:0".parse().unwrap(), peer).map_err(|e| e.to_string());
    let wire = WireSink::new("udp".into(), Box::new(open));
    let parts = Parts {
        config,
        model: Arc::new(|| Ok(Arc::new(Nothing))),
        source: Arc::new(|| Ok(Box::new(Steady::new()))),
        sinks: vec![
            SinkHandle {
                sink: Box::new(Count(outputs.clone())),
                queue: 2,
            },
            SinkHandle {
                sink: Box::new(wire),
                queue: 2,
            },
        ],
    };
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = std::thread::spawn(|| node.run());
    while outputs.load(SeqCst) < 300 || received.load(SeqCst) < 100 {
        std::thread::sleep(Duration::from_millis(5));
    }
    let maps = received.load(SeqCst);
    let (frames, before) = (outputs.load(SeqCst), ALLOCATIONS.load(SeqCst));
    std::thread::sleep(Duration::from_secs(3));
    let (frames, allocations) = (
        outputs.load(SeqCst) - frames,
        ALLOCATIONS.load(SeqCst) - before,
    );
    let maps = received.load(SeqCst) - maps;
    handle.stop();
    thread.join().unwrap().unwrap();
    println!("{allocations} allocations for {frames} frames, {maps} chunks and objects received");
    assert!(maps > 100, "{maps} chunks");
    assert!(frames > 100, "{frames} frames");
    assert_eq!(allocations, 0, "for {frames} frames");
}
