//! Stage 9: a small model learns the distribution of a large one on conversations.
//!
//! White-box distillation. Source: Hinton et al. 2015, arXiv:1503.02531, section 2, with the
//! Kullback-Leibler divergence in the place of the cross entropy.

mod loss;
mod stage;
mod teacher;

use dataset::loader::FiniteBatches;

use crate::chat_data::read_chat_data;
use crate::config::{ConfigError, DistillConfig};
use crate::plan::TrainPlan;
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run as run_stage};
use crate::sampler::PromptKind;
use crate::start::Start;
use crate::token_stage::TokenRun;

pub use loss::{distill_loss, divergence, divergence_of_likeliest};
use stage::DistillStage;
pub use teacher::{Likeliest, TeacherError};
use teacher::{Teacher, read_shape};

/// Name of the stage.
pub const STAGE: &str = "9-distill";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the teacher's shape, the tokenizer or the conversations
/// cannot be read.
pub fn plan(config: &DistillConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.0.plan)
}

/// Trains to the end, or until a stop is requested, and exports the student.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, the teacher does not fit the
/// student, or training breaks off.
pub fn run(config: &DistillConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    let (run, questions) = prepare(config)?;
    let prepared = Prepared::new(
        config,
        run.loop_config,
        run.plan,
        run.start,
        run.data_fingerprint,
    )?;
    let (inner, section) = (run.stage, &config.distill);
    let with_teacher = |prepared: &mut Prepared, options: &RunOptions| -> Result<_, TrainError> {
        let seq_len = config.data.seq_len;
        let mut teacher = Teacher::load(section, &prepared.start, seq_len, &options.device)?;
        if section.top_k > 0 {
            let quiet = config.report.quiet;
            let asked = teacher.remember(&questions, &section.cache_dir, quiet, &options.stop)?;
            if asked.is_break() {
                return Ok(None);
            }
        }
        // The teacher stands in no checkpoint: a resumed run must have the same one.
        prepared.depend_on(teacher.fingerprint());
        Ok(Some(DistillStage {
            inner,
            teacher,
            alpha: section.alpha,
        }))
    };
    run_stage(prepared, options, with_teacher)
}

/// The run, and every conversation that it trains on, once, packed in a fixed order.
fn prepare(config: &DistillConfig) -> Result<(TokenRun, FiniteBatches), TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    if config.train.activation_checkpointing {
        let expected = "false: the teacher's distribution is compared with whole logits";
        return Err(ConfigError::field("train.activation_checkpointing", true, expected).into());
    }
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    let loop_config = config.loop_config();
    let data = read_chat_data(&mut start, &config.data, &loop_config)?;
    let questions = data.training_batches(config.data.validation_fraction)?;
    let num_slots = loop_config.train.micro_batch_size * data.seq_len();
    let mut run = TokenRun::new(STAGE, PromptKind::Chat, start, data, loop_config)?;
    let shape = read_shape(&config.distill.teacher)?;
    run.plan = run.plan.with_teacher(&shape, num_slots as u64);
    Ok((run, questions))
}
