//! Conversations in every maker's format.

use serde_json::{Map, Value, json};

use super::fields::{
    ANSWER_FIELDS, Fields, PROMPT_FIELDS, THOUGHT_FIELDS, TURNS_FIELDS, json_of, list_of, text_of,
};
use super::history::parse_history;
use super::{ChatRow, RowFault};
use crate::chat::Message;
use crate::names::json_type;

/// MiniMind's and OpenAI's turns of `role` and `content`.
pub(super) fn from_messages(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let system = fields.take_system()?;
    let tools = fields.take_list("tools")?;
    let turns = take_turns(&mut fields)?;
    let mut turns = numbered(turns, role_turn)?;
    if turns.first().is_none_or(|turn| turn.role != "system") {
        turns.splice(0..0, system);
    }
    ChatRow::checked(turns, tools)
}

/// ShareGPT's turns of `from` and `value`.
pub(super) fn from_sharegpt(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let system = fields.take_system()?;
    let tools = fields.take_list("tools")?;
    let turns = take_turns(&mut fields)?;
    let mut turns = numbered(turns, sharegpt_turn)?;
    if turns.first().is_none_or(|turn| turn.role != "system") {
        turns.splice(0..0, system);
    }
    ChatRow::checked(turns, tools)
}

/// Stanford Alpaca's fields, with LLaMA-Factory's `system` and `history` beside them.
pub(super) fn from_alpaca(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let mut turns = alpaca_prompt(&mut fields)?;
    turns.push(Message::new("assistant", fields.require_text("output")?));
    ChatRow::checked(turns, Vec::new())
}

/// System prompt, earlier pairs, and the question of an Alpaca row.
pub(super) fn alpaca_prompt(fields: &mut Fields) -> Result<Vec<Message>, RowFault> {
    let mut turns: Vec<Message> = fields.take_system()?.into_iter().collect();
    for pair in fields.take_list("history")? {
        let texts = list_of("history", pair)?;
        let texts: Vec<String> = texts
            .into_iter()
            .map(|text| text_of("history", text))
            .collect::<Result<_, _>>()?;
        turns.extend(pair_of_turns(texts));
    }
    let instruction = fields.require_text("instruction")?;
    let input = fields.take_text("input")?;
    let question = if input.trim().is_empty() {
        instruction
    } else {
        format!("{instruction}\n{input}")
    };
    turns.push(Message::new("user", question));
    Ok(turns)
}

/// A question and its answer under any of the names that are in use, with the thoughts between.
pub(super) fn from_prompt_response(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let mut turns = pair_prompt(&mut fields)?;
    // APT's Storm rows have the source's whole solution beside the answer that is to be learned.
    let is_storm = fields.0.contains_key("cot_explicit");
    let storm_answer = is_storm.then(|| fields.take_any(&["answer"])).flatten();
    let Some((field, answer)) = storm_answer.or_else(|| fields.take_any(&ANSWER_FIELDS)) else {
        return Err(fields.missing("response"));
    };
    let reasoning = match fields.take_any(&THOUGHT_FIELDS) {
        Some((field, thoughts)) => text_of(field, thoughts)?,
        None => String::new(),
    };
    turns.push(Message {
        reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
        ..Message::new("assistant", text_of(field, answer)?)
    });
    ChatRow::checked(turns, Vec::new())
}

/// System prompt and question of a row of one question.
pub(super) fn pair_prompt(fields: &mut Fields) -> Result<Vec<Message>, RowFault> {
    let system = fields.take_system()?;
    let Some((field, question)) = fields.take_any(&PROMPT_FIELDS) else {
        return Err(fields.missing("prompt"));
    };
    let mut question = text_of(field, question)?;
    for (more, before) in [("input", "\n"), ("context", "\n\n")] {
        let text = fields.take_text(more)?;
        if !text.trim().is_empty() {
            question.push_str(before);
            question.push_str(&text);
        }
    }
    let question = Message::new("user", question);
    Ok(system.into_iter().chain([question]).collect())
}

