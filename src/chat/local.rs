//! A model of this process as the partner of a chat.

use anyhow::Result;
use eval::chat::Conversation;
use eval::engine::{AnswerConfig, Engine};
use model::generate::{FinishReason, Prompt};

use super::partner::{Ending, Partner, TakePiece};

/// A loaded model and the conversation with it.
pub(super) struct LocalModel<'a> {
    pub(super) engine: &'a Engine,
    pub(super) conversation: Conversation<'a>,
    pub(super) config: AnswerConfig,
    /// Every answer takes a seed of its own, so that a repeated question is no repeated answer.
    pub(super) next_seed: u64,
}

impl Partner for LocalModel<'_> {
    fn answer(&mut self, text: &str, take: &mut TakePiece<'_>) -> Result<Ending> {
        let input = self
            .conversation
            .prompt_ids(text, self.config.generate.max_new_tokens)?;
        if input.num_forgotten > 0 {
            eprintln!(
                "(the context is full: {} older turns are left out)",
                input.num_forgotten
            );
        }
        let prompt = Prompt {
            input_ids: input.ids,
            seed: self.next_seed,
        };
        self.next_seed = self.next_seed.wrapping_add(1);

        let mut stream = self.engine.stream(prompt, &self.config)?;
        let mut answer = String::new();
        while let Some(piece) = stream.next() {
            let piece = piece?;
            answer.push_str(&piece);
            if !take(&piece)? {
                stream.interrupt();
            }
        }
        let reason = stream.finish_reason().unwrap_or(FinishReason::Interrupted);
        let num_tokens = stream.num_tokens();
        self.conversation.remember(text, &answer);
        Ok(Ending {
            num_tokens,
            reason: reason.to_string(),
            is_interrupted: reason == FinishReason::Interrupted,
        })
    }

    fn set_system(&mut self, system: Option<String>) -> Result<()> {
        Ok(self.conversation.set_system(system)?)
    }

    fn reset(&mut self) {
        self.conversation.reset();
    }
}
