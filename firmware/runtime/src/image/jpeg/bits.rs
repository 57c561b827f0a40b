//! Huffman tables and the bits of entropy-coded data.

/// Bits decoded by table lookup. Longer codes are rare and are searched for.
const LOOKUP_BITS: u32 = 10;

/// A Huffman table, as defined by a DHT segment.
pub(super) struct Table {
    /// By the next [`LOOKUP_BITS`] bits: length of the code << 8 | its symbol, or 0.
    lookup: Box<[u16; 1 << LOOKUP_BITS]>,
    /// By length: the first 16-bit prefix past the codes of this length.
    limits: [u32; 17],
    /// By length: the offset from a code to the index of its symbol.
    offsets: [i32; 17],
    symbols: Vec<u8>,
}

impl Table {
    /// Creates a table from the number of codes of each length from 1 to 16, and their symbols in order.
    /// `None` if the codes do not fit in their lengths.
    pub fn new(counts: &[u8; 16], symbols: &[u8]) -> Option<Self> {
        let mut table = Self {
            lookup: Box::new([0; 1 << LOOKUP_BITS]),
            limits: [0; 17],
            offsets: [0; 17],
            symbols: symbols.to_vec(),
        };
        let (mut code, mut index) = (0u32, 0usize);
        for (length, &count) in (1u32..).zip(counts) {
            table.offsets[length as usize] = index as i32 - code as i32;
            for _ in 0..count {
                let symbol = *symbols.get(index)?;
                if length <= LOOKUP_BITS {
                    let first = (code << (LOOKUP_BITS - length)) as usize;
                    let entries = table.lookup.get_mut(first..)?;
                    let entries = entries.get_mut(..1 << (LOOKUP_BITS - length))?;
                    entries.fill((length as u16) << 8 | u16::from(symbol));
                }
                code += 1;
                index += 1;
            }
            if code > 1 << length {
                return None;
            }
            table.limits[length as usize] = code << (16 - length);
            code <<= 1;
        }
        Some(table)
    }

    /// Length and symbol of the code at the start of 16 bits.
    #[inline]
    fn find(&self, prefix: u32) -> Option<(u32, u8)> {
        let entry = self.lookup[(prefix >> (16 - LOOKUP_BITS)) as usize];
        if entry != 0 {
            return Some((u32::from(entry >> 8), entry as u8));
        }
        (LOOKUP_BITS + 1..=16).find_map(|length| {
            if prefix >= self.limits[length as usize] {
                return None;
            }
            let index = (prefix >> (16 - length)) as i32 + self.offsets[length as usize];
            let symbol = self.symbols.get(usize::try_from(index).ok()?)?;
            Some((length, *symbol))
        })
    }
}

/// Why entropy-coded data cannot be decoded further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// The data end too early, at a marker or at the end of the file.
    Ended,
    /// The data are invalid.
    Invalid(&'static str),
}

/// Reads the bits of one segment of entropy-coded data, up to a marker.
pub(super) struct Bits<'a> {
    bytes: &'a [u8],
    /// Position of the next byte.
    at: usize,
    /// The next bits, starting at the most significant one.
    buffer: u64,
    /// Number of valid bits.
    count: u32,
}

impl<'a> Bits<'a> {
    pub fn new(bytes: &'a [u8], at: usize) -> Self {
        Self {
            bytes,
            at,
            buffer: 0,
            count: 0,
        }
    }

    /// Reads bytes until there are at least 32 bits, or up to a marker.
    #[inline]
    fn refill(&mut self) {
        if self.count >= 32 {
            return;
        }
        if let Some(Ok(next)) = self
            .bytes
            .get(self.at..self.at + 8)
            .map(<[u8; 8]>::try_from)
        {
            let word = u64::from_be_bytes(next);
            // No byte is 0xff: no byte of the complement is 0.
            let inverse = !word;
            let zeros = inverse.wrapping_sub(0x0101_0101_0101_0101) & word & 0x8080_8080_8080_8080;
            if zeros == 0 {
                let bytes = (64 - self.count) / 8;
                // Bits past the whole bytes are those of the byte that is read next.
                self.buffer |= word >> self.count;
                self.count += bytes * 8;
                self.at += bytes as usize;
                return;
            }
        }
        while self.count <= 56 {
            let byte = match self.bytes.get(self.at..) {
                Some([0xff, 0, ..]) => {
                    self.at += 2;
                    0xff
                }
                Some([byte, ..]) if *byte != 0xff => {
                    self.at += 1;
                    *byte
                }
                _ => return,
            };
            self.buffer |= u64::from(byte) << (56 - self.count);
            self.count += 8;
        }
    }

    #[inline]
    fn consume(&mut self, bits: u32) -> Result<(), Broken> {
        if bits > self.count {
            return Err(Broken::Ended);
        }
        self.buffer <<= bits;
        self.count -= bits;
        Ok(())
    }

    /// Skips any number of bits.
    pub fn skip(&mut self, mut bits: u32) -> Result<(), Broken> {
        while bits > 0 {
            self.refill();
            let part = bits.min(32);
            self.consume(part)?;
            bits -= part;
        }
        Ok(())
    }

    /// Reads a number of up to 16 bits.
    pub fn number(&mut self, bits: u32) -> Result<u32, Broken> {
        self.refill();
        let value = (self.buffer >> 32) as u32;
        self.consume(bits)?;
        Ok(if bits == 0 { 0 } else { value >> (32 - bits) })
    }

    /// Reads the next symbol and skips its extra bits, whose number is the low nibble, at most `most`.
    #[inline]
    pub fn coefficient(&mut self, table: &Table, most: u8) -> Result<u8, Broken> {
        self.refill();
        let (length, symbol) = self.find(table)?;
        let size = symbol & 15;
        if size > most {
            return Err(Broken::Invalid("a coefficient is out of range"));
        }
        self.consume(length + u32::from(size))?;
        Ok(symbol)
    }

    /// Reads the next symbol without its extra bits.
    pub fn symbol(&mut self, table: &Table) -> Result<u8, Broken> {
        self.refill();
        let (length, symbol) = self.find(table)?;
        self.consume(length)?;
        Ok(symbol)
    }

    #[inline]
    fn find(&self, table: &Table) -> Result<(u32, u8), Broken> {
        match table.find((self.buffer >> 48) as u32) {
            Some(found) => Ok(found),
            // Missing bits are undefined, so that the code may match or not.
            None if self.count < 16 => Err(Broken::Ended),
            None => Err(Broken::Invalid("a code is not in the Huffman table")),
        }
    }

    /// Ends the segment and returns the position of the marker that follows. The rest of the last
    /// byte and padding bytes of 0x00 or 0xff are ignored.
    ///
    /// # Errors
    /// Any other data remain.
    pub fn finish(mut self) -> Result<usize, Broken> {
        let partial = self.count % 8;
        self.buffer <<= partial;
        self.count -= partial;
        loop {
            self.refill();
            if self.count == 0 {
                return Ok(self.at);
            }
            if !matches!(self.buffer >> 56, 0 | 0xff) {
                return Err(Broken::Invalid("there is data after the last block"));
            }
            self.buffer <<= 8;
            self.count -= 8;
        }
    }
}
