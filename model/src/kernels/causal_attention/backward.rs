//! Backward pass over tiles: scores are computed again rather than kept.
//!
//! With `P` the softmax weights and `dO` the gradient of the output (Dao et al. 2022, algorithm 4):
//! `dV = P^T dO`, `dS = P * (dO V^T - rowsum(dO * O))`, `dQ = dS K`, `dK = dS^T Q`.

use std::f32::consts::{LN_2, LOG2_E};
use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::heads::{
    Heads, KEY_TILE, QUERY_TILE, Scratch, Shown, Sizes, Visibility, cover, pack_queries, pack_rows,
    pack_tiles, padded,
};
use super::product::{BLOCK_ROWS, Product};
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::{dot, exp2_nonpositive, vectorized};

/// What the backward pass reads.
pub(super) struct Inputs<'a> {
    pub(super) q: Heads<'a>,
    pub(super) k: Heads<'a>,
    pub(super) v: Heads<'a>,
    pub(super) out: Heads<'a>,
    pub(super) grad: Heads<'a>,
    pub(super) log_sums: &'a [f32],
    pub(super) visibility: &'a Visibility,
    pub(super) sizes: Sizes,
}

/// Gradients of q `[B, T, N, H]`, k and v `[B, S, K, H]`.
pub(super) fn gradients(inputs: &Inputs<'_>) -> [Vec<f32>; 3] {
    let sizes = inputs.sizes;
    // Each task owns a row and a key head, so it adds up keys and values alone and in order. Its
    // results are not together in [B, T, N, H]; a last pass brings them there.
    let q_len = sizes.group() * sizes.len * sizes.head_dim;
    let kv_len = sizes.slots * sizes.head_dim;
    let tasks = sizes.batch * sizes.num_kv_heads;
    let mut q_grads = unzeroed(tasks * q_len); // [B, K, G, T, H]
    let mut k_grads = unzeroed(tasks * kv_len); // [B, K, S, H]
    let mut v_grads = unzeroed(tasks * kv_len); // [B, K, S, H]
    q_grads
        .par_chunks_mut(q_len)
        .zip(k_grads.par_chunks_mut(kv_len))
        .zip(v_grads.par_chunks_mut(kv_len))
        .enumerate()
        .for_each_init(
            || TaskScratch::new(sizes),
            |scratch, (task, ((q_grad, k_grad), v_grad))| {
                let (row, kv_head) = (task / sizes.num_kv_heads, task % sizes.num_kv_heads);
                vectorized(KeyHead {
                    inputs,
                    row,
                    kv_head,
                    scratch,
                    q_grad,
                    k_grad,
                    v_grad,
                });
            },
        );
    [
        heads_last(&q_grads, sizes.len, sizes.num_heads, sizes.head_dim),
        heads_last(&k_grads, sizes.slots, sizes.num_kv_heads, sizes.head_dim),
        heads_last(&v_grads, sizes.slots, sizes.num_kv_heads, sizes.head_dim),
    ]
}

/// `[B, N, T, H]` to `[B, T, N, H]`.
fn heads_last(values: &[f32], len: usize, num_heads: usize, head_dim: usize) -> Vec<f32> {
    let mut out = unzeroed(values.len());
    let width = num_heads * head_dim;
    out.par_chunks_mut(width)
        .enumerate()
        .with_min_len(16)
        .for_each(|(token, out)| {
            let (row, t) = (token / len, token % len);
            for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
                let start = ((row * num_heads + head) * len + t) * head_dim;
                out.copy_from_slice(&values[start..start + head_dim]);
            }
        });
    out
}

/// Memory of one thread, reused from task to task.
struct TaskScratch {
    key_tiles: Scratch,   // [tiles, H, KEY_TILE]
    value_tiles: Scratch, // [tiles, H, KEY_TILE]
    keys: Scratch,        // [S, padded H]
    k_grad: Scratch,      // [S, padded H]
    v_grad: Scratch,      // [S, padded H]
    queries: Scratch,     // [QUERY_TILE, padded H]
    out_grad: Scratch,    // [QUERY_TILE, padded H]
    q_grad: Scratch,      // [QUERY_TILE, padded H]
    weights: Scratch,     // [QUERY_TILE, KEY_TILE]
    score_grad: Scratch,  // [QUERY_TILE, KEY_TILE]
    log_sums: [f32; QUERY_TILE],
    row_sums: [f32; QUERY_TILE],
}

