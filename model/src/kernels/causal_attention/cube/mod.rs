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
        let sizes = Sizes::of(&q, &k, &sight);
        let keys = SlotRows::new(k, v);
        forward::attend(contiguous(q), keys, first_slots(sight, sizes), sizes)
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

/// Keys and values, of which each row is one run of slots.
struct SlotRows {
    k: CubeTensor,
    v: CubeTensor,
    /// Slots from the beginning of a row to that of the next.
    reach: usize,
}

impl SlotRows {
    /// The filled slots of a cache are a part of its rows: copying them would read and write the
    /// whole cache for each token.
    fn new(k: CubeTensor, v: CubeTensor) -> Self {
        match (row_reach(&k), row_reach(&v)) {
            (Some(reach), Some(same)) if reach == same => Self { k, v, reach },
            _ => Self {
                reach: k.shape()[1],
                k: contiguous(k),
                v: contiguous(v),
            },
        }
    }
}

/// Slots between the beginnings of two rows, where slots, heads and their numbers follow one another.
fn row_reach(heads: &CubeTensor) -> Option<usize> {
    let [_, _, num_heads, head_dim] = heads.shape().dims();
    let width = num_heads * head_dim;
    let [row, slot, head, number] = **heads.meta.strides() else {
        return None;
    };
    let is_run = [slot, head, number] == [width, head_dim, 1] && row.is_multiple_of(width);
    (is_run && !heads.meta.is_tiled()).then_some(row / width)
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
