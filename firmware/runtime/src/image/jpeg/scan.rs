//! One scan: its header and its entropy-coded data.

use super::{
    Tables,
    bits::{Bits, Broken, Table},
    frame::Frame,
    name, standard,
};

/// Maximum number of extra bits of a DC difference for 8-bit samples.
const DC_BITS: u8 = 11;
/// Maximum number of extra bits of an AC coefficient for 8-bit samples.
const AC_BITS: u8 = 10;

/// What a scan codes of each block.
#[derive(Clone, Copy)]
enum Kind {
    /// All coefficients.
    Sequential,
    /// The DC coefficient.
    Dc,
    /// One more bit of the DC coefficient.
    DcRefinement,
    /// Coefficients `first..=last`.
    Ac { first: u32, last: u32 },
    /// One more bit of the coefficients `first..=last`.
    AcRefinement { first: u32, last: u32 },
}

/// A component in a scan.
struct Part<'a> {
    component: usize,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

/// A scan to be checked.
pub(super) struct Scan<'a> {
    frame: &'a mut Frame,
    parts: Vec<Part<'a>>,
    kind: Kind,
    restart_interval: usize,
}

impl<'a> Scan<'a> {
    /// Parses a SOS segment.
    pub fn parse(segment: &[u8], frame: &'a mut Frame, tables: &'a Tables) -> Result<Self, String> {
        let damaged = || "a scan header is damaged".to_owned();
        let (&count, rest) = segment.split_first().ok_or_else(damaged)?;
        let (named, rest) = rest
            .split_at_checked(2 * usize::from(count))
            .ok_or_else(damaged)?;
        let &[first, last, approximation] = rest.first_chunk::<3>().ok_or_else(damaged)?;
        let (named, _) = named.as_chunks::<2>();
        if !(1..=4).contains(&named.len()) {
            return Err(damaged());
        }
        let (high, low) = (approximation >> 4, approximation & 15);
        let kind = if !frame.progressive {
            // The coefficient fields of the header have fixed values here, and are often wrong.
            Kind::Sequential
        } else {
            let band = (u32::from(first), u32::from(last));
            match (band, high) {
                ((0, 0), 0) => Kind::Dc,
                ((0, 0), _) => Kind::DcRefinement,
                ((1.., ..=63), _) if first > last || named.len() != 1 => return Err(damaged()),
                ((first @ 1.., last @ ..=63), 0) => Kind::Ac { first, last },
                ((first @ 1.., last @ ..=63), _) => Kind::AcRefinement { first, last },
                _ => return Err(damaged()),
            }
        };
        if frame.progressive && (low > 13 || high > 0 && high != low + 1) {
            return Err(damaged());
        }
        let mut parts: Vec<Part<'a>> = Vec::new();
        for [id, selectors] in named {
            let component = frame.find(*id).ok_or_else(damaged)?;
            match kind {
                Kind::Sequential => frame.note(component, 0..=63, None, 0)?,
                _ => frame.note(
                    component,
                    first.into()..=last.into(),
                    (high > 0).then_some(high),
                    low,
                )?,
            }
            let table = |tables: &'a [Option<Table>; 4],
                         standard: &'static [Option<Table>; 2],
                         selector: u8| {
                let selector = usize::from(selector);
                let own = tables.get(selector)?.as_ref();
                own.or_else(|| standard.get(selector)?.as_ref())
            };
            let standard = standard::tables();
            parts.push(Part {
                component,
                dc: table(&tables.dc, &standard.dc, selectors >> 4),
                ac: table(&tables.ac, &standard.ac, selectors & 15),
            });
        }
        Ok(Self {
            frame,
            parts,
            kind,
            restart_interval: tables.restart_interval,
        })
    }

    /// Checks the entropy-coded data from `at` on; returns the position of the marker that ends
    /// them.
    pub fn follow(mut self, bytes: &[u8], mut at: usize) -> Result<usize, String> {
        let alone = match &self.parts[..] {
            [part] => Some(self.frame.components[part.component].blocks),
            _ => None,
        };
        let (across, down) = alone.unwrap_or(self.frame.mcus);
        let total = across * down;
        let interval = match self.restart_interval {
            0 => total,
            interval => interval,
        };
        let mut restarts = 0u8;
        let mut done = 0;
        loop {
            let end = total.min(done + interval);
            let mut bits = Bits::new(bytes, at);
            let mut eob_run = 0;
            let result = (|| {
                while done < end {
                    self.mcu(done, across, alone.is_some(), &mut bits, &mut eob_run)?;
                    done += 1;
                }
                if eob_run > 0 {
                    return Err(Broken::Invalid("it has fewer blocks than stated"));
                }
                bits.finish()
            })();
            let so_far = || {
                let unit = if alone.is_some() { "blocks" } else { "MCUs" };
                format!("after {done} of {total} {unit}")
            };
            let found = |at| match super::next_marker(bytes, at) {
                Some((marker, _)) => format!("with {}", name(marker)),
                None => "the file is truncated".to_owned(),
            };
            at = result.map_err(|broken| match broken {
                Broken::Invalid(what) => format!("its data is damaged {}: {what}", so_far()),
                Broken::Ended => format!("its data ends {}, {}", so_far(), found(at)),
            })?;
            if done == total {
                return Ok(at);
            }
            at = match super::next_marker(bytes, at) {
                Some((marker, next)) if marker == 0xd0 + restarts => next,
                _ => {
                    return Err(format!(
                        "its data ends {} without restart marker {restarts}, {}",
                        so_far(),
                        found(at)
                    ));
                }
            };
            restarts = (restarts + 1) % 8;
        }
    }

