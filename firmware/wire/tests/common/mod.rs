//! Test messages, and a second, simple implementation of the frame format,
//! written from `docs/wire-format.md`.
#![allow(dead_code)]

use loftup_wire::command::{Action, Area, Command, MAX_MASK, Outcome, Refusal, Reply, Seed, Want};
use loftup_wire::features::{Features, Values};
use loftup_wire::health::{Health, Reason, State};
use loftup_wire::message::{
    Answer, Content, DepthChunk, Hello, Label, MAX_DATA, MAX_REGIONS, MapChunk, Object, Point,
    Rect, Region, Regions, Role, TimeReply, TimeRequest,
};
use loftup_wire::{Bytes, Message, PROTOCOL, Text};

pub fn text(text: &str) -> Text<'_, 32> {
    Text::new(text).expect("32 bytes at most")
}

pub fn data(bytes: &[u8]) -> Bytes<'_, MAX_DATA> {
    Bytes::new(bytes).expect("MAX_DATA bytes at most")
}

const RECT: Rect = Rect {
    x: 5,
    y: 300,
    width: 640,
    height: 7,
};

/// Named messages of every kind, with every variant.
pub fn samples() -> Vec<(&'static str, Message<'static>)> {
    let mut samples: Vec<(&'static str, Message<'static>)> = vec![
        (
            "hello",
            Hello {
                protocol: PROTOCOL,
                // An arbitrary value that does not change with the messages.
                schema: 0x0123_4567_89AB_CDEF,
                role: Role::Node,
                answer: true,
                max_body: 512,
                name: text("loftup-node 0.1"),
            }
            .into(),
        ),
        (
            "hello of a monitor",
            Hello {
                protocol: u16::MAX,
                schema: u64::MAX,
                role: Role::Monitor,
                answer: false,
                max_body: 0,
                name: text(""),
            }
            .into(),
        ),
        ("time request", TimeRequest { sent_us: 1_000_000 }.into()),
        (
            "time reply",
            TimeReply {
                sent_us: 1_000_000,
                received_us: 127,
                replied_us: 128,
            }
            .into(),
        ),
        (
            "label",
            Label {
                set: 1,
                classes: 11,
                class: 3,
                name: text("Straße"),
            }
            .into(),
        ),
        (
            "chunk",
            MapChunk {
                frame: 70_000,
                slot: 1,
                width: 8,
                height: 4,
                first: 3,
                count: 21,
                runs: data(&[0x22, 0x05, 0x05, 0x01, 0x00, 0xFF]),
            }
            .into(),
        ),
        (
            "features f16",
            Features {
                frame: 9,
                slot: 0,
                channels: 3,
                vectors: 1,
                first: 0,
                values: Values::F16(data(&[0x00, 0x3C, 0x00, 0xC0, 0xFF, 0x7B])),
            }
            .into(),
        ),
        (
            "features u8",
            Features {
                frame: 9,
                slot: 0,
                channels: 384,
                vectors: 200,
                first: 76_700,
                values: Values::U8 {
                    scale: 0.5,
                    offset: -1.0,
                    data: data(&[0, 1, 255]),
                },
            }
            .into(),
        ),
        (
            "regions",
            Regions {
                frame: 2,
                slot: 4,
                total: 17,
                first: 16,
                items: heapless::Vec::from_slice(&[Region {
                    class: 10,
                    bounds: RECT,
                    centre: Point { x: 320, y: 303 },
                    pixels: 4_100,
                    score: 200,
                }])
                .expect("one region"),
            }
            .into(),
        ),
        (
            "depth",
            DepthChunk {
                frame: 70_000,
                slot: 3,
                width: 8,
                height: 4,
                first: 3,
                count: 5,
                code: data(&[0xA0, 0x13, 0x05, 0x04, 0xAF, 0x13, 0x00]),
            }
            .into(),
        ),
        (
            "object",
            Object {
                frame: 70_000,
                slot: 4,
                total: 3,
                index: 2,
                object: 7,
                name: text("mug"),
                bounds: RECT,
                pixels: 4_100,
                confidence: 230,
            }
            .into(),
        ),
    ];
    for (name, content) in [
        (
            "answer of classes",
            Content::Classes {
                width: 224,
                height: 224,
                labels: 1,
            },
        ),
        (
            "answer of features",
            Content::Features {
                width: 64,
                height: 1,
                channels: 384,
            },
        ),
        (
            "answer of regions",
            Content::Regions {
                total: 17,
                labels: 1,
            },
        ),
        (
            "answer of depth",
            Content::Depth {
                width: 224,
                height: 168,
            },
        ),
        (
            "answer of objects",
            Content::Objects {
                total: 3,
                width: 224,
                height: 168,
            },
        ),
    ] {
        let answer = Answer {
            frame: 1,
            slot: 0,
            stamp_us: 1_700_000_000_000_000,
            source: RECT,
            content,
        };
        samples.push((name, answer.into()));
    }
    for (name, state) in [
        ("health starting", State::Starting),
        ("health running", State::Running),
        ("health too hot", State::Degraded(Reason::TooHot)),
        ("health late", State::Degraded(Reason::Late)),
        ("health no frames", State::Degraded(Reason::NoFrames)),
        ("health fallback", State::Degraded(Reason::Fallback)),
        ("health recovering", State::Recovering),
        ("health bundle", State::Failed(Reason::Bundle)),
        ("health memory", State::Failed(Reason::Memory)),
        ("health link", State::Failed(Reason::Link)),
        ("health internal", State::Failed(Reason::Internal)),
        ("health other", State::Failed(Reason::Other(300))),
    ] {
        let health = Health {
            state,
            uptime_ms: 60_000,
            rate_mhz: 14_950,
            latency_p50_us: 61_000,
            latency_p99_us: 80_123,
            temperature_cc: state.answers().then_some(-4_512),
            answered: 900,
            dropped: 2,
            link_errors: 0,
        };
        samples.push((name, health.into()));
    }
    let query = |area, want| Action::SetQuery {
        slot: 2,
        area,
        want,
    };
    let start = |seed| Action::StartObject {
        object: 7,
        name: text("mug"),
        seed,
    };
    let points = [Point { x: 0, y: 0 }, Point { x: 639, y: 479 }];
    let points = heapless::Vec::from_slice(&points).expect("two points");
    for (name, action) in [
        ("ping", Action::Ping),
        ("start", Action::Start),
        ("stop", Action::Stop),
        ("set rate", Action::SetRate { mhz: 15_000 }),
        ("set head", Action::SetHead(text("camvid"))),
        ("query frame", query(Area::Frame, Want::Classes)),
        ("query region", query(Area::Region(RECT), Want::FeaturesF16)),
        (
            "query points",
            query(Area::Points(points), Want::FeaturesU8),
        ),
        ("query regions", query(Area::Frame, Want::Regions)),
        ("query depth", query(Area::Frame, Want::Depth)),
        ("query objects", query(Area::Frame, Want::Objects)),
        ("query words", query(Area::Frame, Want::Words)),
        ("clear query", Action::ClearQuery { slot: 2 }),
        ("start at a box", start(Seed::Box(RECT))),
        (
            "start at a point",
            start(Seed::Point(Point { x: 320, y: 7 })),
        ),
        (
            "start at a mask",
            start(Seed::Mask {
                width: 20,
                height: 300,
                runs: Bytes::new(&[0x82, 0x01, 0x04, 0x10, 0x04]).expect("a short code"),
            }),
        ),
        ("stop object", Action::StopObject { object: 7 }),
        (
            "rename object",
            Action::RenameObject {
                object: 7,
                name: text("Straße"),
            },
        ),
        ("set words", Action::SetWords(text("kitchen"))),
    ] {
        samples.push((name, Command { id: 258, action }.into()));
    }
    let refused = Outcome::Refused;
    for (name, outcome) in [
        ("done", Outcome::Done),
        ("busy", refused(Refusal::Busy)),
        ("unsupported", refused(Refusal::Unsupported)),
        ("no such slot", refused(Refusal::NoSuchSlot)),
        ("no such head", refused(Refusal::NoSuchHead)),
        ("out of picture", refused(Refusal::OutOfPicture)),
        ("rate", refused(Refusal::Rate)),
        ("incompatible", refused(Refusal::Incompatible)),
        ("no such object", refused(Refusal::NoSuchObject)),
        ("bad mask", refused(Refusal::Mask)),
    ] {
        samples.push((name, Reply { id: 258, outcome }.into()));
    }
    samples
}

