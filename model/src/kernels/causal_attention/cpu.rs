//! Fused attention on the CPU: which of the passes a call takes.

use burn::backend::{Flex, TensorMetadata};
use burn::tensor::Shape;
use burn_flex::FlexTensor;

use super::heads::{Heads, Sizes, Visibility, with_contiguous_heads};
use super::{CausalAttentionBackwardOps, CausalAttentionOps, backward, decode, forward};
use crate::kernels::flex::tensor_of;

/// Up to this many queries, packing the keys would cost more than reading them once per query.
const MAX_DECODE_LEN: usize = 8;

impl CausalAttentionOps for Flex {
    fn causal_attention(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sight: FlexTensor,
    ) -> FlexTensor {
        let shape = q.shape();
        let [q, k, v] = [q, k, v].map(with_contiguous_heads);
        let sizes = Sizes::of(&q, &k);
        let visibility = Visibility::new(&sight, sizes);
        let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
        let out = if sizes.len <= MAX_DECODE_LEN && !visibility.has_gaps() {
            decode::attend(q, k, v, &visibility, sizes)
        } else {
            forward::attend(q, k, v, &visibility, sizes).0
        };
        tensor_of(out, shape)
    }
}

impl CausalAttentionBackwardOps for Flex {
    fn causal_attention_saving(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sight: FlexTensor,
    ) -> (FlexTensor, FlexTensor) {
        let shape = q.shape();
        let [q, k, v] = [q, k, v].map(with_contiguous_heads);
        let sizes = Sizes::of(&q, &k);
        let visibility = Visibility::new(&sight, sizes);
        let (q, k, v) = (Heads::new(&q), Heads::new(&k), Heads::new(&v));
        let (out, log_sums) = forward::attend(q, k, v, &visibility, sizes);
        let log_sums_shape = Shape::new([sizes.batch, sizes.len, sizes.num_heads]);
        (tensor_of(out, shape), tensor_of(log_sums, log_sums_shape))
    }

    fn causal_attention_backward(
        q: FlexTensor,
        k: FlexTensor,
        v: FlexTensor,
        sight: FlexTensor,
        out: FlexTensor,
        log_sums: FlexTensor,
        grad: FlexTensor,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let shapes = [&q, &k, &v].map(TensorMetadata::shape);
        let [q, k, v, out, grad] = [q, k, v, out, grad].map(with_contiguous_heads);
        let sizes = Sizes::of(&q, &k);
        let visibility = Visibility::new(&sight, sizes);
        let [q_grad, k_grad, v_grad] = backward::gradients(&backward::Inputs {
            q: Heads::new(&q),
            k: Heads::new(&k),
            v: Heads::new(&v),
            out: Heads::new(&out),
            grad: Heads::new(&grad),
            log_sums: log_sums.storage::<f32>(),
            visibility: &visibility,
            sizes,
        });
        let [q_shape, k_shape, v_shape] = shapes;
        (
            tensor_of(q_grad, q_shape),
            tensor_of(k_grad, k_shape),
            tensor_of(v_grad, v_shape),
        )
    }
}
