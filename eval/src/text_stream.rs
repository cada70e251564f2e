//! An answer's text as its tokens come: whole characters only, and nothing of a stop string.

use dataset::stream_decoder::StreamDecoder;
use dataset::tokenizer::Tokenizer;
use model::generate::{FinishReason, GenerateError, Prompt, TokenStream};

use crate::engine::{AnswerConfig, Engine};
use crate::stop::StopMatcher;

/// The text of one answer, piece by piece; dropping it stops the work.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokens: TokenStream<'a>,
    answer: AnswerText<'a>,
    num_tokens: usize,
    is_finished: bool,
}

impl<'a> TextStream<'a> {
    pub(crate) fn new(
        engine: &'a Engine,
        prompt: Prompt,
        config: &AnswerConfig,
    ) -> Result<Self, GenerateError> {
        Ok(Self {
            tokens: TokenStream::new(&engine.model, prompt, &config.generate)?,
            answer: AnswerText::new(&engine.tokenizer, config),
            num_tokens: 0,
            is_finished: false,
        })
    }

    /// Ends the answer as interrupted; what was held back still comes out.
    pub fn interrupt(&mut self) {
        self.tokens.finish(FinishReason::Interrupted);
    }

    /// Why the answer ended; `None` while it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        if self.answer.has_stopped() {
            // A stop string may end in the very token that was the last one allowed.
            return Some(FinishReason::Stop);
        }
        self.tokens.finish_reason()
    }

    /// Tokens written so far, the stop id included.
    pub fn num_tokens(&self) -> usize {
        self.num_tokens
    }
}

/// One piece per token, so that a caller may stop between any two; many pieces are empty.
impl Iterator for TextStream<'_> {
    type Item = Result<String, GenerateError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_finished {
            return None;
        }
        let token_id = match self.tokens.next() {
            Some(Ok(token_id)) => token_id,
            Some(Err(error)) => {
                self.is_finished = true;
                return Some(Err(error));
            }
            None => {
                self.is_finished = true;
                return Some(Ok(self.answer.finish()));
            }
        };
        self.num_tokens += 1;
        let piece = self.answer.push(token_id);
        if self.answer.has_stopped() {
            self.tokens.finish(FinishReason::Stop);
        }
        Some(Ok(piece))
    }
}

/// From the token ids of one answer to its text.
#[derive(Debug)]
pub(crate) struct AnswerText<'a> {
    decoder: StreamDecoder<'a>,
    stop: StopMatcher,
    eos_token_id: Vec<u32>,
}

impl<'a> AnswerText<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer, config: &AnswerConfig) -> Self {
        Self {
            decoder: StreamDecoder::new(tokenizer, true),
            stop: StopMatcher::new(&config.stop_strings),
            eos_token_id: config.generate.eos_token_id.clone(),
        }
    }

    /// The text that this token makes certain; a stop id has none.
    pub(crate) fn push(&mut self, token_id: u32) -> String {
        if self.eos_token_id.contains(&token_id) {
            return String::new();
        }
        match self.decoder.push(token_id) {
            Some(piece) => self.stop.push(&piece),
            None => String::new(),
        }
    }

    /// What was held back, at the end of the answer.
    pub(crate) fn finish(&mut self) -> String {
        let rest = self.decoder.clone().finish();
        let mut text = self.stop.push(&rest);
        text.push_str(&self.stop.finish());
        text
    }

    pub(crate) fn has_stopped(&self) -> bool {
        self.stop.has_stopped()
    }
}
