//! The properties checked by fuzzing. The fuzzer calls these functions with
//! generated inputs, `tests/fuzz_seeds.rs` with the seeds and mutations of
//! them.

use loftup_wire::assemble::{DepthAssembler, FeatureAssembler, MISSING, MapAssembler, Progress};
use loftup_wire::command::{Action, Seed};
use loftup_wire::depth::DepthChunk;
use loftup_wire::features::{Features, Values};
use loftup_wire::message::{MAX_DATA, MapChunk};
use loftup_wire::{Bytes, ContentError, Decoder, MAX_BODY, MAX_FRAME, Message, mask};

/// Decodes arbitrary bytes: no panic, the same frames however the input is
/// split, and a valid frame after a delimiter is always found.
pub fn decoder(bytes: &[u8]) {
    let mut whole: Decoder = Decoder::new();
    let mut frames = Vec::new();
    whole.push_slice(bytes, |found| {
        frames.push(found.map(|frame| (frame.sequence, frame.kind, frame.body.to_vec())));
    });
    let mut single: Decoder = Decoder::new();
    let mut position = 0;
    for &byte in bytes {
        if let Some(found) = single.push(byte) {
            let found = found.map(|frame| (frame.sequence, frame.kind, frame.body.to_vec()));
            assert_eq!(found, frames[position]);
            position += 1;
        }
    }
    assert_eq!(position, frames.len());
    assert_eq!(whole.counters(), single.counters());
    let good = frames.iter().flatten().count();
    assert_eq!(whole.counters().frames as usize, good);
    assert_eq!(whole.counters().refused() as usize, frames.len() - good);
    for (_, kind, body) in frames.iter().flatten() {
        content(*kind, body);
    }
    // A hello with sequence number 0 is accepted in any state.
    const HELLO: &[u8] = b"\x01\x01\x0b\x01\x01\x0a\x02\x02\x02\x02\x02\x02\x02\x02\x02\x02";
    let mut tail = vec![0];
    tail.extend(framed(0, 1, HELLO));
    let mut last = None;
    whole.push_slice(&tail, |found| last = Some(found.map(|frame| frame.kind)));
    assert_eq!(last, Some(Ok(1)));
}

/// Builds a frame for an arbitrary body; the encoder writes only messages.
fn framed(sequence: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = sequence.to_le_bytes().to_vec();
    packet.push(kind);
    packet.extend_from_slice(body);
    let mut register = u32::MAX;
    for byte in &packet {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            register = (register >> 1) ^ ((register & 1) * 0xEDB8_8320);
        }
    }
    packet.extend_from_slice(&(!register).to_le_bytes());
    let mut frame = Vec::new();
    for block in packet.split(|byte| *byte == 0) {
        assert!(block.len() < 254, "too long for this simple stuffing");
        frame.push(block.len() as u8 + 1);
        frame.extend_from_slice(block);
    }
    frame.push(0);
    frame
}

/// Reads everything in a message.
fn content(kind: u8, body: &[u8]) {
    match Message::decode(kind, body) {
        Ok(Message::MapChunk(chunk)) => {
            if let Ok(runs) = chunk.runs() {
                let pixels: u64 = runs.map(|run| u64::from(run.length)).sum();
                assert_eq!(pixels, u64::from(chunk.count));
            }
            if let Ok(segments) = chunk.segments() {
                // A few bytes can describe a map of 2^32 pixels.
                for segment in segments.take(10_000) {
                    assert!(segment.length > 0 && segment.row < chunk.height);
                    assert!(segment.column + segment.length <= chunk.width);
                }
            }
        }
        Ok(Message::DepthChunk(chunk)) => {
            if let Ok(depths) = chunk.depths() {
                assert_eq!(depths.count(), chunk.count as usize);
            }
        }
        Ok(Message::Command(command)) => {
            if let Action::StartObject {
                seed:
                    Seed::Mask {
                        width,
                        height,
                        runs,
                    },
                ..
            } = command.action
            {
                let (mut pixels, mut last) = (0, 0);
                let read = mask::runs(&runs, width, height, |first, length| {
                    assert!(first >= last && length > 0);
                    last = first + length;
                    pixels += length;
                });
                assert!(u64::from(last) <= u64::from(width) * u64::from(height));
                let checked = mask::check(&runs, width, height);
                assert_eq!(read.map(|()| pixels), checked);
            }
        }
        Ok(Message::Features(block)) => {
            if let Ok(entries) = block.entries() {
                for (vector, channel, _) in entries {
                    assert!(vector < block.vectors && channel < block.channels);
                }
            }
        }
        Ok(_) | Err(_) => {}
    }
}

/// A body that can be decoded is re-encoded; the result decodes to the same
/// message, also when framed. The first byte selects the kind.
pub fn round_trip(bytes: &[u8]) {
    let Some((&choice, body)) = bytes.split_first() else {
        return;
    };
    let kinds = Message::KINDS;
    let kind = kinds[usize::from(choice) % kinds.len()];
    content(kind.kind, body);
    let Ok(message) = Message::decode(kind.kind, body) else {
        return;
    };
    let mut first = [0; MAX_BODY];
    let length = message
        .encode_body(&mut first)
        .expect("a body within its bound");
    assert!(length <= kind.max_size);
    // The original may be longer, but only because of overlong varints.
    assert!(length <= body.len());
    let mut encoder = loftup_wire::Encoder::new();
    let mut buffer = [0; MAX_FRAME];
    let frame = encoder
        .encode(&message, &mut buffer)
        .expect("room for a frame");
    let mut decoder: Decoder = Decoder::new();
    let (taken, found) = decoder.feed(frame);
    let found = found.expect("a frame").expect("an intact frame");
    assert_eq!((taken, found.kind), (frame.len(), kind.kind));
    // Compares bytes, not messages, because NaN is not equal to itself.
    assert_eq!(found.body, &first[..length]);
    let again = found.message().expect("a message that was just written");
    let mut second = [0; MAX_BODY];
    let again = again
        .encode_body(&mut second)
        .expect("a body within its bound");
    assert_eq!(second[..again], first[..length]);
}

