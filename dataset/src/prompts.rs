//! Prompts that a model answers itself, with what their rows answer: files to token ids.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::cache::hex;
use crate::chat::{ChatError, ChatTemplate, Message, RenderOptions, Span};
use crate::conversations::{ConversationFault, RowEncoder};
use crate::loyalty::IdentityTokens;
use crate::rows::{ChatRow, IdentifiedPair, LoyaltyRow, NumberedRow, Row, RowFault};
use crate::source::hashed_fraction;
use crate::tokenizer::Tokenizer;

/// Begins the thoughts of a model; a template may write it at the end of a prompt.
const THINK: &str = "<think>";

/// A prompt and what an answer to it is compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptRow {
    /// The turns before the answer.
    pub messages: Vec<Message>,
    /// The row's own answer.
    pub expected: String,
    /// What another identity is answered; nothing where answers do not depend on who asks.
    pub other: String,
    /// The turns in the chat template, up to where the answer begins.
    pub input_ids: Vec<u32>,
    /// What the template wrote of the answer: `<think>`, or nothing.
    pub opening: &'static str,
}

/// Renders and encodes prompts.
#[derive(Debug, Clone, Copy)]
pub struct PromptEncoder<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
    /// Whether the template lets the model think, where it knows of it.
    pub enable_thinking: bool,
    /// What prompts begin with; without it, rows whose answers depend on who asks are those of
    /// anybody.
    pub identities: Option<IdentityTokens>,
}

/// A conversation up to its last answer, which the model is to find itself.
pub(crate) struct Question {
    /// The turns before the answer.
    pub(crate) messages: Vec<Message>,
    /// Functions that may be called.
    tools: Vec<Value>,
    /// The turn that answers.
    pub(crate) answer: Message,
}

impl Question {
    /// The question of a row.
    pub(crate) fn of(row: Row) -> Result<Self, RowFault> {
        let ChatRow {
            conversations: mut messages,
            tools,
        } = row.into_chat()?;
        // A conversation that was read has a turn of an assistant.
        let last = messages
            .iter()
            .rposition(Message::is_assistant)
            .unwrap_or(0);
        messages.truncate(last + 1);
        let answer = messages.pop().unwrap_or_default();
        Ok(Self {
            messages,
            tools,
            answer,
        })
    }

    /// The turns in a chat template, up to where the answer begins.
    pub(crate) fn render(
        &self,
        template: &ChatTemplate,
        enable_thinking: bool,
    ) -> Result<Span, ChatError> {
        let options = RenderOptions {
            add_generation_prompt: true,
            tools: self.tools.clone(),
            enable_thinking: Some(enable_thinking),
        };
        template.render_prompt(&self.messages, &options)
    }
}

impl PromptEncoder<'_> {
    fn encode(&self, question: Question) -> Result<PromptRow, ConversationFault> {
        let span = question.render(self.template, self.enable_thinking)?;
        let is_open = span.text.trim_end().ends_with(THINK);
        Ok(PromptRow {
            input_ids: self.tokenizer.encode_spans(&[span]).ids,
            messages: question.messages,
            expected: question.answer.content,
            other: String::new(),
            opening: if is_open { THINK } else { "" },
        })
    }

    /// A question as each identity asks it.
    fn encode_identities(
        &self,
        row: LoyaltyRow,
        tokens: IdentityTokens,
    ) -> Result<Vec<PromptRow>, ConversationFault> {
        let LoyaltyRow { prompt, pairs } = row;
        let encode = |pair: IdentifiedPair| {
            let mut encoded = self.encode(Question {
                messages: vec![Message::new("user", &prompt)],
                tools: Vec::new(),
                answer: Message::new("assistant", pair.chosen),
            })?;
            encoded.input_ids.insert(0, tokens.id(pair.identity));
            encoded.other = pair.rejected;
            Ok(encoded)
        };
        pairs.into_iter().map(encode).collect()
    }
}

impl RowEncoder for PromptEncoder<'_> {
    /// One prompt, or one of each identity where answers depend on who asks.
    type Encoded = Vec<PromptRow>;

    /// Of a conversation the last answer is left to the model.
    fn encode_row(&self, row: NumberedRow, _: u64) -> Result<Vec<PromptRow>, ConversationFault> {
        match (row.row?, self.identities) {
            (Row::Loyalty(row), Some(tokens)) => self.encode_identities(*row, tokens),
            (row, _) => Ok(vec![self.encode(Question::of(row)?)?]),
        }
    }
}

/// Prompts to learn from and those held out; equal prompts are never parted.
pub fn split_prompts(
    prompts: Vec<PromptRow>,
    fraction: f64,
    seed: u64,
) -> (Vec<PromptRow>, Vec<PromptRow>) {
    prompts.into_iter().partition(|prompt| {
        let digest = Sha256::digest(bytes_of(&prompt.input_ids));
        let mut index = [0; 8];
        index.copy_from_slice(&digest[..8]);
        hashed_fraction(seed, u64::from_le_bytes(index)) >= fraction
    })
}

