//! The one training loop: micro-batches to steps, steps to checkpoints, reports on the way.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use burn::tensor::Device;
use dataset::Tokenizer;
use model::CausalLm;
use model::workers::on_worker;

use crate::checkpoint::{self, TrainState};
use crate::config::LoopConfig;
use crate::examiner::Examiner;
use crate::guard::SkipReason;
use crate::loss_scale::LossScale;
use crate::optimizer::Optimizer;
use crate::report::{ExpertsReport, Reporter, SampleReport, StepReport, ValidationReport};
use crate::routing::loads_by_layer;
use crate::run_folder::RunFolder;
use crate::schedule::Schedule;
use crate::stage::Stage;
use crate::step::SummedStep;
use crate::validate::HeldOutLoss;

pub use crate::loop_end::{End, LoopEnd, LoopError};

/// Everything that one run of the loop works with.
pub struct Trainer<S: Stage> {
    stage: S,
    // Taken out only while the optimizer replaces it: a second handle would forbid updates in
    // place.
    model: Option<CausalLm>,
    optimizer: Optimizer,
    schedule: Schedule,
    end: End,
    config: LoopConfig,
    state: TrainState,
    run: RunFolder,
    reporter: Reporter,
    examiner: Option<(Examiner, Arc<Tokenizer>)>,
    stop: Arc<AtomicBool>,
    last_validation: Option<HeldOutLoss>,
    validated_step: Option<usize>,
    last_loss: Option<f64>,
    last_experts: Option<ExpertsReport>,
    secs_before: f64,
    started: Instant,
    last_saved: Instant,
    has_stepped: bool,
}

/// What a trainer is made of.
pub struct TrainerParts<S: Stage> {
    /// Rows, batches and loss.
    pub stage: S,
    /// Weights to start from.
    pub model: CausalLm,
    /// Update rule and its memory.
    pub optimizer: Optimizer,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Where the run ends.
    pub end: End,
    /// The config's sections for the loop.
    pub config: LoopConfig,
    /// Counters to go on from.
    pub state: TrainState,
    /// Folder of the run, held by this process.
    pub run: RunFolder,
    /// Receiver of everything that is reported.
    pub reporter: Reporter,
    /// Asked while the model learns, with what the model reads.
    pub examiner: Option<(Examiner, Arc<Tokenizer>)>,
    /// Set from outside to end the run after saving.
    pub stop: Arc<AtomicBool>,
}

impl<S: Stage> Trainer<S> {
    /// A trainer that goes on from the state it is given.
    pub fn new(parts: TrainerParts<S>) -> Self {
        let now = Instant::now();
        let mut state = parts.state;
        let initial_scale = LossScale::of(parts.config.train.precision);
        state.loss_scale = state.loss_scale.or(initial_scale);
        Self {
            stage: parts.stage,
            model: Some(parts.model),
            optimizer: parts.optimizer,
            schedule: parts.schedule,
            end: parts.end,
            config: parts.config,
            secs_before: state.elapsed_secs,
            state,
            run: parts.run,
            reporter: parts.reporter,
            examiner: parts.examiner,
            stop: parts.stop,
            last_validation: None,
            validated_step: None,
            last_loss: None,
            last_experts: None,
            started: now,
            last_saved: now,
            has_stepped: false,
        }
    }

    /// Trains to the end, or until a stop is requested; a checkpoint is saved in both cases.
    ///
    /// # Errors
    ///
    /// When data cannot be read, a checkpoint cannot be written, or too many steps are skipped.
    /// Checkpoints that were saved before stay as they are.
    pub fn run(&mut self) -> Result<LoopEnd, LoopError> {
        // Batches are packed by the same threads: the only one must not wait for them.
        if rayon::current_num_threads() == 1 {
            return self.run_here();
        }
        on_worker(|| self.run_here())
    }

    fn run_here(&mut self) -> Result<LoopEnd, LoopError> {
        checkpoint::prune(self.run.path(), self.config.checkpoint.keep_last)?;
        while !self.is_over() {
            let Some(report) = self.train_step()? else {
                return self.stop_here();
            };
            self.reporter.record_step(&report);
            self.note_first_step(&report);
            if let Some(experts) = self.last_experts.take() {
                self.reporter.record_experts(&experts);
            }
            self.look_and_save()?;
        }
        self.look_at_the_end()?;
        self.save()?;
        Ok(LoopEnd::Completed)
    }

