//! Golden bytes of the wire format. A change here breaks every existing program
//! that uses it: increment `PROTOCOL` and update `docs/wire-format.md`.

mod common;

use common::{body, largest, packet, samples, stuff};
use loftup_wire::{Decoder, Encoder, MAX_BODY, MAX_FRAME, Message, SCHEMA_HASH};

/// Schema hash of protocol 2.
const SCHEMA: u64 = 0xe1a1_2add_7e68_8afc;

/// Name, and body in hexadecimal.
const BODIES: &[(&str, &str)] = &[
    (
        "hello",
        "02ef9bafcdf8acd19101000180040f6c6f667475702d6e6f646520302e31",
    ),
    ("hello of a monitor", "ffff03ffffffffffffffffff0102000000"),
    ("time request", "c0843d"),
    ("time reply", "c0843d7f8001"),
    ("label", "010b030753747261c39f65"),
    ("chunk", "f0a2040108040315062205050100ff"),
    ("features f16", "09000301000006003c00c0ff7b"),
    (
        "features u8",
        "09008003c8019cd704010000003f000080bf030001ff",
    ),
    ("regions", "02041110010a05ac02800507c002af028420c8"),
    ("depth", "f0a204030804030507a0130504af1300"),
    ("object", "f0a20404030207036d756705ac028005078420e6"),
    (
        "answer of classes",
        "01008080f9c0c1c4820305ac0280050700e001e00101",
    ),
    (
        "answer of features",
        "01008080f9c0c1c4820305ac028005070140018003",
    ),
    (
        "answer of regions",
        "01008080f9c0c1c4820305ac02800507021101",
    ),
    (
        "answer of depth",
        "01008080f9c0c1c4820305ac0280050703e001a801",
    ),
    (
        "answer of objects",
        "01008080f9c0c1c4820305ac028005070403e001a801",
    ),
    ("health starting", "00e0d403e674c8dc03fbf1040084070200"),
    ("health running", "01e0d403e674c8dc03fbf10401bf4684070200"),
    ("health too hot", "0200e0d403e674c8dc03fbf10401bf4684070200"),
    ("health late", "0201e0d403e674c8dc03fbf10401bf4684070200"),
    (
        "health no frames",
        "0202e0d403e674c8dc03fbf10401bf4684070200",
    ),
    (
        "health fallback",
        "0203e0d403e674c8dc03fbf10401bf4684070200",
    ),
    ("health recovering", "03e0d403e674c8dc03fbf1040084070200"),
    ("health bundle", "0404e0d403e674c8dc03fbf1040084070200"),
    ("health memory", "0405e0d403e674c8dc03fbf1040084070200"),
    ("health link", "0406e0d403e674c8dc03fbf1040084070200"),
    ("health internal", "0407e0d403e674c8dc03fbf1040084070200"),
    ("health other", "0408ac02e0d403e674c8dc03fbf1040084070200"),
    ("ping", "820200"),
    ("start", "820201"),
    ("stop", "820202"),
    ("set rate", "8202039875"),
    ("set head", "8202040663616d766964"),
    ("query frame", "820205020000"),
    ("query region", "820205020105ac0280050701"),
    ("query points", "8202050202020000ff04df0302"),
    ("query regions", "820205020003"),
    ("query depth", "820205020004"),
    ("query objects", "820205020005"),
    ("query words", "820205020006"),
    ("clear query", "82020602"),
    ("start at a box", "82020707036d75670005ac02800507"),
    ("start at a point", "82020707036d756701c00207"),
    ("start at a mask", "82020707036d75670214ac02058201041004"),
    ("stop object", "82020807"),
    ("rename object", "820209070753747261c39f65"),
    ("set words", "82020a076b69746368656e"),
    ("done", "820200"),
    ("busy", "82020100"),
    ("unsupported", "82020101"),
    ("no such slot", "82020102"),
    ("no such head", "82020103"),
    ("out of picture", "82020104"),
    ("rate", "82020105"),
    ("incompatible", "82020106"),
    ("no such object", "82020107"),
    ("bad mask", "82020108"),
];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_schema_is_that_of_protocol_2() {
    assert_eq!(
        SCHEMA_HASH, SCHEMA,
        "{SCHEMA_HASH:#018x}: a message, a field or a bound has changed"
    );
}

#[test]
fn every_message_is_written_as_frozen() {
    let samples = samples();
    for (name, message) in &samples {
        let frozen = BODIES.iter().find(|(frozen, _)| frozen == name);
        let frozen = frozen.map_or("missing", |(_, bytes)| bytes);
        assert_eq!(hex(&body(message)), frozen, "{name}");
    }
    assert_eq!(samples.len(), BODIES.len());
    for kind in Message::KINDS {
        let shown = samples
            .iter()
            .any(|(_, message)| message.kind() == kind.kind);
        assert!(shown, "no golden bytes of {}", kind.name);
    }
}

#[test]
fn every_frozen_body_is_read_as_the_message_it_was() {
    for (name, message) in samples() {
        let bytes = body(&message);
        assert_eq!(
            Message::decode(message.kind(), &bytes),
            Ok(message),
            "{name}"
        );
    }
}

#[test]
fn frames_are_those_of_the_plain_implementation() {
    let mut buffer = [0; MAX_FRAME];
    let mut encoder = Encoder::new();
    let messages = samples().into_iter().map(|(_, message)| message);
    for message in messages.chain(largest()) {
        let sequence = encoder.sequence();
        let plain = stuff(&packet(sequence, message.kind(), &body(&message)));
        let frame = encoder.encode(&message, &mut buffer).unwrap();
        // The simple implementation ends a full last block with an empty block,
        // which is allowed. The encoder omits it.
        let same = *frame == plain || [&frame[..frame.len() - 1], &[1, 0]].concat() == plain;
        assert!(same, "{}\n{}", hex(frame), hex(&plain));
        for bytes in [frame, &plain[..]] {
            let mut decoder: Decoder = Decoder::new();
            let (taken, found) = decoder.feed(bytes);
            let found = found.expect("a frame").expect("an intact frame");
            assert_eq!(found.message().as_ref(), Ok(&message));
            assert_eq!((taken, found.sequence), (bytes.len(), sequence));
        }
    }
}

#[test]
fn whole_frames_are_written_as_frozen() {
    let mut encoder = Encoder::new();
    let mut buffer = [0; MAX_FRAME];
    let mut frames = Vec::new();
    for (name, message) in samples() {
        if ["ping", "done", "label"].contains(&name) {
            let frame = encoder.encode(&message, &mut buffer).unwrap();
            frames.push(hex(frame));
        }
    }
    assert_eq!(frames, FRAMES);
}

/// The label, the ping and the reply, as the first three frames of a
/// connection.
const FRAMES: &[&str] = &[
    "01011110010b030753747261c39f65ff316b0d00",
    "02010430820205cb27325a00",
    "0202043182020104321a6400",
];

#[test]
fn byte_stuffing_is_right_around_full_blocks() {
    // Bodies of every length, without zeros and with one at the end, so that
    // packets end before, at and after a multiple of 254.
    for length in 0..=MAX_BODY {
        for last in [0xFF, 0] {
            let mut body = vec![0xFF; length];
            if let Some(end) = body.last_mut() {
                *end = last;
            }
            let plain = stuff(&packet(0x0101, 0x77, &body));
            assert!(plain.len() <= MAX_FRAME);
            let mut decoder: Decoder = Decoder::new();
            let (_, found) = decoder.feed(&plain);
            let found = found.expect("a frame").expect("an intact frame");
            assert_eq!((found.kind, found.body), (0x77, &body[..]));
        }
    }
}
