//! Products of a few rows with a matrix, as decoding needs them: the matrix is read once, as it
//! lies, and for one row memory's speed is the limit. Packing it first, as a product of many rows
//! does, would read and write it all once more.
//!
//! Every sum goes over the inputs in one order, whatever the number of rows or threads. The loops of
//! a few rows are plain: inside `vectorized` the compiler makes them vectors, widening of bf16 and
//! int8 included. Those of more rows hold a tile of sums in registers.

mod columns;
mod dots;
mod strips;

use pulp::Simd;

pub(crate) use self::columns::times_row_major;
pub(crate) use self::dots::times_transposed;

/// Up to this many rows of a sequence, reading the matrix once per product beats packing it.
const MAX_ROWS: usize = 4;

/// Most numbers of a vector of any processor.
const MAX_LANES: usize = 16;

/// Whether a product of `[.., rows, inputs]` is one of few rows.
///
/// The axes before do not count, though they are rows of the product too: sums come in another order
/// here than in a product of many rows, and a sequence's numbers must not depend on how many others
/// are decoded beside it.
pub(crate) fn has_few_rows(shape: &[usize]) -> bool {
    let rows = shape.len().checked_sub(2).map_or(1, |axis| shape[axis]);
    (1..=MAX_ROWS).contains(&rows)
}

/// A number as a matrix stores it.
pub(crate) trait Stored: Copy + Send + Sync {
    fn widen(self) -> f32;

    /// The numbers as f32, in the buffer where they are not.
    #[inline(always)]
    fn widened<'a>(values: &'a [Self], buffer: &'a mut [f32]) -> &'a [f32] {
        for index in 0..values.len() {
            buffer[index] = values[index].widen();
        }
        &buffer[..values.len()]
    }
}

impl Stored for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn widened<'a>(values: &'a [Self], _: &'a mut [f32]) -> &'a [f32] {
        values
    }
}

impl Stored for half::bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from(self)
    }
}

/// `sum + x · value`, rounded once where the processor can: elsewhere that would be a function call.
#[inline(always)]
fn add_product<S: Simd>(sum: f32, x: f32, value: f32) -> f32 {
    if S::IS_SCALAR {
        sum + x * value
    } else {
        x.mul_add(value, sum)
    }
}

/// The pieces of every row that each task writes.
fn by_columns(out: &mut [f32], outputs: usize, width: usize) -> Vec<Vec<&mut [f32]>> {
    let mut tasks = Vec::new();
    tasks.resize_with(outputs.div_ceil(width), Vec::new);
    for row in out.chunks_exact_mut(outputs) {
        for (task, piece) in tasks.iter_mut().zip(row.chunks_mut(width)) {
            task.push(piece);
        }
    }
    tasks
}
