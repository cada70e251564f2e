//! A conversation with a model: what it is shown of the earlier turns and in which form.

use std::collections::VecDeque;
use std::fmt;

use dataset::chat::{ChatError, ChatTemplate, Message, RenderOptions};
use dataset::tokenizer::Tokenizer;

use crate::engine::Engine;

/// Share of the context that is kept free for an answer, when answers may be longer than that.
const ANSWER_SHARE: usize = 4;

/// How a text becomes a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As a question in the tokenizer's chat template.
    Chat,
    /// As the beginning of a document that the model goes on with.
    Continue,
}

/// Turns of question and answer with one model.
#[derive(Debug)]
pub struct Conversation<'a> {
    engine: &'a Engine,
    mode: Mode,
    system: Option<String>,
    /// Most earlier turns that the model is shown.
    num_remembered: usize,
    /// Token that says who asks, before every prompt.
    identity: Option<u32>,
    /// Questions with their answers, oldest first.
    turns: VecDeque<(String, String)>,
}

/// What the model reads before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationPrompt {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Remembered turns that were left out, oldest first, because the context has no room for them.
    pub num_forgotten: usize,
}

/// Why a conversation cannot be held, or a turn of it not be shown to the model.
#[derive(Debug, thiserror::Error)]
pub enum ConversationError {
    /// Chat was asked for, and the folder does not say how.
    #[error("the tokenizer has no chat template, expected one for a chat (or continue the text)")]
    NoTemplate,
    /// Continued text has no place for it.
    #[error("a system prompt needs a chat model, this one continues text")]
    SystemWithoutChat,
    /// The template does not accept the conversation.
    #[error(transparent)]
    Template(#[from] ChatError),
}

impl Mode {
    /// How this model expects to be talked to.
    ///
    /// Its training record decides. Where there is none, as in folders of other programs, a chat
    /// template means a chat model; that rule alone would not do, since MiniMind's tokenizers carry
    /// a template from the first stage on.
    pub fn of(engine: &Engine) -> Self {
        let has_template = engine.tokenizer.chat_template().is_some();
        let is_chat_tuned = engine
            .record
            .as_ref()
            .is_none_or(|record| record.is_chat_tuned);
        if has_template && is_chat_tuned {
            Self::Chat
        } else {
            Self::Continue
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Chat => "chat in the tokenizer's template",
            Self::Continue => "the text is continued",
        })
    }
}

impl<'a> Conversation<'a> {
    /// A conversation that shows the model up to `num_remembered` earlier turns; continued texts
    /// have none.
    ///
    /// # Errors
    ///
    /// Chat without a template, or a system prompt without chat.
    pub fn new(
        engine: &'a Engine,
        mode: Mode,
        system: Option<String>,
        num_remembered: usize,
    ) -> Result<Self, ConversationError> {
        if mode == Mode::Chat && engine.tokenizer.chat_template().is_none() {
            return Err(ConversationError::NoTemplate);
        }
        let turns = VecDeque::new();
        let mut conversation = Self {
            engine,
            mode,
            system: None,
            num_remembered,
            identity: None,
            turns,
        };
        conversation.set_system(system)?;
        Ok(conversation)
    }

    /// Puts a token that says who asks before every prompt of a chat.
    #[must_use]
    pub fn asked_by(mut self, identity: Option<u32>) -> Self {
        self.identity = identity;
        self
    }

    /// Begins again with this system prompt, or with none.
    ///
    /// # Errors
    ///
    /// A system prompt where the text is continued.
    pub fn set_system(&mut self, system: Option<String>) -> Result<(), ConversationError> {
        if system.is_some() && self.mode == Mode::Continue {
            return Err(ConversationError::SystemWithoutChat);
        }
        self.system = system;
        self.reset();
        Ok(())
    }

    /// Forgets every turn.
    pub fn reset(&mut self) {
        self.turns.clear();
    }

    /// Adds a turn to what later prompts show.
    pub fn remember(&mut self, question: &str, answer: &str) {
        self.turns
            .push_back((question.to_owned(), answer.to_owned()));
        while self.turns.len() > self.num_remembered {
            self.turns.pop_front();
        }
    }

    /// The prompt for a question, or for a text to continue.
    ///
    /// Oldest turns go first when the context would have no room for the answer: `max_new_tokens`
    /// of it, but no more than a quarter. A question that is too long by itself is left for the
    /// model to refuse.
    ///
    /// # Errors
    ///
    /// A template that does not accept the conversation.
    pub fn prompt_ids(
        &self,
        text: &str,
        max_new_tokens: usize,
    ) -> Result<ConversationPrompt, ConversationError> {
        let tokenizer = &self.engine.tokenizer;
        let template = match (self.mode, tokenizer.chat_template()) {
            (Mode::Chat, Some(template)) => template,
            (Mode::Chat, None) => return Err(ConversationError::NoTemplate),
            (Mode::Continue, _) => {
                let mut ids: Vec<u32> = tokenizer.bos_id().into_iter().collect();
                ids.extend(tokenizer.encode_ordinary(text));
                return Ok(ConversationPrompt {
                    ids,
                    num_forgotten: 0,
                });
            }
        };
        let context = self.engine.model.config().max_position_embeddings;
        let most = context - max_new_tokens.min(context / ANSWER_SHARE);
        for num_forgotten in 0..self.turns.len() {
            let ids = self.chat_ids(tokenizer, template, num_forgotten, text)?;
            if ids.len() <= most {
                return Ok(ConversationPrompt { ids, num_forgotten });
            }
        }
        let num_forgotten = self.turns.len();
        let ids = self.chat_ids(tokenizer, template, num_forgotten, text)?;
        Ok(ConversationPrompt { ids, num_forgotten })
    }

    fn chat_ids(
        &self,
        tokenizer: &Tokenizer,
        template: &ChatTemplate,
        num_forgotten: usize,
        question: &str,
    ) -> Result<Vec<u32>, ChatError> {
        let mut messages: Vec<Message> = self
            .system
            .iter()
            .map(|system| Message::new("system", system))
            .collect();
        for (question, answer) in self.turns.iter().skip(num_forgotten) {
            messages.push(Message::new("user", question));
            messages.push(Message::new("assistant", answer));
        }
        messages.push(Message::new("user", question));
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let spans = template.render_history(&messages, &options)?;
        let mut ids: Vec<u32> = self.identity.into_iter().collect();
        ids.extend(tokenizer.encode_spans(&spans).ids);
        Ok(ids)
    }
}
