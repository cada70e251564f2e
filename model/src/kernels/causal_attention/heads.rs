//! How attention reads its operands: heads where they lie, and which slots a query sees.

use std::ops::{Deref, DerefMut, Range};

use burn_flex::FlexTensor;

use crate::kernels::flex::{contiguous, dims, integers};

/// Queries handled at once.
pub(super) const QUERY_TILE: usize = 64;
/// Key slots handled at once.
pub(super) const KEY_TILE: usize = 64;
/// Rows of packed heads are a multiple of this many elements: the longest vector.
const PADDING: usize = 16;

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) len: usize,
    pub(super) slots: usize,
    pub(super) num_heads: usize,
    pub(super) num_kv_heads: usize,
    pub(super) head_dim: usize,
}

impl Sizes {
    pub(super) fn of(q: &FlexTensor, k: &FlexTensor) -> Self {
        let [batch, len, num_heads, head_dim] = dims(q);
        let [_, slots, num_kv_heads, _] = dims(k);
        Self {
            batch,
            len,
            slots,
            num_heads,
            num_kv_heads,
            head_dim,
        }
    }

    /// Query heads per key head.
    pub(super) fn group(&self) -> usize {
        self.num_heads / self.num_kv_heads
    }

    /// Elements of a packed row.
    pub(super) fn padded_dim(&self) -> usize {
        self.head_dim.next_multiple_of(PADDING)
    }

    pub(super) fn key_tiles(&self) -> usize {
        self.slots.div_ceil(KEY_TILE)
    }

    /// `log2(e) / sqrt(H)`: with it in the queries, scores are powers of two.
    pub(super) fn query_scale(&self) -> f32 {
        std::f32::consts::LOG2_E / (self.head_dim as f32).sqrt()
    }
}

/// Makes each head of each token a run of memory; the axes before may have any strides.
///
/// A slice of a cache stays where it is: copying it would cost a pass over the cache per token.
pub(super) fn with_contiguous_heads(tensor: FlexTensor) -> FlexTensor {
    let strides = tensor.layout().strides();
    if strides[3] == 1 && strides.iter().all(|stride| *stride >= 0) {
        tensor
    } else {
        contiguous(tensor)
    }
}

/// A `[B, T, N, H]` tensor read head by head.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heads<'a> {
    values: &'a [f32],
    strides: [usize; 3],
    head_dim: usize,
}

impl<'a> Heads<'a> {
    /// Reads what [`with_contiguous_heads`] returned.
    pub(super) fn new(tensor: &'a FlexTensor) -> Self {
        let layout = tensor.layout();
        let strides = layout.strides();
        assert_eq!(strides[3], 1, "heads must be runs of memory");
        let [_, _, _, head_dim] = dims(tensor);
        Self {
            values: &tensor.storage::<f32>()[layout.start_offset()..],
            strides: [0, 1, 2].map(|axis| strides[axis].unsigned_abs()),
            head_dim,
        }
    }

    pub(super) fn get(&self, row: usize, slot: usize, head: usize) -> &'a [f32] {
        let start = row * self.strides[0] + slot * self.strides[1] + head * self.strides[2];
        &self.values[start..start + self.head_dim]
    }
}

/// The slots each query sees.
#[derive(Debug)]
pub(super) struct Visibility {
    first: Vec<usize>, // [B, T]
    len: usize,
    before: usize,
}

impl Visibility {
    /// # Panics
    ///
    /// When a position is negative.
    pub(super) fn new(positions: &FlexTensor, sizes: Sizes) -> Self {
        let before = sizes.slots - sizes.len;
        let first = integers(positions)
            .into_iter()
            .enumerate()
            .map(|(index, position)| {
                let position = usize::try_from(position).unwrap_or_else(|_| {
                    panic!("causal_attention: position {position} is negative")
                });
                (before + index % sizes.len).saturating_sub(position)
            });
        Self {
            first: first.collect(),
            len: sizes.len,
            before,
        }
    }

    /// Slots that query `t` of a row sees.
    pub(super) fn slots(&self, row: usize, t: usize) -> Range<usize> {
        self.first[row * self.len + t]..self.before + t + 1
    }

    /// Key tiles that any of the queries sees.
    pub(super) fn key_tiles(&self, row: usize, queries: Range<usize>) -> Range<usize> {
        let first = queries
            .clone()
            .map(|t| self.slots(row, t).start)
            .min()
            .unwrap_or(0);
        first / KEY_TILE..(self.before + queries.end).div_ceil(KEY_TILE)
    }

    /// What query `t` sees of a key tile, in places of the tile; empty ranges are `0..0`.
    pub(super) fn in_tile(&self, row: usize, t: usize, tile: usize) -> Range<usize> {
        let slots = self.slots(row, t);
        let start = slots.start.saturating_sub(tile * KEY_TILE);
        let end = slots.end.saturating_sub(tile * KEY_TILE).min(KEY_TILE);
        if start < end { start..end } else { 0..0 }
    }
}

/// Smallest range that covers all, `0..0` when all are empty.
pub(super) fn cover(ranges: &[Range<usize>]) -> Range<usize> {
    let shown = ranges.iter().filter(|range| !range.is_empty());
    let start = shown.clone().map(|range| range.start).min().unwrap_or(0);
    start..shown.map(|range| range.end).max().unwrap_or(0)
}

/// The range widened to whole vectors.
pub(super) fn padded(range: &Range<usize>) -> Range<usize> {
    range.start / PADDING * PADDING..range.end.next_multiple_of(PADDING)
}

/// Zeroed scratch memory that starts on a cache line, so that no vector straddles two.
#[derive(Debug)]
pub(super) struct Scratch {
    values: Vec<f32>,
    start: usize,
    len: usize,
}

impl Scratch {
    pub(super) fn new(len: usize) -> Self {
        let values = vec![0.0; len + PADDING];
        let start = values.as_ptr().align_offset(64).min(PADDING);
        Self { values, start, len }
    }
}

impl Deref for Scratch {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values[self.start..self.start + self.len]
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values[self.start..self.start + self.len]
    }
}

/// Copies one head of all slots into rows of `stride` elements.
pub(super) fn pack_rows(heads: Heads<'_>, row: usize, head: usize, stride: usize, out: &mut [f32]) {
    for (slot, out) in out.chunks_exact_mut(stride).enumerate() {
        out[..heads.head_dim].copy_from_slice(heads.get(row, slot, head));
    }
}

/// Copies one head of all slots into tiles of `[H, KEY_TILE]`.
pub(super) fn pack_tiles(heads: Heads<'_>, row: usize, head: usize, slots: usize, out: &mut [f32]) {
    for (tile, out) in out.chunks_exact_mut(heads.head_dim * KEY_TILE).enumerate() {
        let first = tile * KEY_TILE;
        for place in 0..KEY_TILE.min(slots - first) {
            let key = heads.get(row, first + place, head);
            for (line, value) in out.chunks_exact_mut(KEY_TILE).zip(key) {
                line[place] = *value;
            }
        }
    }
}

/// Copies one head of some queries, scaled, into padded rows.
pub(super) fn pack_queries(
    heads: Heads<'_>,
    row: usize,
    head: usize,
    queries: Range<usize>,
    scale: f32,
    out: &mut [f32],
    stride: usize,
) {
    for (t, out) in queries.zip(out.chunks_exact_mut(stride)) {
        for (out, value) in out.iter_mut().zip(heads.get(row, t, head)) {
            *out = value * scale;
        }
    }
}
