//! Conversations in the form of a family of models: pre-query templates, prompts, special tokens.

use super::family_table::FAMILIES;
use crate::chat::Message;
use crate::tokenizer::Tokenizer;

/// What stands before and after the text of a turn.
pub type Turn = [&'static str; 2];

/// The form in which one family of models reads a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Name in configs.
    pub name: &'static str,
    /// What a conversation begins with.
    pub beginning: &'static str,
    /// A system prompt; `None` where the family has no place for one.
    pub system: Option<Turn>,
    /// System prompt that the family writes where none is given; empty for none.
    pub default_system: &'static str,
    /// A user's turn.
    pub user: Turn,
    /// What is put between the user's header and a question that the model is to invent.
    pub before_query: &'static str,
    /// An assistant's turn.
    pub assistant: Turn,
    /// Special tokens that end whatever is written.
    pub stop_tokens: &'static [&'static str],
    /// Words that Magpie took for the beginning of an answer; used only where that is asked for.
    pub assistant_words: &'static [&'static str],
}

/// Why turns cannot be written in a family's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The name stands for no family.
    #[error("unknown family `{name}`, expected one of {}", known_families())]
    UnknownFamily {
        /// The name.
        name: String,
    },
    /// The family has no system prompts.
    #[error("family {family} has no system prompts, expected none (or another model)")]
    NoSystem {
        /// The family.
        family: &'static str,
    },
    /// A turn is neither the system's, the user's nor the assistant's.
    #[error("family {family} has no turns of `{role}`, expected system, user or assistant")]
    UnknownRole {
        /// The family.
        family: &'static str,
        /// Who was to speak.
        role: String,
    },
    /// A special token is ordinary text to the tokenizer: the model would read something else.
    #[error(
        "special token {token} of family {family} is {num_ids} tokens of this tokenizer, expected \
         one: is the model of another family?"
    )]
    SplitToken {
        /// The family.
        family: &'static str,
        /// The token's text.
        token: &'static str,
        /// Ids that it is encoded as.
        num_ids: usize,
    },
}

impl Family {
    /// The family of this name.
    ///
    /// # Errors
    ///
    /// [`TemplateError::UnknownFamily`], which lists those there are.
    pub fn named(name: &str) -> Result<Self, TemplateError> {
        let found = FAMILIES.into_iter().find(|family| family.name == name);
        found.ok_or_else(|| TemplateError::UnknownFamily {
            name: name.to_owned(),
        })
    }

    /// The text up to where a user's turn after these begins: the pre-query template.
    ///
    /// # Errors
    ///
    /// A system prompt or role that the family has no place for.
    pub fn user_turn(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let mut text = self.turns(messages)?;
        text += self.user_header(messages);
        text += self.before_query;
        Ok(text)
    }

    /// The text up to where the assistant's turn after these begins.
    ///
    /// # Errors
    ///
    /// As [`user_turn`](Self::user_turn).
    pub fn assistant_turn(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let header = self.assistant[0];
        // A header of nothing but a space is written by the model itself.
        let header = if header.trim().is_empty() { "" } else { header };
        Ok(self.turns(messages)? + header)
    }

    fn turns(&self, messages: &[Message]) -> Result<String, TemplateError> {
        let mut text = self.beginning.to_owned();
        let begins_with_system = messages.first().is_some_and(|turn| turn.role == "system");
        if !begins_with_system
            && let (Some([before, after]), true) = (self.system, self.has_default())
        {
            text = text + before + self.default_system + after;
        }
        for (index, message) in messages.iter().enumerate() {
            let [before, after] = match message.role.as_str() {
                "system" => self
                    .system
                    .ok_or(TemplateError::NoSystem { family: self.name })?,
                "user" => [self.user_header(&messages[..index]), self.user[1]],
                "assistant" => self.assistant,
                role => {
                    return Err(TemplateError::UnknownRole {
                        family: self.name,
                        role: role.to_owned(),
                    });
                }
            };
            text = text + before + &message.content + after;
        }
        Ok(text)
    }

    /// Llama 2's system prompt stands inside the first question, whose header it brings along.
    fn user_header(&self, before: &[Message]) -> &'static str {
        let header = self.user[0];
        let opened = self
            .system
            .is_some_and(|[system, _]| !header.is_empty() && system.starts_with(header));
        let after_system = before.last().is_some_and(|turn| turn.role == "system");
        if opened && after_system { "" } else { header }
    }

    fn has_default(&self) -> bool {
        !self.default_system.is_empty()
    }

    /// Checks that each special token of the family is one id to a tokenizer.
    ///
    /// # Errors
    ///
    /// [`TemplateError::SplitToken`] for the first that is not.
    pub fn check(&self, tokenizer: &Tokenizer) -> Result<(), TemplateError> {
        for token in self.special_tokens() {
            let num_ids = tokenizer.encode(token).len();
            if num_ids != 1 {
                return Err(TemplateError::SplitToken {
                    family: self.name,
                    token,
                    num_ids,
                });
            }
        }
        Ok(())
    }

    /// The stop tokens, and those in angle brackets that headers and ends are made of.
    pub fn special_tokens(&self) -> Vec<&'static str> {
        let turns = [self.user, self.assistant, self.system.unwrap_or_default()];
        let pieces = turns.into_iter().flatten().chain([self.beginning]);
        let mut tokens = self.stop_tokens.to_vec();
        for mut piece in pieces {
            while let Some((_, rest)) = piece
                .split_once('<')
                .filter(|(_, rest)| !rest.starts_with('<'))
            {
                let start = piece.len() - rest.len() - 1;
                let Some(length) = rest.find('>') else { break };
                let token = &piece[start..start + length + 2];
                let is_markup = token.starts_with("</") && token != "</s>" || token == "<SYS>";
                if !is_markup && !tokens.contains(&token) {
                    tokens.push(token);
                }
                piece = &piece[start + length + 2..];
            }
        }
        tokens
    }
}

