//! Pairs of a better and a worse answer to one question: files to token ids, ids to batches.

mod batch;
mod loader;
mod pair;

use crate::chat::{ChatError, ChatTemplate, LossOn, Message, RenderOptions};
use crate::conversations::{ConversationFault, RowEncoder, Thinking, strip_thoughts};
use crate::rows::{NumberedRow, PreferenceRow, Row};
use crate::tokenizer::Tokenizer;
pub use batch::{PairBatch, PairSlots};
pub use loader::PairLoader;
pub use pair::{AnsweredTokens, PairTokens, pairs_fingerprint, split_pairs};

/// Renders and encodes pairs.
#[derive(Debug, Clone, Copy)]
pub struct PairEncoder<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
    /// What becomes of the answers' thoughts.
    pub thinking: Thinking,
}

impl RowEncoder for PairEncoder<'_> {
    type Encoded = PairTokens;

    fn encode_row(&self, row: NumberedRow, _: u64) -> Result<PairTokens, ConversationFault> {
        let Row::Preference(row) = row.row? else {
            return Err(ConversationFault::NoPair);
        };
        let PreferenceRow {
            prompt,
            tools,
            chosen: Some(chosen),
            rejected: Some(rejected),
        } = *row
        else {
            return Err(ConversationFault::NoPair);
        };
        let options = RenderOptions {
            tools,
            ..RenderOptions::default()
        };
        let chosen = self.answer(&prompt, chosen, &options)?;
        let rejected = self.answer(&prompt, rejected, &options)?;
        Ok(PairTokens::new(chosen, rejected))
    }
}

impl PairEncoder<'_> {
    /// A conversation whose last turn is the answer; everything before it is the prompt.
    ///
    /// # Errors
    ///
    /// Turns that the template refuses.
    pub fn answer(
        &self,
        prompt: &[Message],
        mut answer: Message,
        options: &RenderOptions,
    ) -> Result<AnsweredTokens, ChatError> {
        if self.thinking == Thinking::Strip {
            strip_thoughts(&mut answer);
        }
        let mut messages = prompt.to_vec();
        messages.push(answer);
        let spans = self
            .template
            .render_spans_for(LossOn::Last, &messages, options)?;
        let encoded = self.tokenizer.encode_spans(&spans);
        // The white space that a template writes after the last turn is nobody's answer.
        let end = encoded.trained.iter().rposition(|&trained| trained);
        let start = encoded.trained.iter().position(|&trained| trained);
        let len = end.map_or(0, |last| last + 1);
        let mut ids = encoded.ids;
        ids.truncate(len);
        Ok(AnsweredTokens {
            prompt_len: start.unwrap_or(len),
            ids,
        })
    }
}

#[cfg(test)]
mod tests;
