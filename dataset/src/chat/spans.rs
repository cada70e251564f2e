//! A conversation's text in spans, trained or not, found by rendering its beginnings.

use std::ops::Range;

use super::control::Marks;
use super::{ChatError, ChatTemplate, Message, RenderOptions};

/// A stretch of a rendered conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Span {
    /// The text, as the template made it.
    pub text: String,
    /// Whether the model learns to write it: an assistant's content and its end of turn.
    pub trained: bool,
    /// Bytes of `text` that spell control tokens, but are message content and stay ordinary text.
    pub literal: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The text of [`render`](Self::render) in spans: what an assistant says with its end-of-turn
    /// token is trained; headers, other speakers and the white space between turns are not.
    ///
    /// # Errors
    ///
    /// What `render` refuses; a conversation that an assistant begins; a template that renders an
    /// earlier assistant turn otherwise when later turns follow.
    pub fn render_spans(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Vec<Span>, ChatError> {
        let mut messages = messages.to_vec();
        let mut options = options.clone();
        let marks = Marks::apply(&self.control_tokens, &mut messages, &mut options)?;
        let whole = self.render(&messages, &options)?;

        let mut spans = Vec::new();
        let mut push = |text: &str, trained: bool| {
            if !text.is_empty() {
                let (text, literal) = match &marks {
                    Some(marks) => marks.remove(text),
                    None => (text.to_owned(), Vec::new()),
                };
                spans.push(Span {
                    text,
                    trained,
                    literal,
                });
            }
        };
        let mut done = 0;
        for turn in (0..messages.len()).filter(|&turn| messages[turn].is_assistant()) {
            let said = self.said_in_turn(&messages[..=turn], &options, &whole)?;
            push(&whole[done..said.start], false);
            push(&whole[said.clone()], true);
            done = said.end;
        }
        push(&whole[done..], false);
        Ok(spans)
    }

    /// Where in `whole` the last of `messages` stands, without header and trailing white space.
    fn said_in_turn(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        whole: &str,
    ) -> Result<Range<usize>, ChatError> {
        let turn = messages.len();
        let before = &messages[..turn - 1];
        if before.is_empty() {
            return Err(ChatError::AssistantFirst);
        }
        let options = RenderOptions {
            add_generation_prompt: false,
            ..options.clone()
        };
        let rendered = self.render(messages, &options)?;
        if !whole.starts_with(&rendered) {
            return Err(ChatError::UnstableTurn { turn });
        }
        // The header is what a model is given when it is asked for this turn. Which of the
        // prompts that is, with thinking or without, the turn itself tells: the longest that fits.
        let mut start = None;
        for enable_thinking in [options.enable_thinking, Some(true), Some(false)] {
            let options = RenderOptions {
                add_generation_prompt: true,
                enable_thinking,
                ..options.clone()
            };
            let prompt = self.render(before, &options)?;
            if rendered.starts_with(&prompt) {
                start = start.max(Some(prompt.len()));
            }
        }
        let start = match start {
            Some(start) => start,
            // A prompt that goes on where the turn does not, such as an opened think block.
            None => {
                let options = RenderOptions {
                    add_generation_prompt: true,
                    ..options
                };
                common_prefix_len(&rendered, &self.render(before, &options)?)
            }
        };
        Ok(start..rendered.trim_end().len().max(start))
    }
}

fn common_prefix_len(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(character, _)| character.len_utf8()).sum()
}
