//! Every message decodes to what was encoded.

mod common;

use common::{data, text};
use loftup_wire::command::{self, Action, Area, Command, MAX_MASK, Outcome, Refusal, Reply, Want};
use loftup_wire::features::{Features, Values};
use loftup_wire::health::{Health, Reason, State};
use loftup_wire::message::{
    Answer, Content, DepthChunk, Hello, Label, MAX_DATA, MapChunk, Object, Point, Rect, Region,
    Regions, Role, TimeReply, TimeRequest,
};
use loftup_wire::{Bytes, Decoder, Encoder, MAX_FRAME, Message};
use proptest::collection::vec;
use proptest::prelude::*;

/// Random numbers and bytes from which a message is built.
#[derive(Debug, Clone)]
struct Seed {
    kind: usize,
    wide: [u64; 3],
    numbers: Vec<u32>,
    bytes: Vec<u8>,
    name: String,
}

fn seed() -> impl Strategy<Value = Seed> {
    // Small and large numbers, so that varints of every length occur.
    let number = (any::<u32>(), 0..32u32).prop_map(|(bits, shift)| bits >> shift);
    let wide = (any::<u64>(), 0..64u32).prop_map(|(bits, shift)| bits >> shift);
    (
        0..Message::KINDS.len(),
        [wide.clone(), wide.clone(), wide],
        vec(number, 150),
        vec(any::<u8>(), 0..=MAX_DATA),
        "\\PC{0,8}",
    )
        .prop_map(|(kind, wide, numbers, bytes, name)| Seed {
            kind,
            wide,
            numbers,
            bytes,
            name,
        })
}

/// Takes the random numbers one by one.
struct Draw<'s>(core::slice::Iter<'s, u32>);

impl Draw<'_> {
    fn u32(&mut self) -> u32 {
        *self.0.next().expect("as many numbers as a message needs")
    }
    fn u16(&mut self) -> u16 {
        self.u32() as u16
    }
    fn u8(&mut self) -> u8 {
        self.u32() as u8
    }
    fn bool(&mut self) -> bool {
        self.u32() % 2 == 1
    }
    fn one<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.u32() as usize % of.len()].clone()
    }
    fn point(&mut self) -> Point {
        Point {
            x: self.u16(),
            y: self.u16(),
        }
    }
    fn rect(&mut self) -> Rect {
        Rect {
            x: self.u16(),
            y: self.u16(),
            width: self.u16(),
            height: self.u16(),
        }
    }
    fn reason(&mut self) -> Reason {
        let other = Reason::Other(self.u16());
        self.one(&[
            Reason::TooHot,
            Reason::Late,
            Reason::NoFrames,
            Reason::Fallback,
            Reason::Bundle,
            Reason::Memory,
            Reason::Link,
            Reason::Internal,
            other,
        ])
    }
}

