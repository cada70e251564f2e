//! Fused root-mean-square normalisation on graphics cards: one kernel forward; one backward, and
//! one that sums the weight's gradient.
//!
//! Axis letters: `M` rows, `D` the normalised axis.

use burn::backend::TensorMetadata;
use burn::tensor::Shape;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::{RmsNormBackwardOps, RmsNormOps};
use crate::kernels::cube::{RowTeams, column_sums, contiguous, team_sum, unwritten};

/// Rows a team walks over backward: each team writes one row of sums for the weight's gradient.
const ROWS_PER_TEAM: usize = 16;

impl RmsNormOps for CubeBackend {
    fn rms_norm(x: CubeTensor, weight: CubeTensor, eps: f64) -> CubeTensor {
        let (x, weight) = (contiguous(x), contiguous(weight));
        let [width] = weight.shape().dims();
        let num_rows = x.shape().num_elements() / width;
        let teams = RowTeams::new(width);
        let out = unwritten(&x, x.shape());
        forward::launch(
            &out.client,
            teams.cube_count(&out, num_rows),
            teams.cube_dim(),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            out.clone().into_buffer_arg(),
            eps as f32,
            width,
            teams.lanes,
        );
        out
    }
}

impl RmsNormBackwardOps for CubeBackend {
    fn rms_norm_backward(
        x: CubeTensor,
        weight: CubeTensor,
        grad: CubeTensor,
        eps: f64,
    ) -> (CubeTensor, CubeTensor) {
        let (x, weight, grad) = (contiguous(x), contiguous(weight), contiguous(grad));
        let [width] = weight.shape().dims();
        let num_rows = x.shape().num_elements() / width;
        let teams = RowTeams::new(width);
        let num_teams = num_rows.div_ceil(ROWS_PER_TEAM);
        let x_grad = unwritten(&x, x.shape());
        let partial = unwritten(&x, Shape::new([num_teams, width]));
        backward::launch(
            &x_grad.client,
            teams.cube_count(&x_grad, num_teams),
            teams.cube_dim(),
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            grad.into_buffer_arg(),
            x_grad.clone().into_buffer_arg(),
            partial.clone().into_buffer_arg(),
            eps as f32,
            width,
            teams.lanes,
            teams.columns_per_lane(),
        );
        (x_grad, column_sums(partial))
    }
}

/// A team per row: `out = x / sqrt(mean(x^2) + eps) * weight`.
#[cube(launch)]
fn forward(
    x: &[f32],
    weight: &[f32],
    out: &mut [f32],
    eps: f32,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
) {
    let lane = UNIT_POS_X as usize;
    let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let first = row * width;
    let is_row = first < x.len();

    let mut squares = 0.0_f32;
    if is_row {
        for column in range_stepped(lane, width, lanes) {
            squares += x[first + column] * x[first + column];
        }
    }
    let scale = inverse_rms(team_sum(squares, lanes), eps, width);
    if is_row {
        for column in range_stepped(lane, width, lanes) {
            out[first + column] = x[first + column] * scale * weight[column];
        }
    }
}

/// A team per `ROWS_PER_TEAM` rows. With `r` the inverse rms of a row:
/// `x_grad = r * grad * weight - x * r^3 * mean(grad * weight * x)`, and the team's row of
/// `partial` is its sum of `grad * x * r`.
#[cube(launch)]
fn backward(
    x: &[f32],
    weight: &[f32],
    grad: &[f32],
    x_grad: &mut [f32],
    partial: &mut [f32],
    eps: f32,
    #[comptime] width: usize,
    #[comptime] lanes: usize,
    #[comptime] columns_per_lane: usize,
) {
    let lane = UNIT_POS_X as usize;
    let team = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
    let mut sums = Array::<f32>::new(columns_per_lane);
    #[unroll]
    for place in 0..columns_per_lane {
        sums[place] = 0.0_f32;
    }

    for row in 0..ROWS_PER_TEAM {
        let first = (team * ROWS_PER_TEAM + row) * width;
        let is_row = first < x.len();
        let mut squares = 0.0_f32;
        let mut products = 0.0_f32;
        if is_row {
            for column in range_stepped(lane, width, lanes) {
                let value = x[first + column];
                squares += value * value;
                products += grad[first + column] * weight[column] * value;
            }
        }
        let scale = inverse_rms(team_sum(squares, lanes), eps, width);
        let mean = team_sum(products, lanes) / comptime!(width as f32);
        let pull = mean * scale * scale * scale;
        if is_row {
            #[unroll]
            for place in 0..columns_per_lane {
                let column = lane + place * lanes;
                if column < width {
                    let value = x[first + column];
                    let slope = grad[first + column] * scale;
                    x_grad[first + column] = slope * weight[column] - value * pull;
                    sums[place] += slope * value;
                }
            }
        }
    }

    #[unroll]
    for place in 0..columns_per_lane {
        let column = lane + place * lanes;
        let target = team * width + column;
        if column < width && target < partial.len() {
            partial[target] = sums[place];
        }
    }
}

/// `1 / sqrt(mean(x^2) + eps)` from the sum of the squares.
#[cube]
fn inverse_rms(squares: f32, eps: f32, #[comptime] width: usize) -> f32 {
    1.0_f32 / (squares / comptime!(width as f32) + eps).sqrt()
}
