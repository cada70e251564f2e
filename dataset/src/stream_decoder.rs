//! Ids to text one at a time, while a model is still writing.

use crate::tokenizer::Tokenizer;

/// What `decode` puts in the place of bytes that are no whole character.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Text of a growing list of ids, holding back characters of which only some bytes are there.
#[derive(Debug, Clone)]
pub struct StreamDecoder<'a> {
    tokenizer: &'a Tokenizer,
    skip_special_tokens: bool,
    /// One id that is out already, for decoders that look at the one before, and all since.
    ids: Vec<u32>,
    /// Bytes of the decoded `ids` that are out already.
    emitted: usize,
}

impl<'a> StreamDecoder<'a> {
    /// A decoder at the beginning of a text.
    pub fn new(tokenizer: &'a Tokenizer, skip_special_tokens: bool) -> Self {
        Self {
            tokenizer,
            skip_special_tokens,
            ids: Vec::new(),
            emitted: 0,
        }
    }

    /// Takes the next id in; gives the text that it completes, if any.
    pub fn push(&mut self, id: u32) -> Option<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens);
        // Cut-off bytes at the end show as one replacement character; those before are final.
        let is_cut_off = text.ends_with(REPLACEMENT);
        let final_len = text.len()
            - if is_cut_off {
                REPLACEMENT.len_utf8()
            } else {
                0
            };
        let completed = text
            .get(self.emitted..final_len)
            .unwrap_or_default()
            .to_owned();
        self.emitted = self.emitted.max(final_len);
        if !is_cut_off {
            let last = self.tokenizer.decode(&[id], self.skip_special_tokens);
            if !last.is_empty() {
                self.ids = vec![id];
                self.emitted = last.len();
            }
        }
        (!completed.is_empty()).then_some(completed)
    }

    /// What is still held back, once no more ids come: a cut-off character as U+FFFD.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.ids, self.skip_special_tokens);
        text.get(self.emitted..).unwrap_or_default().to_owned()
    }
}
