//! Questions whose answers were reasoned out: prompt, reasoning and answer as token ids apart.

use crate::chat::{ChatTemplate, Message};
use crate::conversations::{ConversationFault, RowEncoder};
use crate::prompts::Question;
use crate::rows::NumberedRow;
use crate::tokenizer::Tokenizer;

const OPENING: &str = "<think>\n";
const CLOSING: &str = "\n</think>\n";

/// A question whose answer was reasoned out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReasonedTokens {
    /// Up to where the assistant begins that does not think.
    pub prompt: Vec<u32>,
    /// The same for one that does.
    pub explicit_prompt: Vec<u32>,
    /// What begins the reasoning, where the prompt does not.
    pub opening: Vec<u32>,
    /// The reasoning; nothing where the row has none.
    pub reasoning: Vec<u32>,
    /// What ends the reasoning.
    pub closing: Vec<u32>,
    /// The answer, with the token that ends it.
    pub answer: Vec<u32>,
}

impl ReasonedTokens {
    /// Tokens with all of the reasoning.
    pub fn num_tokens(&self) -> usize {
        let reasoning = self.opening.len() + self.reasoning.len() + self.closing.len();
        self.explicit_prompt.len() + reasoning + self.answer.len()
    }
}

/// Renders and encodes conversations whose last answer was reasoned out.
#[derive(Debug, Clone, Copy)]
pub struct ReasonedEncoder<'a> {
    /// Text to ids.
    pub tokenizer: &'a Tokenizer,
    /// Conversations to text.
    pub template: &'a ChatTemplate,
}

impl RowEncoder for ReasonedEncoder<'_> {
    type Encoded = ReasonedTokens;

    fn encode_row(&self, row: NumberedRow, _: u64) -> Result<ReasonedTokens, ConversationFault> {
        let question = Question::of(row.row?)?;
        let (reasoning, answer) = parted(&question.answer);
        let prompt = |enable_thinking| question.render(self.template, enable_thinking);
        let explicit = prompt(true)?;
        let is_open = explicit.text.ends_with(OPENING);
        let mut answer = self.tokenizer.encode_ordinary(answer);
        answer.extend(self.tokenizer.eos_id());
        Ok(ReasonedTokens {
            prompt: self.tokenizer.encode_spans(&[prompt(false)?]).ids,
            explicit_prompt: self.tokenizer.encode_spans(&[explicit]).ids,
            opening: if is_open {
                Vec::new()
            } else {
                self.tokenizer.encode(OPENING)
            },
            reasoning: self.tokenizer.encode_ordinary(reasoning),
            closing: self.tokenizer.encode(CLOSING),
            answer,
        })
    }
}

/// Reasoning and answer of a turn, whether the reasoning has a field of its own or a think block.
fn parted(turn: &Message) -> (&str, &str) {
    if let Some(reasoning) = &turn.reasoning_content {
        return (reasoning.trim(), turn.content.trim());
    }
    let block = turn.content.trim_start().strip_prefix("<think>");
    match block.and_then(|rest| rest.split_once("</think>")) {
        Some((reasoning, answer)) => (reasoning.trim(), answer.trim()),
        None => ("", turn.content.trim()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{V1_TEMPLATE, V3_TEMPLATE};
    use crate::rows::{ChatRow, Row};
    use crate::tokenizer::fixture::tokenizer_with;

    fn encoded(template: &str, answer: Message) -> [String; 4] {
        let tokenizer = tokenizer_with(template);
        let encoder = ReasonedEncoder {
            tokenizer: &tokenizer,
            template: tokenizer.chat_template().unwrap(),
        };
        let row = NumberedRow {
            line: 1,
            row: Ok(Row::Chat(ChatRow {
                conversations: vec![Message::new("user", "1+2+3=?"), answer],
                tools: Vec::new(),
            })),
        };
        let found = encoder.encode_row(row, 0).unwrap();
        let explicit = [
            &found.explicit_prompt[..],
            &found.opening,
            &found.reasoning,
            &found.closing,
            &found.answer,
        ];
        let implicit = [&found.prompt[..], &found.answer];
        [
            tokenizer.decode(&explicit.concat(), false),
            tokenizer.decode(&implicit.concat(), false),
            tokenizer.decode(&found.reasoning, false),
            tokenizer.decode(&found.answer, false),
        ]
    }

    /// By the templates: reasoning in the content or in its own field comes to the same.
    #[test]
    fn reasoning_and_answer_are_parted() {
        let inside = Message::new("assistant", "<think>\n1+2=3, 3+3=6\n</think>\n6");
        let beside = Message {
            reasoning_content: Some("1+2=3, 3+3=6".to_owned()),
            ..Message::new("assistant", "6")
        };
        for answer in [inside.clone(), beside] {
            let [explicit, implicit, reasoning, said] = encoded(V1_TEMPLATE, answer);
            let prompt = "<s>user\n1+2+3=?</s>\n<s>assistant\n";
            assert_eq!(
                explicit,
                format!("{prompt}<think>\n1+2=3, 3+3=6\n</think>\n6</s>")
            );
            assert_eq!(implicit, format!("{prompt}6</s>"));
            assert_eq!(
                (reasoning.as_str(), said.as_str()),
                ("1+2=3, 3+3=6", "6</s>")
            );
        }
        let [explicit, implicit, ..] = encoded(V3_TEMPLATE, inside);
        assert!(
            explicit.contains("<think>\n1+2=3, 3+3=6\n</think>\n6"),
            "{explicit}"
        );
        assert!(implicit.contains("<think>\n\n</think>\n\n6"), "{implicit}");
    }

    /// A row without reasoning has an answer all the same.
    #[test]
    fn a_row_may_have_no_reasoning() {
        let [_, _, reasoning, said] = encoded(V1_TEMPLATE, Message::new("assistant", "6"));
        assert_eq!((reasoning.as_str(), said.as_str()), ("", "6</s>"));
    }
}
