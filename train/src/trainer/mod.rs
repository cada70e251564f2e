//! The one training loop: micro-batches to steps, steps to checkpoints, reports on the way.

mod looks;
mod steps;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use dataset::Tokenizer;
use model::CausalLm;
use model::workers::on_worker;

use crate::checkpoint::{self, TrainState};
use crate::config::LoopConfig;
use crate::examiner::Examiner;
use crate::loss_scale::LossScale;
use crate::optimizer::Optimizer;
use crate::replicas::Replicas;
use crate::report::{Reporter, StepReport};
use crate::run_folder::RunFolder;
use crate::schedule::Schedule;
use crate::stage::Stage;
use crate::step::UnreadNumbers;
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
    /// wait for the host after each. Needs AdamW, a model without experts, and losses without a scale.
    pub reads_late: bool,
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
            replicas: parts.replicas,
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
