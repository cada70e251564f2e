//! Kernels that move rows between tokens and experts.
//!
//! Axis letters: `N` tokens, `K` experts per token, `R` rows (`N * K`), `D` hidden size, `S` rows of a
//! segment.

use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, backend_extension};
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use crate::kernels::cube::{
    CUBE_UNITS, RowTeams, contiguous, cubes_for, i32s, in_place, team_sum, unwritten,
};

/// What dispatch does with rows.
#[backend_extension(Cube, Fusion)]
pub(crate) trait RowOps: Backend {
    /// Rows `[R, D]`: of the tokens `[N, D]` the one that each is made of, `tokens [R]`.
    #[fusion(meta = |values, tokens| rows_like(values, tokens.shape[0]))]
    fn copy_rows(values: FloatTensor<Self>, tokens: IntTensor<Self>) -> FloatTensor<Self>;

    /// For each token the sum of its rows `[R, D]`, found by `rows_of [N, K]`: `[N, D]`.
    #[fusion(meta = |rows, rows_of| rows_like(rows, rows_of.shape[0]))]
    fn sum_rows(rows: FloatTensor<Self>, rows_of: IntTensor<Self>) -> FloatTensor<Self>;

    /// The same, times weights `[N, K]`.
    #[fusion(meta = |rows, rows_of, _weights| rows_like(rows, rows_of.shape[0]))]
    fn sum_weighted_rows(
        rows: FloatTensor<Self>,
        rows_of: IntTensor<Self>,
        weights: FloatTensor<Self>,
    ) -> FloatTensor<Self>;

    /// Gradients of the rows `[R, D]` and of the weights `[N, K]` under that of the sums, `[N, D]`.
    #[fusion(meta = |rows, _rows_of, weights, _grad| (rows.clone(), weights.clone()))]
    fn sum_weighted_rows_backward(
        rows: FloatTensor<Self>,
        rows_of: IntTensor<Self>,
        weights: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// A copy of `count` rows.
    #[fusion(meta = |rows, _first, count| rows_like(rows, *count))]
    fn read_run(rows: FloatTensor<Self>, first: usize, count: usize) -> FloatTensor<Self>;

    /// The rows with those from `first` on replaced, in place where nobody else holds them.
    #[fusion(dtype = rows, shape = rows)]
    fn write_run(
        rows: FloatTensor<Self>,
        run: FloatTensor<Self>,
        first: usize,
    ) -> FloatTensor<Self>;
}

/// So many rows of the same width.
fn rows_like(rows: &TensorSpec, count: usize) -> TensorSpec {
    TensorSpec::new(Shape::new([count, rows.shape[1]]), rows.dtype)
}

impl RowOps for CubeBackend {
    fn copy_rows(values: CubeTensor, tokens: CubeTensor) -> CubeTensor {
        let values = contiguous(values);
        let [_, width] = values.shape().dims();
        let [num_rows] = tokens.shape().dims();
        let out = unwritten(&values, Shape::new([num_rows, width]));
        copy::launch(
            &out.client,
            per_element(&out),
            cube_dim(),
            values.into_buffer_arg(),
            i32s(tokens).into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width,
        );
        out
    }

    fn sum_rows(rows: CubeTensor, rows_of: CubeTensor) -> CubeTensor {
        let rows = contiguous(rows);
        let [_, width] = rows.shape().dims();
        let [num_tokens, per_token] = rows_of.shape().dims();
        let out = unwritten(&rows, Shape::new([num_tokens, width]));
        sum::launch(
            &out.client,
            per_element(&out),
            cube_dim(),
            rows.into_buffer_arg(),
            i32s(rows_of).into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width,
            per_token,
        );
        out
    }

    fn sum_weighted_rows(rows: CubeTensor, rows_of: CubeTensor, weights: CubeTensor) -> CubeTensor {
        let rows = contiguous(rows);
        let [_, width] = rows.shape().dims();
        let [num_tokens, per_token] = rows_of.shape().dims();
        let out = unwritten(&rows, Shape::new([num_tokens, width]));
        sum_weighted::launch(
            &out.client,
            per_element(&out),
            cube_dim(),
            rows.into_buffer_arg(),
            i32s(rows_of).into_buffer_arg(),
            contiguous(weights).into_buffer_arg(),
            out.clone().into_buffer_arg(),
            width,
            per_token,
        );
        out
    }

