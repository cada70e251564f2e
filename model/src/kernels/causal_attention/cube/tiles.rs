//! Tiles in shared memory, and products of them in registers.
//!
//! A cube is a square of 8 x 8 units. Unit `(x, y)` holds the numbers of rows `y, y + 8, ..` and
//! columns `x, x + 8, ..` of a product, so that neighbours read neighbouring banks.

use cubecl::prelude::*;

/// Units along each side of a cube.
pub(super) const SIDE: usize = 8;

/// Numbers in shared memory that no card lacks: 32 KiB of f32.
const SHARED_NUMBERS: usize = 8 << 10;

/// Shapes of the tiles for one head size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Tiles {
    /// Width of a head.
    pub(super) head_dim: usize,
    /// Queries, and keys, of a tile.
    pub(super) edge: usize,
    /// Rows, and columns, of a unit in a square of queries by keys.
    pub(super) reach: usize,
    /// Columns of a unit in rows as wide as a head.
    pub(super) columns: usize,
    /// Numbers from one row of a head's tile to the next: odd, so that rows start in other banks.
    pub(super) stride: usize,
    /// Numbers that say what a query sees: its place, or three with a gap.
    pub(super) sight: usize,
}

impl Tiles {
    /// Three tiles of `SIDE` rows, a square and the partial maxima fill the shared memory.
    pub(super) const MAX_HEAD_DIM: usize = 320;

    /// The largest tiles that leave room for three of them, a square and partial maxima.
    ///
    /// # Panics
    ///
    /// When the head is larger than [`Self::MAX_HEAD_DIM`].
    pub(super) fn new(head_dim: usize, has_gaps: bool) -> Self {
        let columns = head_dim.div_ceil(SIDE);
        let stride = columns * SIDE + 1;
        let fits =
            |edge: usize| 3 * edge * stride + edge * (edge + 1) + edge * SIDE <= SHARED_NUMBERS;
        let edge = [4 * SIDE, 2 * SIDE, SIDE]
            .into_iter()
            .find(|edge| fits(*edge));
        let edge = edge.expect("callers send larger heads to the composed body");
        Self {
            head_dim,
            edge,
            reach: edge / SIDE,
            columns,
            stride,
            sight: if has_gaps { 3 } else { 1 },
        }
    }

    /// Whether there are slots that a query does not see between those that it does.
    pub(super) fn has_gaps(self) -> bool {
        self.sight > 1
    }

    /// Numbers of a tile of heads.
    pub(super) fn len(self) -> usize {
        self.edge * self.stride
    }

    /// Numbers of a square of queries by keys.
    pub(super) fn square(self) -> usize {
        self.edge * (self.edge + 1)
    }
}

/// A square of units.
pub(super) fn cube_dim() -> CubeDim {
    CubeDim::new_2d(SIDE as u32, SIDE as u32)
}

/// Copies up to `edge` rows of heads, times `factor`; what is outside of them is zero.
///
/// `first` is the place of the first row in `values`, `step` the distance to the next one.
#[cube]
pub(super) fn load(
    tile: &mut [f32],
    values: &[f32],
    first: usize,
    step: usize,
    num_rows: usize,
    factor: f32,
    #[comptime] tiles: Tiles,
) {
    let width = comptime!(tiles.columns * SIDE);
    for place in range_stepped(
        UNIT_POS as usize,
        comptime!(tiles.edge * width),
        SIDE * SIDE,
    ) {
        let row = place / width;
        let column = place % width;
        let mut value = 0.0_f32;
        if row < num_rows && column < tiles.head_dim {
            value = values[first + row * step + column] * factor;
        }
        tile[row * tiles.stride + column] = value;
    }
}

/// The unit's part of `rows * columns^T`, added to nothing: both are tiles of heads.
#[cube]
pub(super) fn square_product(
    rows: &[f32],
    columns: &[f32],
    product: &mut Array<f32>,
    #[comptime] tiles: Tiles,
) {
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    #[unroll]
    for place in 0..comptime!(tiles.reach * tiles.reach) {
        product[place] = 0.0_f32;
    }
    for depth in 0..tiles.head_dim {
        let mut across = Array::<f32>::new(tiles.reach);
        #[unroll]
        for j in 0..tiles.reach {
            across[j] = columns[(x + j * SIDE) * tiles.stride + depth];
        }
        #[unroll]
        for i in 0..tiles.reach {
            let along = rows[(y + i * SIDE) * tiles.stride + depth];
            #[unroll]
            for j in 0..tiles.reach {
                product[i * tiles.reach + j] += along * across[j];
            }
        }
    }
}

/// Adds the unit's part of `square * heads` to `sums`.
#[cube]
pub(super) fn add_product(
    square: &[f32],
    heads: &[f32],
    sums: &mut Array<f32>,
    #[comptime] tiles: Tiles,
) {
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    for depth in 0..tiles.edge {
        let mut along = Array::<f32>::new(tiles.reach);
        #[unroll]
        for i in 0..tiles.reach {
            along[i] = square[(y + i * SIDE) * comptime!(tiles.edge + 1) + depth];
        }
        #[unroll]
        for column in 0..tiles.columns {
            let value = heads[depth * tiles.stride + x + column * SIDE];
            #[unroll]
            for i in 0..tiles.reach {
                sums[i * tiles.columns + column] += along[i] * value;
            }
        }
    }
}

/// Adds the unit's part of `square^T * heads` to `sums`.
#[cube]
pub(super) fn add_transposed_product(
    square: &[f32],
    heads: &[f32],
    sums: &mut Array<f32>,
    #[comptime] tiles: Tiles,
) {
    let x = UNIT_POS_X as usize;
    let y = UNIT_POS_Y as usize;
    for depth in 0..tiles.edge {
        let mut along = Array::<f32>::new(tiles.reach);
        #[unroll]
        for i in 0..tiles.reach {
            along[i] = square[depth * comptime!(tiles.edge + 1) + y + i * SIDE];
        }
        #[unroll]
        for column in 0..tiles.columns {
            let value = heads[depth * tiles.stride + x + column * SIDE];
            #[unroll]
            for i in 0..tiles.reach {
                sums[i * tiles.columns + column] += along[i] * value;
            }
        }
    }
}

/// Writes the unit's part of up to `edge` rows of heads, times `factor`.
#[cube]
pub(super) fn store(
    values: &mut [f32],
    sums: Array<f32>,
    first: usize,
    step: usize,
    num_rows: usize,
    factor: f32,
    #[comptime] tiles: Tiles,
) {
    #[unroll]
    for i in 0..tiles.reach {
        let row = UNIT_POS_Y as usize + i * SIDE;
        if row < num_rows {
            #[unroll]
            for place in 0..tiles.columns {
                let column = UNIT_POS_X as usize + place * SIDE;
                if column < tiles.head_dim {
                    values[first + row * step + column] = sums[i * tiles.columns + place] * factor;
                }
            }
        }
    }
}

/// Zeroes a unit's sums of rows of heads.
#[cube]
pub(super) fn no_sums(#[comptime] tiles: Tiles) -> Array<f32> {
    let mut sums = Array::<f32>::new(comptime!(tiles.reach * tiles.columns));
    #[unroll]
    for place in 0..comptime!(tiles.reach * tiles.columns) {
        sums[place] = 0.0_f32;
    }
    sums
}
