//! What a run is going to do: steps, tokens, memory and disk, known before the first step.

use std::fmt::{self, Write as _};

use model::config::ModelConfig;

use crate::config::{ConfigError, Length, LoopConfig};
use crate::memory::{Bytes, MemoryEstimate, MemoryInputs};
use crate::routing::router_warnings;
use crate::schedule::Schedule;
use crate::trainer::End;

/// Size of the training data of a stage, once it is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataSize {
    /// Documents that are trained on.
    pub num_documents: usize,
    /// Documents held out for validation.
    pub num_held_out: usize,
    /// Documents that were left out because they have no token.
    pub num_dropped: u64,
    /// Tokens of one pass over the training documents.
    pub tokens_per_epoch: u64,
    /// Rows of one pass over the training documents.
    pub rows_per_epoch: usize,
    /// What a row is.
    pub row: RowKind,
}

/// What a stage's batches count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowKind {
    /// A sequence of packed documents.
    Packed,
    /// A question with two answers: two sequences.
    Pair,
    /// An answer of the model itself with its prompt.
    Completion,
}

impl RowKind {
    /// Sequences that a row has at most.
    fn num_sequences(self) -> usize {
        match self {
            Self::Packed | Self::Completion => 1,
            Self::Pair => 2,
        }
    }
}

/// What a run that trains adapters saves against one that trains the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterPlan {
    /// Parameters of the adapters.
    pub num_params: u64,
    /// Estimated peak memory if all weights were trained, in bytes.
    pub full_memory: u64,
}

/// Everything about a run that follows from its config, its model's shape and the size of its data.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainPlan {
    /// Name of the stage.
    pub stage: &'static str,
    /// Length, as it was asked for.
    pub length: Length,
    /// Where the run ends.
    pub end: End,
    /// Learning rate over the run.
    pub schedule: Schedule,
    /// Parameters of the model.
    pub num_params: u64,
    /// Parameters that one token meets: fewer where it is sent to a few of many experts.
    pub num_active_params: u64,
    /// What the user should know before the run begins.
    pub warnings: Vec<String>,
    /// What is trained in the place of the weights; `None` when all of them are.
    pub adapters: Option<AdapterPlan>,
    /// Size of the data.
    pub data: DataSize,
    /// Slots of a step: rows times tokens per row, padding counted.
    pub slots_per_step: u64,
    /// Tokens of the whole run, padding not counted; `None` when its length is in minutes.
    pub total_tokens: Option<u64>,
    /// Passes over the data; `None` when the run's length is in minutes.
    pub epochs: Option<f64>,
    /// Checkpoints that are written by step and at the end; more come by the clock and for the
    /// best.
    pub num_checkpoints: usize,
    /// Estimated peak memory.
    pub memory: MemoryEstimate,
    /// Size of one checkpoint.
    pub checkpoint_bytes: u64,
    /// Most that the checkpoints of the run take at a time.
    pub disk_bytes: u64,
}

impl TrainPlan {
    /// The plan of a run.
    ///
    /// # Errors
    ///
    /// When fields of the config do not fit the model's shape or the data; the field is named.
    pub fn new(
        stage: &'static str,
        config: &LoopConfig,
        model: &ModelConfig,
        seq_len: usize,
        data: DataSize,
    ) -> Result<Self, ConfigError> {
        if seq_len > model.max_position_embeddings {
            let most = model.max_position_embeddings;
            let expected = format!("at most the model's max_position_embeddings = {most}");
            return Err(ConfigError::field("data.seq_len", seq_len, expected));
        }
        if data.rows_per_epoch == 0 {
            let found = format!("{} documents to train on", data.num_documents);
            return Err(ConfigError::field(
                "data",
                found,
                "text for at least one row",
            ));
        }
        let train = &config.train;
        let rows_per_step = train.micro_batch_size * train.grad_accumulation_steps;
        let steps_per_epoch = data.rows_per_epoch as f64 / rows_per_step as f64;
        let tokens_per_row = data.tokens_per_epoch as f64 / data.rows_per_epoch as f64;
        let tokens_per_step = tokens_per_row * rows_per_step as f64;
        let num_steps = match train.length {
            Length::Steps(steps) => Some(steps),
            Length::Epochs(epochs) => Some((epochs * steps_per_epoch).ceil() as usize),
            Length::Tokens(tokens) => Some((tokens as f64 / tokens_per_step).ceil() as usize),
            Length::Minutes(_) => None,
        };
        let (end, schedule) = match (num_steps, train.length) {
            (None, Length::Minutes(minutes)) => {
                let secs = minutes * 60.0;
                let schedule = Schedule::over_seconds(&config.schedule, config.optimizer.lr, secs);
                (End::Secs(secs), schedule)
            }
            (steps, _) => {
                let steps = steps.unwrap_or(1).max(1);
                let schedule = Schedule::over_steps(&config.schedule, config.optimizer.lr, steps);
                (End::Step(steps), schedule)
            }
        };
        let memory = MemoryEstimate::new(
            model,
            MemoryInputs {
                micro_batch_size: train.micro_batch_size * data.row.num_sequences(),
                seq_len,
                grad_accumulation_steps: train.grad_accumulation_steps,
                activation_checkpointing: train.activation_checkpointing,
                precision: config.train.precision,
                optimizer: config.optimizer.kind,
            },
        );
        let checkpoint_bytes = memory.weights + memory.optimizer;
        let num_kept = config.checkpoint.keep_last + usize::from(config.checkpoint.keep_best);
        let num_steps = num_steps.map(|steps| steps.max(1));
        Ok(Self {
            stage,
            length: train.length,
            end,
            schedule,
            num_params: model.num_params() as u64,
            num_active_params: model.num_active_params() as u64,
            warnings: router_warnings(model, &config.router),
            adapters: None,
            data,
            slots_per_step: (rows_per_step * data.row.num_sequences() * seq_len) as u64,
            total_tokens: num_steps.map(|steps| (steps as f64 * tokens_per_step).round() as u64),
            epochs: num_steps.map(|steps| steps as f64 / steps_per_epoch),
            num_checkpoints: num_steps.map_or(1, |steps| {
                let every = config.checkpoint.every_steps;
                if every == 0 { 1 } else { steps.div_ceil(every) }
            }),
            memory,
            checkpoint_bytes,
            // One more than is kept exists while the oldest waits for the newest to be complete.
            disk_bytes: checkpoint_bytes * (num_kept as u64 + 1),
        })
    }

