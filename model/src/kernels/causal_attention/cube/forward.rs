//! Forward pass with a running softmax. Source: Dao et al. 2022, arXiv:2205.14135, algorithm 1, with
//! queries in the outer loop.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::tiles::{SIDE, Tiles, add_product, cube_dim, load, no_sums, square_product};
use super::visibility::{Square, first_key_tile, sees};
use super::{Sizes, SlotRows};
use crate::kernels::cube::{cubes_for, unwritten};

/// What queries read, `[B, T, N, H]`, and the log of each softmax's denominator, `[B, T, N]`.
pub(super) fn attend(
    q: CubeTensor,
    keys: SlotRows,
    firsts: CubeTensor,
    sizes: Sizes,
) -> (CubeTensor, CubeTensor) {
    let out = unwritten(&q, q.shape());
    let log_sums = unwritten(&q, Shape::new([sizes.batch, sizes.len, sizes.num_heads]));
    let num_cubes = sizes.batch * sizes.num_heads * sizes.query_tiles();
    attend_tiles::launch(
        &out.client,
        cubes_for(&out, num_cubes * SIDE * SIDE, cube_dim()),
        cube_dim(),
        q.into_buffer_arg(),
        keys.k.into_buffer_arg(),
        keys.v.into_buffer_arg(),
        firsts.into_buffer_arg(),
        out.clone().into_buffer_arg(),
        log_sums.clone().into_buffer_arg(),
        sizes.batch,
        sizes.len,
        sizes.slots,
        keys.reach,
        sizes.scale(),
        sizes.num_heads,
        sizes.num_kv_heads,
        sizes.tiles,
    );
    (out, log_sums)
}

/// A cube per tile of queries of a head; rows of keys and values begin `reach` slots apart.
#[cube(launch)]
fn attend_tiles(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    firsts: &[i32],
    out: &mut [f32],
    log_sums: &mut [f32],
    batch: usize,
    len: usize,
    slots: usize,
    reach: usize,
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
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;

    let mut queries = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut keys = Shared::<[f32]>::new_slice(comptime!(tiles.len()));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tiles.square()));
    let mut partial = Shared::<[f32]>::new_slice(comptime!(tiles.edge * SIDE));
    load(
        &mut queries,
        q,
        ((row * len + first_query) * num_heads + head) * tiles.head_dim,
        comptime!(num_heads * tiles.head_dim),
        len - first_query,
        scale,
        tiles,
    );

    let mut largest = Array::<f32>::new(tiles.reach);
    let mut sums = Array::<f32>::new(tiles.reach);
    let mut scores = Array::<f32>::new(comptime!(tiles.reach * tiles.reach));
    let mut read = no_sums(tiles);
    #[unroll]
    for i in 0..tiles.reach {
        largest[i] = f32::min_value();
        sums[i] = 0.0_f32;
    }

    let first_tile = first_key_tile(firsts, batch * len, row * num_tiles + query_tile, tiles);
    let last_slot = slots - len + min(first_query + tiles.edge, len) - 1;
    for key_tile in first_tile..=last_slot / tiles.edge {
        let first_key = key_tile * tiles.edge;
        let first_place = ((row * reach + first_key) * num_kv_heads + kv_head) * tiles.head_dim;
        let step = comptime!(num_kv_heads * tiles.head_dim);
        let num_keys = slots - first_key;
        sync_cube();
        load(&mut keys, k, first_place, step, num_keys, 1.0_f32, tiles);
        sync_cube();
        square_product(&queries, &keys, &mut scores, tiles);

        let square = Square {
            row,
            first_query,
            first_key,
            len,
            slots,
        };
        write_maxima(&mut partial, scores, firsts, &square, tiles);
        sync_cube();
        let mut shrink = Array::<f32>::new(tiles.reach);
        raise_maxima(&mut largest, &mut shrink, &partial, tiles);
        weigh(&mut weights, scores, largest, firsts, &square, tiles);
        shrink_sums(&mut read, &mut sums, shrink, &weights, tiles);
        load(&mut keys, v, first_place, step, num_keys, 1.0_f32, tiles);
        sync_cube();
        add_product(&weights, &keys, &mut read, tiles);
    }

    // Denominators: each unit has summed its own keys.
    sync_cube();
    #[unroll]
    for i in 0..tiles.reach {
        partial[(y + i * SIDE) * SIDE + x] = sums[i];
    }
    sync_cube();
    #[unroll]
    for i in 0..tiles.reach {
        let query = first_query + y + i * SIDE;
        if query < len {
            let mut sum = 0.0_f32;
            #[unroll]
            for unit in 0..SIDE {
                sum += partial[(y + i * SIDE) * SIDE + unit];
            }
            let place = (row * len + query) * num_heads + head;
            #[unroll]
            for part in 0..tiles.columns {
                let column = x + part * SIDE;
                if column < tiles.head_dim {
                    out[place * tiles.head_dim + column] = read[i * tiles.columns + part] / sum;
                }
            }
            if x == 0 {
                log_sums[place] = largest[i] + sum.ln();
            }
        }
    }
}

