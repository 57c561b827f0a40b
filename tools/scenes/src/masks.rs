//! Instance masks of a frame, in the JSON format of the SA-1B dataset.
//!
//! Masks are run-length encoded as in COCO: pixels in column-major order, alternating runs of 0 and 1,
//! starting with 0. In the compressed form a length is written in groups of five bits, least
//! significant first, as characters from `0`; bit 5 means that more groups follow, and bit 4 of the last
//! group is the sign. From the fourth length on, the difference to the length two before is written.

use std::{collections::BTreeMap, fmt::Write};

use crate::frame::Frame;

/// The visible part of one instance.
struct Mask {
    /// Run lengths, starting with a run of 0.
    runs: Vec<i64>,
    area: usize,
    /// Bounding box: first column and row, last column and row.
    bounds: [usize; 4],
    /// One past its last pixel, in column-major order.
    end: usize,
}

impl Frame {
    /// Masks of all visible instances, largest first, as the JSON that accompanies the image
    /// `file_name`.
    pub fn masks_json(&self, file_name: &str) -> String {
        let mut masks: BTreeMap<u16, Mask> = BTreeMap::new();
        for x in 0..self.width {
            for y in 0..self.height {
                let place = x * self.height + y;
                let mask = masks
                    .entry(self.instances[y * self.width + x])
                    .or_insert(Mask {
                        runs: Vec::new(),
                        area: 0,
                        bounds: [x, y, x, y],
                        end: 0,
                    });
                match mask.runs.last_mut() {
                    Some(run) if mask.end == place => *run += 1,
                    _ => mask.runs.extend([(place - mask.end) as i64, 1]),
                }
                mask.end = place + 1;
                mask.area += 1;
                let [left, top, right, bottom] = mask.bounds;
                mask.bounds = [left.min(x), top.min(y), right.max(x), bottom.max(y)];
            }
        }
        let mut masks: Vec<(u16, Mask)> = masks.into_iter().collect();
        masks.sort_by_key(|(_, mask)| std::cmp::Reverse(mask.area));
        let (w, h) = (self.width, self.height);
        let mut json = format!(
            "{{\"image\":{{\"width\":{w},\"height\":{h},\"file_name\":{}}},\"annotations\":[",
            quoted(file_name)
        );
        for (i, (id, mut mask)) in masks.into_iter().enumerate() {
            let rest = w * h - mask.end;
            if rest > 0 {
                mask.runs.push(rest as i64);
            }
            let [left, top, right, bottom] = mask.bounds;
            let comma = if i == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            let _ = write!(
                json,
                "{comma}\n{{\"id\":{id},\"area\":{},\"bbox\":[{left},{top},{},{}],\"segmentation\":{{\"size\":[{h},{w}],\"counts\":{}}}}}",
                mask.area,
                right - left + 1,
                bottom - top + 1,
                quoted(&compressed(&mask.runs))
            );
        }
        json + "]}\n"
    }
}

/// The compressed form of run lengths.
fn compressed(runs: &[i64]) -> String {
    let mut text = String::new();
    for (i, &run) in runs.iter().enumerate() {
        let mut x = if i > 2 { run - runs[i - 2] } else { run };
        loop {
            let group = (x & 31) as u8;
            x >>= 5;
            // Done if only copies of the sign are left.
            let done = x == if group & 16 == 0 { 0 } else { -1 };
            text.push(char::from(48 + (group | if done { 0 } else { 32 })));
            if done {
                break;
            }
        }
    }
    text
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_written_as_coco_does() {
        // Computed by hand: 5 is 5 -> '5'; 20 is 20 with bit 4, so one more group: 52 ->  'd', then 0 -> '0';
        // 3 -> '3'; 10 - 20 = -10: 22 -> 'F'.
        assert_eq!(compressed(&[5, 20, 3, 10]), "5d03F");
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\\b\"\n"), "\"a\\\\b\\\"\\u000a\"");
    }
}
