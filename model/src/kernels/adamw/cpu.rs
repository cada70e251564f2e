//! AdamW's update in one pass over memory.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::{AdamWOps, AdamWStep};
use crate::kernels::flex::{CHUNK_ELEMENTS, contiguous};

impl AdamWOps for Flex {
    fn adamw(
        param: FlexTensor,
        moment_1: FlexTensor,
        moment_2: FlexTensor,
        grad: FlexTensor,
        scale: FlexTensor,
        step: AdamWStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [mut param, mut moment_1, mut moment_2, grad, scale] =
            [param, moment_1, moment_2, grad, scale].map(contiguous);
        let scale = scale.storage::<f32>()[0];
        if scale < 0.0 {
            return (param, moment_1, moment_2);
        }
        let (beta_1, rest_1) = (step.beta_1 as f32, (1.0 - step.beta_1) as f32);
        let (beta_2, rest_2) = (step.beta_2 as f32, (1.0 - step.beta_2) as f32);
        let (keep, step_size) = (step.keep as f32, step.step_size as f32);
        let (root_correction, eps) = (step.root_correction as f32, step.eps as f32);
        let params = param.storage_mut::<f32>().par_chunks_mut(CHUNK_ELEMENTS);
        let firsts = moment_1.storage_mut::<f32>().par_chunks_mut(CHUNK_ELEMENTS);
        let seconds = moment_2.storage_mut::<f32>().par_chunks_mut(CHUNK_ELEMENTS);
        let grads = grad.storage::<f32>().par_chunks(CHUNK_ELEMENTS);
        params.zip(firsts).zip(seconds).zip(grads).for_each(
            |(((params, firsts), seconds), grads)| {
                for (((p, m), v), g) in params.iter_mut().zip(firsts).zip(seconds).zip(grads) {
                    let g = g * scale;
                    *m = *m * beta_1 + g * rest_1;
                    *v = *v * beta_2 + g * g * rest_2;
                    *p = *p * keep - *m / (v.sqrt() / root_correction + eps) * step_size;
                }
            },
        );
        (param, moment_1, moment_2)
    }
}
