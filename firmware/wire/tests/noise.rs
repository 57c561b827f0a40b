//! A noisy link delivers every intact frame and nothing else.

mod common;

use common::{largest, packet, samples, stuff};
use loftup_wire::faults::{Fate, FaultInjector, Faults, Random};
use loftup_wire::message::TimeRequest;
use loftup_wire::{DecodeError, Decoder, Encoder, MAX_FRAME, MAX_PACKET, Message};

/// A received byte and, if it is intact, its origin.
type Arrived = (u8, Option<(usize, usize)>);

/// Sends `frames` over the link; returns the received bytes with their origin.
fn garble(seed: u64, faults: Faults, frames: &[Vec<u8>]) -> (Vec<Arrived>, [u64; 2]) {
    let mut cable = FaultInjector::<{ 4 * MAX_FRAME }>::new(seed, faults);
    let mut arrived: Vec<Arrived> = Vec::new();
    for (number, frame) in frames.iter().enumerate() {
        let mut origins = Vec::new();
        let taken = cable.write_traced(frame, |index, fate| match fate {
            Fate::Intact => origins.push(Some((number, index))),
            Fate::Flipped(_) => origins.push(None),
            Fate::Dropped => {}
        });
        assert_eq!(taken, frame.len());
        let mut bytes = vec![0; origins.len()];
        let mut read = 0;
        while read < bytes.len() {
            read += cable.read(&mut bytes[read..]);
        }
        arrived.extend(bytes.into_iter().zip(origins));
    }
    let counters = cable.counters();
    (arrived, [counters.flipped, counters.dropped])
}

/// Reference: splits the received bytes at the zeros and returns the pieces
/// that are one complete, unchanged frame, and the number of other pieces.
fn intact(arrived: &[Arrived], frames: &[Vec<u8>]) -> (Vec<usize>, usize) {
    let (mut whole, mut broken) = (Vec::new(), 0);
    let mut pieces: Vec<&[Arrived]> = arrived.split(|(byte, _)| *byte == 0).collect();
    pieces.pop(); // no delimiter received yet
    for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
        let number = piece[0].1.map_or(0, |(number, _)| number);
        let untouched =
            (piece.iter().enumerate()).all(|(index, (_, origin))| *origin == Some((number, index)));
        if untouched && piece.len() + 1 == frames[number].len() {
            whole.push(number);
        } else {
            broken += 1;
        }
    }
    (whole, broken)
}

fn check(seed: u64, faults: Faults, messages: &[Message<'static>], count: usize) -> [usize; 2] {
    let mut encoder = Encoder::new();
    let mut buffer = [0; MAX_FRAME];
    let sent: Vec<_> = messages.iter().cycle().take(count).collect();
    let frames: Vec<Vec<u8>> = sent
        .iter()
        .map(|message| encoder.encode(message, &mut buffer).unwrap().to_vec())
        .collect();
    let (arrived, [flipped, dropped]) = garble(seed, faults, &frames);
    let (expected, broken) = intact(&arrived, &frames);

    let mut decoder: Decoder = Decoder::new();
    let mut delivered = Vec::new();
    let mut refused = 0;
    let bytes: Vec<u8> = arrived.iter().map(|(byte, _)| *byte).collect();
    let mut random = Random::new(seed);
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        // In pieces of random size.
        let (now, later) = rest.split_at(rest.len().min(1 + random.below(90) as usize));
        decoder.push_slice(now, |found| match found {
            Ok(frame) => {
                // Fewer than 2^16 frames: the sequence number is the index.
                let number = usize::from(frame.sequence);
                assert_eq!(frame.message().as_ref(), Ok(sent[number]));
                delivered.push(number);
            }
            Err(_) => refused += 1,
        });
        rest = later;
    }
    assert_eq!(delivered, expected, "exactly the intact frames, in order");
    assert_eq!(refused, broken, "every other piece is rejected");
    let counters = decoder.counters();
    assert_eq!(counters.frames as usize, delivered.len());
    assert_eq!(counters.refused() as usize, refused);
    let (first, last) = (expected[0], expected[expected.len() - 1]);
    assert_eq!(
        counters.lost as usize,
        last - first + 1 - expected.len(),
        "gaps in the numbers"
    );
    println!(
        "{count} frames, {} bytes: {flipped} changed, {dropped} dropped; \
         {} delivered = intact, {refused} rejected",
        frames.iter().map(Vec::len).sum::<usize>(),
        delivered.len()
    );
    [delivered.len(), refused]
}

