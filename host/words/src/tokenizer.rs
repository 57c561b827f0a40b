//! CLIP's tokenizer: byte pair encoding of lower-case words.
//!
//! The original first repairs the text with ftfy. Here, only quotes are straightened and control
//! characters removed; broken encodings (mojibake), ligatures, full-width letters and decomposed accents
//! are unchanged.

use std::{borrow::Cow, collections::HashMap, io::Read};

use flate2::read::GzDecoder;
use unicode_general_category::{GeneralCategory, get_general_category};

/// A header and the merges, most frequent first.
const MERGES: &[u8] = include_bytes!("../../../models/clip/bpe_merges.txt.gz");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Endings that are separate words. The first match is used.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
/// Number of tokens for single bytes: within a word, and at its end.
const BYTES: u32 = 512;

/// CLIP's tokenizer, with its vocabulary of 49,408 tokens.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// The index of each pair of tokens in the merges. The merged token is the index plus [`BYTES`].
    ranks: HashMap<(u32, u32), u32>,
}

impl Tokenizer {
    /// The tokenizer of all CLIP models of OpenAI and open_clip.
    pub fn clip() -> Self {
        let mut text = String::new();
        GzDecoder::new(MERGES)
            .read_to_string(&mut text)
            .expect("the built-in vocabulary is complete");
        let mut tokens: HashMap<Cow<'_, str>, u32> = HashMap::new();
        for (byte, letter) in byte_letters() {
            tokens.insert(letter.to_string().into(), byte);
            tokens.insert(format!("{letter}</w>").into(), byte + 256);
        }
        let mut ranks = HashMap::new();
        for (rank, line) in (0u32..).zip(text.lines().skip(1)) {
            let (a, b) = line.split_once(' ').expect("a merge has two tokens");
            ranks.insert((tokens[a], tokens[b]), rank);
            tokens.insert(format!("{a}{b}").into(), BYTES + rank);
        }
        Self { ranks }
    }

    /// The token before a text.
    pub fn start(&self) -> u32 {
        BYTES + self.ranks.len() as u32
    }

    /// The token after a text.
    pub fn end(&self) -> u32 {
        self.start() + 1
    }

    /// Returns the tokens of a text, including start and end token.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let text = cleaned(text);
        let mut ids = vec![self.start()];
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let length = word_length(rest, first);
            let (word, tail) = rest.split_at(length);
            match word {
                START => ids.push(self.start()),
                END => ids.push(self.end()),
                _ if first.is_whitespace() => {}
                _ => self.word(word, &mut ids),
            }
            rest = tail;
        }
        ids.push(self.end());
        ids
    }

    /// Appends the tokens of one word: its bytes, merged pair by pair, the most frequent pair first.
    fn word(&self, word: &str, ids: &mut Vec<u32>) {
        let mut tokens: Vec<u32> = word.bytes().map(byte_token).collect();
        if let Some(last) = tokens.last_mut() {
            *last += 256;
        }
        loop {
            let pairs = tokens.windows(2).map(|pair| (pair[0], pair[1]));
            let ranked = pairs.filter_map(|pair| Some((*self.ranks.get(&pair)?, pair)));
            let Some((rank, (a, b))) = ranked.min() else {
                break;
            };
            let mut merged = Vec::with_capacity(tokens.len());
            let mut i = 0;
            while i < tokens.len() {
                let here = tokens[i] == a && tokens.get(i + 1) == Some(&b);
                merged.push(if here { BYTES + rank } else { tokens[i] });
                i += if here { 2 } else { 1 };
            }
            tokens = merged;
        }
        ids.extend(tokens);
    }
}

/// Cleans a text: straight quotes, no control characters, HTML entities decoded as many times as in the
/// original, white space collapsed, lower case.
fn cleaned(text: &str) -> String {
    let straight = |c: char| match c {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => '\'',
        '\u{201c}'..='\u{201f}' => '"',
        c => c,
    };
    let kept = text
        .chars()
        .filter(|c| c.is_whitespace() || !c.is_control());
    let text: String = kept.map(straight).collect();
    let once = html_escape::decode_html_entities(&text);
    let twice = html_escape::decode_html_entities(&once);
    let words: Vec<&str> = twice.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// Returns the length in bytes of the first word of `text`: a special token, a contraction, letters, one
/// digit, or other characters.
fn word_length(text: &str, first: char) -> usize {
    let whole = [START, END].into_iter().chain(CONTRACTIONS);
    if let Some(whole) = whole.into_iter().find(|whole| text.starts_with(whole)) {
        return whole.len();
    }
    let run = |same: fn(char) -> bool| text.find(|c| !same(c)).unwrap_or(text.len());
    match first {
        c if is_letter(c) => run(is_letter),
        c if c.is_numeric() || c.is_whitespace() => c.len_utf8(),
        _ => run(|c| !is_letter(c) && !c.is_numeric() && !c.is_whitespace()),
    }
}

fn is_letter(c: char) -> bool {
    use GeneralCategory as G;
    matches!(
        get_general_category(c),
        G::UppercaseLetter
            | G::LowercaseLetter
            | G::TitlecaseLetter
            | G::ModifierLetter
            | G::OtherLetter
    )
}

/// Whether a byte represents itself in the vocabulary; others are represented by letters from U+0100.
fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..)
}

/// The token of a byte: printable ones come first.
fn byte_token(byte: u8) -> u32 {
    let before = (0..byte).filter(|b| is_printable(*b)).count() as u32;
    match is_printable(byte) {
        true => before,
        false => {
            let printable = (0..=u8::MAX).filter(|b| is_printable(*b)).count() as u32;
            printable + u32::from(byte) - before
        }
    }
}

/// Iterates over the tokens of all bytes, with the letters that represent them in the vocabulary.
fn byte_letters() -> impl Iterator<Item = (u32, char)> {
    let mut next = 0x100;
    (0..=u8::MAX).map(move |byte| {
        let letter = match is_printable(byte) {
            true => char::from(byte),
            false => {
                next += 1;
                char::from_u32(next - 1).expect("below U+0200")
            }
        };
        (byte_token(byte), letter)
    })
}
