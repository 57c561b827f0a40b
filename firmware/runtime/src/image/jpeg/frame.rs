//! The frame header, and which parts of the frame have been coded.

use super::super::MAX_SIDE;

/// A component of the frame, such as luminance.
pub(super) struct Component {
    id: u8,
    /// Horizontal and vertical sampling factors.
    pub sampling: (usize, usize),
    /// Blocks in each direction of a scan with only this component.
    pub blocks: (usize, usize),
    /// By coefficient in zigzag order: the lowest bit that has been coded.
    coded: [Option<u8>; 64],
    /// For a progressive frame, by block in rows of [`Frame::stride`]: a bit for each coefficient that
    /// is not 0.
    pub nonzero: Vec<u64>,
}

/// A frame of 8-bit samples.
pub(super) struct Frame {
    pub progressive: bool,
    /// MCUs in each direction of a scan with several components.
    pub mcus: (usize, usize),
    pub components: Vec<Component>,
}

impl Frame {
    /// Parses a SOF segment; `None` if the decoder reports the error itself.
    pub fn parse(segment: &[u8], progressive: bool) -> Result<Option<Self>, String> {
        let damaged = || "the frame header is damaged".to_owned();
        let (header, rest) = segment.split_first_chunk::<6>().ok_or_else(damaged)?;
        let [precision, y1, y0, x1, x0, count] = *header;
        let height = usize::from(u16::from_be_bytes([y1, y0]));
        let width = usize::from(u16::from_be_bytes([x1, x0]));
        let sides = 1..=MAX_SIDE;
        if precision != 8 || !sides.contains(&width) || !sides.contains(&height) {
            return Ok(None);
        }
        let (described, _) = rest.as_chunks::<3>();
        let described = described.get(..count.into()).ok_or_else(damaged)?;
        let factors = |byte: u8| (usize::from(byte >> 4), usize::from(byte & 15));
        let (mut most_across, mut most_down) = (0, 0);
        for [_, sampling, _] in described {
            let (across, down) = factors(*sampling);
            if !(1..=4).contains(&across) || !(1..=4).contains(&down) {
                return Err(damaged());
            }
            (most_across, most_down) = (most_across.max(across), most_down.max(down));
        }
        if !(1..=4).contains(&described.len()) {
            return Err(damaged());
        }
        let mcus = (
            width.div_ceil(8 * most_across),
            height.div_ceil(8 * most_down),
        );
        let components = described.iter().map(|[id, sampling, _]| {
            let (across, down) = factors(*sampling);
            let stored = mcus.0 * across * mcus.1 * down;
            Component {
                id: *id,
                sampling: (across, down),
                blocks: (
                    (width * across).div_ceil(8 * most_across),
                    (height * down).div_ceil(8 * most_down),
                ),
                coded: [None; 64],
                nonzero: vec![0; if progressive { stored } else { 0 }],
            }
        });
        Ok(Some(Self {
            progressive,
            mcus,
            components: components.collect(),
        }))
    }

    /// The index of the component with this id in a scan header.
    pub fn find(&self, id: u8) -> Option<usize> {
        self.components.iter().position(|c| c.id == id)
    }

    /// Records that a scan codes bit `low` of some coefficients: all bits from there on if `high`
    /// is `None`, otherwise after a scan that ended with bit `high`.
    pub fn note(
        &mut self,
        component: usize,
        coefficients: std::ops::RangeInclusive<usize>,
        high: Option<u8>,
        low: u8,
    ) -> Result<(), String> {
        for coded in &mut self.components[component].coded[coefficients] {
            if *coded != high {
                return Err("a scan is missing or duplicated".to_owned());
            }
            *coded = Some(low);
        }
        Ok(())
    }

    /// Checks that every coefficient of every component has been coded down to its lowest bit.
    pub fn complete(&self) -> Result<(), String> {
        let whole = |c: &Component| c.coded.iter().all(|low| *low == Some(0));
        match self.components.iter().position(|c| !whole(c)) {
            None => Ok(()),
            Some(i) => Err(format!(
                "component {} of {} is incomplete: a scan is missing",
                i + 1,
                self.components.len()
            )),
        }
    }
}
