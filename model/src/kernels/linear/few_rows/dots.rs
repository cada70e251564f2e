//! Products with the transpose of a row-major matrix: each output is a sum over a run of memory.

use pulp::{Simd, WithSimd};

use super::{MAX_ROWS, Stored, add_product};

/// Vectors of running totals of a sum of products.
const TOTALS: usize = 4;
/// Rows whose sums of products with one vector are a tile.
const DOT_ROWS: usize = 3;

/// Some outputs of a product whose columns are runs of memory, for every row of `x`.
pub(super) struct Dots<'a, T> {
    pub(super) out: Vec<&'a mut [f32]>,
    pub(super) x: &'a [f32],
    pub(super) vectors: &'a [T],
    pub(super) inputs: usize,
}

impl<T: Stored> WithSimd for Dots<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        if self.out.len() > MAX_ROWS {
            return self.tile(simd);
        }
        // As many totals as the tile of more rows has.
        match S::F32_LANES {
            16 => self.stream::<S, { TOTALS * 16 }>(),
            8 => self.stream::<S, { TOTALS * 8 }>(),
            4 => self.stream::<S, { TOTALS * 4 }>(),
            _ => self.stream::<S, TOTALS>(),
        }
    }
}

impl<T: Stored> Dots<'_, T> {
    /// Few rows: each vector is read once and stays in the cache for all of them.
    #[inline(always)]
    fn stream<S: Simd, const LANES: usize>(mut self) {
        let num_outputs = self.out.first().map_or(0, |out| out.len());
        let vectors = self.vectors.chunks_exact(self.inputs).take(num_outputs);
        for (place, vector) in vectors.enumerate() {
            for (out, x) in self.out.iter_mut().zip(self.x.chunks_exact(self.inputs)) {
                out[place] = sum_of_products::<S, T, LANES>(x, vector);
            }
        }
    }

    /// More rows: the vectors are widened once, and a few rows share each vector that is loaded.
    #[inline(always)]
    fn tile<S: Simd>(mut self, simd: S) {
        let num_outputs = self.out.first().map_or(0, |out| out.len());
        let vectors = &self.vectors[..num_outputs * self.inputs];
        let wide: Vec<f32> = vectors.iter().map(|value| value.widen()).collect();
        let x_groups = self.x.chunks(DOT_ROWS * self.inputs);
        for (outs, x) in self.out.chunks_mut(DOT_ROWS).zip(x_groups) {
            let row = |row: usize| &x[row * self.inputs..][..self.inputs];
            for (place, vector) in wide.chunks_exact(self.inputs).enumerate() {
                if let [a, b, c] = &mut *outs {
                    [a[place], b[place], c[place]] =
                        sums_of_products(simd, [row(0), row(1), row(2)], vector);
                } else {
                    for (index, out) in outs.iter_mut().enumerate() {
                        [out[place]] = sums_of_products(simd, [row(index)], vector);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn sum_of_products<S: Simd, T: Stored, const LANES: usize>(x: &[f32], vector: &[T]) -> f32 {
    let mut totals = [0.0_f32; LANES];
    let (x_lanes, x_rest) = x.as_chunks::<LANES>();
    let (lanes, rest) = vector.as_chunks::<LANES>();
    for (x, values) in x_lanes.iter().zip(lanes) {
        for lane in 0..LANES {
            totals[lane] = add_product::<S>(totals[lane], x[lane], values[lane].widen());
        }
    }
    let rest = x_rest.iter().zip(rest).map(|(x, value)| x * value.widen());
    totals.iter().sum::<f32>() + rest.sum::<f32>()
}

/// [`sum_of_products`] of several rows with one vector, in the same order.
#[inline(always)]
fn sums_of_products<S: Simd, const ROWS: usize>(
    simd: S,
    rows: [&[f32]; ROWS],
    vector: &[f32],
) -> [f32; ROWS] {
    // Plain indices: adapters of iterators would be calls, with the totals in memory.
    let (values, _) = pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(vector).0);
    let mut totals = [[simd.splat_f32s(0.0); TOTALS]; ROWS];
    let mut x = [values; ROWS];
    for row in 0..ROWS {
        x[row] = pulp::as_arrays::<TOTALS, _>(S::as_simd_f32s(rows[row]).0).0;
    }
    for index in 0..values.len() {
        for row in 0..ROWS {
            for place in 0..TOTALS {
                totals[row][place] = simd.mul_add_e_f32s(
                    x[row][index][place],
                    values[index][place],
                    totals[row][place],
                );
            }
        }
    }
    let whole = values.len() * TOTALS * S::F32_LANES;
    let mut sums = [0.0; ROWS];
    for row in 0..ROWS {
        let mut lanes = [0.0_f32; TOTALS * 16];
        let lanes = &mut lanes[..TOTALS * S::F32_LANES];
        S::as_mut_simd_f32s(lanes).0.copy_from_slice(&totals[row]);
        let rest = rows[row][whole..].iter().zip(&vector[whole..]);
        let rest = rest.map(|(x, value)| x * value);
        sums[row] = lanes.iter().sum::<f32>() + rest.sum::<f32>();
    }
    sums
}
