//! Forward pass over tiles: no more than one tile of scores exists per thread.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::heads::{
    Heads, KEY_TILE, QUERY_TILE, Scratch, Shown, Sizes, Visibility, cover, pack_queries, pack_rows,
    pack_tiles, padded,
};
use super::product::{BLOCK_ROWS, Product};
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::{exp2_nonpositive, max, vectorized};

/// Output `[B, T, N, H]` and, in powers of two, the log of each softmax's denominator `[B, T, N]`.
pub(super) fn attend(
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    visibility: &Visibility,
    sizes: Sizes,
) -> (Vec<f32>, Vec<f32>) {
    let packed = PackedKeys::new(k, v, sizes);
    let width = sizes.num_heads * sizes.head_dim;
    let mut out = unzeroed(sizes.batch * sizes.len * width);
    let mut log_sums = unzeroed(sizes.batch * sizes.len * sizes.num_heads);
    let rows = out
        .par_chunks_mut(sizes.len * width)
        .zip(log_sums.par_chunks_mut(sizes.len * sizes.num_heads));
    rows.enumerate().for_each(|(row, (out, log_sums))| {
        out.par_chunks_mut(QUERY_TILE * width)
            .zip(log_sums.par_chunks_mut(QUERY_TILE * sizes.num_heads))
            .enumerate()
            .for_each_init(
                || TileScratch::new(sizes),
                |scratch, (tile, (out, log_sums))| {
                    let first = tile * QUERY_TILE;
                    let queries = first..sizes.len.min(first + QUERY_TILE);
                    for head in 0..sizes.num_heads {
                        let kv_head = head / sizes.group();
                        let tile = QueryTile {
                            sizes,
                            visibility,
                            row,
                            head,
                            queries: queries.clone(),
                            keys: packed.keys_of(row, kv_head),
                            values: packed.values_of(row, kv_head),
                            scratch,
                            out,
                            log_sums,
                        };
                        tile.run(q);
                    }
                },
            );
    });
    (out, log_sums)
}

/// Keys and values of every key head, laid out for the tile products.
struct PackedKeys {
    keys: Scratch,   // [B, K, tiles, H, KEY_TILE]
    values: Scratch, // [B, K, slots, padded H]
    keys_len: usize,
    values_len: usize,
    num_kv_heads: usize,
}

impl PackedKeys {
    fn new(k: Heads<'_>, v: Heads<'_>, sizes: Sizes) -> Self {
        let num_kv_heads = sizes.num_kv_heads;
        let keys_len = sizes.key_tiles() * sizes.head_dim * KEY_TILE;
        let values_len = sizes.slots * sizes.padded_dim();
        let mut keys = Scratch::new(sizes.batch * num_kv_heads * keys_len);
        let mut values = Scratch::new(sizes.batch * num_kv_heads * values_len);
        keys.par_chunks_mut(keys_len)
            .zip(values.par_chunks_mut(values_len))
            .enumerate()
            .for_each(|(index, (keys, values))| {
                let (row, head) = (index / num_kv_heads, index % num_kv_heads);
                pack_tiles(k, row, head, sizes.slots, keys);
                pack_rows(v, row, head, sizes.padded_dim(), values);
            });
        Self {
            keys,
            values,
            keys_len,
            values_len,
            num_kv_heads,
        }
    }

    fn keys_of(&self, row: usize, kv_head: usize) -> &[f32] {
        let index = row * self.num_kv_heads + kv_head;
        &self.keys[index * self.keys_len..(index + 1) * self.keys_len]
    }

    fn values_of(&self, row: usize, kv_head: usize) -> &[f32] {
        let index = row * self.num_kv_heads + kv_head;
        &self.values[index * self.values_len..(index + 1) * self.values_len]
    }
}

/// Memory of one tile of queries, reused from head to head.
struct TileScratch {
    queries: Scratch, // [QUERY_TILE, padded H]
    scores: Scratch,  // [QUERY_TILE, KEY_TILE]
    sums: Scratch,    // [QUERY_TILE, padded H]
    largest: [f32; QUERY_TILE],
    denominators: [f32; QUERY_TILE],
}

impl TileScratch {
    fn new(sizes: Sizes) -> Self {
        Self {
            queries: Scratch::new(QUERY_TILE * sizes.padded_dim()),
            scores: Scratch::new(QUERY_TILE * KEY_TILE),
            sums: Scratch::new(QUERY_TILE * sizes.padded_dim()),
            largest: [f32::NEG_INFINITY; QUERY_TILE],
            denominators: [0.0; QUERY_TILE],
        }
    }
}

/// One head of one tile of queries.
struct QueryTile<'a> {
    sizes: Sizes,
    visibility: &'a Visibility,
    row: usize,
    head: usize,
    queries: Range<usize>,
    keys: &'a [f32],
    values: &'a [f32],
    scratch: &'a mut TileScratch,
    out: &'a mut [f32],
    log_sums: &'a mut [f32],
}

