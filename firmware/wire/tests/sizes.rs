//! The maximum encoded size of every message is as documented, reached, and not
//! exceeded.

mod common;

use common::{body, largest};
use loftup_wire::{Encoder, MAX_BODY, MAX_FRAME, MAX_PACKET, Message};

/// Name and maximum body size of every kind, as in `docs/wire-format.md`.
const SIZES: &[(&str, usize)] = &[
    ("Hello", 51),
    ("TimeRequest", 10),
    ("TimeReply", 30),
    ("Label", 40),
    ("Answer", 38),
    ("MapChunk", 504),
    ("Features", 510),
    ("Regions", 413),
    ("DepthChunk", 504),
    ("Object", 60),
    ("Health", 49),
    ("Command", 495),
    ("Reply", 5),
];

#[test]
fn the_largest_message_of_every_kind_has_the_stated_size() {
    let largest = largest();
    assert_eq!(largest.len(), Message::KINDS.len());
    for ((message, kind), (name, size)) in largest.iter().zip(Message::KINDS).zip(SIZES) {
        println!("{:#04x} {:<12} {:>4}", kind.kind, kind.name, kind.max_size);
        assert_eq!((kind.name, kind.max_size), (*name, *size));
        assert_eq!(message.kind(), kind.kind);
        assert_eq!(body(message).len(), kind.max_size, "{name}");
        assert!(kind.max_size <= MAX_BODY);
    }
    println!("Message in memory: {} bytes", size_of::<Message<'_>>());
}

#[test]
fn frames_of_the_largest_messages_fit_and_a_buffer_too_short_by_one_is_refused() {
    for message in largest() {
        let mut encoder = Encoder::new();
        let length = encoder.encode(&message, &mut [0; MAX_FRAME]).unwrap().len();
        assert_eq!(encoder.sequence(), 1);
        for room in 0..length {
            let mut short = vec![0; room];
            assert!(encoder.encode(&message, &mut short).is_err(), "{room}");
            assert_eq!(
                encoder.sequence(),
                1,
                "a failed encode uses no sequence number"
            );
        }
        let mut exact = vec![0; length];
        assert_eq!(encoder.encode(&message, &mut exact).unwrap().len(), length);
    }
}

#[test]
fn the_bounds_of_the_frame_are_as_documented() {
    assert_eq!((MAX_BODY, MAX_PACKET, MAX_FRAME), (512, 519, 523));
    let vector = Encoder::new()
        .encode_vec::<MAX_FRAME>(&largest()[5])
        .unwrap();
    assert!(vector.len() <= MAX_FRAME);
    assert!(Encoder::new().encode_vec::<20>(&largest()[5]).is_err());
}
