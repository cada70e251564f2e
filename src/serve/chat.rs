//! `/v1/chat/completions`.

use dataset::chat::{Message, RenderOptions};
use dataset::loyalty::Identity;
use eval::answers::{AnswerRequest, FirstTokenChange};
use model::generate::Prompt;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::app::{App, ModelFace, unix_secs};
use super::chat_answer::{ChatAnswer, Choice};
use super::error::ApiError;
use super::http::{Client, Reply};
use super::sampling::Sampling;
use super::stream;

/// Most alternatives that log-probabilities are reported of.
const MAX_TOP_LOGPROBS: usize = 20;

/// What a chat adds to the fields of [`Sampling`].
#[derive(Debug, Deserialize)]
struct ChatRequest {
    messages: Vec<Map<String, Value>>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    /// vLLM's and MiniMind's way to switch thinking.
    chat_template_kwargs: Option<Thinking>,
    enable_thinking: Option<bool>,
    open_thinking: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Thinking {
    enable_thinking: Option<bool>,
    open_thinking: Option<bool>,
}

impl ChatRequest {
    fn thinks(&self) -> Option<bool> {
        let kwargs = self.chat_template_kwargs.as_ref();
        self.enable_thinking
            .or(self.open_thinking)
            .or(kwargs.and_then(|kwargs| kwargs.enable_thinking.or(kwargs.open_thinking)))
    }

    fn tools(&self) -> Vec<Value> {
        match &self.tool_choice {
            Some(choice) if choice == "none" => Vec::new(),
            _ => self.tools.clone().unwrap_or_default(),
        }
    }
}

/// Answers a chat, at once or streamed.
///
/// # Errors
///
/// A request that is wrong, a full queue, or an answer that fails.
pub(super) fn complete(
    app: &App,
    body: &[u8],
    who: Identity,
    client: &mut Client,
) -> Result<Reply, ApiError> {
    let sampling: Sampling = parse(body)?;
    let request: ChatRequest = parse(body)?;
    let index = app.model(sampling.model.as_deref())?;
    let model = &app.models[index];
    let tools = request.tools();
    let (text, input_ids) = prompt_of(model, &request, &tools)?;
    let input_ids = model.asked_by(who, "messages", input_ids)?;
    model.check_prompt("messages", &input_ids)?;

    let num_top_logprobs = num_top_logprobs(&request)?;
    let num_choices = sampling.num_choices()?;
    let seed = sampling.seed();
    let mut config = sampling.config(&model.defaults)?;
    let room = model.context - input_ids.len();
    config.generate.max_new_tokens = config.generate.max_new_tokens.min(room);
    let (logit_bias, as_json_object) = (sampling.logit_bias()?, sampling.as_json_object()?);
    let requests = (0..num_choices as u64).map(|choice| AnswerRequest {
        prompt: Prompt {
            input_ids: input_ids.clone(),
            seed: seed.wrapping_add(choice),
        },
        config: config.clone(),
        logit_bias: logit_bias.clone(),
        first_token: FirstTokenChange::default(),
        as_json_object,
        num_top_logprobs,
        with_prompt_logprobs: false,
    });
    let mut session = app.ask(index, requests.collect())?;
    let choice = Choice::new(&text, !tools.is_empty());
    let mut answer = ChatAnswer {
        id: app.new_id("chatcmpl"),
        created: unix_secs(),
        model: index,
        name: model.name.clone(),
        num_prompt_tokens: input_ids.len(),
        includes_usage: sampling.includes_usage(),
        choices: vec![choice; num_choices],
    };
    if sampling.stream == Some(true) {
        let written = stream::write_events(app, client, session, &mut answer);
        return Ok(Reply::Written(written));
    }
    while let Some((choice, event)) = session.next(client)? {
        answer.take(app, choice, event);
    }
    Ok(Reply::Json(answer.whole()))
}

/// A body as JSON of the expected fields.
///
/// # Errors
///
/// What is wrong and where.
pub(super) fn parse<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body)
        .map_err(|error| ApiError::bad(format!("the body is not a valid request: {error}")))
}

fn num_top_logprobs(request: &ChatRequest) -> Result<Option<usize>, ApiError> {
    let top = request.top_logprobs.unwrap_or(0);
    if top > MAX_TOP_LOGPROBS {
        let message = format!("found {top}, expected at most {MAX_TOP_LOGPROBS}");
        return Err(ApiError::field("top_logprobs", message));
    }
    Ok((request.logprobs == Some(true)).then_some(top))
}

/// The prompt as text and as ids; what users wrote cannot become a control token.
fn prompt_of(
    model: &ModelFace,
    request: &ChatRequest,
    tools: &[Value],
) -> Result<(String, Vec<u32>), ApiError> {
    let Some(template) = model.tokenizer.chat_template() else {
        let message = "this model has no chat template, use /v1/completions";
        return Err(ApiError::field("model", message));
    };
    let messages = request
        .messages
        .iter()
        .enumerate()
        .map(|(index, message)| message_of(index, message))
        .collect::<Result<Vec<Message>, ApiError>>()?;
    if messages.is_empty() {
        return Err(ApiError::field(
            "messages",
            "found no messages, expected at least one",
        ));
    }
    let options = RenderOptions {
        add_generation_prompt: true,
        tools: tools.to_vec(),
        enable_thinking: request.thinks(),
    };
    let spans = template.render_history(&messages, &options);
    let spans = spans.map_err(|error| {
        let cause =
            std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
        ApiError::field("messages", format!("{error}{cause}"))
    })?;
    let ids = model.tokenizer.encode_spans(&spans).ids;
    Ok((spans.into_iter().map(|span| span.text).collect(), ids))
}

/// A message with its content as one text.
fn message_of(index: usize, message: &Map<String, Value>) -> Result<Message, ApiError> {
    let wrong = |field: &str, message: String| {
        ApiError::field(&format!("messages[{index}].{field}"), message)
    };
    let mut message = message.clone();
    let role = message
        .get("role")
        .and_then(Value::as_str)
        .unwrap_or_default();
    match role {
        "system" | "user" | "assistant" | "tool" => {}
        "developer" => {
            message.insert("role".to_owned(), "system".into());
        }
        other => {
            let found = format!("found `{other}`, expected system, user, assistant or tool");
            return Err(wrong("role", found));
        }
    }
    let content = match message.remove("content") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => {
            let texts = parts
                .iter()
                .map(|part| part.get("text").and_then(Value::as_str));
            let text = texts.collect::<Option<String>>();
            text.ok_or_else(|| wrong("content", "expected parts of type text only".to_owned()))?
        }
        Some(other) => return Err(wrong("content", format!("found {other}, expected a text"))),
    };
    message.insert("content".to_owned(), content.into());
    serde_json::from_value(Value::Object(message))
        .map_err(|error| ApiError::field(&format!("messages[{index}]"), error.to_string()))
}
