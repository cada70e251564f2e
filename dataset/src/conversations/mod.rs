//! Conversations of files as token ids, with what is trained marked: the way of every chat stage.

mod files;

use std::error::Error;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cache::DocumentTokens;
use crate::chat::{ChatError, ChatTemplate, LossOn, Message, RenderOptions, Span};
use crate::rows::{ChatRow, NumberedRow, RowFault, RowsError};
use crate::source::{SourceError, hashed_fraction};
use crate::tokenizer::Tokenizer;
pub use files::{FileSummary, RowEncoder};

/// The block that a template writes for an assistant that did not think.
const EMPTY_THINK: &str = "<think>\n\n</think>\n\n";
/// Streams of draws, one per option, so that no option changes another's draws.
const SYSTEM_STREAM: u64 = 0x5e5;
const SYSTEM_CHOICE_STREAM: u64 = 0xc401;
const THINK_STREAM: u64 = 0x7418;

/// What becomes of the thoughts that assistants wrote down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Thinking {
    /// They are learned.
    #[default]
    Keep,
    /// They are left out: `reasoning_content`, and a `<think>` block before what is said.
    Strip,
}

/// How conversations become training text.
#[derive(Debug, Clone, PartialEq)]
pub struct ConversationOptions {
    /// What is trained.
    pub loss_on: LossOn,
    /// What becomes of thoughts.
    pub thinking: Thinking,
    /// Share of the conversations that keep the template's empty think blocks.
    pub empty_think_ratio: f64,
    /// Share of the conversations without system prompt and tools that are given one.
    pub system_prompt_ratio: f64,
    /// Prompts to choose from for them.
    pub system_prompts: Vec<String>,
    /// What decides the choices, together with a conversation's number.
    pub seed: u64,
}

impl Default for ConversationOptions {
    fn default() -> Self {
        Self {
            loss_on: LossOn::Assistant,
            thinking: Thinking::Keep,
            empty_think_ratio: 1.0,
            system_prompt_ratio: 0.0,
            system_prompts: Vec::new(),
            seed: 0,
        }
    }
}

/// Why a conversation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConversationFault {
    /// The row is broken.
    #[error(transparent)]
    Row(#[from] RowFault),
    /// The chat template does not take it.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A preference needs two answers.
    #[error("found no pair of answers, expected a chosen and a rejected one")]
    NoPair,
}

impl ConversationFault {
    /// The message with those of its causes behind it.
    pub fn full_text(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Why files of conversations cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConversationsError {
    /// No file is where one was expected.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file cannot be read.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A file has no row that can be used.
    #[error("{}: found no conversation, expected at least one", path.display())]
    NoRows {
        /// File that was read.
        path: PathBuf,
    },
    /// More rows are broken than may be.
    #[error(
        "{}:{line}: not a valid row ({num_bad} of {num_rows} rows are not, expected at most a \
         share of {max_bad_ratio}): {fault}",
        path.display()
    )]
    TooManyBad {
        /// File that was read.
        path: PathBuf,
        /// Line of the first broken row, from 1.
        line: usize,
        /// Broken rows.
        num_bad: usize,
        /// All rows.
        num_rows: usize,
        /// Share of broken rows that is put up with.
        max_bad_ratio: f64,
        /// What is wrong with the first one.
        fault: String,
    },
}

/// Renders and encodes conversations.
#[derive(Debug, Clone, Copy)]
pub struct ConversationEncoder<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
    /// What is trained, and what is changed on the way.
    pub options: &'a ConversationOptions,
}

impl ConversationEncoder<'_> {
    /// Ids of a conversation and what of them is trained; `number` decides its random choices.
    ///
    /// # Errors
    ///
    /// What the template refuses.
    pub fn encode(&self, row: ChatRow, number: u64) -> Result<DocumentTokens, ChatError> {
        let ChatRow {
            mut conversations,
            tools,
        } = row;
        if self.options.thinking == Thinking::Strip {
            conversations.iter_mut().for_each(strip_thoughts);
        }
        if let Some(prompt) = self.system_prompt_for(&conversations, &tools, number) {
            conversations.insert(0, Message::new("system", prompt));
        }
        let render = RenderOptions {
            tools,
            ..RenderOptions::default()
        };
        let loss_on = self.options.loss_on;
        let mut spans = self
            .template
            .render_spans_for(loss_on, &conversations, &render)?;
        if !self.is_drawn(self.options.empty_think_ratio, THINK_STREAM, number) {
            strip_empty_thinks(&mut spans);
        }
        let encoded = self.tokenizer.encode_spans(&spans);
        let trained = spans.iter().filter(|span| span.trained);
        Ok(DocumentTokens {
            ids: encoded.ids,
            trained: Some(encoded.trained),
            // Bits per byte are of what is predicted.
            num_bytes: trained.map(|span| span.text.len() as u64).sum(),
        })
    }

    fn system_prompt_for(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        number: u64,
    ) -> Option<&str> {
        let prompts = &self.options.system_prompts;
        let is_free = tools.is_empty()
            && messages
                .first()
                .is_some_and(|first| first.role != "system" && first.tools.is_empty());
        let ratio = self.options.system_prompt_ratio;
        if !is_free || prompts.is_empty() || !self.is_drawn(ratio, SYSTEM_STREAM, number) {
            return None;
        }
        let choice = hashed_fraction(self.options.seed ^ SYSTEM_CHOICE_STREAM, number);
        let index = (choice * prompts.len() as f64) as usize;
        prompts.get(index).map(String::as_str)
    }

    fn is_drawn(&self, ratio: f64, stream: u64, number: u64) -> bool {
        hashed_fraction(self.options.seed ^ stream, number) < ratio
    }
}

impl RowEncoder for ConversationEncoder<'_> {
    type Encoded = DocumentTokens;

    fn encode_row(
        &self,
        row: NumberedRow,
        number: u64,
    ) -> Result<DocumentTokens, ConversationFault> {
        Ok(self.encode(row.row?.into_chat()?, number)?)
    }
}

/// Leaves an assistant's thoughts out of its turn.
pub(crate) fn strip_thoughts(message: &mut Message) {
    if !message.is_assistant() {
        return;
    }
    message.reasoning_content = None;
    let content = message.content.trim_start();
    if content.starts_with("<think>")
        && let Some((_, said)) = content.split_once("</think>")
    {
        message.content = said.trim_start_matches('\n').to_owned();
    }
}

/// Leaves out the empty think blocks that stand between a header and what is said.
fn strip_empty_thinks(spans: &mut [Span]) {
    for index in 1..spans.len() {
        let [header, said] = &mut spans[index - 1..=index] else {
            unreachable!("a window of two");
        };
        if !said.trained {
            continue;
        }
        if !header.trained && header.literal.is_empty() {
            header.text = header.text.replace(EMPTY_THINK, "");
        } else if let Some(text) = header.text.strip_suffix(EMPTY_THINK) {
            header.text.truncate(text.len());
        }
        if said.literal.is_empty()
            && let Some(text) = said.text.strip_prefix(EMPTY_THINK)
        {
            said.text = text.to_owned();
        }
    }
}

#[cfg(test)]
mod tests;
