//! Stage 5: pairs of a better and a worse answer to a model that prefers the better ones.
//!
//! The reference is the model that training starts from. It answers once, before the first step, and
//! is then forgotten: with adapters as with all weights, one model is in memory.

pub mod loss;
mod objective;
mod reference;

use model::lora::num_adapter_params;
use serde::Serialize;

use crate::config::{
    ConfigError, DpoConfig, DpoSection, FieldDocs, LoopConfig, LoraSection, Trained,
};
use crate::pair_data::{PairData, read_pair_data};
use crate::pair_stage::PairStage;
use crate::plan::TrainPlan;
use crate::run::{Outcome, Prepared, RunOptions, TrainError, run as run_stage};
use crate::sampler::Sampler;
use crate::start::{Start, StartError};

use objective::DpoObjective;
pub use reference::ReferenceError;
use reference::ReferenceLogps;

/// Name of the stage.
pub const STAGE: &str = "5-dpo";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the pairs cannot be read.
pub fn plan(config: &DpoConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &DpoConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &DpoConfig) -> Result<PairRun, TrainError> {
    config.validate()?;
    config.train.refuse_curve_inputs()?;
    let loop_config = config.loop_config();
    let mut start = Start::read(&config.model, &config.tokenizer)?;
    let data = read_pair_data(&mut start, &config.data, &loop_config)?;
    let sections = PairSections {
        seq_len: config.data.seq_len,
        dpo: &config.dpo,
        lora: &config.lora,
        loop_config,
    };
    PairRun::new(STAGE, data, start, sections)
}

/// What a preference stage's config says of the model and its training.
pub(crate) struct PairSections<'a> {
    /// Slots of an answer with its prompt.
    pub(crate) seq_len: usize,
    pub(crate) dpo: &'a DpoSection,
    pub(crate) lora: &'a LoraSection,
    pub(crate) loop_config: LoopConfig,
}

/// A preference stage that is ready to train: pairs read, nothing asked or written yet.
pub(crate) struct PairRun {
    pub(crate) plan: TrainPlan,
    data: PairData,
    start: Start,
    dpo: DpoSection,
    loop_config: LoopConfig,
}

impl PairRun {
    /// A run of pairs, however they were made.
    pub(crate) fn new(
        stage: &'static str,
        data: PairData,
        mut start: Start,
        sections: PairSections<'_>,
    ) -> Result<Self, TrainError> {
        let PairSections {
            seq_len,
            dpo,
            lora,
            loop_config,
        } = sections;
        if start.from.as_os_str().is_empty() {
            let expected = "the folder of a model that answers already";
            return Err(ConfigError::field("model.from", "nothing", expected).into());
        }
        let mut plan =
            TrainPlan::new(stage, &loop_config, &start.model_config, seq_len, data.size)?;
        if dpo.trains == Trained::Adapters {
            let adapters = lora.adapters();
            let num_trained =
                num_adapter_params(&start.model_config, &adapters).map_err(StartError::from)?;
            start.lora = Some(adapters);
            plan = plan.with_frozen_weights(num_trained as u64);
        }
        Ok(Self {
            plan,
            data,
            start,
            dpo: dpo.clone(),
            loop_config,
        })
    }

    /// Asks the reference, trains to the end, or until a stop is requested, and exports the model.
    pub(crate) fn run<C: Serialize + FieldDocs>(
        self,
        config: &C,
        options: RunOptions,
    ) -> Result<Outcome, TrainError> {
        let Self {
            plan,
            data,
            start,
            dpo,
            loop_config,
        } = self;
        let seed = loop_config.train.seed;
        let sampler = Sampler::of_chat(&start.tokenizer, &loop_config.samples, seed);
        let prepared = Prepared::new(
            config,
            loop_config.clone(),
            plan,
            start,
            data.fingerprint.clone(),
        )?;
        let with_reference = |prepared: &mut Prepared,
                              options: &RunOptions|
         -> Result<_, TrainError> {
            let mut reference = None;
            if !dpo.is_reference_free() {
                let start = prepared.start.without_adapters();
                let model = start.model(seed, &options.device)?;
                let quiet = loop_config.report.quiet;
                let asked = ReferenceLogps::open_or_ask(&model, &data, &dpo, quiet, &options.stop)?;
                let Some(answers) = asked else {
                    return Ok(None);
                };
                // The reference stands in no checkpoint: a resumed run must have the same one.
                prepared.depend_on(answers.key());
                reference = Some(answers);
            }
            let objective = DpoObjective {
                config: dpo,
                reference,
            };
            let stage = PairStage::new(data, objective, sampler, &loop_config);
            Ok(Some(stage))
        };
        run_stage(prepared, options, with_reference)
    }
}
