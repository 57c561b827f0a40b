//! A controller at the other end of a serial line of 921600 baud: a pair of pseudo-terminals connected
//! by `socat`. They pass bytes as fast as they are read, so the reader limits its own rate.
//!
//! The size of run-length encoded maps depends on their content, so the model outputs the exact labels
//! of a generated scene instead of the noise of an untrained head.

mod common;

use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use loftup_bundle::Size;
use loftup_node::{
    assemble,
    config::Config,
    frame::RawFrame,
    inject::Plan,
    model::{FrameRequest, Model, ModelError},
    output::{FrameOutput, OutputKind},
    pipeline::Node,
    regions::RegionFinder,
    source::{Clock, Pace, Poll, Scenes, Source, SourceError},
};
use loftup_runtime::{Features, FrameInputs, ImageTensor, image::RgbImage};
use loftup_scenes::Scene;
use loftup_wire::{
    Decoder, Encoder, Handshake, MAX_FRAME, MAX_PACKET, Message, Text,
    assemble::{MapAssembler, Progress},
    message::Role,
};

const BAUD: u32 = 921_600;
/// A byte takes ten bits on the line: start, eight data bits, stop.
const BYTES_PER_SECOND: f64 = BAUD as f64 / 10.0;
const SIDE: usize = 224;
const SEED: u64 = 5;
const RATE_HZ: f64 = 20.0;
const SECONDS: f64 = 6.0;
const MIN_HZ: f64 = 5.0;

/// Two connected pseudo-terminals, or `None` without `socat`.
fn pair(node: &Path, controller: &Path) -> Option<common::KillOnDrop> {
    let end = |path: &Path| format!("pty,rawer,b{BAUD},link={}", path.display());
    let child = Command::new("socat")
        .args([end(node), end(controller)])
        .stderr(Stdio::inherit())
        .spawn();
    let child = match child {
        Ok(child) => common::KillOnDrop(child),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("socat: {e}"),
    };
    common::until("terminals", 10, || node.exists() && controller.exists());
    Some(child)
}

/// The scene, with the frame number in the first pixel.
struct Numbered(Scenes);

impl Source for Numbered {
    fn next(&mut self, clock: &Clock, into: &mut RawFrame) -> Result<Poll, SourceError> {
        let polled = self.0.next(clock, into)?;
        let number = into.number.to_le_bytes();
        into.bytes[..3].copy_from_slice(&number[..3]);
        Ok(polled)
    }
}

/// A model that outputs the ground truth of the scene.
struct GroundTruth {
    scene: Scene,
    labels: Vec<String>,
}

fn labels(scene: &Scene, number: u32) -> Vec<u8> {
    scene
        .frame(Pace::new(RATE_HZ).seconds(number.into()), SIDE, SIDE)
        .classes
}

impl Model for GroundTruth {
    fn preprocess(&self, image: &RgbImage, size: Size) -> Result<FrameInputs, ModelError> {
        let [a, b, c] = [0, 1, 2].map(|i| image.data()[i]);
        // A 32-bit float holds 24 bits exactly.
        let data = vec![u32::from_le_bytes([a, b, c, 0]) as f32];
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
        inputs: &FrameInputs,
        _: &Features,
        _: &FrameRequest<'_>,
        _: &mut RegionFinder,
        out: &mut FrameOutput,
    ) -> Result<u64, ModelError> {
        let number = inputs.guidance.data[0];
        out.clear();
        let output = out.add();
        (output.kind, output.width, output.height) = (OutputKind::Classes, SIDE, SIDE);
        output.classes.extend(labels(&self.scene, number as u32));
        Ok(0)
    }

    fn labels(&self) -> &[String] {
        &self.labels
    }
}

