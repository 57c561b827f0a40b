//! Encodes and decodes a 224x224 class map.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loftup_wire::{
    Decoder, Encoder, MAX_FRAME, Message,
    assemble::{MapAssembler, Progress},
    faults::Random,
    message::MAX_DATA,
    runs::MapWriter,
};

const SIDE: u16 = 224;
const PIXELS: usize = 224 * 224;

/// Vertical stripes of `width` pixels, shifted by a few in every row.
fn stripes(width: u32) -> Vec<u8> {
    let mut random = Random::new(224);
    let mut map = Vec::with_capacity(PIXELS);
    for _ in 0..SIDE {
        let shift = random.below(4);
        map.extend((0..u32::from(SIDE)).map(|x| ((x + shift) / width % 11) as u8));
    }
    map
}

fn encode(map: &[u8], line: &mut Vec<u8>) {
    line.clear();
    let mut encoder = Encoder::new();
    let (mut scratch, mut buffer) = ([0; MAX_DATA], [0; MAX_FRAME]);
    let mut writer = MapWriter::new(0, 0, SIDE, SIDE, map).expect("a map");
    while let Some(chunk) = writer.next_chunk(&mut scratch) {
        let frame = encoder.encode(&chunk.into(), &mut buffer);
        line.extend_from_slice(frame.expect("room for a frame"));
    }
}

fn wire(c: &mut Criterion) {
    for (name, map) in [("regions", stripes(20)), ("noise", stripes(1))] {
        let mut line = Vec::new();
        encode(&map, &mut line);
        let mut group = c.benchmark_group(format!("class map of {name}"));
        group.throughput(Throughput::Bytes(line.len() as u64));
        group.bench_function("encode", |b| {
            let mut line = Vec::new();
            b.iter(|| encode(black_box(&map), &mut line));
        });
        let mut assembler = Box::new(MapAssembler::<PIXELS>::new());
        group.bench_function("decode and assemble", |b| {
            b.iter(|| {
                *assembler = MapAssembler::new();
                let mut decoder: Decoder = Decoder::new();
                let mut last = Progress::Partial;
                decoder.push_slice(black_box(&line), |found| {
                    let found = found.expect("an intact frame");
                    if let Ok(Message::MapChunk(chunk)) = found.message() {
                        last = assembler.push(&chunk).expect("a chunk of the map");
                    }
                });
                assert_eq!(last, Progress::Complete);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, wire);
criterion_main!(benches);
