//! One optimizer step: micro-batches summed, weighted by tokens, clipped, applied.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::prelude::*;
use model::CausalLm;

use crate::config::TrainSection;
use crate::device_error::DeviceError;
use crate::grad_norm::{global_grad_norm, unread_grad_norm};
use crate::guard::{SkipReason, skip_reason};
use crate::loss::read_scalars;
use crate::optimizer::Optimizer;
use crate::replicas::GradientSums;
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
    /// Work of the experts, layer by layer; nothing where there are none.
    pub routing: Vec<LayerRouting>,
    loss_sum: f64,
    norm_of_sum: f64,
    /// Times `loss_scale`.
    grads: GradientsParams,
    loss_scale: f64,
}

impl SummedStep {
    /// Runs a step's micro-batches; `None` when `stop` was set before all were done. `on_progress` is
    /// told how much is made of what the model itself makes for them.
    ///
    /// `models` are one model on one or more devices, which take turns; the gradients are summed on the
    /// first.
    ///
    /// # Errors
    ///
    /// When the data cannot be read or a device fails.
    pub fn new<S: Stage>(
        stage: &mut S,
        models: &[&CausalLm],
        train: &TrainSection,
        stop: &AtomicBool,
        on_progress: impl FnMut(usize, usize),
    ) -> Result<Option<Self>, StageError> {
        let unread = UnreadStep::new(stage, models, train, stop, on_progress)?;
        let read = unread.map(|unread| unread.read(models[0]));
        Ok(read.transpose()?)
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

/// The same while the device is still at it: nobody has asked for a number.
pub(crate) struct UnreadStep {
    pub(crate) tokens: usize,
    pub(crate) supervised: usize,
    pub(crate) data_wait_secs: f64,
    /// A number per micro-batch, `[1]` each.
    losses: Vec<Tensor<1>>,
    grads: GradientsParams,
    routing: Vec<LayerRouting>,
    metric_sums: Metrics,
}

impl UnreadStep {
    /// See [`SummedStep::new`].
    pub(crate) fn new<S: Stage>(
        stage: &mut S,
        models: &[&CausalLm],
        train: &TrainSection,
        stop: &AtomicBool,
        mut on_progress: impl FnMut(usize, usize),
    ) -> Result<Option<Self>, StageError> {
        let mut sums = GradientSums::new(models);
        let mut losses = Vec::new();
        let mut routing = Vec::new();
        let mut metric_sums = Metrics::new();
        let (mut tokens, mut supervised) = (0, 0);
        let waiting = Instant::now();
        stage.begin_step(models[0], &mut |done, total| {
            on_progress(done, total);
            if stop.load(Ordering::Relaxed) {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        let mut data_wait_secs = waiting.elapsed().as_secs_f64();
        for number in 0..train.grad_accumulation_steps {
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
                let model = sums.model(number);
                let summed = model
                    .training_pass()
                    .in_precision(train.precision, || stage.gradients(model, batch));
                losses.push(summed.loss); // [1]
                sums.add(number, summed.grads);
                add_work(&mut routing, summed.routing);
                add_metrics(&mut metric_sums, summed.metrics);
            }
        }
        Ok(Some(Self {
            tokens,
            supervised,
            data_wait_secs,
            losses,
            grads: sums.on_first(),
            routing,
            metric_sums,
        }))
    }

    /// Whether there is anything to learn from: some supervised token, and a loss that depends on the
    /// model. (That of answers which are all worth the same does not.)
    pub(crate) fn has_gradients(&self) -> bool {
        self.supervised > 0 && !self.grads.is_empty()
    }

    /// Means of the stage's other numbers.
    pub(crate) fn metrics(&self) -> Metrics {
        let sums = self.metric_sums.iter();
        sums.map(|(name, sum)| (*name, sum / self.supervised as f64))
            .collect()
    }

    /// Waits for the numbers.
    ///
    /// # Errors
    ///
    /// When a device fails.
    pub(crate) fn read(mut self, model: &CausalLm) -> Result<SummedStep, DeviceError> {
        let loss_scale = f64::from(model.training_pass().loss_scale());
        Ok(SummedStep {
            tokens: self.tokens,
            supervised: self.supervised,
            data_wait_secs: self.data_wait_secs,
            routing: self.routing,
            loss_sum: read_scalars(self.losses)?.iter().sum(),
            norm_of_sum: global_grad_norm(model, &mut self.grads)? / loss_scale,
            grads: self.grads,
            loss_scale,
        })
    }

    /// The model after the update by the mean loss's gradient, clipped to `max_grad_norm`, and what is
    /// to be read of the step. Where a number is not finite, the device leaves the model as it is.
    ///
    /// # Panics
    ///
    /// When there are no gradients. In f16 the host must know each step's numbers, for the loss scale.
    pub(crate) fn apply(
        self,
        model: CausalLm,
        optimizer: &mut Optimizer,
        lr: f64,
        max_grad_norm: f64,
    ) -> (CausalLm, UnreadNumbers) {
        let device = model.embed_tokens.weight.device().inner();
        let here = self.losses.into_iter().map(|loss| loss.to_device(&device));
        let loss_sum = Tensor::cat(here.collect(), 0).sum(); // [1]
        let norm_of_sum = unread_grad_norm(&model, &self.grads); // [1]
        let num_terms = self.supervised as f64;
        let norm = norm_of_sum.clone().div_scalar(num_terms).add_scalar(1e-6);
        let clip = norm.recip().mul_scalar(max_grad_norm).clamp_max(1.0);
        let is_finite = loss_sum
            .clone()
            .is_finite()
            .bool_and(norm_of_sum.clone().is_finite());
        let scale = clip
            .div_scalar(num_terms)
            .mask_fill(is_finite.bool_not(), -1.0); // [1]
        let model = optimizer.step_unread(model, self.grads, lr, scale);
        let numbers = UnreadNumbers {
            supervised: self.supervised,
            sums: Tensor::cat(vec![loss_sum, norm_of_sum], 0), // [2]
        };
        (model, numbers)
    }
}

/// Loss and norm of a step that is applied.
pub(crate) struct UnreadNumbers {
    supervised: usize,
    /// Loss and norm of the summed gradient, `[2]`.
    sums: Tensor<1>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StepNumbers {
    /// Mean loss per supervised token, in nats.
    pub(crate) loss: f64,
    /// Norm of the mean loss's gradient, before clipping.
    pub(crate) grad_norm: f64,
    /// Why the step was not applied; `None` when it was.
    pub(crate) skip_reason: Option<SkipReason>,
}

impl UnreadNumbers {
    /// The numbers of several steps, read at once.
    ///
    /// # Errors
    ///
    /// When a device fails.
    pub(crate) fn read(steps: &[Self]) -> Result<Vec<StepNumbers>, DeviceError> {
        let sums = read_scalars(steps.iter().map(|step| step.sums.clone()).collect())?;
        let numbers = steps
            .iter()
            .zip(sums.chunks_exact(2))
            .map(|(step, sums)| StepNumbers {
                loss: sums[0] / step.supervised as f64,
                grad_norm: sums[1] / step.supervised as f64,
                skip_reason: skip_reason(step.supervised, sums[0], sums[1]),
            });
        Ok(numbers.collect())
    }
}
