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
    first: Vec<usize>,       // [B, T]
    gaps: Vec<Range<usize>>, // [B, T], or empty where no row has one
    len: usize,
    before: usize,
}

impl Visibility {
    /// Of places `[B, T]`, or `[B, T, 3]` with the slots `since` a gap and its `len`.
    ///
    /// # Panics
    ///
    /// When a number is negative.
    pub(super) fn new(sight: &FlexTensor, sizes: Sizes) -> Self {
        let before = sizes.slots - sizes.len;
        let numbers: Vec<usize> = integers(sight).into_iter().map(natural).collect();
        let forked = numbers.len() == 3 * sizes.batch * sizes.len;
        let (mut first, mut gaps) = (Vec::new(), Vec::new());
        for (index, query) in numbers.chunks_exact(if forked { 3 } else { 1 }).enumerate() {
            let slot = before + index % sizes.len;
            let skipped = query.get(2).copied().unwrap_or(0);
            first.push(slot.saturating_sub(query[0] + skipped));
            if let [_, since, len] = *query {
                let end = slot.saturating_sub(since);
                gaps.push(end.saturating_sub(len)..end);
            }
        }
        Self {
            first,
            gaps,
            len: sizes.len,
            before,
        }
    }

    /// Whether a query may see less than all of [`Visibility::slots`].
    pub(super) fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Slots that query `t` of a row sees, with those of its gap.
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

    /// What query `t` sees of a key tile.
    pub(super) fn in_tile(&self, row: usize, t: usize, tile: usize) -> Shown {
        let place = |slot: usize| slot.saturating_sub(tile * KEY_TILE).min(KEY_TILE);
        let slots = self.slots(row, t);
        let shown = place(slots.start)..place(slots.end);
        let gap = self.gaps.get(row * self.len + t);
        Shown::new(
            shown,
            gap.map_or(0..0, |gap| place(gap.start)..place(gap.end)),
        )
    }
}

fn natural(value: i64) -> usize {
    usize::try_from(value)
        .unwrap_or_else(|_| panic!("causal_attention: position {value} is negative"))
}

/// What a query sees of a key tile, in places of the tile: a range, but for a gap within it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    range: Range<usize>,
    gap: Range<usize>,
}

impl Shown {
    pub(super) const NOTHING: Self = Self {
        range: 0..0,
        gap: 0..0,
    };

    /// A range without a gap, which may reach over its ends.
    fn new(mut range: Range<usize>, gap: Range<usize>) -> Self {
        if gap.start <= range.start {
            range.start = range.start.max(gap.end);
        }
        if gap.end >= range.end {
            range.end = range.end.min(gap.start.max(range.start));
        }
        if range.is_empty() {
            return Self::NOTHING;
        }
        let is_inside = range.start < gap.start && gap.end < range.end;
        let gap = if is_inside { gap } else { 0..0 };
        Self { range, gap }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Whether something of some places is seen; a place in the gap counts.
    pub(super) fn meets(&self, places: &Range<usize>) -> bool {
        self.range.start < places.end && places.start < self.range.end
    }

    /// Overwrites what is not seen of some places of a row.
    #[inline(always)]
    pub(super) fn hide_rest(&self, places: &Range<usize>, row: &mut [f32], value: f32) {
        row[places.start..self.range.start].fill(value);
        row[self.range.end..places.end].fill(value);
        row[self.gap.clone()].fill(value);
    }
}

/// Smallest range that covers all, `0..0` when all are empty.
pub(super) fn cover(shown: &[Shown]) -> Range<usize> {
    let shown = shown.iter().filter(|shown| !shown.is_empty());
    let start = shown.clone().map(|shown| shown.range.start).min();
    start.unwrap_or(0)..shown.map(|shown| shown.range.end).max().unwrap_or(0)
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
