//! Backward pass over tiles: scores are computed again rather than kept.
//!
//! With `P` the softmax weights and `dO` the gradient of the output (Dao et al. 2022, algorithm 4):
//! `dV = P^T dO`, `dS = P * (dO V^T - rowsum(dO * O))`, `dQ = dS K`, `dK = dS^T Q`. One kernel goes
//! over the keys of each tile of queries and one over the queries of each tile of keys, so that
//! every number is summed by one unit, in order.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Sizes;
use super::tiles::{
    SIDE, Tiles, add_product, add_transposed_product, cube_dim, load, no_sums, square_product,
    store,
};
use super::visibility::{Square, first_key_tile, sees};
use crate::kernels::cube::{RowTeams, cubes_for, team_sum, unwritten};

/// What the backward pass reads.
pub(super) struct Inputs {
    pub(super) q: CubeTensor,
    pub(super) k: CubeTensor,
    pub(super) v: CubeTensor,
    pub(super) grad: CubeTensor,
    /// Log of each softmax's denominator and `rowsum(dO * O)`, `[B, T, N, 2]`.
    pub(super) statistics: CubeTensor,
    pub(super) firsts: CubeTensor,
    pub(super) sizes: Sizes,
}

impl Inputs {
    /// Gradient of q, `[B, T, N, H]`.
    pub(super) fn query_gradients(&self) -> CubeTensor {
        let Sizes {
            batch,
            num_heads,
            tiles,
            ..
        } = self.sizes;
        let q_grad = unwritten(&self.q, self.q.shape());
        let num_cubes = batch * num_heads * self.sizes.query_tiles();
        query_gradients::launch(
            &q_grad.client,
            cubes_for(&q_grad, num_cubes * SIDE * SIDE, cube_dim()),
            cube_dim(),
            self.q.clone().into_buffer_arg(),
            self.k.clone().into_buffer_arg(),
            self.v.clone().into_buffer_arg(),
            self.grad.clone().into_buffer_arg(),
            self.statistics.clone().into_buffer_arg(),
            self.firsts.clone().into_buffer_arg(),
            q_grad.clone().into_buffer_arg(),
            batch,
            self.sizes.len,
            self.sizes.slots,
            self.sizes.scale(),
            num_heads,
            self.sizes.num_kv_heads,
            tiles,
        );
        q_grad
    }

    /// Gradients of k and v, `[B, S, K, H]`.
    pub(super) fn key_gradients(&self) -> (CubeTensor, CubeTensor) {
        let Sizes {
            batch,
            num_kv_heads,
            tiles,
            ..
        } = self.sizes;
        let k_grad = unwritten(&self.k, self.k.shape());
        let v_grad = unwritten(&self.v, self.v.shape());
        let num_cubes = batch * num_kv_heads * self.sizes.key_tiles();
        key_gradients::launch(
            &k_grad.client,
            cubes_for(&k_grad, num_cubes * SIDE * SIDE, cube_dim()),
            cube_dim(),
            self.q.clone().into_buffer_arg(),
            self.k.clone().into_buffer_arg(),
            self.v.clone().into_buffer_arg(),
            self.grad.clone().into_buffer_arg(),
            self.statistics.clone().into_buffer_arg(),
            self.firsts.clone().into_buffer_arg(),
            k_grad.clone().into_buffer_arg(),
            v_grad.clone().into_buffer_arg(),
            batch,
            self.sizes.len,
            self.sizes.slots,
            self.sizes.scale(),
            self.sizes.num_heads,
            num_kv_heads,
            tiles,
        );
        (k_grad, v_grad)
    }
}

/// Log of each softmax's denominator and `rowsum(dO * O)`, `[B, T, N, 2]`.
pub(super) fn statistics(out: CubeTensor, grad: CubeTensor, log_sums: CubeTensor) -> CubeTensor {
    let [batch, len, num_heads, head_dim] = out.shape().dims();
    let teams = RowTeams::new(head_dim);
    let statistics = unwritten(&out, Shape::new([batch, len, num_heads, 2]));
    write_statistics::launch(
        &statistics.client,
        teams.cube_count(&statistics, batch * len * num_heads),
        teams.cube_dim(),
        out.into_buffer_arg(),
        grad.into_buffer_arg(),
        log_sums.into_buffer_arg(),
        statistics.clone().into_buffer_arg(),
        head_dim,
        teams.lanes,
    );
    statistics
}

