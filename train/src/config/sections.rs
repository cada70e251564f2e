//! The sections that every training stage's config has: what the numbers mean and where they end.

use std::path::PathBuf;

use documented::DocumentedFields;
use model::precision::Precision;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Length};

/// `[model]`: which weights training starts from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ModelSection {
    /// Hugging Face config.json giving the shape of a model that starts from random weights; empty
    /// when `from` is given.
    pub config: PathBuf,
    /// Folder with weights to start from (a run's final/ or a Hugging Face model); empty when
    /// `config` is given.
    pub from: PathBuf,
    /// Folder of a dense model whose feed-forward network every expert of `config` starts as;
    /// empty for none.
    pub upcycle: PathBuf,
}

impl ModelSection {
    /// Checks that exactly one start is given.
    ///
    /// # Errors
    ///
    /// Names both fields when none or both are given.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if !self.upcycle.as_os_str().is_empty() && self.config.as_os_str().is_empty() {
            let found = self.upcycle.display();
            let expected = "nothing, since model.config is empty";
            return Err(ConfigError::field("model.upcycle", found, expected));
        }
        match (
            self.config.as_os_str().is_empty(),
            self.from.as_os_str().is_empty(),
        ) {
            (false, true) | (true, false) => Ok(()),
            (true, true) => Err(ConfigError::field(
                "model.config",
                "nothing, and nothing in model.from",
                "one of the two",
            )),
            (false, false) => Err(ConfigError::field(
                "model.config",
                format!(
                    "{}, and model.from = {}",
                    self.config.display(),
                    self.from.display()
                ),
                "only one of the two",
            )),
        }
    }
}

/// `[tokenizer]`: how text becomes token ids.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TokenizerSection {
    /// Folder with tokenizer.json (a 0-tokenizer run, a final/ folder or a Hugging Face model), or
    /// a tokenizer.json.
    pub path: PathBuf,
}

impl TokenizerSection {
    /// Checks that a path is given.
    ///
    /// # Errors
    ///
    /// Names the field when it is empty.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.path.as_os_str().is_empty() {
            return Err(ConfigError::field(
                "tokenizer.path",
                "nothing",
                "a folder or a file",
            ));
        }
        Ok(())
    }
}

/// `[train]`: how long, and how much per step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSection {
    /// Length of the run: a number and "epochs", "steps", "tokens" or "minutes", such as "300
    /// steps".
    pub length: Length,
    /// Sequences per forward and backward pass, at least 1; memory grows with it. "auto" joins
    /// grad_accumulation_steps passes of one sequence into the fewest that fit into the memory.
    pub micro_batch_size: usize,
    /// Forward and backward passes per optimizer step, at least 1; the result is that of one larger
    /// batch.
    pub grad_accumulation_steps: usize,
    /// What the operands of matrix products are rounded to while the model learns: "f32", "bf16" or
    /// "f16". Weights, sums and everything else stay f32. In f16 losses are scaled by a factor that
    /// starts at 65536, falls with every step whose gradients overflow (it is skipped) and grows
    /// after 2000 others. On a processor its products are those of rounded f32, and so are bf16's
    /// where there are no instructions for it.
    pub precision: Precision,
    /// Seed of the random weights, the order of the data, the held-out split and the samples.
    pub seed: u64,
    /// Recompute each layer in the backward pass instead of keeping its activations: less memory,
    /// about a third more time.
    pub activation_checkpointing: bool,
    /// Write the initial weights and the batches of this many first steps into the run's
    /// curve_inputs/, for a comparison with PyTorch; 0 writes nothing.
    pub dump_curve_inputs: usize,
}

impl Default for TrainSection {
    fn default() -> Self {
        Self {
            length: Length::Epochs(1.0),
            micro_batch_size: 8,
            grad_accumulation_steps: 1,
            precision: Precision::F32,
            seed: 42,
            activation_checkpointing: false,
            dump_curve_inputs: 0,
        }
    }
}

impl TrainSection {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_at_least("train.micro_batch_size", self.micro_batch_size, 1)?;
        ConfigError::check_at_least(
            "train.grad_accumulation_steps",
            self.grad_accumulation_steps,
            1,
        )
    }

    /// Refuses curve inputs, in a stage whose steps are not those of the comparison.
    pub(crate) fn refuse_curve_inputs(&self) -> Result<(), ConfigError> {
        let num_steps = self.dump_curve_inputs;
        if num_steps == 0 {
            return Ok(());
        }
        let expected = "0: only plain training of all weights is compared with PyTorch";
        Err(ConfigError::field(
            "train.dump_curve_inputs",
            num_steps,
            expected,
        ))
    }
}

/// `[validation]`: how often the held-out documents are scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct ValidationSection {
    /// Optimizer steps between two validations; 0 validates only at the end of the run.
    pub every_steps: usize,
    /// Micro-batches scored per validation at most; 0 scores the whole held-out split.
    pub max_batches: usize,
    /// Validations in a row without a lower loss after which the run ends early; 0 never ends it.
    pub patience: usize,
}

impl Default for ValidationSection {
    fn default() -> Self {
        Self {
            every_steps: 100,
            max_batches: 20,
            patience: 0,
        }
    }
}

/// `[samples]`: what the model writes while it learns.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct SamplesSection {
    /// Texts that the model continues (pretraining) or user turns that it answers (chat stages).
    pub prompts: Vec<String>,
    /// Optimizer steps between two rounds of samples; 0 samples only at the end of the run.
    pub every_steps: usize,
    /// Tokens per sample at most, the prompt not counted; at least 1.
    pub max_new_tokens: usize,
    /// Sampling temperature, 0 or more; 0 always takes the likeliest token.
    pub temperature: f64,
}

impl Default for SamplesSection {
    fn default() -> Self {
        Self {
            prompts: Vec::new(),
            every_steps: 100,
            max_new_tokens: 48,
            temperature: 0.0,
        }
    }
}

impl SamplesSection {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_at_least("samples.max_new_tokens", self.max_new_tokens, 1)?;
        ConfigError::check_not_negative("samples.temperature", self.temperature)
    }
}

/// `[checkpoint]`: when the run is saved, and how much of it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointSection {
    /// Optimizer steps between two checkpoints; 0 saves by the clock and at the end only.
    pub every_steps: usize,
    /// Minutes between two checkpoints, counted from the last one; 0 saves by steps and at the end
    /// only.
    pub every_minutes: f64,
    /// Newest checkpoints that are kept, at least 1.
    pub keep_last: usize,
    /// Save and keep the checkpoint with the lowest validation loss besides the newest ones.
    pub keep_best: bool,
}

impl Default for CheckpointSection {
    fn default() -> Self {
        Self {
            every_steps: 500,
            every_minutes: 15.0,
            keep_last: 2,
            keep_best: true,
        }
    }
}

impl CheckpointSection {
    /// Checks ranges.
    ///
    /// # Errors
    ///
    /// Names the field that is out of range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        ConfigError::check_not_negative("checkpoint.every_minutes", self.every_minutes)?;
        ConfigError::check_at_least("checkpoint.keep_last", self.keep_last, 1)
    }
}

/// `[guard]`: what happens when a step cannot be trusted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct GuardSection {
    /// Steps in a row that may be skipped for a NaN or infinite loss or gradient, or for having no
    /// trained token; the next one ends the run. In f16, gradients that are infinite while the loss
    /// is scaled by more than 1 do not count.
    pub max_skipped_steps: usize,
}

impl Default for GuardSection {
    fn default() -> Self {
        Self {
            max_skipped_steps: 10,
        }
    }
}
