//! A Hugging Face chat template: Jinja source, compiled once.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use minijinja_contrib::pycompat;

use super::{ChatError, Message, RenderOptions, tojson};
use crate::tokenizer::ControlToken;

/// Template of the v1 special tokens.
pub const V1_TEMPLATE: &str = include_str!("../../templates/v1.jinja");

/// Template of the v3 special tokens.
pub const V3_TEMPLATE: &str = include_str!("../../templates/v3.jinja");

const NAME: &str = "chat_template";

/// Messages to text, as `apply_chat_template` of transformers does it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    environment: Arc<Environment<'static>>,
    special_tokens: BTreeMap<&'static str, String>,
    pub(super) control_tokens: Vec<ControlToken>,
}

impl FromStr for ChatTemplate {
    type Err = ChatError;

    fn from_str(source: &str) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_unknown_method_callback(pycompat::unknown_method_callback);
        environment.add_filter("tojson", tojson::python_json);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, message))
            },
        );
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(ChatError::Parse)?;
        Ok(Self {
            source: source.to_owned(),
            environment: Arc::new(environment),
            special_tokens: BTreeMap::new(),
            control_tokens: Vec::new(),
        })
    }
}

impl ChatTemplate {
    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Tells the template the texts of `bos_token` and the like, which some ask for.
    #[must_use]
    pub(crate) fn with_special_token(mut self, name: &'static str, text: Option<&str>) -> Self {
        if let Some(text) = text {
            self.special_tokens.insert(name, text.to_owned());
        }
        self
    }

    /// Tells which tokens message content must not become.
    #[must_use]
    pub(crate) fn with_control_tokens(mut self, tokens: &[ControlToken]) -> Self {
        self.control_tokens = tokens.to_vec();
        self
    }

    /// The text of a conversation.
    ///
    /// # Errors
    ///
    /// [`ChatError::Render`] if the template refuses the conversation.
    pub fn render(
        &self,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<String, ChatError> {
        let first_tools = messages.first().map(|message| message.tools.as_slice());
        let tools = match options.tools.as_slice() {
            [] => first_tools.unwrap_or_default(),
            tools => tools,
        };
        let mut variables = BTreeMap::from([
            ("messages", Value::from_serialize(messages)),
            (
                "add_generation_prompt",
                Value::from(options.add_generation_prompt),
            ),
        ]);
        if !tools.is_empty() {
            variables.insert("tools", Value::from_serialize(tools));
        }
        if let Some(enable_thinking) = options.enable_thinking {
            // Qwen's name of the switch, and MiniMind's.
            variables.insert("enable_thinking", Value::from(enable_thinking));
            variables.insert("open_thinking", Value::from(enable_thinking));
        }
        for (name, text) in &self.special_tokens {
            variables.insert(name, Value::from(text.as_str()));
        }
        let template = self
            .environment
            .get_template(NAME)
            .map_err(ChatError::Render)?;
        template
            .render(Value::from_serialize(&variables))
            .map_err(ChatError::Render)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let template: ChatTemplate = source
            .parse()
            .map_err(|error: ChatError| error.to_string())?;
        let template = template.with_special_token("bos_token", Some("<s>"));
        let messages = [Message::new("user", "hi")];
        template
            .render(&messages, &RenderOptions::default())
            .map_err(|error| {
                let cause = std::error::Error::source(&error).unwrap();
                format!("{error}: {cause}")
            })
    }

    /// Templates call `raise_exception` for conversations they were not made for.
    #[test]
    fn a_template_may_refuse_a_conversation() {
        let error = render("{{ raise_exception('no ' + messages[0].role) }}").unwrap_err();
        let wanted = "the chat template cannot render the conversation: invalid operation: no user";
        assert!(error.starts_with(wanted), "{error}");
        assert_eq!(
            render("{% if %}").unwrap_err(),
            "the chat template does not parse"
        );
    }

    /// Llama's templates begin with the token; an unset one is undefined.
    #[test]
    fn special_tokens_are_variables() {
        let text = render("{{ bos_token }}{{ eos_token is defined }}{{ messages[0].content }}");
        assert_eq!(text.unwrap(), "<s>Falsehi");
    }
}
