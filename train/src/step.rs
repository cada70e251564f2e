//! One optimizer step: micro-batches summed, weighted by tokens, clipped, applied.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::prelude::*;
use model::CausalLm;

use crate::config::TrainSection;
use crate::grad_norm::global_grad_norm;
use crate::guard::{SkipReason, skip_reason};
use crate::loss::read_scalars;
use crate::optimizer::Optimizer;
use crate::routing::{LayerRouting, add_work};
use crate::stage::{Metrics, Stage, StageError, add_metrics};

/// Loss and gradients of a step's micro-batches, summed over everything that is trained on.
///
/// Sums, not means: a mean per micro-batch would weigh a token by how few others its micro-batch
/// has.
pub struct SummedStep {
    /// Tokens read, padding not counted.
    pub tokens: usize,
    /// Terms of the summed loss.
    pub supervised: usize,
    /// Seconds spent waiting for batches.
    pub data_wait_secs: f64,
    loss_sum: f64,
    norm_of_sum: f64,
    /// Times `loss_scale`.
    grads: GradientsParams,
    loss_scale: f64,
    /// Work of the experts, layer by layer; nothing where there are none.
    pub routing: Vec<LayerRouting>,
    metric_sums: Metrics,
}

impl SummedStep {
    /// Runs a step's micro-batches; `None` when `stop` was set before all were done. `on_progress` is
    /// told how much is made of what the model itself makes for them.
    ///
    /// # Errors
    ///
    /// When the data cannot be read.
    pub fn new<S: Stage>(
        stage: &mut S,
        model: &CausalLm,
        train: &TrainSection,
        stop: &AtomicBool,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<Option<Self>, StageError> {
        let mut sum = GradientsAccumulator::new();
        let mut losses = Vec::new();
        let mut routing = Vec::new();
        let mut metric_sums = Metrics::new();
        let (mut tokens, mut supervised) = (0, 0);
        let waiting = Instant::now();
        stage.begin_step(model, &mut |done, total| {
            on_progress(done, total);
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let mut data_wait_secs = waiting.elapsed().as_secs_f64();
        for _ in 0..train.grad_accumulation_steps {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let waiting = Instant::now();
            let batch = stage.next_batch()?;
            data_wait_secs += waiting.elapsed().as_secs_f64();
            tokens += stage.num_tokens(&batch);
            let num_supervised = stage.num_supervised(&batch);
            if num_supervised > 0 {
                supervised += num_supervised;
                let summed = model
                    .training_pass()
                    .in_precision(train.precision, || stage.gradients(model, batch));
                losses.push(summed.loss); // [1]
                sum.accumulate(model, summed.grads);
                add_work(&mut routing, summed.routing);
                add_metrics(&mut metric_sums, summed.metrics);
            }
        }
        let mut grads = sum.grads();
        let loss_scale = f64::from(model.training_pass().loss_scale());
        Ok(Some(Self {
            tokens,
            supervised,
            data_wait_secs,
            loss_sum: read_scalars(losses).iter().sum(),
            norm_of_sum: global_grad_norm(model, &mut grads) / loss_scale,
            grads,
            loss_scale,
            routing,
            metric_sums,
        }))
    }

    /// The summed gradients of all parameters that have one, in the order of the model's fields.
    pub fn gradients_of(&self, model: &CausalLm) -> Vec<f32> {
        struct Reader<'a> {
            step: &'a SummedStep,
            values: Vec<f32>,
        }
        impl ModuleVisitor for Reader<'_> {
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(grad) = self.step.grads.get::<D>(param.id) {
                    let grad = grad.div_scalar(self.step.loss_scale);
                    self.values.extend(grad.into_data().iter::<f32>());
                }
            }
        }
        let mut reader = Reader {
            step: self,
            values: Vec::new(),
        };
        model.visit(&mut reader);
        reader.values
    }

    /// Mean loss per supervised token, in nats.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.supervised as f64
    }

    /// Means of the stage's other numbers.
    pub fn metrics(&self) -> Metrics {
        let sums = self.metric_sums.iter();
        sums.map(|(name, sum)| (*name, sum / self.supervised as f64))
            .collect()
    }

    /// Norm of the mean loss's gradient, before clipping.
    pub fn grad_norm(&self) -> f64 {
        self.norm_of_sum / self.supervised as f64
    }

    /// Why the step must not be applied; `None` when it can be.
    pub fn skip_reason(&self) -> Option<SkipReason> {
        skip_reason(self.supervised, self.loss_sum, self.norm_of_sum)
    }

    /// The model after the update by the mean loss's gradient, clipped to `max_grad_norm`.
    pub fn apply(
        self,
        model: CausalLm,
        optimizer: &mut Optimizer,
        lr: f64,
        max_grad_norm: f64,
    ) -> CausalLm {
        // PyTorch's clip_grad_norm_ adds the same small number.
        let clip = (max_grad_norm / (self.grad_norm() + 1e-6)).min(1.0);
        let grad_scale = clip / (self.supervised as f64 * self.loss_scale);
        optimizer.step(model, self.grads, lr, grad_scale)
    }
}