#[test]
fn maps_of_224_by_224_pass_a_line_of_921600_baud_five_times_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let Some(_socat) = pair(&near, &far) else {
        println!("SKIPPED: this test needs the program `socat`, which is not installed");
        return;
    };
    common::bundle(folder.path());
    let text = common::config_text("[[sink]]\nkind = \"serial\"\npath = \"near\"\nbaud = 921600\n");
    let text = text.replace("size = [42, 42]", &format!("size = [{SIDE}, {SIDE}]"));
    let text = text.replace("size = [96, 64]", &format!("size = [{SIDE}, {SIDE}]"));
    let config = Config::parse(&text, &folder.path().join("node.toml")).unwrap();
    let (mut parts, _) = assemble::parts(config, &Plan::default()).unwrap();
    parts.source = Arc::new(|| {
        Ok(Box::new(Numbered(Scenes::new(
            SEED,
            SIDE,
            SIDE,
            Pace::new(RATE_HZ),
        ))))
    });
    parts.model = Arc::new(|| {
        let labels = loftup_scenes::CLASSES.map(String::from).to_vec();
        Ok(Arc::new(GroundTruth {
            scene: Scene::new(SEED),
            labels,
        }))
    });
    let node = Node::start(parts).unwrap();
    let handle = node.handle();
    let thread = thread::spawn(|| node.run());

    let mut line = File::options().read(true).write(true).open(&far).unwrap();
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::<MAX_PACKET>::new());
    let mut handshake = Handshake::new(Role::Controller, Text::new("far end").unwrap());
    let mut maps = MapAssembler::<{ SIDE * SIDE }>::new();
    let scene = Scene::new(SEED);
    let mut last = None;
    let (mut whole, mut read, mut since) = (0u32, 0u64, None::<Instant>);
    let limit = Instant::now() + Duration::from_secs(60);
    let mut buffer = [0; 512];
    let begun = Instant::now();
    let mut all = 0u64;
    while since.is_none_or(|at| at.elapsed().as_secs_f64() < SECONDS) {
        assert!(
            Instant::now() < limit,
            "{whole} maps, {:?}",
            decoder.counters()
        );
        let length = line.read(&mut buffer).unwrap();
        all += length as u64;
        // Not faster than a real line.
        let due = Duration::from_secs_f64(all as f64 / BYTES_PER_SECOND);
        thread::sleep(due.saturating_sub(begun.elapsed()));
        let mut replies = Vec::new();
        decoder.push_slice(&buffer[..length], |frame| {
            match frame.unwrap().message().unwrap() {
                Message::Hello(hello) => replies.extend(handshake.receive(&hello)),
                Message::MapChunk(chunk) if maps.push(&chunk) == Ok(Progress::Complete) => {
                    let map = maps.map().unwrap();
                    assert!(last < Some(map.frame), "{} after {last:?}", map.frame);
                    last = Some(map.frame);
                    assert!(
                        map.classes == labels(&scene, map.frame),
                        "map {} is not the scene's",
                        map.frame
                    );
                    // The measurement starts with the first map.
                    whole += u32::from(since.is_some());
                    since.get_or_insert_with(Instant::now);
                }
                _ => {}
            }
        });
        if since.is_some() {
            read += length as u64;
        }
        for reply in replies {
            let mut frame = [0; MAX_FRAME];
            line.write_all(encoder.encode(&reply.into(), &mut frame).unwrap())
                .unwrap();
        }
    }
    let seconds = since.unwrap().elapsed().as_secs_f64();
    let rate = f64::from(whole) / seconds;
    println!(
        "{rate:.1} maps/s of {SIDE} x {SIDE}, {} bytes each with all else, line in use to {:.0} %, {:?}",
        read / u64::from(whole.max(1)),
        100.0 * read as f64 / seconds / BYTES_PER_SECOND,
        decoder.counters()
    );
    println!("{:?}", handle.metrics().latency.quantiles());
    handle.stop();
    drop(line);
    thread.join().unwrap().unwrap();
    assert!(rate >= MIN_HZ, "{rate:.1} maps/s");
}