impl TaskScratch {
    fn new(sizes: Sizes) -> Self {
        let stride = sizes.padded_dim();
        let tiles = || Scratch::new(sizes.key_tiles() * sizes.head_dim * KEY_TILE);
        let slots = || Scratch::new(sizes.slots * stride);
        let queries = || Scratch::new(QUERY_TILE * stride);
        let scores = || Scratch::new(QUERY_TILE * KEY_TILE);
        Self {
            key_tiles: tiles(),
            value_tiles: tiles(),
            keys: slots(),
            k_grad: slots(),
            v_grad: slots(),
            queries: queries(),
            out_grad: queries(),
            q_grad: queries(),
            weights: scores(),
            score_grad: scores(),
            log_sums: [0.0; QUERY_TILE],
            row_sums: [0.0; QUERY_TILE],
        }
    }
}

/// One key head of one row of the batch, with the query heads that share it.
struct KeyHead<'a> {
    inputs: &'a Inputs<'a>,
    row: usize,
    kv_head: usize,
    scratch: &'a mut TaskScratch,
    q_grad: &'a mut [f32], // [G, T, H]
    k_grad: &'a mut [f32], // [S, H]
    v_grad: &'a mut [f32], // [S, H]
}

impl WithSimd for KeyHead<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let Inputs {
            k,
            v,
            visibility,
            sizes,
            ..
        } = *self.inputs;
        let (head_dim, stride) = (sizes.head_dim, sizes.padded_dim());
        let (row, kv_head) = (self.row, self.kv_head);
        pack_tiles(k, row, kv_head, sizes.slots, &mut self.scratch.key_tiles);
        pack_tiles(v, row, kv_head, sizes.slots, &mut self.scratch.value_tiles);
        pack_rows(k, row, kv_head, stride, &mut self.scratch.keys);
        self.scratch.k_grad.fill(0.0);
        self.scratch.v_grad.fill(0.0);

        for group in 0..sizes.group() {
            for first in (0..sizes.len).step_by(QUERY_TILE) {
                let queries = first..sizes.len.min(first + QUERY_TILE);
                self.load_queries(simd, kv_head * sizes.group() + group, queries.clone());
                for tile in visibility.key_tiles(row, queries.clone()) {
                    self.tile(simd, tile, queries.clone());
                }
                // The packed queries carry log2(e), the gradients of scores do not.
                let scale = sizes.query_scale() / LOG2_E;
                let start = (group * sizes.len + first) * head_dim;
                let out = &mut self.q_grad[start..start + queries.len() * head_dim];
                unpack(&self.scratch.q_grad, stride, scale, out, head_dim);
            }
        }
        unpack(&self.scratch.k_grad, stride, LN_2, self.k_grad, head_dim);
        unpack(&self.scratch.v_grad, stride, 1.0, self.v_grad, head_dim);
    }
}