/// Reads numbers from the front of the input.
struct Input<'b>(&'b [u8]);

impl<'b> Input<'b> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    fn slice(&mut self, length: usize) -> &'b [u8] {
        let (slice, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        slice
    }
}

const PIXELS: usize = 1_024;
const VALUES: usize = 512;

/// Reference model of an assembler: a plain list.
struct Model<T> {
    identity: Option<(u32, u32, u16)>,
    items: Vec<Option<T>>,
}

impl<T: Copy> Model<T> {
    const EMPTY: Self = Model {
        identity: None,
        items: Vec::new(),
    };

    fn add(&mut self, identity: (u32, u32, u16), first: u32, items: &[T]) -> Progress {
        let total = identity.1 as usize * usize::from(identity.2);
        if self.identity != Some(identity) {
            self.identity = Some(identity);
            self.items = vec![None; total];
        }
        let before = self.missing();
        for (place, item) in self.items[first as usize..].iter_mut().zip(items) {
            *place = Some(*item);
        }
        if before > 0 && self.missing() == 0 {
            Progress::Complete
        } else {
            Progress::Partial
        }
    }

    fn missing(&self) -> usize {
        self.items.iter().filter(|item| item.is_none()).count()
    }
}

/// Feeds chunks in any order and of any shape, valid or not, to the assemblers
/// and compares them with the reference model.
pub fn reassembler(bytes: &[u8]) {
    let mut input = Input(bytes);
    let mut maps = Box::new(MapAssembler::<PIXELS>::new());
    let mut features = Box::new(FeatureAssembler::<VALUES>::new());
    let mut depths = Box::new(DepthAssembler::<PIXELS>::new());
    let mut map_model: Model<u8> = Model::EMPTY;
    let mut depth_model: Model<u16> = Model::EMPTY;
    let mut feature_model: Model<f32> = Model::EMPTY;
    while let Some(control) = input.byte() {
        let mut small = || u32::from(input.byte().unwrap_or_default());
        // A few frame numbers, some close to wraparound.
        let frame = u32::from(control >> 2 & 7).wrapping_sub(2);
        let (width, height) = (small() as u16 % 40, small() as u16 % 40);
        let first = small() * if control & 0x80 == 0 { 1 } else { 7 };
        let stated = small();
        let data = input.slice(usize::from(control >> 5 & 3) * 8 + 4);
        let data = Bytes::<MAX_DATA>::new(data).expect("few bytes");
        if control & 1 == 0 {
            // The same bytes are a chunk of depths, too.
            let mut chunk = DepthChunk {
                frame,
                slot: 0,
                width,
                height,
                first,
                count: stated,
                code: data,
            };
            if let Err(ContentError::PixelCount { coded, .. }) = chunk.check()
                && control & 2 == 0
            {
                chunk.count = coded;
            }
            if let Ok(progress) = depths.push(&chunk) {
                let pixels: Vec<u16> = chunk.depths().expect("an accepted chunk").collect();
                let identity = (frame, u32::from(width), height);
                assert_eq!(depth_model.add(identity, first, &pixels), progress);
            }
            let mut chunk = MapChunk {
                frame,
                slot: 0,
                width,
                height,
                first,
                count: stated,
                runs: data,
            };
            // Use the correct count most of the time, so that chunks get past
            // the check.
            if let Err(ContentError::PixelCount { coded, .. }) = chunk.check()
                && control & 2 == 0
            {
                chunk.count = coded;
            }
            let Ok(progress) = maps.push(&chunk) else {
                continue;
            };
            let mut pixels = Vec::new();
            for run in chunk.runs().expect("an accepted chunk") {
                pixels.resize(pixels.len() + run.length as usize, run.class);
            }
            let identity = (frame, u32::from(width), height);
            assert_eq!(map_model.add(identity, first, &pixels), progress);
        } else {
            let values = if control & 2 == 0 {
                Values::F16(data)
            } else {
                Values::U8 {
                    scale: 0.5,
                    offset: stated as f32,
                    data,
                }
            };
            let block = Features {
                frame,
                slot: 0,
                channels: height,
                vectors: u32::from(width),
                first,
                values,
            };
            let Ok(progress) = features.push(&block) else {
                continue;
            };
            let values: Vec<f32> = values.iter().collect();
            let identity = (frame, block.vectors, height);
            assert_eq!(feature_model.add(identity, first, &values), progress);
        }
        if let Some(map) = maps.map() {
            let covered = map.coverage.covered() as usize;
            assert_eq!(covered, map.classes.len() - map_model.missing());
            for (class, item) in map.classes.iter().zip(&map_model.items) {
                assert_eq!(*class, item.unwrap_or(MISSING));
            }
        }
        if let Some(map) = depths.map() {
            let covered = map.coverage.covered() as usize;
            assert_eq!(covered, map.millimeters.len() - depth_model.missing());
            for (depth, item) in map.millimeters.iter().zip(&depth_model.items) {
                assert_eq!(*depth, item.unwrap_or_default());
            }
        }
        if let Some(found) = features.features() {
            let covered = found.coverage.covered() as usize;
            assert_eq!(covered, found.values.len() - feature_model.missing());
            for (value, item) in found.values.iter().zip(&feature_model.items) {
                let item = item.unwrap_or(f32::NAN);
                assert!(*value == item || (value.is_nan() && item.is_nan()));
            }
        }
    }
}
