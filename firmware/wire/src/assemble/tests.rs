extern crate std;

use std::collections::BTreeSet;
use std::vec::Vec;

use super::*;
use crate::bounded::Bytes;
use crate::faults::Random;
use crate::features::{Coding, FeatureWriter, Values};
use crate::message::MAX_DATA;
use crate::runs::MapWriter;

#[test]
fn coverage_agrees_with_a_set_of_numbers() {
    let mut random = Random::new(3);
    for _ in 0..2_000 {
        let mut coverage = Coverage::new();
        let mut set = BTreeSet::new();
        for _ in 0..random.below(40) {
            let first = random.below(120);
            let end = first + random.below(9);
            let mut grown = set.clone();
            grown.extend(first..end);
            match coverage.add(first, end) {
                Ok(()) => set = grown,
                Err(_) => {
                    let starts = grown
                        .iter()
                        .filter(|&&n| n == 0 || !grown.contains(&(n - 1)));
                    assert!(starts.count() > MAX_GAPS);
                }
            }
            assert_eq!(coverage.covered() as usize, set.len());
            let all: Vec<u32> = coverage.ranges().flatten().collect();
            assert!(all.iter().eq(set.iter()));
        }
    }
}

#[test]
fn too_many_gaps_are_refused_and_change_nothing() {
    let mut coverage = Coverage::new();
    for i in 0..MAX_GAPS as u32 {
        coverage.add(3 * i, 3 * i + 1).unwrap();
    }
    let before = coverage.clone();
    assert_eq!(
        coverage.add(1_000, 1_001),
        Err(ContentError::TooManyGaps(MAX_GAPS))
    );
    assert!(coverage.ranges().eq(before.ranges()));
    coverage.add(0, 3 * MAX_GAPS as u32).unwrap();
    assert_eq!(coverage.ranges().count(), 1);
}

const SIDE: u16 = 60;
const PIXELS: usize = 60 * 60;

fn noise(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..PIXELS).map(|_| random.below(11) as u8).collect()
}

type Piece = (u32, u32, Vec<u8>);

fn chunks(frame: u32, map: &[u8]) -> Vec<Piece> {
    let mut writer = MapWriter::new(frame, 0, SIDE, SIDE, map).unwrap();
    let mut scratch = [0; MAX_DATA];
    let mut pieces = Vec::new();
    while let Some(chunk) = writer.next_chunk(&mut scratch) {
        pieces.push((chunk.first, chunk.count, chunk.runs.to_vec()));
    }
    pieces
}

fn as_chunk(frame: u32, piece: &Piece) -> MapChunk<'_> {
    MapChunk {
        frame,
        slot: 0,
        width: SIDE,
        height: SIDE,
        first: piece.0,
        count: piece.1,
        runs: Bytes::new(&piece.2).unwrap(),
    }
}

#[test]
fn chunks_in_any_order_and_twice_give_the_map_once() {
    let map = noise(5);
    let mut pieces = chunks(9, &map);
    assert!(pieces.len() > 6);
    pieces.reverse();
    pieces.swap(1, 4);
    let mut assembler = MapAssembler::<PIXELS>::new();
    let mut complete = 0;
    for piece in pieces.iter().flat_map(|piece| [piece, piece]) {
        complete += usize::from(assembler.push(&as_chunk(9, piece)).unwrap() == Progress::Complete);
    }
    assert_eq!(complete, 1);
    let found = assembler.map().unwrap();
    assert_eq!((found.frame, found.width, found.height), (9, SIDE, SIDE));
    assert_eq!(found.classes, map);
}

#[test]
fn a_lost_chunk_leaves_exactly_its_pixels_missing() {
    let map = noise(6);
    let pieces = chunks(1, &map);
    let mut assembler = MapAssembler::<PIXELS>::new();
    for piece in pieces.iter().enumerate().filter(|(i, _)| *i != 2) {
        assert_eq!(
            assembler.push(&as_chunk(1, piece.1)).unwrap(),
            Progress::Partial
        );
    }
    let lost = pieces[2].0 as usize..(pieces[2].0 + pieces[2].1) as usize;
    let found = assembler.map().unwrap();
    for (i, (&got, &sent)) in found.classes.iter().zip(&map).enumerate() {
        assert_eq!(got, if lost.contains(&i) { MISSING } else { sent });
    }
    assert_eq!(found.coverage.covered() as usize, PIXELS - lost.len());
}

