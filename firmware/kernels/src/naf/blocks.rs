//! Encodings and keys that are computed where they are needed, in blocks of cells, for images whose
//! statistics are known.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError},
};

use loftup_spec::naf::{CHANNELS, HALO, WIDTH};

use super::{
    Naf,
    frame::{Area, Axis, Frame, Image, Patch},
    give,
    keys::write_key,
    pixels::Buffers,
};

/// Side of a block of cells, and of a tile whose encodings are not kept, in pixels.
pub(super) const TILE: usize = 64;

/// The blocks of an image. Keys are kept, encodings only of the last blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    rows: Span,
    columns: Span,
    slots: Vec<Arc<Slot>>,
    /// Blocks with encodings and their numbers of pixels, oldest first, and the sum of these.
    kept: Mutex<(VecDeque<(usize, usize)>, usize)>,
    /// Maximum number of pixels whose encodings are kept.
    most: usize,
}

#[derive(Debug, Default)]
struct Slot {
    /// `[rows, columns, 256]` of the block's cells.
    keys: OnceLock<Vec<f32>>,
    encodings: Mutex<Option<Arc<BlockEncodings>>>,
}

/// Rotated encodings of the pixels of a block.
#[derive(Debug)]
pub(super) struct BlockEncodings {
    naf: Arc<Naf>,
    area: Area,
    data: [Vec<f32>; 2],
}

impl BlockEncodings {
    pub fn patches(&self) -> [Patch<'_>; 2] {
        self.data.each_ref().map(|data| Patch {
            area: self.area,
            data,
        })
    }
}

impl Drop for BlockEncodings {
    fn drop(&mut self) {
        for map in &mut self.data {
            give(&self.naf.maps, std::mem::take(map));
        }
    }
}

/// The blocks along one axis.
#[derive(Debug)]
struct Span {
    /// Cells, and cells per block.
    cells: usize,
    side: usize,
    /// First pixel of each block, and the number of pixels.
    starts: Vec<usize>,
}

impl Span {
    fn new(axis: &Axis) -> Self {
        let side = (TILE * axis.cells / axis.pixels).clamp(1, axis.cells);
        let first = (0..axis.cells).step_by(side);
        Self {
            cells: axis.cells,
            side,
            starts: first
                .map(|cell| axis.pooled(cell).0)
                .chain([axis.pixels])
                .collect(),
        }
    }

    fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// The first cell of a block, and the first of the next one.
    fn cells(&self, block: usize) -> (usize, usize) {
        let first = block * self.side;
        (first, (first + self.side).min(self.cells))
    }

    /// The blocks that pixels `start..start + len` are in, with the pixels in each.
    fn parts(&self, start: usize, len: usize) -> impl Iterator<Item = (usize, (usize, usize))> {
        let edges = self.starts.windows(2).enumerate();
        edges.filter_map(move |(block, edges)| {
            let (first, end) = (start.max(edges[0]), (start + len).min(edges[1]));
            (first < end).then(|| (block, (first, end - first)))
        })
    }
}

/// The pixels of an area that are in one block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub block: usize,
    pub area: Area,
}

impl Blocks {
    /// The blocks of an image, none of them computed.
    pub fn new((rows, columns): (&Axis, &Axis), most: usize) -> Self {
        let (rows, columns) = (Span::new(rows), Span::new(columns));
        let count = rows.len() * columns.len();
        Self {
            rows,
            columns,
            slots: (0..count).map(|_| Arc::default()).collect(),
            kept: Mutex::default(),
            most,
        }
    }

    /// Takes over the blocks of the last image whose pixels, and those around them, have not changed.
    pub fn share(&mut self, frame: &Frame, last: &Self, last_image: &Image) {
        let image = &frame.image;
        for block in 0..self.slots.len() {
            let pixels = self.area(block, frame.axes()).expanded(HALO, image.size());
            if image.same(last_image, pixels) {
                self.slots[block] = last.slots[block].clone();
            }
        }
        let kept = last.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = kept.0.iter().filter(|(block, _)| self.same(last, *block));
        let shared: VecDeque<_> = shared.copied().collect();
        let pixels = shared.iter().map(|(_, pixels)| pixels).sum();
        self.kept = Mutex::new((shared, pixels));
    }

    /// Whether both share a block.
    fn same(&self, other: &Self, block: usize) -> bool {
        Arc::ptr_eq(&self.slots[block], &other.slots[block])
    }

    /// Whether both share all blocks that outputs in `area` depend on.
    pub fn shares(&self, other: &Self, frame: &Frame, area: Area) -> bool {
        self.slots.len() == other.slots.len()
            && self
                .attended(frame, area)
                .chain(self.parts(area).map(|part| part.block))
                .all(|block| self.same(other, block))
    }

    /// The pixels of a block. Neighboring blocks can share some.
    fn area(&self, block: usize, (rows, columns): (&Axis, &Axis)) -> Area {
        let (down, across) = self.cells(block);
        let (y, x) = (rows.pooled(down.0).0, columns.pooled(across.0).0);
        Area {
            x,
            y,
            width: columns.pooled(across.1 - 1).1 - x,
            height: rows.pooled(down.1 - 1).1 - y,
        }
    }

    /// The rows and columns of cells of a block, each as the first and the one after the last.
    fn cells(&self, block: usize) -> ((usize, usize), (usize, usize)) {
        let across = self.columns.len();
        (
            self.rows.cells(block / across),
            self.columns.cells(block % across),
        )
    }

