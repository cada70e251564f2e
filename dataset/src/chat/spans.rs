//! A conversation's text in spans, trained or not, found by rendering its beginnings.

use std::ops::Range;

use serde::{Deserialize, Serialize};

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

/// What of a conversation is trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// Every assistant turn.
    #[default]
    Assistant,
    /// The last assistant turn.
    Last,
    /// Everything: a model that is to write users' turns too (Magpie) must learn them.
    All,
}

impl LossOn {
    /// Whether the model learns to write this assistant turn of a conversation.
    fn trains(self, turn: usize, messages: &[Message]) -> bool {
        let is_last = || !messages[turn + 1..].iter().any(Message::is_assistant);
        messages[turn].is_assistant() && (self != Self::Last || is_last())
    }
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
        self.render_spans_for(LossOn::Assistant, messages, options)
    }

    /// [`render_spans`](Self::render_spans) with a choice of what is trained. The spans, and so the
    /// ids, of what is trained do not depend on the choice, but that turns which are not asked for
    /// are not parted from their headers.
    ///
    /// # Errors
    ///
    /// As `render_spans`, where it concerns turns that are trained.
    pub fn render_spans_for(
        &self,
        loss_on: LossOn,
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
                    trained: trained || loss_on == LossOn::All,
                    literal,
                });
            }
        };
        let mut done = 0;
        for turn in (0..messages.len()).filter(|&turn| loss_on.trains(turn, &messages)) {
            let said = self.said_in_turn(&messages[..=turn], &options, &whole)?;
            push(&whole[done..said.start], false);
            push(&whole[said.clone()], true);
            done = said.end;
        }
        push(&whole[done..], false);
        Ok(spans)
    }

    /// The whole text as one span of which nothing is trained: a prompt, whatever its turns are.
    ///
    /// # Errors
    ///
    /// What `render` refuses.
    pub fn render_prompt(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Span, ChatError> {
        let mut messages = messages.to_vec();
        let mut options = options.clone();
        let marks = Marks::apply(&self.control_tokens, &mut messages, &mut options)?;
        let whole = self.render(&messages, &options)?;
        let (text, literal) = match &marks {
            Some(marks) => marks.remove(&whole),
            None => (whole, Vec::new()),
        };
        Ok(Span {
            text,
            trained: false,
            literal,
        })
    }

    /// What a model is given to go on from: in the spans of training where there are any, whole where
    /// the template renders earlier turns otherwise than they were answered.
    ///
    /// # Errors
    ///
    /// What `render` refuses.
    pub fn render_history(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Vec<Span>, ChatError> {
        match self.render_spans(messages, options) {
            Err(ChatError::AssistantFirst | ChatError::UnstableTurn { .. }) => {
                Ok(vec![self.render_prompt(messages, options)?])
            }
            spans => spans,
        }
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
        let start = if let Some(start) = start {
            start
        } else {
            // A prompt that goes on where the turn does not, such as an opened think block.
            let options = RenderOptions {
                add_generation_prompt: true,
                ..options
            };
            common_prefix_len(&rendered, &self.render(before, &options)?)
        };
        Ok(start..rendered.trim_end().len().max(start))
    }
}

fn common_prefix_len(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).take_while(|(a, b)| a == b);
    same.map(|(character, _)| character.len_utf8()).sum()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{V1_TEMPLATE, V3_TEMPLATE};
    use super::*;
    use crate::tokenizer::Tokenizer;
    use crate::tokenizer_train::{SpecialTokens, TokenizerTrainer};

    pub(in super::super) fn turns(turns: &[(&str, &str)]) -> Vec<Message> {
        turns
            .iter()
            .map(|(role, content)| Message::new(*role, *content))
            .collect()
    }

    fn spans_of(source: &str, messages: &[Message]) -> Result<Vec<(bool, String)>, ChatError> {
        let template: ChatTemplate = source.parse().unwrap();
        let spans = template.render_spans(messages, &RenderOptions::default())?;
        Ok(spans
            .into_iter()
            .map(|span| (span.trained, span.text))
            .collect())
    }

    pub(in super::super) fn v3_tokenizer() -> Tokenizer {
        let special_tokens = SpecialTokens::V3;
        let trainer = TokenizerTrainer {
            vocab_size: 320,
            special_tokens,
            ..Default::default()
        };
        trainer.train(["the cat and the hat"].iter()).unwrap()
    }

    /// By hand: MiniMind v1 opens the assistant's turn in the user's.
    #[test]
    fn v1_answers_are_trained() {
        let messages = turns(&[
            ("system", "S"),
            ("user", "Q1"),
            ("assistant", "<s>assistant\n"),
            ("user", "Q2"),
            ("assistant", "A2"),
        ]);
        let expected = [
            (false, "S<s>user\nQ1</s>\n<s>assistant\n"),
            (true, "<s>assistant\n</s>"),
            (false, "\n<s>user\nQ2</s>\n<s>assistant\n"),
            (true, "A2</s>"),
            (false, "\n"),
        ];
        let expected = expected.map(|(trained, text)| (trained, text.to_owned()));
        assert_eq!(spans_of(V1_TEMPLATE, &messages).unwrap(), expected);
    }

    /// By hand: a turn without thoughts answers a prompt whose think block is closed; a turn with
    /// thoughts answers one whose block is open, and learns to think.
    #[test]
    fn v3_answers_are_trained_with_their_thoughts() {
        let mut messages = turns(&[("user", "Q"), ("assistant", "A"), ("user", "R")]);
        let thinking = Message {
            reasoning_content: Some("hm".to_owned()),
            ..Message::new("assistant", "B")
        };
        messages.push(thinking);
        let expected = [
            (
                false,
                "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
            ),
            (true, "A<|im_end|>"),
            (
                false,
                "\n<|im_start|>user\nR<|im_end|>\n<|im_start|>assistant\n<think>\n",
            ),
            (true, "hm\n</think>\n\nB<|im_end|>"),
            (false, "\n"),
        ];
        let expected = expected.map(|(trained, text)| (trained, text.to_owned()));
        assert_eq!(spans_of(V3_TEMPLATE, &messages).unwrap(), expected);
    }

    /// A prompt that always opens a think block, a turn that has none: the header is what they share.
    #[test]
    fn a_header_is_found_where_no_prompt_fits() {
        let source = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}\
            {% if add_generation_prompt %}assistant:<think>{% endif %}";
        let messages = turns(&[("user", "Q"), ("assistant", "A")]);
        let expected = [(false, "user:Q;assistant:"), (true, "A;")];
        let expected = expected.map(|(trained, text)| (trained, text.to_owned()));
        assert_eq!(spans_of(source, &messages).unwrap(), expected);
    }

    /// By hand: the same text, of which only the last answer, or everything, is learned; where the
    /// last turn is a user's, the last answer is still the one before.
    #[test]
    fn the_loss_may_be_on_the_last_answer_or_on_everything() {
        let messages = turns(&[
            ("user", "Q1"),
            ("assistant", "A1"),
            ("user", "Q2"),
            ("assistant", "A2"),
            ("user", "Q3"),
        ]);
        let template: ChatTemplate = V1_TEMPLATE.parse().unwrap();
        let trained = |loss_on| -> (String, String) {
            let options = RenderOptions::default();
            let spans = template
                .render_spans_for(loss_on, &messages, &options)
                .unwrap();
            let text = |trained: bool| {
                let spans = spans.iter().filter(|span| span.trained || !trained);
                spans.map(|span| span.text.as_str()).collect::<String>()
            };
            (text(true), text(false))
        };
        let whole = template
            .render(&messages, &RenderOptions::default())
            .unwrap();
        assert_eq!(
            trained(LossOn::Assistant),
            ("A1</s>A2</s>".to_owned(), whole.clone())
        );
        assert_eq!(trained(LossOn::Last), ("A2</s>".to_owned(), whole.clone()));
        assert_eq!(trained(LossOn::All), (whole.clone(), whole));
    }

    /// Templates that drop earlier thoughts make texts that no generation was ever in.
    #[test]
    fn conversations_without_a_sound_text_are_refused() {
        let source = "{% for m in messages %}{{ m.role }}:\
            {% if loop.last %}thoughts{% endif %}{{ m.content }};{% endfor %}\
            {% if add_generation_prompt %}assistant:{% endif %}";
        let messages = turns(&[("user", "Q"), ("assistant", "A"), ("user", "R")]);
        assert_eq!(
            spans_of(source, &messages).unwrap_err().to_string(),
            "the chat template renders turn 2 otherwise when later turns follow it, \
             expected conversations that end with that turn"
        );
        let error = spans_of(V1_TEMPLATE, &turns(&[("assistant", "A")])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the conversation begins with an assistant turn, expected a system or user turn first"
        );
    }

    /// For content without control tokens, ids are those of the whole text at once.
    #[test]
    fn ordinary_conversations_encode_as_their_text() {
        let tokenizer = v3_tokenizer();
        let messages = turns(&[
            ("system", "the hat\n"),
            ("user", "  <b>the</b> cat"),
            ("assistant", "and < the\nhat "),
            ("user", "人工 🦀"),
        ]);
        let options = RenderOptions {
            add_generation_prompt: true,
            ..Default::default()
        };
        let text = tokenizer
            .chat_template()
            .unwrap()
            .render(&messages, &options)
            .unwrap();
        let encoded = tokenizer.encode_chat(&messages, &options).unwrap().unwrap();
        assert_eq!(encoded.ids, tokenizer.encode(&text));
        assert_eq!(encoded.ids.len(), encoded.trained.len());
    }
}
