//! Ids of rendered conversations, with which of them are trained.

use std::ops::Range;

use tokenizers::{OffsetReferential, OffsetType};

use super::Tokenizer;
use crate::chat::{ChatError, Message, RenderOptions, Span};

/// A conversation in ids.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedSpans {
    /// Token ids.
    pub ids: Vec<u32>,
    /// For each id, whether the model learns to write it.
    pub trained: Vec<bool>,
}

impl Tokenizer {
    /// Ids of spans, each encoded by itself: where what is trained begins, generation begins too,
    /// and there no token reaches from the prompt into the answer either.
    ///
    /// What a template wrote may be control tokens; what a message spells stays ordinary text.
    pub fn encode_spans(&self, spans: &[Span]) -> EncodedSpans {
        let mut encoded = EncodedSpans::default();
        for span in spans {
            let ids = self.encode_guarded(&span.text, &span.literal);
            encoded
                .trained
                .resize(encoded.trained.len() + ids.len(), span.trained);
            encoded.ids.extend(ids);
        }
        encoded
    }

    /// Ids of a conversation by the tokenizer's own template; `None` if it has none.
    ///
    /// # Errors
    ///
    /// What [`ChatTemplate::render_spans`](crate::ChatTemplate::render_spans) refuses.
    pub fn encode_chat(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Option<EncodedSpans>, ChatError> {
        let Some(template) = &self.chat_template else {
            return Ok(None);
        };
        let spans = template.render_spans(messages, options)?;
        Ok(Some(self.encode_spans(&spans)))
    }

    /// [`encode`](Self::encode), but for control tokens in the `literal` ranges.
    fn encode_guarded(&self, text: &str, literal: &[Range<usize>]) -> Vec<u32> {
        if literal.is_empty() {
            return self.encode(text);
        }
        // Spoil the first character of each, in as many bytes, so that the splitter passes over
        // it; then encode the pieces between control tokens from the unspoilt text.
        let mut spoilt = text.to_owned();
        for range in literal {
            let first = text[range.clone()].chars().next().map_or(0, char::len_utf8);
            spoilt.replace_range(range.start..range.start + first, &"\u{1}".repeat(first));
        }
        let vocabulary = self.full.get_added_vocabulary();
        let pieces = vocabulary.extract_and_normalize(self.full.get_normalizer(), &spoilt);
        let mut ids = Vec::new();
        for (_, (start, end), tokens) in
            pieces.get_splits(OffsetReferential::Original, OffsetType::Byte)
        {
            match tokens {
                Some(tokens) => ids.extend(tokens.iter().map(|token| token.id)),
                None => ids.extend(self.encode_ordinary(&text[start..end])),
            }
        }
        ids
    }
}