/// Magpie's record; of several responses the one with the highest reward, else the first.
pub(super) fn from_magpie(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let question = fields.require_text("instruction")?;
    let answer = if let Some(response) = fields.take("response") {
        text_of("response", response)?
    } else {
        let responses = fields.take_list("responses")?;
        let rewards = fields.take_rewards()?;
        let best = best_of(&responses, &rewards);
        let Some(response) = responses.into_iter().nth(best) else {
            return Err(RowFault::Unanswered { field: "response" });
        };
        text_of("responses", response)?
    };
    let turns = vec![
        Message::new("user", question),
        Message::new("assistant", answer),
    ];
    ChatRow::checked(turns, Vec::new())
}

/// Place of the first response that no other one's reward exceeds.
fn best_of(responses: &[Value], rewards: &[Value]) -> usize {
    let reward = |index: usize| {
        let reward = rewards.get(index)?;
        reward.get("score").unwrap_or(reward).as_f64()
    };
    let mut best = 0;
    for index in 1..responses.len() {
        if reward(index) > reward(best) {
            best = index;
        }
    }
    best
}

/// MiniMind v1's table: earlier pairs in a Python list, question and answer.
pub(super) fn from_minimind_csv(mut fields: Fields) -> Result<ChatRow, RowFault> {
    let history = parse_history(&fields.take_text("history")?)?;
    let question = fields.require_text("q")?;
    let answer = fields.require_text("a")?;
    let pairs = history.into_iter().chain([[question, answer]]);
    let turns = pairs.flat_map(pair_of_turns).collect();
    ChatRow::checked(turns, Vec::new())
}

fn pair_of_turns(pair: impl IntoIterator<Item = String>) -> impl Iterator<Item = Message> {
    let speakers = ["user", "assistant"].into_iter();
    speakers
        .zip(pair)
        .map(|(role, text)| Message::new(role, text))
}

fn take_turns(fields: &mut Fields) -> Result<Vec<Value>, RowFault> {
    match fields.take_any(&TURNS_FIELDS) {
        Some((field, turns)) => list_of(field, turns),
        None => Err(fields.missing("conversations")),
    }
}

/// Turns with their number in the error.
pub(super) fn numbered(
    turns: Vec<Value>,
    read: fn(Value) -> Result<Message, RowFault>,
) -> Result<Vec<Message>, RowFault> {
    let turns = turns.into_iter().enumerate();
    turns
        .map(|(index, turn)| {
            read(turn).map_err(|fault| RowFault::Turn {
                turn: index + 1,
                fault: Box::new(fault),
            })
        })
        .collect()
}

/// A turn of `role` and `content`, where the content may be a list of parts.
pub(super) fn role_turn(value: Value) -> Result<Message, RowFault> {
    let mut turn = Fields::of(value)?;
    let role = turn.require_text("role")?;
    let role = match role.as_str() {
        "developer" => "system".to_owned(),
        "function" => "tool".to_owned(),
        _ => role,
    };
    let has_calls = turn
        .0
        .get("tool_calls")
        .is_some_and(|calls| !calls.is_null());
    let content = match turn.0.get_mut("content") {
        Some(content) => content.take(),
        None if has_calls => Value::Null,
        None => return Err(turn.missing("content")),
    };
    let mut message = Message {
        tool_calls: turn.take_list("tool_calls")?,
        tools: turn.take_list("tools")?,
        ..Message::new(role, "")
    };
    let reasoning = turn.take_text("reasoning_content")?;
    message.reasoning_content = (!reasoning.is_empty()).then_some(reasoning);
    match content {
        Value::Null => {}
        Value::String(text) => message.content = text,
        Value::Array(parts) => add_parts(&mut message, parts)?,
        other => {
            return Err(RowFault::WrongType {
                field: "content".to_owned(),
                found: json_type(&other),
                expected: "a string or a list of parts",
            });
        }
    }
    let rest = turn.0.into_iter().filter(|(_, value)| !value.is_null());
    message.other = rest.collect();
    Ok(message)
}

