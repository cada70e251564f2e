//! Training data of the chat stages: files of conversations to packed rows.

use dataset::cache::TokenShards;
use dataset::conversations::{ConversationEncoder, ConversationOptions, RowEncoder};
use dataset::loader::LoaderConfig;
use dataset::pack::PackMode;
use dataset::say;

use crate::config::{ChatDataSection, LoopConfig};
use crate::data::{DataError, TokenData};
use crate::run::TrainError;
use crate::start::Start;

/// Reads the conversations of a stage, and says what was found unless the run is quiet.
///
/// The start's tokenizer gets the chat template that the config names.
pub(crate) fn read_chat_data(
    start: &mut Start,
    config: &ChatDataSection,
    loop_config: &LoopConfig,
) -> Result<TokenData, TrainError> {
    start.use_chat_template(&config.chat_template)?;
    let Some(template) = start.tokenizer.chat_template() else {
        return Err(DataError::NoTemplate.into());
    };
    let seed = loop_config.train.seed;
    let options = ConversationOptions {
        loss_on: config.loss_on,
        thinking: config.thinking,
        empty_think_ratio: config.empty_think_ratio,
        system_prompt_ratio: config.system_prompt_ratio,
        system_prompts: config.system_prompts.clone(),
        seed,
    };
    let encoder = ConversationEncoder {
        tokenizer: &start.tokenizer,
        template,
        options: &options,
    };
    let (documents, summaries) = encoder
        .encode_files(&config.files, config.format, config.max_bad_ratio)
        .map_err(DataError::from)?;
    let rows = LoaderConfig {
        seq_len: config.seq_len,
        batch_size: loop_config.train.micro_batch_size,
        seed,
        mode: PackMode::Truncate,
        pad_id: start.tokenizer.pad_id(),
    };
    let shards = TokenShards::from_documents(documents);
    let data = TokenData::new(shards, &start.tokenizer, config.validation_fraction, rows)?;
    if !loop_config.report.quiet {
        for summary in summaries {
            say!("{summary}");
        }
        let num_unsupervised = data.loader.num_unsupervised();
        if num_unsupervised > 0 {
            say!("{num_unsupervised} conversations have no token to learn and are left out");
        }
        let num_truncated = data.loader.packing().num_truncated();
        if num_truncated > 0 {
            let seq_len = config.seq_len;
            say!("{num_truncated} conversations are longer than {seq_len} tokens and are cut");
        }
    }
    Ok(data)
}