/// Each unit's largest score of each of its queries.
#[cube]
fn write_maxima(
    partial: &mut [f32],
    scores: Array<f32>,
    firsts: &[i32],
    square: &Square,
    #[comptime] tiles: Tiles,
) {
    let x = UNIT_POS_X as usize;
    #[unroll]
    for i in 0..tiles.reach {
        let query = UNIT_POS_Y as usize + i * SIDE;
        let mut highest = f32::min_value();
        #[unroll]
        for j in 0..tiles.reach {
            if sees(firsts, square, query, x + j * SIDE, tiles) {
                highest = max(highest, scores[i * tiles.reach + j]);
            }
        }
        partial[query * SIDE + x] = highest;
    }
}

/// The largest score of each query so far, and what sums over smaller ones are multiplied by.
#[cube]
fn raise_maxima(
    largest: &mut Array<f32>,
    shrink: &mut Array<f32>,
    partial: &[f32],
    #[comptime] tiles: Tiles,
) {
    #[unroll]
    for i in 0..tiles.reach {
        let query = UNIT_POS_Y as usize + i * SIDE;
        let mut highest = largest[i];
        #[unroll]
        for unit in 0..SIDE {
            highest = max(highest, partial[query * SIDE + unit]);
        }
        shrink[i] = (largest[i] - highest).exp();
        largest[i] = highest;
    }
}

/// Scores as weights, zero where nothing is seen.
#[cube]
fn weigh(
    weights: &mut [f32],
    scores: Array<f32>,
    largest: Array<f32>,
    firsts: &[i32],
    square: &Square,
    #[comptime] tiles: Tiles,
) {
    #[unroll]
    for i in 0..tiles.reach {
        let query = UNIT_POS_Y as usize + i * SIDE;
        #[unroll]
        for j in 0..tiles.reach {
            let key = UNIT_POS_X as usize + j * SIDE;
            let mut weight = 0.0_f32;
            if sees(firsts, square, query, key, tiles) {
                weight = (scores[i * tiles.reach + j] - largest[i]).exp();
            }
            weights[query * comptime!(tiles.edge + 1) + key] = weight;
        }
    }
}

/// Brings the sums to the new maxima, and adds the unit's own weights to the denominators.
#[cube]
fn shrink_sums(
    read: &mut Array<f32>,
    sums: &mut Array<f32>,
    shrink: Array<f32>,
    weights: &[f32],
    #[comptime] tiles: Tiles,
) {
    #[unroll]
    for i in 0..tiles.reach {
        let query = UNIT_POS_Y as usize + i * SIDE;
        let mut sum = sums[i] * shrink[i];
        #[unroll]
        for j in 0..tiles.reach {
            let key = UNIT_POS_X as usize + j * SIDE;
            sum += weights[query * comptime!(tiles.edge + 1) + key];
        }
        sums[i] = sum;
        #[unroll]
        for column in 0..tiles.columns {
            read[i * tiles.columns + column] *= shrink[i];
        }
    }
}