/// Puts the parts of a content where templates look for them.
fn add_parts(message: &mut Message, parts: Vec<Value>) -> Result<(), RowFault> {
    for part in parts {
        let mut part = Fields::of(part)?;
        let kind = part.take_text("type")?;
        let Some((_, value)) = part.take_any(&["text", "value"]) else {
            return Err(part.missing("text"));
        };
        match kind.as_str() {
            "reasoning" | "thinking" => {
                message.reasoning_content = Some(text_of("value", value)?);
            }
            "tool_call" => message.tool_calls.extend(calls_of("value", value)?),
            _ => message.content.push_str(&text_of("text", value)?),
        }
    }
    Ok(())
}

/// A turn of `from` and `value`.
pub(super) fn sharegpt_turn(value: Value) -> Result<Message, RowFault> {
    let mut turn = Fields::of(value)?;
    let from = turn.require_text("from")?;
    let Some(value) = turn.take("value") else {
        return Err(turn.missing("value"));
    };
    let role = match from.as_str() {
        "human" => "user",
        "gpt" | "chatgpt" | "bing" | "bard" => "assistant",
        "observation" | "function_response" => "tool",
        "function_call" | "tool_call" => {
            return Ok(Message {
                tool_calls: calls_of("value", value)?,
                ..Message::new("assistant", "")
            });
        }
        other => other,
    };
    let value = match value {
        // Tools answer with objects as often as with their text.
        Value::Object(object) if role == "tool" => Value::Object(object).to_string(),
        value => text_of("value", value)?,
    };
    Ok(Message::new(role, value))
}

/// Calls of functions: an object, a list of them, or the JSON text of either.
fn calls_of(field: &str, value: Value) -> Result<Vec<Value>, RowFault> {
    let value = match value {
        Value::String(text) => json_of(field, &text)?,
        other => other,
    };
    let calls = match value {
        Value::Array(calls) => calls,
        call => vec![call],
    };
    let is_call = |call: &Value| {
        let call = call.get("function").unwrap_or(call);
        call.get("name").is_some_and(Value::is_string)
    };
    match calls.iter().find(|call| !is_call(call)) {
        None => Ok(calls.into_iter().map(with_arguments).collect()),
        Some(call) => Err(RowFault::WrongType {
            field: field.to_owned(),
            found: json_type(call),
            expected: "a call with a `name`",
        }),
    }
}

/// A call that has no arguments gets an empty object: templates write them in any case.
fn with_arguments(mut call: Value) -> Value {
    let function = match call.get_mut("function") {
        Some(_) => call.get_mut("function"),
        None => Some(&mut call),
    };
    if let Some(Value::Object(function)) = function {
        function
            .entry("arguments")
            .or_insert_with(|| Value::Object(Map::new()));
    }
    call
}

/// The rows of a file that is one object around a list, such as `{"instructions": [..]}`; any other
/// value is given back.
pub(super) fn unwrapped(value: Value) -> Result<Vec<Value>, Value> {
    let Value::Object(mut fields) = value else {
        return Err(value);
    };
    let wrappers = ["instructions", "pairs", "prompts", "reasoning_examples"];
    let wrapper = wrappers
        .into_iter()
        .find(|wrapper| fields.get(*wrapper).is_some_and(Value::is_array));
    match wrapper.and_then(|wrapper| fields.remove(wrapper)) {
        Some(Value::Array(rows)) => Ok(rows
            .into_iter()
            .map(|row| match row {
                Value::String(prompt) => json!({ "prompt": prompt }),
                row => row,
            })
            .collect()),
        _ => Err(Value::Object(fields)),
    }
}
