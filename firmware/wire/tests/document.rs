//! Checks that `docs/wire-format.md` matches the code.

mod common;

use std::fs;
use std::path::Path;

use common::samples;
use loftup_wire::command::{MAX_MASK, MAX_POINTS};
use loftup_wire::depth::DepthWriter;
use loftup_wire::message::{MAX_DATA, MAX_REGIONS};
use loftup_wire::runs::MapWriter;
use loftup_wire::{
    Decoder, Encoder, MAX_BODY, MAX_FRAME, MAX_PACKET, Message, PROTOCOL, SCHEMA_HASH,
};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/wire-format.md");
    fs::read_to_string(path).expect("docs/wire-format.md")
}

/// The hexadecimal bytes of a code block: on each line, those before the first
/// double space.
fn block(document: &str, name: &str) -> Vec<u8> {
    let (_, rest) = document
        .split_once(&format!("```{name}\n"))
        .expect("the block");
    let (block, _) = rest.split_once("```").expect("its end");
    block
        .lines()
        .flat_map(|line| line.split("  ").next().unwrap_or_default().split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hexadecimal digits"))
        .collect()
}

#[test]
fn the_example_is_a_real_frame() {
    let document = document();
    let (packet, frame) = (block(&document, "packet"), block(&document, "frame"));
    let (_, chunk) = samples()
        .into_iter()
        .find(|(name, _)| *name == "chunk")
        .unwrap();
    let body = common::body(&chunk);
    assert_eq!(packet, common::packet(5, 0x12, &body));
    assert_eq!(frame, common::stuff(&packet));
    let mut encoder = Encoder::new();
    let mut buffer = [0; MAX_FRAME];
    for _ in 0..5 {
        encoder.encode(&chunk, &mut buffer).unwrap();
    }
    assert_eq!(encoder.encode(&chunk, &mut buffer).unwrap(), frame);
    let mut decoder: Decoder = Decoder::new();
    let found = decoder.feed(&frame).1.unwrap().unwrap();
    assert_eq!(found.message(), Ok(chunk));
    let Ok(Message::MapChunk(chunk)) = found.message() else {
        panic!("no chunk");
    };
    let runs: Vec<_> = chunk
        .runs()
        .unwrap()
        .map(|run| (run.length, run.class))
        .collect();
    assert_eq!(runs, [(18, 5), (1, 1), (1, 0), (1, 255)]);
}

#[test]
fn numbers_and_kinds_stand_in_the_document_as_they_are() {
    let document = document();
    let has = |text: String| assert!(document.contains(&text), "missing in the document: {text}");
    has(format!(
        "Protocol **{PROTOCOL}**, schema hash **{SCHEMA_HASH:#018x}**"
    ));
    has(format!("postcard's encoding        up to {MAX_BODY} bytes"));
    has(format!("message, CRC-32     up to {MAX_PACKET} bytes"));
    has(format!(
        "then one zero byte         up to {MAX_FRAME} bytes"
    ));
    has(format!("| runs | bytes({MAX_DATA}) |"));
    has(format!("list(Region, {MAX_REGIONS})"));
    has(format!("| code | bytes({MAX_DATA}) |"));
    has(format!("runs bytes({MAX_MASK})"));
    has(format!("list(Point, {MAX_POINTS})"));
    for kind in Message::KINDS {
        let row = document
            .lines()
            .find(|line| line.starts_with(&format!("| {:#04x} | {} |", kind.kind, kind.name)))
            .unwrap_or_else(|| panic!("no table row for {}", kind.name));
        assert!(row.ends_with(&format!("| {} |", kind.max_size)), "{row}");
        // Every message has a section, alone or together with another.
        let titled = document
            .lines()
            .any(|line| line.starts_with("### ") && line.contains(kind.name));
        assert!(titled, "no section on {}", kind.name);
    }
    assert_eq!(common::crc32(b"123456789"), 0xCBF4_3926);
}

#[test]
fn the_sizes_of_the_largest_maps_are_as_stated() {
    let document = document();
    let noise: Vec<u8> = (0..448 * 448).map(|i: u32| (i % 251) as u8).collect();
    for (map, stated) in [
        (&noise, "212445 bytes in 420 frames"),
        (&vec![0; 448 * 448], "28 bytes in 1 frame"),
    ] {
        let mut writer = MapWriter::new(u32::MAX, 0, 448, 448, map).unwrap();
        let (mut scratch, mut buffer) = ([0; MAX_DATA], [0; MAX_FRAME]);
        let (mut bytes, mut frames) = (0, 0);
        let mut encoder = Encoder::new();
        while let Some(chunk) = writer.next_chunk(&mut scratch) {
            bytes += encoder.encode(&chunk.into(), &mut buffer).unwrap().len();
            frames += 1;
        }
        let found = format!("{bytes} bytes in {frames} frame");
        assert!(stated.starts_with(&found), "{found}");
        let document = document.replace('\n', " ");
        assert!(
            document.contains(stated),
            "missing in the document: {stated}"
        );
    }
}

#[test]
fn the_sizes_of_the_largest_depth_maps_are_as_stated() {
    let document = document().replace('\n', " ");
    let (width, height) = (224u16, 168u16);
    let pixels = 0..u32::from(width) * u32::from(height);
    let noise: Vec<u16> = pixels.clone().map(|i| (i % 2 * 32_768) as u16).collect();
    // Up and down by 63 mm, between 1.0 and 1.1 m.
    let surface: Vec<u16> = pixels.map(|i| 1_000 + (i % 2 * 63) as u16).collect();
    for map in [&noise, &surface] {
        let mut writer = DepthWriter::new(u32::MAX, 0, width, height, map).unwrap();
        let (mut scratch, mut buffer) = ([0; MAX_DATA], [0; MAX_FRAME]);
        let (mut bytes, mut frames) = (0, 0);
        let mut encoder = Encoder::new();
        while let Some(chunk) = writer.next_chunk(&mut scratch) {
            bytes += encoder.encode(&chunk.into(), &mut buffer).unwrap().len();
            frames += 1;
        }
        let found = format!("{bytes} bytes in {frames} frames");
        assert!(
            document.contains(&found),
            "missing in the document: {found}"
        );
    }
}
