//! Varints below 2^32 inside the codes of maps and masks: seven bits per byte, low bits first.

use crate::error::ContentError;

/// Longest varint, in bytes.
pub const MAX_BYTES: usize = 5;

/// Reads a varint at `at`, which advances past it.
pub fn read(code: &[u8], at: &mut usize) -> Result<u32, ContentError> {
    let start = *at;
    let mut value: u64 = 0;
    for shift in [0, 7, 14, 21, 28] {
        let byte = code.get(*at).copied();
        let byte = byte.ok_or(ContentError::Code { at: *at })?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return u32::try_from(value).map_err(|_| ContentError::Code { at: start });
        }
    }
    Err(ContentError::Code { at: start })
}

/// Writes `value`, which is below 2^32, to the start of `out`; returns its length.
pub fn write<const N: usize>(mut value: usize, out: &mut [u8; N]) -> usize {
    const { assert!(N >= MAX_BYTES) };
    let mut length = 0;
    while value >= 0x80 && length + 1 < MAX_BYTES {
        out[length] = (value & 0x7F) as u8 | 0x80;
        value >>= 7;
        length += 1;
    }
    out[length] = value as u8;
    length + 1
}