const BAD: Faults = Faults {
    flip_ppm: 10_000,
    drop_ppm: 50_000,
    split_ppm: 300_000,
    stall_ppm: 50_000,
    stall_polls: 3,
};

#[test]
fn after_one_percent_of_bits_flipped_and_five_of_bytes_dropped_every_intact_frame_arrives() {
    let samples: Vec<_> = samples().into_iter().map(|(_, message)| message).collect();
    for seed in 1..=5 {
        let [delivered, refused] = check(seed, BAD, &samples, 60_000);
        assert!(delivered > 2_000 && refused > 20_000);
    }
}

#[test]
fn on_a_milder_cable_long_frames_arrive_too() {
    let mild = Faults {
        flip_ppm: 100,
        drop_ppm: 500,
        ..BAD
    };
    let mut messages = largest();
    messages.extend(samples().into_iter().map(|(_, message)| message));
    let [delivered, refused] = check(9, mild, &messages, 20_000);
    assert!(delivered > 15_000 && refused > 1_000);
}

#[test]
fn ten_million_random_bytes_neither_panic_nor_pass() {
    let mut random = Random::new(0xC0FFEE);
    let mut decoder: Decoder = Decoder::new();
    let mut small = Decoder::<16>::new();
    let mut pieces = 0u64;
    // Three mixes: uniform bytes, frequent zeros (short pieces), rare zeros
    // (pieces longer than the buffer).
    for round in 0..10_000_000u32 / 1_000 {
        let mut bytes = [0; 1_000];
        for byte in &mut bytes {
            *byte = random.next() as u8;
            match round % 3 {
                1 if random.chance(100_000) => *byte = 0,
                2 if *byte == 0 && !random.chance(100_000) => *byte = 1,
                _ => {}
            }
        }
        decoder.push_slice(&bytes, |found| {
            assert!(found.is_err(), "noise passed the checksum: {found:?}");
            pieces += 1;
        });
        small.push_slice(&bytes, |found| assert!(found.is_err()));
    }
    let counters = *decoder.counters();
    println!("{pieces} pieces: {counters:?}");
    assert_eq!(u64::from(counters.refused()), pieces);
    assert!(counters.checksum > 0 && counters.malformed > 0 && counters.oversize > 0);
}