/// A team per query of a head.
#[cube(launch)]
fn write_statistics(
    out: &[f32],
    grad: &[f32],
    log_sums: &[f32],
    statistics: &mut [f32],
    #[comptime] head_dim: usize,
    #[comptime] lanes: usize,
) {
    let lane = UNIT_POS_X as usize;
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let is_row = row < log_sums.len();
    let mut product = 0.0_f32;
    if is_row {
        for column in range_stepped(lane, head_dim, lanes) {
            product += out[row * head_dim + column] * grad[row * head_dim + column];
        }
    }
    let product = team_sum(product, lanes);
    if is_row && lane == 0 {
        statistics[2 * row] = log_sums[row];
        statistics[2 * row + 1] = product;
    }
}

/// A cube per tile of queries of a head, over the keys that they see.
#[cube(launch)]
fn query_gradients(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    statistics: &[f32],
    firsts: &[i32],
    q_grad: &mut [f32],
    batch: usize,
    len: usize,
    slots: usize,
    scale: f32,
    #[comptime] num_heads: usize,
    #[comptime] num_kv_heads: usize,
    #[comptime] tiles: Tiles,
) {
    let num_tiles = len.div_ceil(tiles.edge);
    let query_tile = CUBE_POS % num_tiles;
    let head = CUBE_POS / num_tiles % num_heads;
    let row = CUBE_POS / (num_tiles * num_heads);
    if row >= batch {
        terminate!();
    }
    let kv_head = head / comptime!(num_heads / num_kv_heads);
    let first_query = query_tile * tiles.edge;
    let num_queries = len - first_query;
    let place = ((row * len + first_query) * num_heads + head) * tiles.head_dim;
    let step = comptime!(num_heads * tiles.head_dim);

    let mut queries = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut grads = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut square = Shared::<[f32]>::new_slice(comptime!(tiles.square()));
    load(&mut queries, q, place, step, num_queries, scale, tiles);
    load(&mut grads, grad, place, step, num_queries, 1.0_f32, tiles);

    let mut scores = Array::<f32>::new(comptime!(tiles.reach * tiles.reach));
    let mut slopes = Array::<f32>::new(comptime!(tiles.reach * tiles.reach));
    let mut sums = no_sums(tiles);
    let first_tile = first_key_tile(firsts, batch * len, row * num_tiles + query_tile, tiles);
    let last_slot = slots - len + min(first_query + tiles.edge, len) - 1;
    for key_tile in first_tile..=last_slot / tiles.edge {
        let first_key = key_tile * tiles.edge;
        let key_place = ((row * slots + first_key) * num_kv_heads + kv_head) * tiles.head_dim;
        let key_step = comptime!(num_kv_heads * tiles.head_dim);
        let num_keys = slots - first_key;
        sync_cube();
        load(&mut keys, v, key_place, key_step, num_keys, 1.0_f32, tiles);
        sync_cube();
        square_product(&grads, &keys, &mut slopes, tiles);
        sync_cube();
        load(&mut keys, k, key_place, key_step, num_keys, 1.0_f32, tiles);
        sync_cube();
        square_product(&queries, &keys, &mut scores, tiles);
        weigh(
            &mut scores,
            &mut slopes,
            statistics,
            firsts,
            &Square {
                row,
                first_query,
                first_key,
                len,
                slots,
            },
            head,
            num_heads,
            tiles,
        );
        write_square(&mut square, slopes, tiles);
        sync_cube();
        add_product(&square, &keys, &mut sums, tiles);
    }
    store(q_grad, sums, place, step, num_queries, scale, tiles);
}

