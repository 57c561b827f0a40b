//! Masks of all things in a frame, in the JSON that the SA-1B data set has beside each picture.
//!
//! Each mask is run-length encoded as COCO does it: pixels go down the columns, runs of 0 and of
//! 1 in turn, beginning with 0. In the compressed form a length is written in groups of five bits,
//! least first, as characters from `0` on; bit 5 says that more follow, bit 4 of the last one is
//! the sign. From the fourth length on it is the difference to the length before the last.

use std::{collections::BTreeMap, fmt::Write};

use crate::Frame;

/// One thing as it is seen.
struct Mask {
    /// Lengths of runs, of 0 first.
    runs: Vec<i64>,
    area: usize,
    /// First column and row, last column and row.
    bounds: [usize; 4],
    /// Behind its last pixel, counted down the columns.
    end: usize,
}

impl Frame {
    /// Masks of all things in sight, large ones first, as the JSON that belongs beside a picture
    /// called `file_name`.
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
            // Done where all that is left is copies of the sign.
            let done = x == if group & 16 == 0 { 0 } else { -1 };
            text.push(char::from(48 + (group | if done { 0 } else { 32 })));
            if done {
                break;
            }
        }
    }
    text
}

/// A string in JSON.
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
        // By hand: 5 is 5 -> '5'; 20 is 20 with bit 4, so one more group: 52 ->  'd', then 0 -> '0';
        // 3 -> '3'; 10 - 20 = -10: 22 -> 'F'.
        assert_eq!(compressed(&[5, 20, 3, 10]), "5d03F");
    }

    #[test]
    fn strings_are_escaped() {
        assert_eq!(quoted("a\\b\"\n"), "\"a\\\\b\\\"\\u000a\"");
    }
}