impl QueryTile<'_> {
    fn run(self, q: Heads<'_>) {
        let (scale, stride) = (self.sizes.query_scale(), self.sizes.padded_dim());
        let queries = self.queries.clone();
        pack_queries(
            q,
            self.row,
            self.head,
            queries,
            scale,
            &mut self.scratch.queries,
            stride,
        );
        self.scratch.sums.fill(0.0);
        self.scratch.largest = [f32::NEG_INFINITY; QUERY_TILE];
        self.scratch.denominators = [0.0; QUERY_TILE];
        vectorized(self);
    }

    /// Scores of a block of queries against a key tile, their running softmax, and the values.
    #[inline(always)]
    fn block<S: Simd>(&mut self, simd: S, tile: usize, block: Range<usize>) {
        let (head_dim, stride) = (self.sizes.head_dim, self.sizes.padded_dim());
        let mut shown = [const { Shown::NOTHING }; BLOCK_ROWS];
        for (shown, query) in shown.iter_mut().zip(block.clone()) {
            *shown = self
                .visibility
                .in_tile(self.row, self.queries.start + query, tile);
        }
        let shown = &shown[..block.len()];
        let columns = cover(shown);
        if columns.is_empty() {
            return;
        }
        let whole = padded(&columns);
        let scratch = &mut *self.scratch;
        simd.vectorize(Product::<false> {
            out: &mut scratch.scores[block.start * KEY_TILE + whole.start..],
            out_stride: KEY_TILE,
            rows: block.len(),
            cols: whole.len(),
            a: &scratch.queries[block.start * stride..],
            a_stride: stride,
            b: &self.keys[tile * head_dim * KEY_TILE + whole.start..],
            b_stride: KEY_TILE,
            depth: head_dim,
            add: false,
        });
        for (query, shown) in block.clone().zip(shown) {
            let scores = &mut scratch.scores[query * KEY_TILE..(query + 1) * KEY_TILE];
            if shown.is_empty() {
                scores[columns.clone()].fill(0.0);
                continue;
            }
            shown.hide_rest(&whole, scores, f32::NEG_INFINITY);
            let before = scratch.largest[query];
            let largest = before.max(max(simd, &scores[whole.clone()]));
            let sum = exponentials(simd, &mut scores[whole.clone()], largest);
            shown.hide_rest(&whole, scores, 0.0);
            if largest > before {
                let shrink = exp2_nonpositive(simd, simd.splat_f32s(before - largest));
                let (sums, _) =
                    S::as_mut_simd_f32s(&mut scratch.sums[query * stride..(query + 1) * stride]);
                for value in sums {
                    *value = simd.mul_f32s(*value, shrink);
                }
                scratch.denominators[query] *= simd.reduce_max_f32s(shrink);
                scratch.largest[query] = largest;
            }
            scratch.denominators[query] += sum;
        }
        simd.vectorize(Product::<false> {
            out: &mut scratch.sums[block.start * stride..],
            out_stride: stride,
            rows: block.len(),
            cols: stride,
            a: &scratch.scores[block.start * KEY_TILE + columns.start..],
            a_stride: KEY_TILE,
            b: &self.values[(tile * KEY_TILE + columns.start) * stride..],
            b_stride: stride,
            depth: columns.len(),
            add: true,
        });
    }
}

impl WithSimd for QueryTile<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let num_queries = self.queries.len();
        for tile in self.visibility.key_tiles(self.row, self.queries.clone()) {
            for start in (0..num_queries).step_by(BLOCK_ROWS) {
                self.block(simd, tile, start..num_queries.min(start + BLOCK_ROWS));
            }
        }
        let (head_dim, stride) = (self.sizes.head_dim, self.sizes.padded_dim());
        for query in 0..num_queries {
            let denominator = self.scratch.denominators[query];
            let place = query * self.sizes.num_heads + self.head;
            self.log_sums[place] = self.scratch.largest[query] + denominator.log2();
            let out = &mut self.out[place * head_dim..(place + 1) * head_dim];
            for (out, sum) in out.iter_mut().zip(&self.scratch.sums[query * stride..]) {
                *out = sum / denominator;
            }
        }
    }
}

/// Replaces scores by `2^(score - largest)` and sums them; the length is whole vectors.
#[inline(always)]
pub(super) fn exponentials<S: Simd>(simd: S, scores: &mut [f32], largest: f32) -> f32 {
    let shift = simd.splat_f32s(-largest);
    let mut total = simd.splat_f32s(0.0);
    let (scores, _) = S::as_mut_simd_f32s(scores);
    for score in scores {
        *score = exp2_nonpositive(simd, simd.add_f32s(*score, shift));
        total = simd.add_f32s(total, *score);
    }
    simd.reduce_sum_f32s(total)
}
