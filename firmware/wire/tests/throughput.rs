//! Time and size of encoded class maps. Times are printed but not asserted,
//! because they depend on the machine.

use std::time::Instant;

use loftup_wire::assemble::{MapAssembler, Progress};
use loftup_wire::faults::Random;
use loftup_wire::message::MAX_DATA;
use loftup_wire::runs::MapWriter;
use loftup_wire::{Decoder, Encoder, MAX_FRAME, Message};

const SIDE: u16 = 224;
const PIXELS: usize = 224 * 224;

/// Eleven classes with areas as in a street scene: Voronoi cells of `seeds`
/// points with noisy edges.
fn street(seeds: usize, fray: u32) -> Vec<u8> {
    let mut random = Random::new(224);
    let points: Vec<[i32; 3]> = (0..seeds)
        .map(|_| [224, 224, 11].map(|limit| random.below(limit) as i32))
        .collect();
    (0..PIXELS as i32)
        .map(|pixel| {
            let x = pixel % 224 + random.below(fray + 1) as i32;
            let y = pixel / 224 + random.below(fray + 1) as i32;
            let nearest = points
                .iter()
                .min_by_key(|[px, py, _]| (px - x).pow(2) + (py - y).pow(2));
            nearest.map_or(0, |point| point[2] as u8)
        })
        .collect()
}

#[test]
fn a_class_map_of_224_by_224_goes_through_frames_and_comes_back() {
    let mut random = Random::new(1);
    let noise = (0..PIXELS).map(|_| random.below(11) as u8).collect();
    for (name, map) in [
        ("plain", vec![4; PIXELS]),
        ("street", street(40, 0)),
        ("frayed street", street(40, 3)),
        ("noise", noise),
    ] {
        let rounds = 50;
        let mut line = Vec::new();
        let mut frames = 0;
        let start = Instant::now();
        for frame in 0..rounds {
            line.clear();
            frames = 0;
            let mut encoder = Encoder::new();
            let mut scratch = [0; MAX_DATA];
            let mut buffer = [0; MAX_FRAME];
            let mut writer = MapWriter::new(frame, 0, SIDE, SIDE, &map).unwrap();
            while let Some(chunk) = writer.next_chunk(&mut scratch) {
                line.extend_from_slice(encoder.encode(&chunk.into(), &mut buffer).unwrap());
                frames += 1;
            }
        }
        let encode = start.elapsed() / rounds;
        let mut assembler = Box::new(MapAssembler::<PIXELS>::new());
        let start = Instant::now();
        for _ in 0..rounds {
            *assembler = MapAssembler::new();
            let mut decoder: Decoder = Decoder::new();
            let mut last = Progress::Partial;
            decoder.push_slice(&line, |found| match found.unwrap().message().unwrap() {
                Message::MapChunk(chunk) => last = assembler.push(&chunk).unwrap(),
                other => panic!("{other:?}"),
            });
            assert_eq!(last, Progress::Complete);
        }
        let decode = start.elapsed() / rounds;
        assert_eq!(assembler.map().unwrap().classes, map);
        println!(
            "{name:<14} {:>6} bytes in {frames:>3} frames, {:.3} bytes per pixel; \
             encode {:.3} ms, decode {:.3} ms; {:.1} ms at 921600 baud",
            line.len(),
            line.len() as f64 / PIXELS as f64,
            encode.as_secs_f64() * 1e3,
            decode.as_secs_f64() * 1e3,
            line.len() as f64 * 10.0 / 921.6,
        );
        // Run-length coding adds at most one byte per 64 pixels, framing at
        // most 27 bytes per frame.
        assert!(line.len() <= PIXELS + PIXELS / 64 + 27 * frames);
    }
}