    /// The blocks with the cells that pixels of `area` attend to.
    fn attended(&self, frame: &Frame, area: Area) -> impl Iterator<Item = usize> {
        let blocks = |span: &Span, axis: &Axis, start: usize, len: usize| {
            let cells = axis.windows[start..start + len].as_flattened().iter();
            let cells = cells.fold((usize::MAX, 0), |(first, last), cell| {
                (first.min(*cell), last.max(*cell))
            });
            cells.0 / span.side..cells.1 / span.side + 1
        };
        let down = blocks(&self.rows, &frame.rows, area.y, area.height);
        let across = blocks(&self.columns, &frame.columns, area.x, area.width);
        let wide = self.columns.len();
        down.flat_map(move |row| across.clone().map(move |c| row * wide + c))
    }

    /// Splits an area into the parts in each block.
    pub fn parts(&self, area: Area) -> impl Iterator<Item = Part> {
        let rows = self.rows.parts(area.y, area.height);
        rows.flat_map(move |(row, (y, height))| {
            let columns = self.columns.parts(area.x, area.width);
            columns.map(move |(column, (x, width))| Part {
                block: row * self.columns.len() + column,
                area: Area {
                    x,
                    y,
                    width,
                    height,
                },
            })
        })
    }

    /// The key of a cell, which has been computed.
    pub fn key(&self, cell: usize) -> &[f32] {
        let (row, column) = (cell / self.columns.cells, cell % self.columns.cells);
        let (down, across) = (row / self.rows.side, column / self.columns.side);
        let ((top, _), (left, right)) = (self.rows.cells(down), self.columns.cells(across));
        let keys = self.slots[down * self.columns.len() + across].keys.get();
        let at = (row - top) * (right - left) + column - left;
        keys.map_or(&[], |keys| &keys[at * CHANNELS..][..CHANNELS])
    }

    /// Computes the keys of all cells that pixels of `area` attend to.
    pub fn need_keys(&self, frame: &Frame, area: Area, buffers: &mut Buffers) {
        let missing = self.attended(frame, area);
        let missing = missing.filter(|block| self.slots[*block].keys.get().is_none());
        // First those that no other thread is computing.
        let busy: Vec<usize> = (missing)
            .filter(|block| match self.slots[*block].encodings.try_lock() {
                Ok(slot) => {
                    self.fill(frame, *block, slot, buffers);
                    false
                }
                Err(TryLockError::Poisoned(_)) | Err(TryLockError::WouldBlock) => true,
            })
            .collect();
        for block in busy {
            let slot = self.lock(block);
            if self.slots[block].keys.get().is_none() {
                self.fill(frame, block, slot, buffers);
            }
        }
    }

    /// The encodings of a block.
    pub fn encodings(
        &self,
        frame: &Frame,
        block: usize,
        buffers: &mut Buffers,
    ) -> Arc<BlockEncodings> {
        let slot = self.lock(block);
        match &*slot {
            Some(encodings) => encodings.clone(),
            None => self.fill(frame, block, slot, buffers),
        }
    }

    fn lock(&self, block: usize) -> MutexGuard<'_, Option<Arc<BlockEncodings>>> {
        let slot = self.slots[block].encodings.lock();
        slot.unwrap_or_else(PoisonError::into_inner)
    }

    /// Computes the encodings and the keys of a block, and discards the encodings of the oldest blocks.
    fn fill(
        &self,
        frame: &Frame,
        block: usize,
        mut slot: MutexGuard<'_, Option<Arc<BlockEncodings>>>,
        buffers: &mut Buffers,
    ) -> Arc<BlockEncodings> {
        if let Some(encodings) = &*slot {
            return encodings.clone();
        }
        let axes = frame.axes();
        let (rows, columns) = self.cells(block);
        let area = self.area(block, axes);
        let naf = &frame.naf;
        buffers.encode(naf, (&frame.image, area), &frame.statistics, axes);
        // Copied, since the buffers have room for the pixels around the block.
        let data = buffers.encodings.each_ref().map(|computed| {
            let mut data = naf.map(area.pixels() * WIDTH);
            data.copy_from_slice(computed);
            data
        });
        let encodings = Arc::new(BlockEncodings {
            naf: naf.clone(),
            area,
            data,
        });
        self.slots[block].keys.get_or_init(|| {
            let (down, across) = (rows.1 - rows.0, columns.1 - columns.0);
            let mut keys = vec![0.0; down * across * CHANNELS];
            for (i, key) in keys.chunks_exact_mut(CHANNELS).enumerate() {
                let cell = (rows.0 + i / across, columns.0 + i % across);
                write_key(naf.isa, encodings.patches(), axes, cell, key);
            }
            keys
        });
        *slot = Some(encodings.clone());
        drop(slot);
        self.discard(block, area.pixels());
        encodings
    }

    /// Adds a block to those that are kept, and discards the oldest ones if there are too many.
    fn discard(&self, block: usize, pixels: usize) {
        let mut discarded = Vec::new();
        {
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (blocks, total) = &mut *kept;
            blocks.push_back((block, pixels));
            *total += pixels;
            while *total > self.most
                && blocks.len() > 1
                && let Some((oldest, pixels)) = blocks.pop_front()
            {
                discarded.push(oldest);
                *total -= pixels;
            }
        }
        for block in discarded {
            drop(self.lock(block).take());
        }
    }
}
