//! The seam to Burn's CubeCL backend, which runs on graphics cards: memory of tensors, and what
//! kernels share.
//!
//! A *cube* is a group of units with shared memory (a thread block under CUDA, a workgroup under
//! Vulkan). Burn's fusion engine hands every fused operation over as one step of its own stream: what
//! comes before and after is fused as usual.
//!
//! All sums have an order that depends on shapes alone, so a device gives the same bits each time.

use burn::backend::{DispatchDevice, TensorMetadata};
use burn::tensor::{DType, Shape};
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::is_f32_on;

/// Units of a cube: a multiple of every device's vector width that every device allows.
pub(crate) const CUBE_UNITS: usize = 256;

/// Rows that one unit adds up when columns are summed.
const COLUMN_ROWS: usize = 64;

/// Whether the fused body for graphics cards can take this tensor: f32 on CubeCL, tracked or not.
pub(crate) fn is_cube_f32<const R: usize>(x: &burn::Tensor<R>) -> bool {
    is_f32_on(x, |device| matches!(device, DispatchDevice::Cube(_)))
}

/// The same elements in one row-major run, and nothing behind them; copies only when they are not.
///
/// A kernel takes the length of a buffer for the number of elements, and CUDA pads rows: behind the
/// only row of a tensor the padding is still there.
pub(crate) fn contiguous(tensor: CubeTensor) -> CubeTensor {
    let mut run = burn_cubecl::kernel::into_contiguous(tensor);
    let num_bytes = run.shape().num_elements() * run.dtype.size();
    let padding = run.handle.size_in_used() - num_bytes as u64;
    run.handle = run.handle.offset_end(padding);
    run
}

/// The same elements in one run that a kernel may write over: copied where somebody else holds them.
pub(crate) fn in_place(tensor: CubeTensor) -> CubeTensor {
    let run = contiguous(tensor);
    if run.can_mut() { run } else { run.copy() }
}

/// Elements of an int tensor as one run of i32.
pub(crate) fn i32s(tensor: CubeTensor) -> CubeTensor {
    contiguous(burn_cubecl::kernel::cast(tensor, DType::I32))
}

/// A tensor on the device of `like`, for a kernel that writes every element.
pub(crate) fn unwritten(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let handle = like.client.empty(shape.num_elements() * DType::F32.size());
    CubeTensor::new_contiguous(
        like.client.clone(),
        like.device.clone(),
        shape,
        handle,
        DType::F32,
    )
}

/// How a kernel over rows is laid out: each row belongs to a team of units, a cube holds several.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowTeams {
    /// Elements of a row.
    pub(crate) width: usize,
    /// Units of a team, a power of two.
    pub(crate) lanes: usize,
    /// Teams of a cube.
    pub(crate) teams: usize,
}

impl RowTeams {
    /// Teams as large as their rows, up to a whole cube.
    pub(crate) fn new(width: usize) -> Self {
        let lanes = width.next_power_of_two().min(CUBE_UNITS);
        Self {
            width,
            lanes,
            teams: CUBE_UNITS / lanes,
        }
    }

    /// Lanes along X, teams along Y.
    pub(crate) fn cube_dim(self) -> CubeDim {
        CubeDim::new_2d(self.lanes as u32, self.teams as u32)
    }

    /// Columns that one lane works on at most.
    pub(crate) fn columns_per_lane(self) -> usize {
        self.width.div_ceil(self.lanes)
    }

    /// Cubes that hold a team for each of `num_teams`, and perhaps some more.
    pub(crate) fn cube_count(self, tensor: &CubeTensor, num_teams: usize) -> CubeCount {
        cubes_for(tensor, num_teams * self.lanes, self.cube_dim())
    }
}

/// Cubes with at least `num_units` units together.
pub(crate) fn cubes_for(tensor: &CubeTensor, num_units: usize, cube_dim: CubeDim) -> CubeCount {
    cubecl::calculate_cube_count_elemwise(&tensor.client, num_units, cube_dim)
}

/// How two numbers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Merge {
    Sum,
    Max,
}

/// The sum over the lanes of a team, the same in each lane.
///
/// Every unit of the cube must call it, those without a row too.
#[cube]
pub(crate) fn team_sum(value: f32, #[comptime] lanes: usize) -> f32 {
    merge_team(value, lanes, Merge::Sum)
}

/// The largest number of a team, under the same terms.
#[cube]
pub(crate) fn team_max(value: f32, #[comptime] lanes: usize) -> f32 {
    merge_team(value, lanes, Merge::Max)
}

/// Halves the number of lanes that hold a number until one of them holds what all have become.
#[cube]
fn merge_team(value: f32, #[comptime] lanes: usize, #[comptime] merge: Merge) -> f32 {
    let unit = UNIT_POS as usize;
    let lane = unit % lanes;
    let mut merged = Shared::<[f32]>::new_slice(CUBE_UNITS);
    merged[unit] = value;
    sync_cube();
    #[unroll]
    for step in 0..comptime!(lanes.ilog2()) {
        let reach = comptime!(lanes >> (step + 1));
        if lane < reach {
            let other = merged[unit + reach];
            if comptime!(merge == Merge::Sum) {
                merged[unit] += other;
            } else {
                merged[unit] = max(merged[unit], other);
            }
        }
        sync_cube();
    }
    let whole = merged[unit - lane];
    // The memory is written again by the next call.
    sync_cube();
    whole
}

/// Sums of the columns of a row-major `[M, D]`, as `[D]`.
///
/// Rows are added in order, in groups of a fixed number of them, until one is left.
pub(crate) fn column_sums(mut rows: CubeTensor) -> CubeTensor {
    let [mut num_rows, width] = rows.shape().dims();
    while num_rows > 1 {
        num_rows = num_rows.div_ceil(COLUMN_ROWS);
        let sums = unwritten(&rows, Shape::new([num_rows, width]));
        let cube_dim = CubeDim::new_1d(CUBE_UNITS as u32);
        sum_groups::launch(
            &sums.client,
            cubes_for(&sums, num_rows * width, cube_dim),
            cube_dim,
            rows.into_buffer_arg(),
            sums.clone().into_buffer_arg(),
            width,
        );
        rows = sums;
    }
    CubeTensor::new_contiguous(
        rows.client,
        rows.device,
        Shape::new([width]),
        rows.handle,
        DType::F32,
    )
}

/// Each unit adds up one column of a group of rows.
#[cube(launch)]
fn sum_groups(rows: &[f32], sums: &mut [f32], width: usize) {
    if ABSOLUTE_POS >= sums.len() {
        terminate!();
    }
    let first = ABSOLUTE_POS / width * COLUMN_ROWS * width + ABSOLUTE_POS % width;
    let mut sum = 0.0_f32;
    for row in 0..COLUMN_ROWS {
        let place = first + row * width;
        if place < rows.len() {
            sum += rows[place];
        }
    }
    sums[ABSOLUTE_POS] = sum;
}

#[cfg(test)]
mod tests {
    use burn_cubecl::CubeDevice;

    use super::*;

    /// A row of 37 numbers in memory for 128, as CUDA keeps it.
    #[test]
    fn padding_is_none_of_the_elements_on_a_graphics_card() {
        let Some(device) = CubeDevice::enumerate_all().into_iter().next() else {
            return;
        };
        let client = device.client();
        let memory = client.empty(512);
        let row = CubeTensor::new_contiguous(client, device, Shape::new([37]), memory, DType::F32);
        assert_eq!(contiguous(row).handle.size_in_used(), 37 * 4);
    }
}