fn build(seed: &Seed) -> Message<'_> {
    let mut draw = Draw(seed.numbers.iter());
    let bytes = &seed.bytes[..];
    match Message::KINDS[seed.kind].name {
        "Hello" => Hello {
            protocol: draw.u16(),
            schema: seed.wide[0],
            role: draw.one(&[Role::Node, Role::Controller, Role::Monitor]),
            answer: draw.bool(),
            max_body: draw.u16(),
            name: text(&seed.name),
        }
        .into(),
        "TimeRequest" => TimeRequest {
            sent_us: seed.wide[0],
        }
        .into(),
        "TimeReply" => TimeReply {
            sent_us: seed.wide[0],
            received_us: seed.wide[1],
            replied_us: seed.wide[2],
        }
        .into(),
        "Label" => Label {
            set: draw.u16(),
            classes: draw.u16(),
            class: draw.u8(),
            name: text(&seed.name),
        }
        .into(),
        "Answer" => {
            let (width, height, other) = (draw.u16(), draw.u16(), draw.u16());
            Answer {
                frame: draw.u32(),
                slot: draw.u8(),
                stamp_us: seed.wide[0],
                source: draw.rect(),
                content: draw.one(&[
                    Content::Classes {
                        width,
                        height,
                        labels: other,
                    },
                    Content::Features {
                        width,
                        height,
                        channels: other,
                    },
                    Content::Regions {
                        total: width,
                        labels: other,
                    },
                    Content::Depth { width, height },
                    Content::Objects {
                        total: other as u8,
                        width,
                        height,
                    },
                ]),
            }
            .into()
        }
        "MapChunk" => MapChunk {
            frame: draw.u32(),
            slot: draw.u8(),
            width: draw.u16(),
            height: draw.u16(),
            first: draw.u32(),
            count: draw.u32(),
            runs: data(bytes),
        }
        .into(),
        "DepthChunk" => DepthChunk {
            frame: draw.u32(),
            slot: draw.u8(),
            width: draw.u16(),
            height: draw.u16(),
            first: draw.u32(),
            count: draw.u32(),
            code: data(bytes),
        }
        .into(),
        "Object" => Object {
            frame: draw.u32(),
            slot: draw.u8(),
            total: draw.u8(),
            index: draw.u8(),
            object: draw.u8(),
            name: text(&seed.name),
            bounds: draw.rect(),
            pixels: draw.u32(),
            confidence: draw.u8(),
        }
        .into(),
        "Features" => {
            // No NaN, which is not equal to itself. The fuzz target covers it.
            let finite = |bits| Some(f32::from_bits(bits)).filter(|f| !f.is_nan());
            let values = Values::U8 {
                scale: finite(draw.u32()).unwrap_or(1.0),
                offset: finite(draw.u32()).unwrap_or(0.0),
                data: data(bytes),
            };
            Features {
                frame: draw.u32(),
                slot: draw.u8(),
                channels: draw.u16(),
                vectors: draw.u32(),
                first: draw.u32(),
                values: draw.one(&[values, Values::F16(data(bytes))]),
            }
            .into()
        }
        "Regions" => {
            Regions {
                frame: draw.u32(),
                slot: draw.u8(),
                total: draw.u16(),
                first: draw.u16(),
                // As many as there are numbers for; `sizes.rs` covers the
                // maximum of 16.
                items: (0..bytes.len() % 15)
                    .map(|_| Region {
                        class: draw.u8(),
                        bounds: draw.rect(),
                        centre: draw.point(),
                        pixels: draw.u32(),
                        score: draw.u8(),
                    })
                    .collect(),
            }
            .into()
        }
        "Health" => {
            let reason = draw.reason();
            Health {
                state: draw.one(&[
                    State::Starting,
                    State::Running,
                    State::Degraded(reason),
                    State::Recovering,
                    State::Failed(reason),
                ]),
                uptime_ms: seed.wide[0],
                rate_mhz: draw.u32(),
                latency_p50_us: draw.u32(),
                latency_p99_us: draw.u32(),
                temperature_cc: draw.bool().then_some(seed.wide[1] as i16),
                answered: draw.u32(),
                dropped: draw.u32(),
                link_errors: draw.u32(),
            }
            .into()
        }
        "Command" => {
            let slot = draw.u8();
            let mhz = draw.u32();
            let area = match draw.u32() % 3 {
                0 => Area::Frame,
                1 => Area::Region(draw.rect()),
                _ => Area::Points((0..bytes.len() % 65).map(|_| draw.point()).collect()),
            };
            let want = [
                Want::Classes,
                Want::FeaturesF16,
                Want::FeaturesU8,
                Want::Regions,
                Want::Depth,
                Want::Objects,
                Want::Words,
            ][bytes.len() % 7];
            let object = draw.u8();
            let name = text(&seed.name);
            let place = match draw.u32() % 3 {
                0 => command::Seed::Box(draw.rect()),
                1 => command::Seed::Point(draw.point()),
                _ => command::Seed::Mask {
                    width: draw.u16(),
                    height: draw.u16(),
                    runs: Bytes::new(&bytes[..bytes.len().min(MAX_MASK)]).expect("a short code"),
                },
            };
            let action = match seed.wide[2] % 11 {
                0 => Action::Ping,
                1 => Action::Start,
                2 => Action::Stop,
                3 => Action::SetRate { mhz },
                4 => Action::SetHead(text(&seed.name)),
                5 => Action::SetQuery { slot, area, want },
                6 => Action::StartObject {
                    object,
                    name,
                    seed: place,
                },
                7 => Action::StopObject { object },
                8 => Action::RenameObject { object, name },
                9 => Action::SetWords(name),
                _ => Action::ClearQuery { slot },
            };
            let id = seed.wide[0] as u16;
            Command { id, action }.into()
        }
        "Reply" => Reply {
            id: draw.u16(),
            outcome: draw.one(&[
                Outcome::Done,
                Outcome::Refused(Refusal::Busy),
                Outcome::Refused(Refusal::NoSuchHead),
                Outcome::Refused(Refusal::Incompatible),
            ]),
        }
        .into(),
        name => unreachable!("no strategy for {name}: add one"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_message_comes_back_from_its_frame(seed in seed()) {
        let message = build(&seed);
        let mut buffer = [0; MAX_FRAME];
        let mut encoder = Encoder::new();
        let frame = encoder.encode(&message, &mut buffer).unwrap();
        prop_assert!(!frame[..frame.len() - 1].contains(&0));
        prop_assert_eq!(frame.last(), Some(&0));
        let body = common::body(&message).len();
        prop_assert!(body <= Message::KINDS[seed.kind].max_size);
        let mut decoder: Decoder = Decoder::new();
        let (taken, found) = decoder.feed(frame);
        let found = found.expect("a frame").expect("an intact frame");
        prop_assert_eq!(taken, frame.len());
        prop_assert_eq!(found.message().unwrap(), message);
    }

    #[test]
    fn any_cut_through_a_row_of_frames_gives_the_same(
        seeds in vec(seed(), 1..6),
        cuts in vec(1usize..700, 0..20),
    ) {
        let mut encoder = Encoder::new();
        let mut buffer = [0; MAX_FRAME];
        let mut line = Vec::new();
        for seed in &seeds {
            line.extend_from_slice(encoder.encode(&build(seed), &mut buffer).unwrap());
        }
        let mut decoder: Decoder = Decoder::new();
        let mut found = 0;
        let mut rest = &line[..];
        let mut cuts = cuts.into_iter();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts.next().unwrap_or(rest.len()).min(rest.len()));
            decoder.push_slice(now, |frame| {
                let message = frame.expect("an intact frame");
                assert_eq!(message.message().unwrap(), build(&seeds[found]));
                found += 1;
            });
            rest = later;
        }
        prop_assert_eq!(found, seeds.len());
        prop_assert_eq!(decoder.counters().refused(), 0);
    }

    #[test]
    fn a_frame_with_any_one_byte_changed_is_refused(
        seed in seed(),
        place in any::<prop::sample::Index>(),
        change in 1u8..=255,
    ) {
        let mut buffer = [0; MAX_FRAME];
        let mut encoder = Encoder::new();
        let frame = encoder.encode(&build(&seed), &mut buffer).unwrap();
        // Except the delimiter: without it the frame does not end.
        let place = place.index(frame.len() - 1);
        frame[place] ^= change;
        let mut decoder: Decoder = Decoder::new();
        decoder.push_slice(frame, |found| assert!(found.is_err()));
        prop_assert!(decoder.counters().refused() >= 1);
    }
}