/// A cube per tile of keys of a head, over the queries of all heads that see them.
#[cube(launch)]
fn key_gradients(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    grad: &[f32],
    statistics: &[f32],
    firsts: &[i32],
    k_grad: &mut [f32],
    v_grad: &mut [f32],
    batch: usize,
    len: usize,
    slots: usize,
    scale: f32,
    #[comptime] num_heads: usize,
    #[comptime] num_kv_heads: usize,
    #[comptime] tiles: Tiles,
) {
    let num_tiles = slots.div_ceil(tiles.edge);
    let num_query_tiles = len.div_ceil(tiles.edge);
    let key_tile = CUBE_POS % num_tiles;
    let kv_head = CUBE_POS / num_tiles % num_kv_heads;
    let row = CUBE_POS / (num_tiles * num_kv_heads);
    if row >= batch {
        terminate!();
    }
    let first_key = key_tile * tiles.edge;
    let num_keys = slots - first_key;
    let key_place = ((row * slots + first_key) * num_kv_heads + kv_head) * tiles.head_dim;
    let key_step = comptime!(num_kv_heads * tiles.head_dim);

    let mut keys = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut values = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut queries = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut square = Shared::<[f32]>::new_slice(comptime!(tiles.square()));
    load(&mut keys, k, key_place, key_step, num_keys, scale, tiles);
    load(
        &mut values,
        v,
        key_place,
        key_step,
        num_keys,
        1.0_f32,
        tiles,
    );

    let mut scores = Array::<f32>::new(comptime!(tiles.reach * tiles.reach));
    let mut slopes = Array::<f32>::new(comptime!(tiles.reach * tiles.reach));
    let mut key_sums = no_sums(tiles);
    let mut value_sums = no_sums(tiles);
    // The last queries' slots are the last ones: those before the first key see none of the tile.
    let mut first_query_tile = 0usize;
    if first_key + len > slots {
        first_query_tile = (first_key + len - slots) / tiles.edge;
    }
    for query_tile in first_query_tile..num_query_tiles {
        let tile = row * num_query_tiles + query_tile;
        if first_key_tile(firsts, batch * len, tile, tiles) <= key_tile {
            let first_query = query_tile * tiles.edge;
            let num_queries = len - first_query;
            for member in 0..comptime!(num_heads / num_kv_heads) {
                let head = kv_head * comptime!(num_heads / num_kv_heads) + member;
                let place = ((row * len + first_query) * num_heads + head) * tiles.head_dim;
                let step = comptime!(num_heads * tiles.head_dim);
                sync_cube();
                load(&mut queries, q, place, step, num_queries, 1.0_f32, tiles);
                sync_cube();
                square_product(&queries, &keys, &mut scores, tiles);
                sync_cube();
                load(&mut queries, grad, place, step, num_queries, 1.0_f32, tiles);
                sync_cube();
                square_product(&queries, &values, &mut slopes, tiles);
                weigh(
                    &mut scores,
                    &mut slopes,
                    statistics,
                    firsts,
                    &Square {
                        row,
                        first_query,
                        first_key,
                        len,
                        slots,
                    },
                    head,
                    num_heads,
                    tiles,
                );
                write_square(&mut square, scores, tiles);
                sync_cube();
                add_transposed_product(&square, &queries, &mut value_sums, tiles);
                sync_cube();
                write_square(&mut square, slopes, tiles);
                load(&mut queries, q, place, step, num_queries, 1.0_f32, tiles);
                sync_cube();
                add_transposed_product(&square, &queries, &mut key_sums, tiles);
            }
        }
    }
    store(
        k_grad, key_sums, key_place, key_step, num_keys, scale, tiles,
    );
    store(
        v_grad, value_sums, key_place, key_step, num_keys, 1.0_f32, tiles,
    );
}

/// Scores become weights `exp(score - log_sum)`, zero where nothing is seen, and gradients of
/// weights become gradients of scores.
#[cube]
fn weigh(
    scores: &mut Array<f32>,
    slopes: &mut Array<f32>,
    statistics: &[f32],
    firsts: &[i32],
    square: &Square,
    head: usize,
    #[comptime] num_heads: usize,
    #[comptime] tiles: Tiles,
) {
    #[unroll]
    for i in 0..tiles.reach {
        let query = UNIT_POS_Y as usize + i * SIDE;
        let token = square.row * square.len + square.first_query + query;
        let index = token * num_heads + head;
        #[unroll]
        for j in 0..tiles.reach {
            let key = UNIT_POS_X as usize + j * SIDE;
            let mut weight = 0.0_f32;
            let mut slope = 0.0_f32;
            if sees(firsts, square, query, key, tiles) {
                weight = (scores[i * tiles.reach + j] - statistics[2 * index]).exp();
                slope = weight * (slopes[i * tiles.reach + j] - statistics[2 * index + 1]);
            }
            scores[i * tiles.reach + j] = weight;
            slopes[i * tiles.reach + j] = slope;
        }
    }
}

/// Puts the units' parts of a square together.
#[cube]
fn write_square(square: &mut [f32], parts: Array<f32>, #[comptime] tiles: Tiles) {
    #[unroll]
    for i in 0..tiles.reach {
        #[unroll]
        for j in 0..tiles.reach {
            let row = UNIT_POS_Y as usize + i * SIDE;
            let column = UNIT_POS_X as usize + j * SIDE;
            square[row * comptime!(tiles.edge + 1) + column] = parts[i * tiles.reach + j];
        }
    }
}
