//! The one training loop: micro-batches to steps, steps to checkpoints, reports on the way.

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
use crate::optimizer::Optimizer;
use crate::replicas::Replicas;
use crate::report::{ExpertsReport, Reporter, SampleReport, StepReport, ValidationReport};
use crate::routing::loads_by_layer;
use crate::run_folder::RunFolder;
use crate::schedule::Schedule;
use crate::stage::{Metrics, Stage, StageError};
use crate::step::{SummedStep, UnreadNumbers, UnreadStep};
use crate::validate::HeldOutLoss;

pub use crate::loop_end::{End, LoopEnd, LoopError};

/// Everything that one run of the loop works with.
pub struct Trainer<S: Stage> {
    stage: S,
    // Taken out only while the optimizer replaces it: a second handle would forbid updates in
    // place.
    model: Option<CausalLm>,
    replicas: Replicas,
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
    last_report: Option<StepReport>,
    reads_late: bool,
    /// Steps whose numbers are not read yet.
    unread: Vec<(StepReport, UnreadNumbers)>,
    /// When the first of them began.
    unread_since: Instant,
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
    /// The model on the devices that share its steps.
    pub replicas: Replicas,
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
    /// Whether losses are read every `report.log_every` steps only, so that a graphics card need not
    /// wait for the host after each. Needs AdamW and a model without experts.
    pub reads_late: bool,
}

impl<S: Stage> Trainer<S> {
    /// A trainer that goes on from the state it is given.
    pub fn new(parts: TrainerParts<S>) -> Self {
        let now = Instant::now();
        Self {
            stage: parts.stage,
            model: Some(parts.model),
            replicas: parts.replicas,
            optimizer: parts.optimizer,
            schedule: parts.schedule,
            end: parts.end,
            config: parts.config,
            secs_before: parts.state.elapsed_secs,
            state: parts.state,
            run: parts.run,
            reporter: parts.reporter,
            examiner: parts.examiner,
            stop: parts.stop,
            last_validation: None,
            validated_step: None,
            last_report: None,
            reads_late: parts.reads_late,
            unread: Vec::new(),
            unread_since: now,
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
            if !self.train_step()? {
                return self.stop_here();
            }
            self.look_and_save()?;
        }
        self.look_at_the_end()?;
        self.save()?;
        Ok(LoopEnd::Completed)
    }

    /// Takes one optimizer step; false when a stop was requested before it was complete.
    ///
    /// # Errors
    ///
    /// When data cannot be read, a device fails or too many steps in a row are skipped.
    pub fn train_step(&mut self) -> Result<bool, LoopError> {
        let started = Instant::now();
        let lr = self.schedule.lr_at(self.position());
        let model = here(self.model.as_ref());
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
        if self.reads_late && step.supervised > 0 {
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
        report.metrics = step.metrics();
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
            metrics: Metrics::new(),
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
    fn read_steps(&mut self) -> Result<(), LoopError> {
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
            "the first step took {:.1} s: kernels are compiled, and chosen by measuring",
            report.secs
        );
        self.reporter.note(report.step, &text);
    }

    /// Counters so far.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The model as trained so far.
    pub fn model(&self) -> &CausalLm {
        here(self.model.as_ref())
    }

    /// The last step of this process whose numbers are read.
    pub fn last_report(&self) -> Option<&StepReport> {
        self.last_report.as_ref()
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
        Ok(())
    }

    fn skip(&mut self, step: usize, reason: SkipReason) -> Result<(), LoopError> {
        self.reporter
            .note(step as u64, &format!("step {step} is skipped: {reason}"));
        let allowed = self.config.guard.max_skipped_steps;
        Ok(self.state.skipped.skipped(step, reason, allowed)?)
    }

    /// Validates, samples and saves where the present step is one to do so.
    fn look_and_save(&mut self) -> Result<(), LoopError> {
        if self.is_over() {
            return Ok(());
        }
        let step = self.state.step;
        let every_secs = self.config.checkpoint.every_minutes * 60.0;
        let mut must_save = is_due(step, self.config.checkpoint.every_steps)
            || every_secs > 0.0 && self.last_saved.elapsed().as_secs_f64() >= every_secs;
        let looks = [
            self.config.validation.every_steps,
            self.config.samples.every_steps,
            self.config.exam.every_steps,
        ];
        if must_save || looks.into_iter().any(|every| is_due(step, every)) {
            self.read_steps()?;
        }
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
        if must_save {
            self.save()?;
        }
        Ok(())
    }

    fn look_at_the_end(&mut self) -> Result<(), LoopError> {
        self.read_steps()?;
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
        self.read_steps()?;
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