const FULL: [u8; MAX_DATA] = [0xA5; MAX_DATA];
const LONG: &str = "12345678901234567890123456789012";

/// The longest message of each kind.
pub fn largest() -> Vec<Message<'static>> {
    let far = Point {
        x: u16::MAX,
        y: u16::MAX,
    };
    let rect = Rect {
        x: u16::MAX,
        y: u16::MAX,
        width: u16::MAX,
        height: u16::MAX,
    };
    let region = Region {
        class: 255,
        bounds: rect,
        centre: far,
        pixels: u32::MAX,
        score: 255,
    };
    let mut items = heapless::Vec::<_, MAX_REGIONS>::new();
    while items.push(region).is_ok() {}
    vec![
        Hello {
            protocol: u16::MAX,
            schema: u64::MAX,
            role: Role::Monitor,
            answer: true,
            max_body: u16::MAX,
            name: text(LONG),
        }
        .into(),
        TimeRequest { sent_us: u64::MAX }.into(),
        TimeReply {
            sent_us: u64::MAX,
            received_us: u64::MAX,
            replied_us: u64::MAX,
        }
        .into(),
        Label {
            set: u16::MAX,
            classes: u16::MAX,
            class: 255,
            name: text(LONG),
        }
        .into(),
        Answer {
            frame: u32::MAX,
            slot: 255,
            stamp_us: u64::MAX,
            source: rect,
            content: Content::Features {
                width: u16::MAX,
                height: u16::MAX,
                channels: u16::MAX,
            },
        }
        .into(),
        MapChunk {
            frame: u32::MAX,
            slot: 255,
            width: u16::MAX,
            height: u16::MAX,
            first: u32::MAX,
            count: u32::MAX,
            runs: data(&FULL),
        }
        .into(),
        Features {
            frame: u32::MAX,
            slot: 255,
            channels: u16::MAX,
            vectors: u32::MAX,
            first: u32::MAX,
            values: Values::U8 {
                scale: 1.5,
                offset: 2.5,
                data: data(&FULL),
            },
        }
        .into(),
        Regions {
            frame: u32::MAX,
            slot: 255,
            total: u16::MAX,
            first: u16::MAX,
            items,
        }
        .into(),
        DepthChunk {
            frame: u32::MAX,
            slot: 255,
            width: u16::MAX,
            height: u16::MAX,
            first: u32::MAX,
            count: u32::MAX,
            code: data(&FULL),
        }
        .into(),
        Object {
            frame: u32::MAX,
            slot: 255,
            total: 255,
            index: 255,
            object: 255,
            name: text(LONG),
            bounds: rect,
            pixels: u32::MAX,
            confidence: 255,
        }
        .into(),
        Health {
            state: State::Failed(Reason::Other(u16::MAX)),
            uptime_ms: u64::MAX,
            rate_mhz: u32::MAX,
            latency_p50_us: u32::MAX,
            latency_p99_us: u32::MAX,
            temperature_cc: Some(i16::MIN),
            answered: u32::MAX,
            dropped: u32::MAX,
            link_errors: u32::MAX,
        }
        .into(),
        Command {
            id: u16::MAX,
            action: Action::StartObject {
                object: 255,
                name: text(LONG),
                seed: Seed::Mask {
                    width: u16::MAX,
                    height: u16::MAX,
                    runs: Bytes::new(&FULL[..MAX_MASK]).expect("MAX_MASK bytes"),
                },
            },
        }
        .into(),
        Reply {
            id: u16::MAX,
            outcome: Outcome::Refused(Refusal::Incompatible),
        }
        .into(),
    ]
}

pub fn body(message: &Message<'_>) -> Vec<u8> {
    let mut buffer = [0; loftup_wire::MAX_BODY];
    let length = message.encode_body(&mut buffer).expect("room for a body");
    buffer[..length].to_vec()
}

/// CRC-32 as specified in the document, bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    let mut register = u32::MAX;
    for byte in bytes {
        register ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = register & 1;
            register >>= 1;
            if carry == 1 {
                register ^= 0xEDB8_8320;
            }
        }
    }
    !register
}

/// COBS as specified in the document, block by block.
pub fn stuff(packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    let mut rest = packet;
    loop {
        let length = rest.iter().take(254).take_while(|byte| **byte != 0).count();
        frame.push(length as u8 + 1);
        frame.extend_from_slice(&rest[..length]);
        if length == rest.len() {
            break;
        }
        // A full block does not consume a zero.
        rest = &rest[if length == 254 { 254 } else { length + 1 }..];
    }
    frame.push(0);
    frame
}

pub fn packet(sequence: u16, kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = sequence.to_le_bytes().to_vec();
    packet.push(kind);
    packet.extend_from_slice(body);
    let checksum = crc32(&packet);
    packet.extend_from_slice(&checksum.to_le_bytes());
    packet
}