fn known_families() -> String {
    let names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatTemplate, RenderOptions, V1_TEMPLATE, V3_TEMPLATE};
    use crate::tokenizer_train::{SpecialTokens, TokenizerTrainer};

    fn pre_query(name: &str) -> String {
        Family::named(name).unwrap().user_turn(&[]).unwrap()
    }

    /// The pre-query templates of Magpie's `model_configs.json`.
    #[test]
    fn pre_query_templates_are_magpie_s() {
        let expected = [
            (
                "llama-3",
                "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
            ),
            ("qwen2", "<|im_start|>user\n"),
            (
                "qwen2.5",
                "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful \
                 assistant.<|im_end|>\n<|im_start|>user\n",
            ),
            ("llama-2", "<s> [INST] "),
            ("mistral", "<s> [INST] "),
            ("gemma-1.1", "<bos><start_of_turn>user\n"),
            ("gemma-2", "<bos><start_of_turn>user\n\n"),
            ("phi-3", "<s> <|user|>\n"),
            ("phi-3-small", "<|endoftext|><|user|>\n"),
            ("yi-1.5", "<|startoftext|><|im_start|>user\n"),
            ("deepseek-coder-v2", "<｜begin▁of▁sentence｜>User: "),
            ("minimind", "<|im_start|>user\n"),
        ];
        for (name, expected) in expected {
            assert_eq!(pre_query(name), expected, "{name}");
        }
        let vicuna = pre_query("vicuna");
        assert!(
            vicuna.starts_with("A chat between a curious user") && vicuna.ends_with("\n\nUSER: ")
        );
    }

    /// MiniMind's own templates are the other side.
    #[test]
    fn conversations_read_as_the_model_s_template_writes_them() {
        let talk = [
            Message::new("system", "Be brief."),
            Message::new("user", "1+1="),
            Message::new("assistant", "2"),
            Message::new("user", "2+2="),
        ];
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let v1: ChatTemplate = V1_TEMPLATE.parse().unwrap();
        let family = Family::named("minimind-v1").unwrap();
        assert_eq!(
            family.assistant_turn(&talk).unwrap(),
            v1.render(&talk, &options).unwrap()
        );
        let v3: ChatTemplate = V3_TEMPLATE.parse().unwrap();
        let family = Family::named("minimind").unwrap();
        assert_eq!(
            family.user_turn(&talk[..2]).unwrap(),
            v3.render_user_turn(&talk[..2]).unwrap().text
        );
    }

    /// From Llama 2's model card: system prompt and first question share one header.
    #[test]
    fn llama_2_puts_the_system_prompt_into_the_question() {
        let talk = [
            Message::new("system", "Be brief."),
            Message::new("user", "1+1="),
        ];
        let family = Family::named("llama-2").unwrap();
        assert_eq!(
            family.assistant_turn(&talk).unwrap(),
            "<s> [INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n1+1= [/INST]"
        );
    }

    /// A tokenizer of one family's special tokens refuses another's.
    #[test]
    fn special_tokens_must_be_one_id_each() {
        let tokenizer = |special_tokens| {
            let trainer = TokenizerTrainer {
                special_tokens,
                vocab_size: 400,
                ..TokenizerTrainer::default()
            };
            trainer.train(["the user asks"].iter()).unwrap()
        };
        let (v1, v3) = (tokenizer(SpecialTokens::V1), tokenizer(SpecialTokens::V3));
        assert_eq!(Family::named("minimind").unwrap().check(&v3), Ok(()));
        assert_eq!(Family::named("minimind-v1").unwrap().check(&v1), Ok(()));
        let error = Family::named("llama-3").unwrap().check(&v3).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("special token <|eot_id|> of family llama-3 is "),
            "{error}"
        );
    }

    #[test]
    fn special_tokens_are_found_in_headers_too() {
        let tokens = |name: &str| Family::named(name).unwrap().special_tokens();
        assert_eq!(
            tokens("llama-3"),
            [
                "<|eot_id|>",
                "<|end_of_text|>",
                "<|start_header_id|>",
                "<|end_header_id|>",
                "<|begin_of_text|>"
            ]
        );
        assert_eq!(tokens("llama-2"), ["</s>", "<s>"]);
    }

    #[test]
    fn names_and_roles_that_are_not_there_are_errors() {
        let error = Family::named("llama3").unwrap_err().to_string();
        assert!(
            error.starts_with("unknown family `llama3`, expected one of chatml, minimind, "),
            "{error}"
        );
        let gemma = Family::named("gemma-2").unwrap();
        let error = gemma.user_turn(&[Message::new("system", "x")]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "family gemma-2 has no system prompts, expected none (or another model)"
        );
    }
}
