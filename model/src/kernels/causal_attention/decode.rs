//! Attention of a few queries over many slots: keys and values are read once, where they lie.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::forward::exponentials;
use super::heads::{Heads, Scratch, Sizes, Visibility};
use crate::kernels::flex::unzeroed;
use crate::kernels::simd::{dot, max, vectorized};

/// Vectors of a value that are summed together.
const BLOCK_VECTORS: usize = 4;

/// Multiplications that are worth waking another thread for.
const TASK_PRODUCTS: usize = 1 << 16;

/// Output `[B, T, N, H]`.
pub(super) fn attend(
    q: Heads<'_>,
    k: Heads<'_>,
    v: Heads<'_>,
    visibility: &Visibility,
    sizes: Sizes,
) -> Vec<f32> {
    let (group, head_dim) = (sizes.group(), sizes.head_dim);
    let mut out = unzeroed(sizes.batch * sizes.len * sizes.num_heads * head_dim);
    // A query and key head at a time: their query heads lie together in the output.
    let num_products = 2 * group * head_dim * sizes.slots;
    out.par_chunks_mut(group * head_dim)
        .enumerate()
        .with_min_len((TASK_PRODUCTS / num_products).max(1))
        .for_each(|(index, out)| {
            let (token, kv_head) = (index / sizes.num_kv_heads, index % sizes.num_kv_heads);
            let (row, t) = (token / sizes.len, token % sizes.len);
            let slots = visibility.slots(row, t);
            let mut scores = Scratch::new(group * slots.len().next_multiple_of(16));
            vectorized(Query {
                q,
                k,
                v,
                sizes,
                row,
                t,
                kv_head,
                slots,
                scores: &mut scores,
                out,
            });
        });
    out
}

/// The query heads of one token that share a key head.
struct Query<'a> {
    q: Heads<'a>,
    k: Heads<'a>,
    v: Heads<'a>,
    sizes: Sizes,
    row: usize,
    t: usize,
    kv_head: usize,
    slots: std::ops::Range<usize>,
    scores: &'a mut [f32], // [G, slots padded to whole vectors]
    out: &'a mut [f32],    // [G, H]
}

impl WithSimd for Query<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (group, head_dim) = (self.sizes.group(), self.sizes.head_dim);
        let stride = self.slots.len().next_multiple_of(16);
        let scale = self.sizes.query_scale();
        for (place, slot) in self.slots.clone().enumerate() {
            let key = self.k.get(self.row, slot, self.kv_head);
            for g in 0..group {
                let query = self.q.get(self.row, self.t, self.kv_head * group + g);
                self.scores[g * stride + place] = dot(simd, query, key) * scale;
            }
        }
        for scores in self.scores.chunks_exact_mut(stride) {
            scores[self.slots.len()..].fill(f32::NEG_INFINITY);
            let largest = max(simd, scores);
            let inverse = 1.0 / exponentials(simd, scores, largest);
            for score in scores {
                *score *= inverse;
            }
        }
        for (g, out) in self.out.chunks_exact_mut(head_dim).enumerate() {
            let weights = &self.scores[g * stride..][..self.slots.len()];
            let values = Values {
                v: self.v,
                row: self.row,
                kv_head: self.kv_head,
                first: self.slots.start,
            };
            let (vectors, tail) = S::as_mut_simd_f32s(out);
            let (blocks, rest) = pulp::as_arrays_mut::<BLOCK_VECTORS, _>(vectors);
            for (block, out) in blocks.iter_mut().enumerate() {
                *out = values.sum(simd, weights, block * BLOCK_VECTORS);
            }
            let first = blocks.len() * BLOCK_VECTORS;
            for (vector, out) in rest.iter_mut().enumerate() {
                [*out] = values.sum(simd, weights, first + vector);
            }
            let first = head_dim - tail.len();
            for (column, out) in tail.iter_mut().enumerate() {
                let weighted = weights.iter().enumerate();
                *out = weighted
                    .map(|(slot, weight)| weight * values.get(slot)[first + column])
                    .sum();
            }
        }
    }
}

/// The values that a query's slots hold.
#[derive(Clone, Copy)]
struct Values<'a> {
    v: Heads<'a>,
    row: usize,
    kv_head: usize,
    first: usize,
}

impl Values<'_> {
    #[inline(always)]
    fn get(&self, slot: usize) -> &[f32] {
        self.v.get(self.row, self.first + slot, self.kv_head)
    }

    /// Weighted sum of some vectors of every value, held in registers.
    #[inline(always)]
    fn sum<S: Simd, const VECTORS: usize>(
        &self,
        simd: S,
        weights: &[f32],
        first: usize,
    ) -> [S::f32s; VECTORS] {
        let mut sums = [simd.splat_f32s(0.0); VECTORS];
        for (slot, weight) in weights.iter().enumerate() {
            let weight = simd.splat_f32s(*weight);
            let value = &S::as_simd_f32s(self.get(slot)).0[first..][..VECTORS];
            for vector in 0..VECTORS {
                sums[vector] = simd.mul_add_e_f32s(weight, value[vector], sums[vector]);
            }
        }
        sums
    }
}
