//! Training data of the preference stages: files of pairs, split, and sized.

use std::sync::Arc;

use dataset::conversations::RowEncoder;
use dataset::loader::LoaderError;
use dataset::preferences::{PairEncoder, PairLoader, PairTokens, pairs_fingerprint, split_pairs};
use dataset::say;

use crate::config::{LoopConfig, PairDataSection};
use crate::data::DataError;
use crate::plan::{DataSize, RowKind};
use crate::run::TrainError;
use crate::start::Start;

/// Pairs to train on and pairs for validation.
#[derive(Debug)]
pub(crate) struct PairData {
    /// All of them; the others are numbers of these.
    pub(crate) pairs: Arc<Vec<PairTokens>>,
    pub(crate) held_out: Vec<u32>,
    pub(crate) loader: PairLoader,
    pub(crate) size: DataSize,
    /// Identity of the pairs and of the tokenizer.
    pub(crate) fingerprint: String,
}

/// Reads the pairs of a stage, and says what was found unless the run is quiet.
///
/// The start's tokenizer gets the chat template that the config names.
pub(crate) fn read_pair_data(
    start: &mut Start,
    config: &PairDataSection,
    loop_config: &LoopConfig,
) -> Result<PairData, TrainError> {
    start.use_chat_template(&config.chat_template)?;
    let Some(template) = start.tokenizer.chat_template() else {
        return Err(DataError::NoTemplate.into());
    };
    let encoder = PairEncoder {
        tokenizer: &start.tokenizer,
        template,
        thinking: config.thinking,
    };
    let (pairs, summaries) = encoder
        .encode_files(&config.files, config.format, config.max_bad_ratio)
        .map_err(DataError::from)?;
    if !loop_config.report.quiet {
        for summary in summaries {
            say!("{summary}");
        }
    }
    PairData::new(pairs, start, config, loop_config)
}

impl PairData {
    /// Pairs within the rows' length, split by their prompts.
    pub(crate) fn new(
        pairs: Vec<PairTokens>,
        start: &Start,
        config: &PairDataSection,
        loop_config: &LoopConfig,
    ) -> Result<Self, TrainError> {
        let num_pairs = pairs.len();
        let longest = |pair: &PairTokens| {
            let lengths = pair.answers().map(|answered| answered.input_ids().len());
            lengths[0].max(lengths[1])
        };
        let is_long = |pair: &&PairTokens| longest(pair) > config.seq_len;
        let num_long = pairs.iter().filter(is_long).count();
        let pairs: Vec<PairTokens> = pairs
            .into_iter()
            .filter_map(|pair| pair.cut(config.seq_len))
            .collect();
        let num_left_out = num_pairs - pairs.len();
        if !loop_config.report.quiet && num_long + num_left_out > 0 {
            let seq_len = config.seq_len;
            say!(
                "{num_long} pairs are longer than {seq_len} tokens and are cut; {num_left_out} have \
                 no two different answers and are left out"
            );
        }
        let seed = loop_config.train.seed;
        let (train, held_out) = split_pairs(&pairs, config.validation_fraction, seed);
        if train.is_empty() {
            let none = LoaderError::NothingToLearn {
                num_documents: num_pairs,
            };
            return Err(DataError::from(none).into());
        }
        let fingerprint = format!(
            "{} {}",
            pairs_fingerprint(&pairs),
            start.tokenizer.fingerprint()
        );
        let pairs = Arc::new(pairs);
        let batch_size = loop_config.train.micro_batch_size;
        let loader = PairLoader::new(Arc::clone(&pairs), train, batch_size, seed)
            .map_err(DataError::from)?;
        Ok(Self {
            size: DataSize {
                num_documents: loader.num_pairs(),
                num_held_out: held_out.len(),
                num_dropped: 0,
                tokens_per_epoch: loader.num_tokens(),
                rows_per_epoch: loader.num_pairs(),
                row: RowKind::Pair,
            },
            pairs,
            held_out,
            loader,
            fingerprint,
        })
    }
}
