//! Fused attention on graphics cards: tiles of queries against tiles of keys in shared memory,
//! scores never in the card's.
//!
//! Axis letters as in the parent, `E` edge of a tile.

mod backward;
mod forward;
mod tiles;
mod visibility;

use burn::backend::TensorMetadata;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use super::{CausalAttentionBackwardOps, CausalAttentionOps};
use crate::kernels::cube::contiguous;
use tiles::Tiles;
use visibility::first_slots;

/// Largest head whose tiles fit into the shared memory that every card has.
pub(super) const MAX_HEAD_DIM: usize = Tiles::MAX_HEAD_DIM;

impl CausalAttentionOps for CubeBackend {
    fn causal_attention(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        sight: CubeTensor,
    ) -> CubeTensor {
        Self::causal_attention_saving(q, k, v, sight).0
    }
}

impl CausalAttentionBackwardOps for CubeBackend {
    fn causal_attention_saving(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        sight: CubeTensor,
    ) -> (CubeTensor, CubeTensor) {
        let [q, k, v] = [q, k, v].map(contiguous);
        let sizes = Sizes::of(&q, &k, &sight);
        forward::attend(q, k, v, first_slots(sight, sizes), sizes)
    }

    fn causal_attention_backward(
        q: CubeTensor,
        k: CubeTensor,
        v: CubeTensor,
        sight: CubeTensor,
        out: CubeTensor,
        log_sums: CubeTensor,
        grad: CubeTensor,
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        let [q, k, v, out, log_sums, grad] = [q, k, v, out, log_sums, grad].map(contiguous);
        let sizes = Sizes::of(&q, &k, &sight);
        let inputs = backward::Inputs {
            firsts: first_slots(sight, sizes),
            statistics: backward::statistics(out, grad.clone(), log_sums),
            q,
            k,
            v,
            grad,
            sizes,
        };
        let q_grad = inputs.query_gradients();
        let (k_grad, v_grad) = inputs.key_gradients();
        (q_grad, k_grad, v_grad)
    }
}

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    len: usize,
    slots: usize,
    num_heads: usize,
    num_kv_heads: usize,
    tiles: Tiles,
}

impl Sizes {
    fn of(q: &CubeTensor, k: &CubeTensor, sight: &CubeTensor) -> Self {
        let [batch, len, num_heads, head_dim] = q.shape().dims();
        let [_, slots, num_kv_heads, _] = k.shape().dims();
        Self {
            batch,
            len,
            slots,
            num_heads,
            num_kv_heads,
            tiles: Tiles::new(head_dim, sight.shape().num_dims() == 3),
        }
    }

    /// Tiles of the queries of a row.
    fn query_tiles(self) -> usize {
        self.len.div_ceil(self.tiles.edge)
    }

    /// Tiles of the keys of a row.
    fn key_tiles(self) -> usize {
        self.slots.div_ceil(self.tiles.edge)
    }

    /// What scores are multiplied by.
    fn scale(self) -> f32 {
        (1.0 / (self.tiles.head_dim as f64).sqrt()) as f32
    }
}
