//! Keeps message content from becoming control tokens: marks go into the messages before they are
//! rendered, and come out of the text as ranges.
//!
//! A mark stands beside a control token's characters, never inside of them, and never at either
//! end of a content: templates ask what a content starts and ends with.

use std::ops::Range;

use serde_json::Value;

use super::{ChatError, Message, RenderOptions};
use crate::tokenizer::ControlToken;

/// Two characters that the conversation does not use.
pub(super) struct Marks<'a> {
    previous_is_literal: char,
    next_is_literal: char,
    tokens: &'a [ControlToken],
}

impl<'a> Marks<'a> {
    /// Marks all content that spells a control token; `None` if there is none.
    ///
    /// An assistant's turn may hold `<think>` or `<tool_call>`: the model writes those itself.
    pub(super) fn apply(
        tokens: &'a [ControlToken],
        messages: &mut [Message],
        options: &mut RenderOptions,
    ) -> Result<Option<Self>, ChatError> {
        let mut found = false;
        let mut texts = String::new();
        visit_texts(messages, options, |text, is_assistant| {
            found |= !occurrences(text, tokens, is_assistant).is_empty();
            texts.push_str(text);
        });
        if !found {
            return Ok(None);
        }
        let mut free = ('\u{f0000}'..='\u{ffffd}').filter(|&mark| !texts.contains(mark));
        let (Some(previous_is_literal), Some(next_is_literal)) = (free.next(), free.next()) else {
            return Err(ChatError::NoFreeCharacter);
        };
        let marks = Self {
            previous_is_literal,
            next_is_literal,
            tokens,
        };
        visit_texts(messages, options, |text, is_assistant| {
            for range in occurrences(text, tokens, is_assistant).into_iter().rev() {
                if range.start == 0 {
                    text.insert(range.end, marks.previous_is_literal);
                } else {
                    text.insert(range.start, marks.next_is_literal);
                }
            }
        });
        Ok(Some(marks))
    }

    /// The text without marks, and where in it control tokens' characters are content.
    pub(super) fn remove(&self, marked: &str) -> (String, Vec<Range<usize>>) {
        let mut text = String::with_capacity(marked.len());
        let mut literal = Vec::new();
        for (position, character) in marked.char_indices() {
            if character == self.previous_is_literal {
                let fits = self
                    .tokens
                    .iter()
                    .filter(|token| text.ends_with(&token.text));
                let len = fits.map(|token| token.text.len()).max().unwrap_or(0);
                literal.push(text.len() - len..text.len());
            } else if character == self.next_is_literal {
                let rest = &marked[position + character.len_utf8()..];
                literal.push(text.len()..text.len() + longest_at_start(rest, self.tokens.iter()));
            } else {
                text.push(character);
            }
        }
        (text, literal)
    }
}

/// Where control tokens stand in a text: leftmost first, the longest of several.
fn occurrences(text: &str, tokens: &[ControlToken], is_assistant: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut end = 0;
    for (start, _) in text.char_indices() {
        if start < end {
            continue;
        }
        let matter = tokens
            .iter()
            .filter(|token| token.is_special || !is_assistant);
        let len = longest_at_start(&text[start..], matter);
        if len > 0 {
            end = start + len;
            found.push(start..end);
        }
    }
    found
}

fn longest_at_start<'a>(text: &str, tokens: impl Iterator<Item = &'a ControlToken>) -> usize {
    let fits = tokens.filter(|token| text.starts_with(&token.text));
    fits.map(|token| token.text.len()).max().unwrap_or(0)
}

/// Calls `visit` with every text that a template may put into its own.
fn visit_texts(
    messages: &mut [Message],
    options: &mut RenderOptions,
    mut visit: impl FnMut(&mut String, bool),
) {
    for message in messages {
        let is_assistant = message.is_assistant();
        visit(&mut message.content, is_assistant);
        if let Some(reasoning) = &mut message.reasoning_content {
            visit(reasoning, is_assistant);
        }
        for value in message
            .tool_calls
            .iter_mut()
            .chain(message.other.values_mut())
        {
            visit_json(value, is_assistant, &mut visit);
        }
        for value in &mut message.tools {
            visit_json(value, false, &mut visit);
        }
    }
    for value in &mut options.tools {
        visit_json(value, false, &mut visit);
    }
}

fn visit_json(value: &mut Value, is_assistant: bool, visit: &mut impl FnMut(&mut String, bool)) {
    match value {
        Value::String(text) => visit(text, is_assistant),
        Value::Array(items) => {
            for item in items {
                visit_json(item, is_assistant, visit);
            }
        }
        Value::Object(fields) => {
            for field in fields.values_mut() {
                visit_json(field, is_assistant, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