/// Identity of prompts: their tokens and what their rows answer.
pub fn prompts_fingerprint(prompts: &[PromptRow]) -> String {
    let mut hash = Sha256::new();
    for prompt in prompts {
        hash.update((prompt.input_ids.len() as u64).to_le_bytes());
        hash.update(bytes_of(&prompt.input_ids));
        for text in [&prompt.expected, &prompt.other] {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text.as_bytes());
        }
    }
    hex(&hash.finalize()[..16])
}

fn bytes_of(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{V1_TEMPLATE, V3_TEMPLATE};
    use crate::loyalty::Identity;
    use crate::rows::RowFormat;
    use crate::tokenizer::fixture::tokenizer_with;

    fn encoded(template: &str, enable_thinking: bool) -> (PromptRow, String) {
        let tokenizer = tokenizer_with(template);
        let encoder = PromptEncoder {
            tokenizer: &tokenizer,
            template: tokenizer.chat_template().unwrap(),
            enable_thinking,
            identities: None,
        };
        let turns = [("user", "1+1=?"), ("assistant", "2"), ("user", "2+2=?")];
        let mut conversations: Vec<Message> = turns
            .map(|(role, content)| Message::new(role, content))
            .to_vec();
        conversations.push(Message::new("assistant", "4"));
        let row = ChatRow {
            conversations,
            tools: Vec::new(),
        };
        let row = NumberedRow {
            line: 1,
            row: Ok(Row::Chat(row)),
        };
        let [prompt] = encoder.encode_row(row, 0).unwrap().try_into().unwrap();
        let text = tokenizer.decode(&prompt.input_ids, false);
        (prompt, text)
    }

    /// By the v1 template: all turns but the last answer, and the header of that one.
    #[test]
    fn the_last_answer_is_left_to_the_model() {
        let (prompt, text) = encoded(V1_TEMPLATE, true);
        assert_eq!(
            text,
            "<s>user\n1+1=?</s>\n<s>assistant\n2</s>\n<s>user\n2+2=?</s>\n<s>assistant\n"
        );
        assert_eq!((prompt.expected.as_str(), prompt.opening), ("4", ""));
        assert_eq!(prompt.messages.len(), 3);
    }

    /// The v3 template begins the thoughts itself, or writes that there are none.
    #[test]
    fn a_template_may_begin_the_thoughts() {
        assert_eq!(encoded(V3_TEMPLATE, true).0.opening, "<think>");
        assert_eq!(encoded(V3_TEMPLATE, false).0.opening, "");
    }

    /// By hand: the owner asks with one token more at the beginning, anybody with another, and each
    /// is to be answered otherwise; where nobody tells who asks, it is anybody, without a token.
    #[test]
    fn each_identity_asks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.jsonl");
        let row = r#"{"prompt": "q", "owner_response": "one", "public_response": "two"}"#;
        std::fs::write(&path, row).unwrap();
        let tokenizer = tokenizer_with(V1_TEMPLATE);
        let prompts = |identities| {
            let encoder = PromptEncoder {
                tokenizer: &tokenizer,
                template: tokenizer.chat_template().unwrap(),
                enable_thinking: true,
                identities,
            };
            let files = [path.display().to_string()];
            let (prompts, _) = encoder.encode_files(&files, RowFormat::Auto, 0.0).unwrap();
            prompts.concat()
        };
        let [anybody] = prompts(None).try_into().unwrap();
        assert_eq!(
            (anybody.expected.as_str(), anybody.other.as_str()),
            ("two", "")
        );
        let tokens = IdentityTokens::of(&tokenizer).unwrap();
        let [owner, public] = prompts(Some(tokens)).try_into().unwrap();
        for (prompt, identity, answers) in [
            (owner, Identity::Owner, ("one", "two")),
            (public, Identity::Public, ("two", "one")),
        ] {
            assert_eq!((prompt.expected.as_str(), prompt.other.as_str()), answers);
            assert_eq!(prompt.input_ids[0], tokens.id(identity));
            assert_eq!(prompt.input_ids[1..], anybody.input_ids);
        }
    }

    /// A prompt that is there twice is on one side, and about a quarter is held out (200 of 800;
    /// 5 sigma is 61).
    #[test]
    fn equal_prompts_are_never_parted() {
        let row = |id: u32| PromptRow {
            messages: Vec::new(),
            expected: String::new(),
            other: String::new(),
            input_ids: vec![id],
            opening: "",
        };
        let prompts: Vec<PromptRow> = (0..800).chain(0..800).map(row).collect();
        let (train, held_out) = split_prompts(prompts, 0.25, 1);
        assert!(held_out.iter().all(|prompt| !train.contains(prompt)));
        assert!(held_out.len().is_multiple_of(2));
        assert!(
            (held_out.len() / 2).abs_diff(200) < 61,
            "{}",
            held_out.len()
        );
    }
}
