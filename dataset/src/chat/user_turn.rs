//! The beginning of a user's turn, for a model that is to write the question itself.

use super::{ChatError, ChatTemplate, Message, RenderOptions, Span};

/// Stands for the question while the template is rendered: three characters of private use.
const QUESTION: &str = "\u{f8ff}\u{f8fe}\u{f8fd}";

impl ChatTemplate {
    /// The text up to where a user's turn after these messages would begin, header included.
    ///
    /// Found by rendering a question that stands for any other, so that whatever the template puts
    /// before a question (a beginning, a system prompt of its own) is there.
    ///
    /// # Errors
    ///
    /// What [`render`](Self::render) refuses, and a template that does not write questions down.
    pub fn render_user_turn(&self, messages: &[Message]) -> Result<Span, ChatError> {
        let mut messages = messages.to_vec();
        messages.push(Message::new("user", QUESTION));
        let mut span = self.render_prompt(&messages, &RenderOptions::default())?;
        let question = span.text.rfind(QUESTION).ok_or(ChatError::NoUserTurn)?;
        span.text.truncate(question);
        span.literal.retain(|range| range.end <= question);
        Ok(span)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{V1_TEMPLATE, V3_TEMPLATE};
    use super::*;

    fn user_turn(source: &str, messages: &[Message]) -> String {
        let template: ChatTemplate = source.parse().unwrap();
        template.render_user_turn(messages).unwrap().text
    }

    /// By hand from the templates: MiniMind's two, alone, after a system prompt and after a turn.
    #[test]
    fn the_text_ends_where_a_question_would_begin() {
        let system = [Message::new("system", "Be brief.")];
        let talk = [Message::new("user", "1+1="), Message::new("assistant", "2")];
        assert_eq!(user_turn(V1_TEMPLATE, &[]), "<s>user\n");
        assert_eq!(user_turn(V1_TEMPLATE, &system), "Be brief.<s>user\n");
        assert_eq!(
            user_turn(V1_TEMPLATE, &talk),
            "<s>user\n1+1=</s>\n<s>assistant\n2</s>\n<s>user\n"
        );
        assert_eq!(user_turn(V3_TEMPLATE, &[]), "<|im_start|>user\n");
        assert_eq!(
            user_turn(V3_TEMPLATE, &system),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"
        );
    }

    #[test]
    fn a_template_without_questions_is_an_error() {
        let template: ChatTemplate = "{{ messages | length }}".parse().unwrap();
        assert_eq!(
            template.render_user_turn(&[]).unwrap_err().to_string(),
            "the chat template writes no user turns, expected one that does"
        );
    }
}