    /// Checks the blocks of one MCU.
    #[inline]
    fn mcu(
        &mut self,
        index: usize,
        across: usize,
        alone: bool,
        bits: &mut Bits<'_>,
        eob_run: &mut u32,
    ) -> Result<(), Broken> {
        let (x, y) = (index % across, index / across);
        for part in &self.parts {
            let component = &mut self.frame.components[part.component];
            let (h, v) = component.sampling;
            if alone {
                let stride = self.frame.mcus.0 * h;
                let nonzero = component.nonzero.get_mut(y * stride + x);
                block(self.kind, part, bits, eob_run, nonzero)?;
                continue;
            }
            // Only scans with one component have AC coefficients to track.
            for _ in 0..h * v {
                block(self.kind, part, bits, eob_run, None)?;
            }
        }
        Ok(())
    }
}

const NO_TABLE: Broken = Broken::Invalid("a Huffman table is missing");

/// Skips the data of one block in a scan. `nonzero` tracks which of its coefficients are not 0.
#[inline]
fn block(
    kind: Kind,
    part: &Part<'_>,
    bits: &mut Bits<'_>,
    eob_run: &mut u32,
    nonzero: Option<&mut u64>,
) -> Result<(), Broken> {
    const NO_PLACE: Broken = Broken::Invalid("a block is outside the image");
    match kind {
        Kind::Sequential => {
            bits.coefficient(part.dc.ok_or(NO_TABLE)?, DC_BITS)?;
            sequential(part.ac.ok_or(NO_TABLE)?, bits)
        }
        Kind::Dc => bits
            .coefficient(part.dc.ok_or(NO_TABLE)?, DC_BITS)
            .map(|_| ()),
        Kind::DcRefinement => bits.skip(1),
        Kind::Ac { first, last } => {
            if *eob_run > 0 {
                *eob_run -= 1;
                return Ok(());
            }
            let nonzero = nonzero.ok_or(NO_PLACE)?;
            ac(
                part.ac.ok_or(NO_TABLE)?,
                (first, last),
                bits,
                eob_run,
                nonzero,
            )
        }
        Kind::AcRefinement { first, last } => {
            let nonzero = nonzero.ok_or(NO_PLACE)?;
            let table = part.ac.ok_or(NO_TABLE)?;
            refinement(table, (first, last), bits, eob_run, nonzero)
        }
    }
}

/// The error for a run of zeros past the end of the block.
const TOO_LONG: Broken = Broken::Invalid("a block has more than 64 coefficients");

/// Skips the AC coefficients of a sequential block.
#[inline]
fn sequential(table: &Table, bits: &mut Bits<'_>) -> Result<(), Broken> {
    let mut k = 1;
    while k < 64 {
        let symbol = bits.coefficient(table, AC_BITS)?;
        let run = u32::from(symbol >> 4);
        match (run, symbol & 15) {
            (0, 0) => return Ok(()),
            (15, 0) => k += 16,
            (_, 0) => return Err(Broken::Invalid("a code is undefined")),
            _ => k += run + 1,
        }
    }
    if k > 64 { Err(TOO_LONG) } else { Ok(()) }
}

/// Skips the first bits of the coefficients `first..=last` of a progressive block.
fn ac(
    table: &Table,
    (first, last): (u32, u32),
    bits: &mut Bits<'_>,
    eob_run: &mut u32,
    nonzero: &mut u64,
) -> Result<(), Broken> {
    let mut k = first;
    while k <= last {
        let symbol = bits.symbol(table)?;
        let (run, size) = (u32::from(symbol >> 4), symbol & 15);
        match (run, size) {
            (15, 0) => k += 16,
            (_, 0) => {
                // This block is the first of the run.
                *eob_run = (1 << run) - 1 + bits.number(run)?;
                return Ok(());
            }
            (_, size) if size > AC_BITS => {
                return Err(Broken::Invalid("a coefficient is out of range"));
            }
            _ => {
                k += run;
                if k > last {
                    return Err(TOO_LONG);
                }
                bits.skip(size.into())?;
                *nonzero |= 1 << k;
                k += 1;
            }
        }
    }
    if k > last + 1 { Err(TOO_LONG) } else { Ok(()) }
}

/// Skips one more bit of the coefficients `first..=last` of a progressive block: a correction bit
/// for those that are not 0; others may become 1 or -1.
fn refinement(
    table: &Table,
    (first, last): (u32, u32),
    bits: &mut Bits<'_>,
    eob_run: &mut u32,
    nonzero: &mut u64,
) -> Result<(), Broken> {
    let mut k = first;
    if *eob_run == 0 {
        while k <= last {
            let symbol = bits.symbol(table)?;
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            match size {
                0 if run < 15 => {
                    *eob_run = (1 << run) + bits.number(run)?;
                    break;
                }
                0 => {}
                1 => bits.skip(1)?,
                _ => return Err(Broken::Invalid("a coefficient grows by more than one bit")),
            }
            // Advance past `run` zeros, skipping the correction bits of other coefficients.
            while k <= last {
                if *nonzero >> k & 1 == 1 {
                    bits.skip(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size == 1 {
                if k > last {
                    return Err(TOO_LONG);
                }
                *nonzero |= 1 << k;
            }
            k += 1;
        }
    }
    if *eob_run > 0 {
        *eob_run -= 1;
        if k <= last {
            let rest = *nonzero >> k << k & (u64::MAX >> (63 - last));
            bits.skip(rest.count_ones())?;
        }
    }
    Ok(())
}