    /// The plan of a run that trains `num_params` parameters of adapters, the weights being frozen.
    #[must_use]
    pub fn with_frozen_weights(mut self, num_params: u64) -> Self {
        self.adapters = Some(AdapterPlan {
            num_params,
            full_memory: self.memory.total(),
        });
        // Gradients and moments are those of the trained parameters.
        let all = self.num_params.max(1);
        let share =
            |bytes: u64| (u128::from(bytes) * u128::from(num_params) / u128::from(all)) as u64;
        self.memory.gradients = share(self.memory.gradients);
        self.memory.optimizer = share(self.memory.optimizer);
        let num_kept = self.disk_bytes / self.checkpoint_bytes.max(1);
        self.checkpoint_bytes = share(self.memory.weights) + self.memory.optimizer;
        self.memory.weights += share(self.memory.weights);
        self.memory = self.memory.with_slack();
        self.disk_bytes = self.checkpoint_bytes * num_kept;
        self
    }

    /// The plan of a run that learns from a teacher of this shape, about so many slots at once.
    #[must_use]
    pub fn with_teacher(mut self, teacher: &ModelConfig, num_slots: u64) -> Self {
        self.memory = self.memory.with_teacher(teacher, num_slots);
        self
    }
}

impl fmt::Display for TrainPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |name: &str, value: String| writeln!(f, "{name:<18}{value}");
        row("stage", self.stage.to_owned())?;
        let mut parameters = grouped(self.num_params);
        if self.num_active_params < self.num_params {
            let _ = write!(
                parameters,
                " ({} per token)",
                grouped(self.num_active_params)
            );
        }
        row("parameters", parameters)?;
        if let Some(adapters) = self.adapters {
            let share = 100.0 * adapters.num_params as f64 / self.num_params as f64;
            let trained = grouped(adapters.num_params);
            row("  trained", format!("{trained} in adapters ({share:.2} %)"))?;
        }
        let mut data = match self.data.row {
            RowKind::Packed => format!(
                "{} documents, {} tokens in {} rows; {} documents held out",
                grouped(self.data.num_documents as u64),
                grouped(self.data.tokens_per_epoch),
                grouped(self.data.rows_per_epoch as u64),
                grouped(self.data.num_held_out as u64),
            ),
            RowKind::Pair => format!(
                "{} pairs of {} tokens; {} pairs held out",
                grouped(self.data.num_documents as u64),
                grouped(self.data.tokens_per_epoch),
                grouped(self.data.num_held_out as u64),
            ),
            RowKind::Completion => format!(
                "{} prompts, {} answers to learn from; {} prompts held out",
                grouped(self.data.num_documents as u64),
                grouped(self.data.rows_per_epoch as u64),
                grouped(self.data.num_held_out as u64),
            ),
        };
        if self.data.num_dropped > 0 {
            let _ = write!(data, ", {} without a token", grouped(self.data.num_dropped));
        }
        row("data", data)?;
        row("length", self.length.to_string())?;
        match self.end {
            End::Step(steps) => row("steps", grouped(steps as u64))?,
            End::Secs(secs) => row("steps", format!("as many as fit into {secs:.0} s"))?,
        }
        let most = match self.data.row {
            RowKind::Packed => "",
            RowKind::Pair | RowKind::Completion => " at most",
        };
        row("tokens per step", grouped(self.slots_per_step) + most)?;
        if let (Some(tokens), Some(epochs)) = (self.total_tokens, self.epochs) {
            row(
                "tokens",
                format!("{} ({epochs:.2} epochs)", grouped(tokens)),
            )?;
        }
        let unit = if matches!(self.end, End::Step(_)) {
            "steps"
        } else {
            "s"
        };
        row("warm-up", format!("{:.0} {unit}", self.schedule.warmup()))?;
        row(
            "checkpoints",
            format!(
                "{} of {} each, {} on disk at most",
                self.num_checkpoints,
                Bytes(self.checkpoint_bytes),
                Bytes(self.disk_bytes)
            ),
        )?;
        let mut memory = format!("{} estimated", Bytes(self.memory.total()));
        if let Some(adapters) = self.adapters {
            let full = Bytes(adapters.full_memory);
            let _ = write!(memory, ", {full} if all weights were trained");
        }
        row("memory", memory)?;
        let rollouts = Some(("  rollouts", self.memory.rollouts));
        let parts = [
            ("  weights", self.memory.weights),
            ("  gradients", self.memory.gradients),
            ("  optimizer", self.memory.optimizer),
            ("  activations", self.memory.activations),
            ("  logits", self.memory.logits),
            ("  program", self.memory.program),
            ("  slack", self.memory.slack),
        ];
        for (name, bytes) in parts
            .into_iter()
            .chain(rollouts.filter(|(_, bytes)| *bytes > 0))
        {
            row(name, Bytes(bytes).to_string())?;
        }
        for warning in &self.warnings {
            row("warning", warning.clone())?;
        }
        Ok(())
    }
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
