//! Which slots each query sees: from its document's first up to itself, those of its gap left out.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::Sizes;
use super::tiles::Tiles;
use crate::kernels::cube::{CUBE_UNITS, cubes_for, i32s, unwritten};

/// The first slot that each query sees, with gaps also where its gap begins and ends, `[B, T, 1 or 3]`,
/// and behind these the first that any query of a tile sees, `[B, query tiles]`: one tensor, since
/// some cards bind no more than eight.
pub(super) fn first_slots(sight: CubeTensor, sizes: Sizes) -> CubeTensor {
    let sight = i32s(sight);
    let num_tiles = sizes.batch * sizes.query_tiles();
    let shape = Shape::new([sight.shape().num_elements() + num_tiles]);
    // An i32 is as wide as an f32.
    let firsts = CubeTensor {
        dtype: sight.dtype,
        ..unwritten(&sight, shape)
    };
    let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
    write_first_slots::launch(
        &firsts.client,
        cubes_for(&firsts, num_tiles, cube_dim),
        cube_dim,
        sight.into_buffer_arg(),
        firsts.clone().into_buffer_arg(),
        sizes.len,
        sizes.slots,
        sizes.tiles,
    );
    firsts
}

/// A unit per tile of queries.
#[cube(launch)]
fn write_first_slots(
    sight: &[i32],
    firsts: &mut [i32],
    len: usize,
    slots: usize,
    #[comptime] tiles: Tiles,
) {
    let smallest_place = sight.len() + ABSOLUTE_POS;
    if smallest_place >= firsts.len() {
        terminate!();
    }
    let num_tiles = len.div_ceil(tiles.edge);
    let row = ABSOLUTE_POS / num_tiles;
    let first_query = ABSOLUTE_POS % num_tiles * tiles.edge;
    let mut smallest = slots as i32;
    for place in 0..tiles.edge {
        let query = first_query + place;
        if query < len {
            let index = (row * len + query) * tiles.sight;
            let own = (slots - len + query) as i32;
            let mut first = own - sight[index];
            if comptime!(tiles.has_gaps()) {
                let gap_end = own - sight[index + 1];
                let gap_len = sight[index + 2];
                first -= gap_len;
                firsts[index + 1] = gap_end - gap_len;
                firsts[index + 2] = gap_end;
            }
            let first = max(first, 0);
            firsts[index] = first;
            smallest = min(smallest, first);
        }
    }
    firsts[smallest_place] = smallest;
}

/// Where a square of queries by keys lies.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Square {
    pub(super) row: usize,
    pub(super) first_query: usize,
    pub(super) first_key: usize,
    pub(super) len: usize,
    pub(super) slots: usize,
}

/// Whether a query of the square, counted in it, sees a key; those past the end see none.
#[cube]
pub(super) fn sees(
    firsts: &[i32],
    square: &Square,
    query: usize,
    key: usize,
    #[comptime] tiles: Tiles,
) -> bool {
    let query = square.first_query + query;
    let slot = square.first_key + key;
    let index = (square.row * square.len + query) * tiles.sight;
    let mut is_seen = query < square.len && slot + square.len <= square.slots + query;
    if is_seen {
        is_seen = slot as i32 >= firsts[index];
        if comptime!(tiles.has_gaps()) {
            let is_before = (slot as i32) < firsts[index + 1];
            let is_behind = slot as i32 >= firsts[index + 2];
            is_seen = is_seen && (is_before || is_behind);
        }
    }
    is_seen
}

/// The first tile of keys that any query of a tile sees, the same in each unit.
///
/// `tile` is counted over all rows, of which there are `num_queries` queries together.
#[cube]
pub(super) fn first_key_tile(
    firsts: &[i32],
    num_queries: usize,
    tile: usize,
    #[comptime] tiles: Tiles,
) -> usize {
    let mut first = Shared::<[u32]>::new_slice(1usize);
    sync_cube();
    if UNIT_POS == 0 {
        first[0] = (firsts[num_queries * tiles.sight + tile] as usize / tiles.edge) as u32;
    }
    sync_cube();
    workgroup_uniform_load(&first[0]) as usize
}