#[test]
fn random_bodies_of_every_kind_never_panic_and_often_are_messages() {
    let mut random = Random::new(77);
    let (mut read, mut refused) = (0, 0);
    for _ in 0..400_000 {
        let mut body = [0; 40];
        let length = random.below(body.len() as u32 + 1) as usize;
        for byte in &mut body {
            // Small numbers, so that lengths and variants are often valid.
            *byte = random.next() as u8 >> random.below(8);
        }
        let kind = Message::KINDS[random.below(Message::KINDS.len() as u32) as usize].kind;
        match Message::decode(kind, &body[..length]) {
            Ok(Message::MapChunk(chunk)) => {
                let _ = chunk.segments().map(Iterator::count);
                read += 1;
            }
            Ok(Message::Features(block)) => {
                let _ = block.entries().map(Iterator::count);
                read += 1;
            }
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    println!("{read} decoded, {refused} rejected");
    assert!(read > 1_000 && refused > 1_000);
}

fn frame(sequence: u16, message: &Message<'_>) -> Vec<u8> {
    stuff(&packet(sequence, message.kind(), &common::body(message)))
}

fn request(sent_us: u64) -> Message<'static> {
    TimeRequest { sent_us }.into()
}

#[test]
fn after_any_broken_beginning_one_delimiter_is_enough_to_find_the_next_frame() {
    let mut random = Random::new(4);
    let good = frame(1, &request(5));
    for _ in 0..20_000 {
        let length = random.below(1_500) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        bytes.push(0);
        bytes.extend(&good);
        let mut decoder: Decoder = Decoder::new();
        let mut last = None;
        decoder.push_slice(&bytes, |found| {
            last = Some(found.map(|frame| frame.sequence))
        });
        assert_eq!(last, Some(Ok(1)));
    }
}

#[test]
fn a_frame_too_long_is_refused_at_once_and_its_rest_skipped() {
    let mut decoder = Decoder::<20>::new();
    let long = frame(0, &largest()[0]);
    let mut found = Vec::new();
    decoder.push_slice(&long, |result| {
        found.push(result.map(|frame| frame.sequence))
    });
    decoder.push_slice(&frame(1, &request(1)), |result| {
        found.push(result.map(|frame| frame.sequence));
    });
    assert_eq!(found, [Err(DecodeError::Oversize { max: 20 }), Ok(1)]);
    assert_eq!(decoder.counters().oversize, 1);
    // A packet of exactly the buffer size passes; one more byte does not.
    for (body, passes) in [(MAX_PACKET - 7, true), (MAX_PACKET - 6, false)] {
        let bytes = stuff(&packet(0, 0x77, &vec![9; body]));
        let mut decoder: Decoder = Decoder::new();
        assert_eq!(decoder.feed(&bytes).1.unwrap().is_ok(), passes, "{body}");
    }
}

#[test]
fn every_kind_of_error_is_told_apart() {
    let mut decoder: Decoder = Decoder::new();
    let mut feed = |bytes: &[u8]| decoder.feed(bytes).1.unwrap().map(|frame| frame.kind);
    assert_eq!(feed(&[5, 1, 0]), Err(DecodeError::Stuffing));
    assert_eq!(
        feed(&[3, 1, 2, 0]),
        Err(DecodeError::TooShort { len: 2, min: 7 })
    );
    let mut bad = frame(0, &request(1));
    bad[5] ^= 1;
    assert!(matches!(feed(&bad), Err(DecodeError::Checksum { .. })));
    assert_eq!(feed(&frame(0, &request(1))), Ok(2));
    assert_eq!(
        feed(&frame(0, &request(1))),
        Err(DecodeError::Duplicate { sequence: 0 })
    );
    let body = |kind, bytes: &[u8]| Message::decode(kind, bytes).unwrap_err();
    assert_eq!(body(0x7F, &[]), DecodeError::UnknownKind(0x7F));
    assert!(matches!(body(2, &[]), DecodeError::Body { kind: 2, .. }));
    assert_eq!(
        body(2, &[1, 2, 3]),
        DecodeError::Trailing { kind: 2, extra: 2 }
    );
    assert!(
        matches!(body(0x31, &[1, 7]), DecodeError::Body { .. }),
        "unknown variant"
    );
}

#[test]
fn an_unknown_kind_is_delivered_as_a_frame_and_refused_as_a_message() {
    let mut decoder: Decoder = Decoder::new();
    let bytes = stuff(&packet(0, 0x55, b"from the future"));
    let frame = decoder.feed(&bytes).1.unwrap().unwrap();
    assert_eq!(frame.body, b"from the future");
    assert_eq!(frame.message(), Err(DecodeError::UnknownKind(0x55)));
}

fn deliver(decoder: &mut Decoder, sequence: u16, message: &Message<'_>) -> bool {
    decoder.feed(&frame(sequence, message)).1.unwrap().is_ok()
}

#[test]
fn numbers_count_losses_repetitions_and_restarts() {
    let mut decoder: Decoder = Decoder::new();
    let tick = request(1);
    for (sequence, passes) in [
        (65_533, true),
        (65_534, true),
        (2, true),       // 65535, 0 and 1 are lost
        (2, false),      // twice
        (65_534, false), // duplicate
        (3, true),
    ] {
        assert_eq!(deliver(&mut decoder, sequence, &tick), passes, "{sequence}");
    }
    let counters = *decoder.counters();
    assert_eq!((counters.lost, counters.duplicates), (3, 2));
    assert!(
        deliver(&mut decoder, 60_000, &tick),
        "far behind: the sender restarted"
    );
    assert!(deliver(&mut decoder, 60_001, &tick));
    assert_eq!(decoder.counters().restarts, 1);
}

#[test]
fn a_greeting_with_number_0_begins_anew_wherever_the_numbers_were() {
    let (_, hello) = samples().remove(0);
    for before in [0, 3, 15, 16, 17, 40_000, 65_535] {
        let mut decoder: Decoder = Decoder::new();
        assert!(deliver(&mut decoder, before, &request(1)));
        assert!(deliver(&mut decoder, 0, &hello), "{before}");
        assert!(deliver(&mut decoder, 1, &request(1)));
        let counters = decoder.counters();
        assert_eq!((counters.lost, counters.duplicates), (0, 0), "{before}");
        assert_eq!(counters.restarts, u32::from(before != 65_535));
    }
}

#[test]
fn a_hello_of_another_version_says_which_even_where_the_rest_cannot_be_read() {
    use loftup_wire::{Incompatible, PROTOCOL, SCHEMA_HASH};
    // The protocol before this one and the next, some schema, and unknown fields.
    let mut body = vec![0, 7];
    body.extend([0xFF; 9]);
    for theirs in [PROTOCOL - 1, PROTOCOL + 1] {
        body[0] = theirs as u8;
        let ours = PROTOCOL;
        assert_eq!(
            Message::decode(1, &body),
            Err(DecodeError::Incompatible(Incompatible::Protocol {
                ours,
                theirs
            }))
        );
    }
    body[0] = PROTOCOL as u8;
    assert_eq!(
        Message::decode(1, &body),
        Err(DecodeError::Incompatible(Incompatible::Schema {
            ours: SCHEMA_HASH,
            theirs: 7
        }))
    );
    // Too short even for that; and of this version, but corrupted.
    assert!(matches!(
        Message::decode(1, &[2]),
        Err(DecodeError::Body { .. })
    ));
    let mut own = common::body(&samples().remove(0).1);
    assert!(Message::decode(1, &own).is_ok());
    own.push(0);
    assert!(matches!(
        Message::decode(1, &own),
        Err(DecodeError::Incompatible(_))
    ));
}

#[test]
fn pieces_can_be_cut_to_what_a_small_receiver_takes() {
    use loftup_wire::depth::DepthWriter;
    use loftup_wire::features::{Coding, FeatureWriter};
    use loftup_wire::message::MAX_DATA;
    use loftup_wire::runs::MapWriter;
    use loftup_wire::{MAX_BODY, MIN_BODY};

    let map: Vec<u8> = (0..200 * 200).map(|i: u32| (i % 7) as u8).collect();
    let values = vec![0.5; 999];
    for max_body in [0, MIN_BODY, 200, MAX_BODY, 9_999] {
        let bound = max_body.clamp(MIN_BODY, MAX_BODY);
        let mut scratch = [0; MAX_DATA];
        let mut longest = 0;
        let writer = MapWriter::new(u32::MAX, 255, 200, 200, &map).unwrap();
        let (mut writer, mut pixels) = (writer.with_max_body(max_body), 0);
        while let Some(chunk) = writer.next_chunk(&mut scratch) {
            pixels += chunk.count as usize;
            longest = longest.max(common::body(&chunk.into()).len());
        }
        assert_eq!(pixels, map.len());
        for coding in [Coding::F16, Coding::U8] {
            let writer = FeatureWriter::new(u32::MAX, 255, 3, &values, coding).unwrap();
            let (mut writer, mut count) = (writer.with_max_body(max_body), 0);
            while let Some(block) = writer.next_chunk(&mut scratch) {
                count += block.values.len();
                longest = longest.max(common::body(&block.into()).len());
            }
            assert_eq!(count, values.len());
        }
        let depths: Vec<u16> = (0..200 * 200).map(|i| (i % 7) as u16 * 9_000).collect();
        let writer = DepthWriter::new(u32::MAX, 255, 200, 200, &depths).unwrap();
        let (mut writer, mut pixels) = (writer.with_max_body(max_body), 0);
        while let Some(chunk) = writer.next_chunk(&mut scratch) {
            pixels += chunk.count as usize;
            longest = longest.max(common::body(&chunk.into()).len());
        }
        assert_eq!(pixels, depths.len());
        assert!(
            longest <= bound && longest + 20 > bound,
            "{longest} of {bound}"
        );
    }
    for kind in Message::KINDS {
        let cut = ["MapChunk", "DepthChunk", "Features", "Regions", "Command"];
        let cut = cut.contains(&kind.name);
        assert!(cut || kind.max_size <= MIN_BODY, "{}", kind.name);
    }
}