    /// Says what a graphics card spends once per process, so that nobody takes it for its speed.
    fn note_first_step(&mut self, report: &StepReport) {
        let device = self.model().embed_tokens.weight.device();
        if std::mem::replace(&mut self.has_stepped, true) || device.inner() == Device::flex() {
            return;
        }
        let text = format!(
            "the first step took {:.1} s: kernels are compiled, and chosen by measuring",
            report.secs
        );
        self.reporter.note(report.step, &text);
    }

    /// Takes one optimizer step; `None` when a stop was requested before it was complete.
    ///
    /// # Errors
    ///
    /// When data cannot be read or too many steps in a row are skipped.
    pub fn train_step(&mut self) -> Result<Option<StepReport>, LoopError> {
        let started = Instant::now();
        let lr = self.schedule.lr_at(self.position());
        let model = here(self.model.as_ref());
        let scale = self.state.loss_scale.as_ref().map(|scaled| scaled.scale);
        model.training_pass().set_loss_scale(scale.unwrap_or(1.0));
        let (stage, stop, reporter) = (&mut self.stage, &self.stop, &self.reporter);
        let summed = SummedStep::new(stage, model, &self.config.train, stop, |done, total| {
            reporter.show_rollout(done, total);
        })?;
        // What a stop interrupts is dropped: the checkpoint goes on from the step's beginning.
        let Some(summed) = summed else {
            return Ok(None);
        };
        let (tokens, supervised) = (summed.tokens as u64, summed.supervised as u64);
        let (loss, grad_norm) = (summed.loss(), summed.grad_norm());
        let data_wait_secs = summed.data_wait_secs;
        let mut metrics = summed.metrics();
        metrics.extend(scale.map(|scale| ("loss_scale", f64::from(scale))));
        let experts = ExpertsReport::new(self.state.step as u64 + 1, supervised, &summed.routing);
        self.apply_or_skip(summed, lr)?;
        self.last_experts = experts;

        self.last_loss = Some(loss);
        self.state.tokens += tokens;
        self.state.supervised += supervised;
        self.state.num_updates = self.optimizer.num_updates;
        self.state.cursor = self.stage.cursor();
        self.state.elapsed_secs = self.elapsed_secs();
        Ok(Some(StepReport {
            step: self.state.step as u64,
            total_steps: match self.end {
                End::Step(step) => Some(step as u64),
                End::Secs(_) => None,
            },
            epoch: self.stage.epoch(),
            loss,
            lr,
            grad_norm,
            tokens,
            supervised,
            total_tokens: self.state.tokens,
            secs: started.elapsed().as_secs_f64(),
            data_wait_secs,
            skipped: self.state.skipped.total as u64,
            metrics,
        }))
    }

    /// Counters so far.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The model as trained so far.
    pub fn model(&self) -> &CausalLm {
        here(self.model.as_ref())
    }

    /// Mean loss of the last step that this process took, in nats per token.
    pub fn last_loss(&self) -> Option<f64> {
        self.last_loss
    }

    /// The last validation of this process.
    pub fn last_validation(&self) -> Option<HeldOutLoss> {
        self.last_validation.clone()
    }

    /// Completes the reports and gives the folder and the model back.
    pub fn finish(self) -> (RunFolder, CausalLm) {
        self.reporter.finish();
        (self.run, taken(self.model))
    }

    fn apply_or_skip(&mut self, summed: SummedStep, lr: f64) -> Result<(), LoopError> {
        self.state.step += 1;
        if let Some(reason) = summed.skip_reason() {
            self.skip(reason)?;
        } else {
            let model = taken(self.model.take());
            let max_grad_norm = self.config.optimizer.max_grad_norm;
            let loads = loads_by_layer(&summed.routing);
            let model = summed.apply(model, &mut self.optimizer, lr, max_grad_norm);
            self.model = Some(model.with_moved_biases(&loads, self.config.router.bias_rate));
            self.state.skipped.applied();
            if let Some(loss_scale) = &mut self.state.loss_scale {
                loss_scale.applied();
            }
        }
        Ok(())
    }

