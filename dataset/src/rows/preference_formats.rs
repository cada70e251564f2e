//! Better and worse answers in every maker's layout.

use serde_json::Value;

use super::chat_formats::{alpaca_prompt, from_messages, numbered, role_turn, sharegpt_turn};
use super::fields::{
    CHOSEN_FIELDS, Fields, PROMPT_FIELDS, REJECTED_FIELDS, TURNS_FIELDS, list_of, text_of,
};
use super::{PreferenceRow, RowFault, check_roles};
use crate::chat::Message;
use crate::names::json_type;

/// Marks of the speakers in HH-RLHF's texts.
const SPEAKERS: [(&str, &str); 2] = [("\n\nHuman:", "user"), ("\n\nAssistant:", "assistant")];

/// A row of any of the layouts.
pub(super) fn from_preference(mut fields: Fields) -> Result<PreferenceRow, RowFault> {
    if let Some(Value::Bool(is_good)) = fields.0.get("label") {
        let is_good = *is_good;
        return from_judged(fields, is_good);
    }
    let tools = fields.take_list("tools")?;
    let (chosen, rejected) = take_answers(&mut fields)?;
    // Lists of turns hold the question too, whatever else the row has: UltraFeedback's `messages`
    // are the whole better conversation.
    let repeats_question = chosen.as_array().is_some_and(|turns| turns.len() > 1);
    let mut prompt = if repeats_question {
        fields.take_system()?.into_iter().collect()
    } else {
        take_prompt(&mut fields)?
    };
    let (chosen_prefix, chosen) = answer_of(CHOSEN_FIELDS[0], chosen, prompt.is_empty())?;
    let (rejected_prefix, rejected) = answer_of(REJECTED_FIELDS[0], rejected, prompt.is_empty())?;
    if chosen_prefix != rejected_prefix {
        return Err(RowFault::OtherQuestion);
    }
    prompt.extend(chosen_prefix);
    if prompt.is_empty() {
        return Err(fields.missing("prompt"));
    }
    check_roles(&prompt)?;
    Ok(PreferenceRow {
        prompt,
        tools,
        chosen: Some(chosen),
        rejected: Some(rejected),
    })
}

/// A conversation of which only one answer is known, good or bad (KTO).
fn from_judged(fields: Fields, is_good: bool) -> Result<PreferenceRow, RowFault> {
    let row = from_messages(fields)?;
    let mut prompt = row.conversations;
    let turns = prompt.len();
    let Some(answer) = prompt.pop().filter(Message::is_assistant) else {
        return Err(RowFault::NothingToLearn { turns });
    };
    let (chosen, rejected) = if is_good {
        (Some(answer), None)
    } else {
        (None, Some(answer))
    };
    Ok(PreferenceRow {
        prompt,
        tools: row.tools,
        chosen,
        rejected,
    })
}

/// The two answers, under their names or as the first two of a ranking, best first.
fn take_answers(fields: &mut Fields) -> Result<(Value, Value), RowFault> {
    let ranking = fields.0.get("output").is_some_and(Value::is_array);
    if ranking {
        let mut answers = fields.take_list("output")?.into_iter();
        return match (answers.next(), answers.next()) {
            (Some(chosen), Some(rejected)) => Ok((chosen, rejected)),
            _ => Err(RowFault::Unanswered { field: "output" }),
        };
    }
    let Some((_, chosen)) = fields.take_any(&CHOSEN_FIELDS) else {
        return Err(fields.missing(CHOSEN_FIELDS[0]));
    };
    let Some((_, rejected)) = fields.take_any(&REJECTED_FIELDS) else {
        return Err(fields.missing(REJECTED_FIELDS[0]));
    };
    Ok((chosen, rejected))
}

/// What stands before the answers; empty where each answer repeats it.
fn take_prompt(fields: &mut Fields) -> Result<Vec<Message>, RowFault> {
    if let Some((field, turns)) = fields.take_any(&TURNS_FIELDS) {
        let system = fields.take_system()?;
        let turns = turns_of(list_of(field, turns)?)?;
        return Ok(system.into_iter().chain(turns).collect());
    }
    if fields.0.contains_key("instruction") {
        return alpaca_prompt(fields);
    }
    let system = fields.take_system()?;
    let prompt = match fields.take_any(&PROMPT_FIELDS) {
        Some((_, Value::Array(turns))) if turns.iter().all(Value::is_object) => turns_of(turns)?,
        Some((field, text)) => question_of(&text_of(field, text)?),
        None => return Ok(Vec::new()),
    };
    Ok(system.into_iter().chain(prompt).collect())
}

/// A question as a turn, or the turns of a dialogue that ends before the assistant speaks.
fn question_of(text: &str) -> Vec<Message> {
    let dialogue = dialogue_of(text).filter(|turns| {
        turns
            .last()
            .is_some_and(|turn| turn.is_assistant() && turn.content.is_empty())
    });
    match dialogue {
        Some(mut turns) => {
            turns.pop();
            turns
        }
        None => vec![Message::new("user", text)],
    }
}

/// An answer, and the turns before it that it repeats.
fn answer_of(
    field: &'static str,
    value: Value,
    needs_prompt: bool,
) -> Result<(Vec<Message>, Message), RowFault> {
    let mut turns = match value {
        Value::String(text) if needs_prompt => {
            dialogue_of(&text).ok_or(RowFault::NoDialogue { field })?
        }
        Value::String(text) => vec![Message::new("assistant", text)],
        Value::Object(turn) => turns_of(vec![Value::Object(turn)])?,
        Value::Array(turns) => turns_of(turns)?,
        other => {
            return Err(RowFault::WrongType {
                field: field.to_owned(),
                found: json_type(&other),
                expected: "a text, a turn or a list of turns",
            });
        }
    };
    match turns.pop() {
        Some(answer) if answer.is_assistant() => Ok((turns, answer)),
        _ => Err(RowFault::Unanswered { field }),
    }
}

/// Turns of either spelling.
fn turns_of(turns: Vec<Value>) -> Result<Vec<Message>, RowFault> {
    let is_sharegpt = turns.first().is_some_and(|turn| turn.get("from").is_some());
    numbered(
        turns,
        if is_sharegpt {
            sharegpt_turn
        } else {
            role_turn
        },
    )
}

/// Turns of a text in which each begins with its speaker's mark; `None` if it begins otherwise or
/// the assistant does not speak last.
fn dialogue_of(text: &str) -> Option<Vec<Message>> {
    let next_mark = |text: &str| {
        let marks = SPEAKERS.iter();
        let found = marks.filter_map(|(mark, role)| Some((text.find(mark)?, *mark, *role)));
        found.min_by_key(|(start, ..)| *start)
    };
    // Some texts begin with the mark without its blank lines.
    let whole = format!("\n\n{}", text.trim_start());
    let mut rest = whole.as_str();
    let mut turns = Vec::new();
    let (start, mark, mut role) = next_mark(rest)?;
    if start > 0 || role != "user" {
        return None;
    }
    rest = &rest[mark.len()..];
    loop {
        let next = next_mark(rest);
        let end = next.map_or(rest.len(), |(start, ..)| start);
        turns.push(Message::new(role, rest[..end].trim()));
        let Some((start, mark, next_role)) = next else {
            break;
        };
        rest = &rest[start + mark.len()..];
        role = next_role;
    }
    turns
        .last()
        .is_some_and(Message::is_assistant)
        .then_some(turns)
}
