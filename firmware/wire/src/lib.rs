//! The protocol between the perception node and its clients: a microcontroller on
//! a serial line, or a program at the other end of a socket. No `std`, no
//! allocation, no panic on any input.
//!
//! | layer | items |
//! |---|---|
//! | messages, borrowed from the frame | [`Message`], [`message`], [`command`], [`health`] |
//! | encoding | postcard 1.x |
//! | framing: sequence number, kind, CRC-32, COBS, `0x00` | [`Encoder`], [`Decoder`] |
//! | class maps, depth maps and feature vectors larger than a frame | [`runs`], [`depth`], [`features`], [`assemble`] |
//! | masks of objects in commands | [`mask`] |
//! | handshake, clock synchronization, commands with retransmission | [`Handshake`], [`sync`], [`request`] |
//! | fault injection for tests | [`faults`] |
//!
//! `docs/wire-format.md` describes the format byte by byte; golden bytes in the
//! tests freeze it.
//!
//! ```
//! use loftup_wire::{Decoder, Encoder, MAX_FRAME, Message};
//! use loftup_wire::message::TimeRequest;
//!
//! let mut buffer = [0; MAX_FRAME];
//! let frame = Encoder::new().encode(&TimeRequest { sent_us: 7 }.into(), &mut buffer)?;
//!
//! let mut decoder: Decoder = Decoder::new();
//! let (_, found) = decoder.feed(frame);
//! let message = found.unwrap().unwrap().message()?;
//! assert_eq!(message, Message::TimeRequest(TimeRequest { sent_us: 7 }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![no_std]

pub mod assemble;
mod bounded;
mod chunk;
pub mod command;
mod decode;
pub mod depth;
mod encode;
mod error;
pub mod faults;
pub mod features;
mod geometry;
mod handshake;
pub mod health;
pub mod mask;
pub mod message;
pub mod request;
pub mod runs;
pub mod schema;
pub mod sync;
mod varint;

pub use bounded::{Bytes, Text, TooLong};
pub use decode::{Counters, Decoder, Frame};
pub use encode::Encoder;
pub use error::{ContentError, DecodeError, EncodeError, Incompatible};
pub use handshake::Handshake;
pub use message::{Message, SCHEMA_HASH};

/// Version of everything that [`SCHEMA_HASH`] does not cover: frame layout,
/// checksum, codes of maps and masks, and the rules of the exchange.
pub const PROTOCOL: u16 = 2;

/// Maximum size of a message body, in bytes.
pub const MAX_BODY: usize = 512;

/// Every side accepts bodies of at least this many bytes. All messages from the
/// node are shorter, except [`MapChunk`](message::MapChunk),
/// [`DepthChunk`](message::DepthChunk), [`Features`](features::Features) and
/// [`Regions`](message::Regions), which can be split.
pub const MIN_BODY: usize = 128;

/// Bytes before the body: sequence number (2) and kind (1).
pub const HEADER: usize = 3;

/// Bytes after the body: CRC-32.
pub const TRAILER: usize = 4;

/// Maximum size of a packet, a frame before byte stuffing, in bytes.
pub const MAX_PACKET: usize = HEADER + MAX_BODY + TRAILER;

/// Maximum size of a frame in bytes: a packet, one byte of stuffing for each 254
/// bytes begun, and the delimiter.
pub const MAX_FRAME: usize = MAX_PACKET + MAX_PACKET.div_ceil(254) + 1;

/// The byte that ends a frame and occurs nowhere inside it.
pub const DELIMITER: u8 = 0;

pub(crate) static CRC: crc::Crc<u32, crc::Table<1>> =
    crc::Crc::<u32, crc::Table<1>>::new(&crc::CRC_32_ISO_HDLC);