    fn skip(&mut self, reason: SkipReason) -> Result<(), LoopError> {
        let step = self.state.step;
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

    /// Validates, samples and saves where the present step is one to do so.
    fn look_and_save(&mut self) -> Result<(), LoopError> {
        if self.is_over() {
            return Ok(());
        }
        let step = self.state.step;
        let mut must_save = is_due(step, self.config.checkpoint.every_steps);
        if is_due(step, self.config.validation.every_steps) {
            must_save |= self.validate()? && self.config.checkpoint.keep_best;
            if self.has_stalled() {
                let text = "training ends early: the validation loss does not fall any more";
                self.reporter.note(step as u64, text);
                return Ok(());
            }
        }
        if is_due(step, self.config.samples.every_steps) {
            self.sample();
        }
        if is_due(step, self.config.exam.every_steps) {
            self.examine();
        }
        let every_secs = self.config.checkpoint.every_minutes * 60.0;
        must_save |= every_secs > 0.0 && self.last_saved.elapsed().as_secs_f64() >= every_secs;
        if must_save {
            self.save()?;
        }
        Ok(())
    }

    fn look_at_the_end(&mut self) -> Result<(), LoopError> {
        if self.validated_step != Some(self.state.step) {
            self.validate()?;
        }
        self.sample();
        self.examine();
        Ok(())
    }

    /// Scores the held-out split; returns whether it is the best score so far.
    fn validate(&mut self) -> Result<bool, LoopError> {
        let model = here(self.model.as_ref());
        let Some(held_out) = self.stage.validate(model)? else {
            return Ok(false);
        };
        self.reporter.record_validation(&ValidationReport {
            step: self.state.step as u64,
            loss: held_out.loss,
            bits_per_byte: held_out.bits_per_byte,
            metrics: held_out.metrics.clone(),
        });
        self.validated_step = Some(self.state.step);
        // A loss that is not finite is never the best: no later one would be lower than NaN.
        let is_lower = self.state.best_loss.is_none_or(|best| held_out.loss < best);
        let is_best = is_lower && held_out.loss.is_finite();
        if is_best {
            self.state.best_loss = Some(held_out.loss);
            self.state.best_step = Some(self.state.step);
            self.state.num_without_progress = 0;
        } else {
            self.state.num_without_progress += 1;
        }
        self.last_validation = Some(held_out);
        Ok(is_best)
    }

    fn sample(&mut self) {
        let step = self.state.step as u64;
        for prompt in &self.config.samples.prompts {
            match self.stage.sample(here(self.model.as_ref()), prompt) {
                Ok(text) => {
                    let prompt = prompt.clone();
                    self.reporter
                        .record_sample(&SampleReport { step, prompt, text });
                }
                // A sample is something to look at; training does not end for want of one.
                Err(error) => self.reporter.note(step, &format!("no sample: {error}")),
            }
        }
    }

    fn save(&mut self) -> Result<(), LoopError> {
        self.state.elapsed_secs = self.elapsed_secs();
        let run = self.run.path();
        let model = here(self.model.as_ref());
        checkpoint::save(run, model, &self.optimizer, &self.state)?;
        if self.config.checkpoint.keep_best && self.state.best_step == Some(self.state.step) {
            checkpoint::mark_best(run, self.state.step)?;
        }
        checkpoint::prune(run, self.config.checkpoint.keep_last)?;
        self.reporter.sync();
        self.last_saved = Instant::now();
        Ok(())
    }

    fn stop_here(&mut self) -> Result<LoopEnd, LoopError> {
        self.save()?;
        let step = self.state.step;
        self.reporter.note(
            step as u64,
            &format!("stopped after step {step}, which is saved"),
        );
        Ok(LoopEnd::Stopped)
    }

    /// Puts the exam to the model, if there is one; like samples, it never ends the run.
    fn examine(&mut self) {
        if let Some((examiner, tokenizer)) = &self.examiner {
            let (model, step) = (here(self.model.as_ref()), self.state.step as u64);
            examiner.report_on(model, tokenizer, step, &mut self.reporter);
        }
    }

    fn is_over(&self) -> bool {
        self.has_stalled()
            || match self.end {
                End::Step(step) => self.state.step >= step,
                End::Secs(secs) => self.elapsed_secs() >= secs,
            }
    }

    /// Whether validation after validation went by without a lower loss (Prechelt 1998).
    fn has_stalled(&self) -> bool {
        let patience = self.config.validation.patience;
        patience > 0 && self.state.num_without_progress >= patience
    }

    /// Position of the step that is about to be taken, as the schedule counts.
    fn position(&self) -> f64 {
        match self.end {
            End::Step(_) => (self.state.step + 1) as f64,
            End::Secs(_) => self.elapsed_secs(),
        }
    }

    fn elapsed_secs(&self) -> f64 {
        self.secs_before + self.started.elapsed().as_secs_f64()
    }
}

const MODEL_IS_HERE: &str = "the model is taken out only inside an update";

fn here(model: Option<&CausalLm>) -> &CausalLm {
    model.expect(MODEL_IS_HERE)
}

fn taken(model: Option<CausalLm>) -> CausalLm {
    model.expect(MODEL_IS_HERE)
}

fn is_due(step: usize, every: usize) -> bool {
    every > 0 && step.is_multiple_of(every)
}