#[test]
fn a_newer_frame_takes_over_and_an_older_one_is_refused_even_around_zero() {
    let map = noise(7);
    let pieces = chunks(0, &map);
    let mut assembler = MapAssembler::<PIXELS>::new();
    assembler.push(&as_chunk(u32::MAX, &pieces[0])).unwrap();
    assembler.push(&as_chunk(0, &pieces[1])).unwrap();
    assert_eq!(assembler.abandoned(), 1);
    assert_eq!(
        assembler.push(&as_chunk(u32::MAX, &pieces[2])),
        Err(ContentError::Stale {
            frame: u32::MAX,
            current: 0
        })
    );
    let found = assembler.map().unwrap();
    assert_eq!(found.classes[0], MISSING, "the old frame is discarded");
    assert_eq!(found.coverage.covered(), pieces[1].1);
}

#[test]
fn what_does_not_fit_or_changes_its_shape_is_refused_and_costs_nothing() {
    let map = noise(8);
    let pieces = chunks(1, &map);
    let mut assembler = MapAssembler::<PIXELS>::new();
    for piece in &pieces {
        assembler.push(&as_chunk(1, piece)).unwrap();
    }
    let mut other = as_chunk(1, &pieces[0]);
    other.width = SIDE - 1;
    assert_eq!(assembler.push(&other), Err(ContentError::ShapeChanged));
    let mut large = as_chunk(2, &pieces[0]);
    large.width = u16::MAX;
    large.height = u16::MAX;
    assert_eq!(
        assembler.push(&large),
        Err(ContentError::TooLarge {
            needed: 65_535 * 65_535,
            capacity: PIXELS
        })
    );
    assert_eq!(assembler.map().unwrap().classes, map);
}

#[test]
fn feature_blocks_come_back_within_the_error_of_their_coding() {
    let mut random = Random::new(11);
    let values: Vec<f32> = (0..7 * 384)
        .map(|_| (random.below(2_000_000) as f32 - 1e6) / 7e4)
        .collect();
    // binary16 has 11 significant bits and rounds by half a step; one byte has
    // 255 steps over the chunk's range.
    let span = 2e6 / 7e4;
    for (coding, bound) in [
        (Coding::F16, 16.0 / 4096.0),
        (Coding::U8, span / 255.0 / 2.0 * 1.0001),
    ] {
        let mut writer = FeatureWriter::new(4, 2, 384, &values, coding).unwrap();
        let mut assembler = FeatureAssembler::<{ 7 * 384 }>::new();
        let mut scratch = [0; MAX_DATA];
        let mut last = Progress::Partial;
        let mut entries = 0;
        while let Some(block) = writer.next_chunk(&mut scratch) {
            for (vector, channel, value) in block.entries().unwrap() {
                let sent = values[vector as usize * 384 + usize::from(channel)];
                assert!((value - sent).abs() <= bound);
                entries += 1;
            }
            last = assembler.push(&block).unwrap();
        }
        assert_eq!((last, entries), (Progress::Complete, values.len()));
        let found = assembler.features().unwrap();
        assert_eq!((found.vectors, found.channels, found.frame), (7, 384, 4));
        let worst = found
            .values
            .iter()
            .zip(&values)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        std::println!("{coding:?}: worst error {worst:e}, bound {bound:e}");
        assert!(worst <= bound);
    }
}

#[test]
fn a_block_that_contradicts_itself_is_refused() {
    let block = |first, channels, values| Features {
        frame: 0,
        slot: 0,
        channels,
        vectors: 2,
        first,
        values,
    };
    let half = |data| Values::F16(Bytes::new(data).unwrap());
    let byte = |scale, offset| Values::U8 {
        scale,
        offset,
        data: Bytes::new(&[1, 2]).unwrap(),
    };
    let mut assembler = FeatureAssembler::<8>::new();
    for bad in [
        block(0, 4, half(&[1, 2, 3])),
        block(7, 4, half(&[1, 2, 3, 4])),
        block(u32::MAX, u16::MAX, byte(1.0, 0.0)),
        block(0, 0, byte(1.0, 0.0)),
        block(0, 4, byte(f32::NAN, 0.0)),
        block(0, 4, byte(1.0, f32::INFINITY)),
        block(0, 5, byte(1.0, 0.0)),
    ] {
        assert!(assembler.push(&bad).is_err(), "{bad:?}");
    }
    assert!(assembler.features().is_none());
    assert!(assembler.push(&block(6, 4, byte(1.0, 0.0))).is_ok());
}