    fn sum_weighted_rows_backward(
        rows: CubeTensor,
        rows_of: CubeTensor,
        weights: CubeTensor,
        grad: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let [rows, weights, grad] = [rows, weights, grad].map(contiguous);
        let [num_rows, width] = rows.shape().dims();
        let [_, per_token] = weights.shape().dims();
        let rows_grad = unwritten(&rows, rows.shape());
        let weights_grad = unwritten(&weights, weights.shape());
        let teams = RowTeams::new(width);
        sum_weighted_backward::launch(
            &rows_grad.client,
            teams.cube_count(&rows_grad, num_rows),
            teams.cube_dim(),
            rows.into_buffer_arg(),
            i32s(rows_of).into_buffer_arg(),
            weights.into_buffer_arg(),
            grad.into_buffer_arg(),
            rows_grad.clone().into_buffer_arg(),
            weights_grad.clone().into_buffer_arg(),
            width,
            per_token,
            teams.lanes,
        );
        (rows_grad, weights_grad)
    }

    fn read_run(rows: CubeTensor, first: usize, count: usize) -> CubeTensor {
        let rows = contiguous(rows);
        let [_, width] = rows.shape().dims();
        let out = unwritten(&rows, Shape::new([count, width]));
        read::launch(
            &out.client,
            per_element(&out),
            cube_dim(),
            rows.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            first * width,
        );
        out
    }

    fn write_run(rows: CubeTensor, run: CubeTensor, first: usize) -> CubeTensor {
        let (rows, run) = (in_place(rows), contiguous(run));
        let [_, width] = rows.shape().dims();
        write::launch(
            &rows.client,
            per_element(&run),
            cube_dim(),
            run.into_buffer_arg(),
            rows.clone().into_buffer_arg(),
            first * width,
        );
        rows
    }
}

fn cube_dim() -> CubeDim {
    CubeDim::new_1d(CUBE_UNITS as u32)
}

/// Cubes with a unit per element.
fn per_element(tensor: &CubeTensor) -> CubeCount {
    cubes_for(tensor, tensor.shape().num_elements(), cube_dim())
}

/// A unit per element of a row.
#[cube(launch)]
fn copy(values: &[f32], tokens: &[i32], out: &mut [f32], #[comptime] width: usize) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let token = tokens[ABSOLUTE_POS / width] as usize;
    out[ABSOLUTE_POS] = values[token * width + ABSOLUTE_POS % width];
}

/// A unit per element of a token, over its rows in the order of its experts.
#[cube(launch)]
fn sum(
    rows: &[f32],
    rows_of: &[i32],
    out: &mut [f32],
    #[comptime] width: usize,
    #[comptime] per_token: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let first = ABSOLUTE_POS / width * per_token;
    let column = ABSOLUTE_POS % width;
    let mut sum = 0.0_f32;
    for slot in 0..per_token {
        sum += rows[rows_of[first + slot] as usize * width + column];
    }
    out[ABSOLUTE_POS] = sum;
}

/// The same, times weights.
#[cube(launch)]
fn sum_weighted(
    rows: &[f32],
    rows_of: &[i32],
    weights: &[f32],
    out: &mut [f32],
    #[comptime] width: usize,
    #[comptime] per_token: usize,
) {
    if ABSOLUTE_POS >= out.len() {
        terminate!();
    }
    let first = ABSOLUTE_POS / width * per_token;
    let column = ABSOLUTE_POS % width;
    let mut sum = 0.0_f32;
    for slot in 0..per_token {
        let row = rows_of[first + slot] as usize;
        sum += rows[row * width + column] * weights[first + slot];
    }
    out[ABSOLUTE_POS] = sum;
}

/// A team per place in `[N, K]`: the place's row has its weight times the token's gradient, and its
/// weight the product of the two.
#[cube(launch)]
fn sum_weighted_backward(
    rows: &[f32],
    rows_of: &[i32],
    weights: &[f32],
    grad: &[f32],
    rows_grad: &mut [f32],
    weights_grad: &mut [f32],
    #[comptime] width: usize,
    #[comptime] per_token: usize,
    #[comptime] lanes: usize,
) {
    let lane = UNIT_POS_X as usize;
    let place = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let is_place = place < weights.len();
    let mut product = 0.0_f32;
    if is_place {
        let first = rows_of[place] as usize * width;
        let token = place / per_token * width;
        for column in range_stepped(lane, width, lanes) {
            let slope = grad[token + column];
            product += slope * rows[first + column];
            rows_grad[first + column] = slope * weights[place];
        }
    }
    let product = team_sum(product, lanes);
    if is_place && lane == 0 {
        weights_grad[place] = product;
    }
}

/// A unit per element of the run.
#[cube(launch)]
fn read(rows: &[f32], run: &mut [f32], first: usize) {
    if ABSOLUTE_POS >= run.len() {
        terminate!();
    }
    run[ABSOLUTE_POS] = rows[first + ABSOLUTE_POS];
}

/// A unit per element of the run.
#[cube(launch)]
fn write(run: &[f32], rows: &mut [f32], first: usize) {
    if ABSOLUTE_POS >= run.len() {
        terminate!();
    }
    rows[first + ABSOLUTE_POS] = run[ABSOLUTE_POS];
}
