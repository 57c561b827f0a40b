//! CDR, the encoding of ROS 2 messages: little-endian, without options.
//!
//! Alignment is relative to the end of the encapsulation header.

/// CDR, little-endian, no options.
const ENCAPSULATION: [u8; 4] = [0, 1, 0, 0];

/// Padding that other encoders may write after the last field.
const MAX_PADDING: usize = 3;

/// A `std_msgs/msg/Header`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// Nanoseconds since 1970-01-01 UTC.
    pub stamp_ns: u64,
    /// Frame of reference.
    pub frame_id: &'a str,
}

/// Encodes a message.
#[derive(Debug)]
pub(super) struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Replaces the contents of `out`.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        out.clear();
        out.extend_from_slice(&ENCAPSULATION);
        Self(out)
    }

    fn align(&mut self, to: usize) {
        let at = self.0.len() - ENCAPSULATION.len();
        self.0
            .resize(self.0.len() + at.next_multiple_of(to) - at, 0);
    }

    pub(super) fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.align(N);
        self.0.extend_from_slice(&bytes);
    }

    /// Writes a 32-bit length or count.
    pub(super) fn count(&mut self, n: usize) {
        // Larger images are rejected earlier.
        self.put(u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
    }

    pub(super) fn floats<const N: usize>(&mut self, values: [f64; N]) {
        values.iter().for_each(|x| self.put(x.to_le_bytes()));
    }

    /// Writes a string with a terminating zero.
    pub(super) fn text(&mut self, text: &str) {
        self.count(text.len() + 1);
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    /// Writes a sequence of bytes.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// Writes a sequence of `count` bytes, the concatenated items.
    pub(super) fn items<const N: usize>(
        &mut self,
        count: usize,
        items: impl Iterator<Item = [u8; N]>,
    ) {
        self.count(count);
        self.0.extend(items.flatten());
    }

    pub(super) fn header(&mut self, header: Header<'_>) {
        let seconds = i32::try_from(header.stamp_ns / 1_000_000_000).unwrap_or(i32::MAX);
        self.put(seconds.to_le_bytes());
        self.count((header.stamp_ns % 1_000_000_000) as usize);
        self.text(header.frame_id);
    }
}

/// Why bytes cannot be decoded as a message. The text is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CdrError {
    /// The encapsulation header is not supported.
    #[error("not a message in little-endian CDR: it starts with the bytes {0:02x?}")]
    Encapsulation([u8; 2]),
    /// The message ends too early.
    #[error("the message ends in {field}: it needs {needed} more bytes, and there are {left}")]
    Truncated {
        /// The field.
        field: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that are left.
        left: usize,
    },
    /// A string is not UTF-8, or has no terminating zero.
    #[error("{field} is not a string in UTF-8 with a terminating zero")]
    Text {
        /// The field.
        field: &'static str,
    },
    /// The time stamp is not a time after 1970.
    #[error("the stamp {seconds} s, {nanoseconds} ns is not a time since 1970")]
    Stamp {
        /// Its seconds.
        seconds: i32,
        /// Its nanoseconds.
        nanoseconds: u32,
    },
    /// There are bytes after the last field.
    #[error("{0} bytes after the last field: the message is of another type")]
    Surplus(usize),
}

/// Decodes a message without copying.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, CdrError> {
        match bytes.split_at_checked(ENCAPSULATION.len()) {
            // The options may state the padding at the end.
            Some(([0, 1, _, _], body)) => Ok(Self { body, at: 0 }),
            Some(([a, b, _, _], _)) => Err(CdrError::Encapsulation([*a, *b])),
            _ => Err(CdrError::Truncated {
                field: "the encapsulation header",
                needed: ENCAPSULATION.len(),
                left: bytes.len(),
            }),
        }
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], CdrError> {
        let rest = self.body.get(self.at..).unwrap_or_default();
        let Some(bytes) = rest.get(..count) else {
            return Err(CdrError::Truncated {
                field,
                needed: count,
                left: rest.len(),
            });
        };
        self.at += count;
        Ok(bytes)
    }

    fn word(&mut self, field: &'static str) -> Result<[u8; 4], CdrError> {
        self.at = self.at.next_multiple_of(4);
        let bytes = self.take(4, field)?;
        Ok(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// The bytes of a 64-bit number.
    pub(super) fn wide(&mut self, field: &'static str) -> Result<[u8; 8], CdrError> {
        self.at = self.at.next_multiple_of(8);
        let bytes = self.take(8, field)?;
        Ok(bytes.first_chunk().copied().unwrap_or_default())
    }

    /// A 32-bit number, which fits into `usize` on all machines with images.
    pub(super) fn number(&mut self, field: &'static str) -> Result<usize, CdrError> {
        Ok(u32::from_le_bytes(self.word(field)?) as usize)
    }

    pub(super) fn byte(&mut self, field: &'static str) -> Result<u8, CdrError> {
        Ok(self.take(1, field)?[0])
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], CdrError> {
        let length = self.number(field)?;
        self.take(length, field)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, CdrError> {
        let bytes = self.bytes(field)?;
        let text = match bytes.split_last() {
            Some((0, text)) => std::str::from_utf8(text).ok(),
            // Some encoders write an empty string like this.
            None => Some(""),
            _ => None,
        };
        text.filter(|text| !text.contains('\0'))
            .ok_or(CdrError::Text { field })
    }

    pub(super) fn header(&mut self) -> Result<Header<'a>, CdrError> {
        let seconds = i32::from_le_bytes(self.word("header.stamp.sec")?);
        let nanoseconds = u32::from_le_bytes(self.word("header.stamp.nanosec")?);
        let frame_id = self.text("header.frame_id")?;
        match u64::try_from(seconds) {
            Ok(whole) if nanoseconds < 1_000_000_000 => Ok(Header {
                stamp_ns: 1_000_000_000 * whole + u64::from(nanoseconds),
                frame_id,
            }),
            _ => Err(CdrError::Stamp {
                seconds,
                nanoseconds,
            }),
        }
    }

    /// Checks that the message ends here.
    pub(super) fn end(&self) -> Result<(), CdrError> {
        match self.body.len() - self.at {
            0..=MAX_PADDING => Ok(()),
            surplus => Err(CdrError::Surplus(surplus)),
        }
    }
}
