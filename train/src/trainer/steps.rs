//! How a step is taken: summed, applied or skipped, read at once or some steps later, and reported.

use std::fmt::Write as _;
use std::time::Instant;

use burn::tensor::Device;

use super::{End, LoopError, Trainer, here, taken};
use crate::guard::SkipReason;
use crate::report::{ExpertsReport, StepReport};
use crate::routing::loads_by_layer;
use crate::stage::{Stage, StageError};
use crate::step::{SummedStep, UnreadNumbers, UnreadStep};

impl<S: Stage> Trainer<S> {
    /// Takes one optimizer step; false when a stop was requested before it was complete.
    ///
    /// # Errors
    ///
    /// When data cannot be read, a device fails or too many steps in a row are skipped.
    pub fn train_step(&mut self) -> Result<bool, LoopError> {
        let started = Instant::now();
        let lr = self.schedule.lr_at(self.position());
        let model = here(self.model.as_ref());
        let scale = self.state.loss_scale.as_ref().map(|scaled| scaled.scale);
        model.training_pass().set_loss_scale(scale.unwrap_or(1.0));
        let (stage, stop, reporter) = (&mut self.stage, &self.stop, &self.reporter);
        let models = self.replicas.beside(model);
        let step = UnreadStep::new(stage, &models, &self.config.train, stop, |done, total| {
            reporter.show_rollout(done, total);
        })?;
        // What a stop interrupts is dropped: the checkpoint goes on from the step's beginning.
        let Some(step) = step else {
            return Ok(false);
        };
        let mut report = self.begin_report(&step, lr);
        if self.reads_late && step.has_gradients() {
            if self.unread.is_empty() {
                self.unread_since = started;
            }
            let numbers = self.apply_unread(step, lr);
            self.unread.push((report, numbers));
            self.count_step();
            // The first step takes longest, and its time is told.
            if !self.has_stepped || self.unread.len() as u64 >= self.config.report.log_every {
                self.read_steps()?;
            }
            return Ok(true);
        }
        self.read_steps()?;
        let step = step.read(here(self.model.as_ref()));
        let step = step.map_err(StageError::from)?;
        (report.loss, report.grad_norm) = (step.loss(), step.grad_norm());
        let scale = scale.map(|scale| ("loss_scale", f64::from(scale)));
        report.metrics.extend(scale);
        let experts = ExpertsReport::new(report.step, report.supervised, &step.routing);
        self.apply_or_skip(step, lr)?;
        self.count_step();
        report.skipped = self.state.skipped.total as u64;
        report.secs = started.elapsed().as_secs_f64();
        self.record(report);
        if let Some(experts) = experts {
            self.reporter.record_experts(&experts);
        }
        Ok(true)
    }

    /// What is known of a step before its numbers are read.
    fn begin_report(&mut self, step: &UnreadStep, lr: f64) -> StepReport {
        let (tokens, supervised) = (step.tokens as u64, step.supervised as u64);
        self.state.step += 1;
        self.state.tokens += tokens;
        self.state.supervised += supervised;
        StepReport {
            step: self.state.step as u64,
            total_steps: match self.end {
                End::Step(step) => Some(step as u64),
                End::Secs(_) => None,
            },
            epoch: self.stage.epoch(),
            loss: f64::NAN,
            lr,
            grad_norm: f64::NAN,
            tokens,
            supervised,
            total_tokens: self.state.tokens,
            secs: 0.0,
            data_wait_secs: step.data_wait_secs,
            skipped: 0,
            metrics: step.metrics(),
        }
    }

    /// Notes where a resumed run would go on after the step.
    fn count_step(&mut self) {
        self.state.num_updates = self.optimizer.num_updates;
        self.state.cursor = self.stage.cursor();
        self.state.elapsed_secs = self.elapsed_secs();
    }

    fn apply_unread(&mut self, step: UnreadStep, lr: f64) -> UnreadNumbers {
        let model = taken(self.model.take());
        let max_grad_norm = self.config.optimizer.max_grad_norm;
        let (model, numbers) = step.apply(model, &mut self.optimizer, lr, max_grad_norm);
        self.replicas.follow(&model);
        self.model = Some(model);
        numbers
    }

    /// Reads and reports the steps that were not read yet; their time is shared by tokens.
    ///
    /// A step that turns out to have been skipped was counted as an update meanwhile, which the bias
    /// correction of those after it saw.
    pub(super) fn read_steps(&mut self) -> Result<(), LoopError> {
        let (reports, numbers): (Vec<_>, Vec<_>) = self.unread.drain(..).unzip();
        let numbers = UnreadNumbers::read(&numbers).map_err(StageError::from)?;
        let secs = self.unread_since.elapsed().as_secs_f64();
        let tokens: u64 = reports.iter().map(|report| report.tokens).sum();
        for (mut report, numbers) in reports.into_iter().zip(numbers) {
            (report.loss, report.grad_norm) = (numbers.loss, numbers.grad_norm);
            report.secs = secs * report.tokens as f64 / tokens as f64;
            if let Some(reason) = numbers.skip_reason {
                self.optimizer.num_updates -= 1;
                self.skip(report.step as usize, reason)?;
            } else {
                self.state.skipped.applied();
            }
            report.skipped = self.state.skipped.total as u64;
            self.record(report);
        }
        self.state.num_updates = self.optimizer.num_updates;
        Ok(())
    }

    fn record(&mut self, report: StepReport) {
        self.reporter.record_step(&report);
        self.note_first_step(&report);
        self.last_report = Some(report);
    }

    /// Says what a graphics card spends once per process, so that nobody takes it for its speed.
    fn note_first_step(&mut self, report: &StepReport) {
        let device = self.model().embed_tokens.weight.device();
        if std::mem::replace(&mut self.has_stepped, true) || device.inner() == Device::flex() {
            return;
        }
        let text = format!(
            "the first step took {:.1} s: in it a graphics card compiles kernels and chooses some of \
             them by measuring",
            report.secs
        );
        self.reporter.note(report.step, &text);
    }

    fn apply_or_skip(&mut self, summed: SummedStep, lr: f64) -> Result<(), LoopError> {
        if let Some(reason) = summed.skip_reason() {
            return self.skip(self.state.step, reason);
        }
        let model = taken(self.model.take());
        let max_grad_norm = self.config.optimizer.max_grad_norm;
        let loads = loads_by_layer(&summed.routing);
        let model = summed.apply(model, &mut self.optimizer, lr, max_grad_norm);
        let model = model.with_moved_biases(&loads, self.config.router.bias_rate);
        self.replicas.follow(&model);
        self.model = Some(model);
        self.state.skipped.applied();
        if let Some(loss_scale) = &mut self.state.loss_scale {
            loss_scale.applied();
        }
        Ok(())
    }

    fn skip(&mut self, step: usize, reason: SkipReason) -> Result<(), LoopError> {
        let mut text = format!("step {step} is skipped: {reason}");
        let mut is_for_scale = false;
        if let Some(loss_scale) = &mut self.state.loss_scale {
            is_for_scale = loss_scale.skipped(reason);
            let _ = write!(text, "; the loss scale is {}", loss_scale.scale);
        }
        self.reporter.note(step as u64, &text);
        if is_for_scale {
            self.state.skipped.skipped_for_scale();
        } else {
            let allowed = self.config.guard.max_skipped_steps;
            self.state.skipped.skipped(step, reason, allowed)?;
        }
        Ok(())
    }
}