impl KeyHead<'_> {
    /// Packs a tile of queries with what belongs to its rows.
    #[inline(always)]
    fn load_queries<S: Simd>(&mut self, simd: S, head: usize, queries: Range<usize>) {
        let Inputs {
            q,
            out,
            grad,
            log_sums,
            sizes,
            ..
        } = *self.inputs;
        let (row, stride) = (self.row, sizes.padded_dim());
        let scratch = &mut *self.scratch;
        let scale = sizes.query_scale();
        pack_queries(
            q,
            row,
            head,
            queries.clone(),
            scale,
            &mut scratch.queries,
            stride,
        );
        pack_queries(
            grad,
            row,
            head,
            queries.clone(),
            1.0,
            &mut scratch.out_grad,
            stride,
        );
        scratch.q_grad.fill(0.0);
        for (place, t) in queries.enumerate() {
            scratch.log_sums[place] = log_sums[(row * sizes.len + t) * sizes.num_heads + head];
            scratch.row_sums[place] = dot(simd, out.get(row, t, head), grad.get(row, t, head));
        }
    }

    /// Adds what a tile of queries and a tile of keys give each other.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, simd: S, tile: usize, queries: Range<usize>) {
        let Inputs {
            visibility, sizes, ..
        } = *self.inputs;
        let mut shown = [const { Shown::NOTHING }; QUERY_TILE];
        for (shown, t) in shown.iter_mut().zip(queries.clone()) {
            *shown = visibility.in_tile(self.row, t, tile);
        }
        let shown = &shown[..queries.len()];
        for start in (0..shown.len()).step_by(BLOCK_ROWS) {
            self.query_block(
                simd,
                tile,
                start..shown.len().min(start + BLOCK_ROWS),
                shown,
            );
        }

        let stride = sizes.padded_dim();
        let columns = cover(shown);
        let scratch = &mut *self.scratch;
        for start in columns.clone().step_by(BLOCK_ROWS) {
            let keys = start..columns.end.min(start + BLOCK_ROWS);
            let meets = |shown: &Shown| shown.meets(&keys);
            let Some(first) = shown.iter().position(meets) else {
                continue;
            };
            let last = shown.iter().rposition(meets).expect("there is a first");
            let slot = tile * KEY_TILE + start;
            let pairs = [
                (&scratch.weights, &scratch.out_grad, &mut scratch.v_grad),
                (&scratch.score_grad, &scratch.queries, &mut scratch.k_grad),
            ];
            for (a, b, out) in pairs {
                simd.vectorize(Product::<true> {
                    out: &mut out[slot * stride..],
                    out_stride: stride,
                    rows: keys.len(),
                    cols: stride,
                    a: &a[first * KEY_TILE + start..],
                    a_stride: KEY_TILE,
                    b: &b[first * stride..],
                    b_stride: stride,
                    depth: last + 1 - first,
                    add: true,
                });
            }
        }
    }

    /// Softmax weights and gradients of the scores for a block of queries, and what they give q.
    #[inline(always)]
    fn query_block<S: Simd>(&mut self, simd: S, tile: usize, block: Range<usize>, shown: &[Shown]) {
        let sizes = self.inputs.sizes;
        let (head_dim, stride) = (sizes.head_dim, sizes.padded_dim());
        let scratch = &mut *self.scratch;
        let columns = cover(&shown[block.clone()]);
        let whole = padded(&columns);
        let pairs = [
            (&scratch.queries, &scratch.key_tiles, &mut scratch.weights),
            (
                &scratch.out_grad,
                &scratch.value_tiles,
                &mut scratch.score_grad,
            ),
        ];
        for (a, b, out) in pairs {
            simd.vectorize(Product::<false> {
                out: &mut out[block.start * KEY_TILE + whole.start..],
                out_stride: KEY_TILE,
                rows: block.len(),
                cols: whole.len(),
                a: &a[block.start * stride..],
                a_stride: stride,
                b: &b[tile * head_dim * KEY_TILE + whole.start..],
                b_stride: KEY_TILE,
                depth: head_dim,
                add: false,
            });
        }
        for query in block.clone() {
            let place = query * KEY_TILE;
            let shown = &shown[query];
            let weights = &mut scratch.weights[place..place + KEY_TILE];
            let score_grad = &mut scratch.score_grad[place..place + KEY_TILE];
            score_gradients(
                simd,
                &mut weights[whole.clone()],
                &mut score_grad[whole.clone()],
                scratch.log_sums[query],
                scratch.row_sums[query],
            );
            // The products with transposed tiles read whole rows: what is not seen must be zero.
            for values in [weights, score_grad] {
                shown.hide_rest(&(0..KEY_TILE), values, 0.0);
            }
        }
        simd.vectorize(Product::<false> {
            out: &mut scratch.q_grad[block.start * stride..],
            out_stride: stride,
            rows: block.len(),
            cols: stride,
            a: &scratch.score_grad[block.start * KEY_TILE + columns.start..],
            a_stride: KEY_TILE,
            b: &scratch.keys[(tile * KEY_TILE + columns.start) * stride..],
            b_stride: stride,
            depth: columns.len(),
            add: true,
        });
    }
}

/// Scores become weights `2^(score - log_sum)`; gradients of weights become gradients of scores.
#[inline(always)]
fn score_gradients<S: Simd>(
    simd: S,
    weights: &mut [f32],
    score_grad: &mut [f32],
    log_sum: f32,
    row_sum: f32,
) {
    let shift = simd.splat_f32s(-log_sum);
    let row_sum = simd.splat_f32s(row_sum);
    let (weights, _) = S::as_mut_simd_f32s(weights);
    let (score_grad, _) = S::as_mut_simd_f32s(score_grad);
    for (weight, grad) in weights.iter_mut().zip(score_grad) {
        *weight = exp2_nonpositive(simd, simd.add_f32s(*weight, shift));
        *grad = simd.mul_f32s(*weight, simd.sub_f32s(*grad, row_sum));
    }
}

/// Padded rows times `scale` into rows of `head_dim`.
fn unpack(rows: &[f32], stride: usize, scale: f32, out: &mut [f32], head_dim: usize) {
    for (row, out) in rows
        .chunks_exact(stride)
        .zip(out.chunks_exact_mut(head_dim))
    {
        for (out, value) in out.iter_mut().zip(row) {
            *out = value * scale;
        }
    }
}
