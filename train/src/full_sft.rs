//! Stage 3: conversations to a chat model; what the assistant says is trained, all weights move.

use dataset::cache::{DocumentTokens, TokenShards};
use dataset::jsonl::read_jsonl;
use dataset::loader::LoaderConfig;
use dataset::pack::PackMode;
use dataset::rows::ChatRow;
use dataset::source::{Documents, SourceConfig, TextFormat};
use dataset::{ChatTemplate, RenderOptions, Tokenizer};

use crate::config::SftConfig;
use crate::data::{DataError, TokenData};
use crate::plan::TrainPlan;
use crate::run::{Outcome, RunOptions, TrainError};
use crate::start::Start;
use crate::token_stage::{PromptKind, TokenRun, TokenStage};

/// Name of the stage.
pub const STAGE: &str = "3-full_sft";

/// What a run with this config would do.
///
/// # Errors
///
/// When the config is wrong, or the model, the tokenizer or the conversations cannot be read.
pub fn plan(config: &SftConfig) -> Result<TrainPlan, TrainError> {
    Ok(prepare(config)?.plan)
}

/// Trains to the end, or until a stop is requested, and exports the model.
///
/// # Errors
///
/// When the config is wrong, something cannot be read or written, or training breaks off.
pub fn run(config: &SftConfig, options: RunOptions) -> Result<Outcome, TrainError> {
    prepare(config)?.run(config, options)
}

fn prepare(config: &SftConfig) -> Result<TokenRun, TrainError> {
    config.validate()?;
    let start = Start::read(&config.model, &config.tokenizer)?;
    let Some(template) = start.tokenizer.chat_template() else {
        return Err(DataError::NoTemplate {
            path: config.tokenizer.path.clone(),
        }
        .into());
    };
    let documents = read_conversations(&config.data.files, &start.tokenizer, template)?;
    let rows = LoaderConfig {
        seq_len: config.data.seq_len,
        batch_size: config.train.micro_batch_size,
        seed: config.train.seed,
        mode: PackMode::Truncate,
        pad_id: start.tokenizer.pad_id(),
    };
    let shards = TokenShards::from_documents(documents);
    let data = TokenData::new(
        shards,
        &start.tokenizer,
        config.data.validation_fraction,
        rows,
    )?;
    let loop_config = config.loop_config();
    let plan = TrainPlan::new(
        STAGE,
        &loop_config,
        &start.model_config,
        config.data.seq_len,
        data.size,
    )?;
    let data_fingerprint = data.fingerprint.clone();
    let tokenizer = start.tokenizer.clone();
    let stage = TokenStage::new(data, tokenizer, PromptKind::Chat, &loop_config);
    Ok(TokenRun {
        plan,
        stage,
        start,
        data_fingerprint,
        loop_config,
    })
}

/// Conversations of files as token ids, with what the assistant says marked as trained.
fn read_conversations(
    files: &[String],
    tokenizer: &Tokenizer,
    template: &ChatTemplate,
) -> Result<Vec<DocumentTokens>, DataError> {
    let sources: Vec<SourceConfig> = files
        .iter()
        .map(|path| SourceConfig {
            format: TextFormat::Jsonl,
            ..SourceConfig::new(path)
        })
        .collect();
    let mut conversations = Vec::new();
    for path in Documents::open(&sources)?.paths() {
        for (index, row) in read_jsonl::<ChatRow>(path)?.enumerate() {
            let row = row?;
            let options = RenderOptions {
                tools: row.tools,
                ..RenderOptions::default()
            };
            let spans = template
                .render_spans(&row.conversations, &options)
                .map_err(|source| DataError::Chat {
                    path: path.clone(),
                    row: index + 1,
                    source,
                })?;
            let encoded = tokenizer.encode_spans(&spans);
            let trained = spans.iter().filter(|span| span.trained);
            conversations.push(DocumentTokens {
                ids: encoded.ids,
                trained: Some(encoded.trained),
                // Bits per byte are of what is predicted: the assistant's words.
                num_bytes: trained.map(|span| span.text.len() as u64).sum(),
            });
        }
    }
    Ok(conversations)
}
