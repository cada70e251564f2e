//! An assistant's text taken apart as it comes: what it thinks, what it says, which tools it calls.
//!
//! The tags are those of the Qwen3 and MiniMind-3 templates: `<think>` around thoughts, `<tool_call>`
//! around each call's JSON.

use serde_json::Value;

const THINK: &str = "<think>";
const THINK_END: &str = "</think>";
const CALL: &str = "<tool_call>";
const CALL_END: &str = "</tool_call>";

/// A part of an assistant's turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text for the user.
    Content(String),
    /// Thoughts before it.
    Reasoning(String),
    /// A function to call.
    ToolCall {
        /// Its name.
        name: String,
        /// Its arguments, as JSON text.
        arguments: String,
    },
}

/// Takes a text apart whose pieces may be cut anywhere.
#[derive(Debug, Clone)]
pub struct AssistantText {
    place: Place,
    calls_tools: bool,
    /// Text whose part is not certain yet.
    held_back: String,
    /// Whether white space is left out: the lines between a tag and the text behind it.
    skips_space: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the first character that is not white space: a thought may begin.
    Start,
    Thought,
    Content,
    Call,
}

impl AssistantText {
    /// A turn that begins behind this prompt; calls are looked for where tools were offered.
    pub fn new(prompt: &str, calls_tools: bool) -> Self {
        let thinks = prompt.trim_end().ends_with(THINK);
        Self {
            place: if thinks { Place::Thought } else { Place::Start },
            calls_tools,
            held_back: String::new(),
            skips_space: thinks,
        }
    }

    /// Takes a piece in; gives the parts that are certain.
    pub fn push(&mut self, piece: &str) -> Vec<Part> {
        self.held_back.push_str(piece);
        let mut parts = Vec::new();
        while self.advance(&mut parts) {}
        parts
    }

    /// What was held back, at the end of the text.
    pub fn finish(&mut self) -> Vec<Part> {
        let rest = std::mem::take(&mut self.held_back);
        let part = match self.place {
            Place::Thought => Part::Reasoning(rest.trim_end().to_owned()),
            Place::Call => call(&rest).unwrap_or_else(|| Part::Content(format!("{CALL}{rest}"))),
            Place::Start | Place::Content => Part::Content(rest),
        };
        let is_empty =
            matches!(&part, Part::Content(text) | Part::Reasoning(text) if text.is_empty());
        if is_empty { Vec::new() } else { vec![part] }
    }

    /// Goes on to the next tag, if it is there; whether there may be more to do.
    fn advance(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.place {
            Place::Start => {
                let text = self.held_back.trim_start();
                if let Some(thought) = text.strip_prefix(THINK) {
                    self.held_back = thought.to_owned();
                    self.place = Place::Thought;
                    self.skips_space = true;
                    return true;
                }
                if text.is_empty() || THINK.starts_with(text) {
                    return false;
                }
                self.place = Place::Content;
                true
            }
            Place::Thought => {
                self.skip_space();
                if let Some((thought, rest)) = split(&self.held_back, THINK_END) {
                    let thought = thought.trim_end().to_owned();
                    self.held_back = rest;
                    self.place = Place::Content;
                    self.skips_space = true;
                    push_text(parts, Part::Reasoning, thought);
                    return true;
                }
                self.let_out(parts, THINK_END, Part::Reasoning)
            }
            Place::Content => {
                self.skip_space();
                if self.calls_tools
                    && let Some((said, rest)) = split(&self.held_back, CALL)
                {
                    push_text(parts, Part::Content, said.trim_end().to_owned());
                    self.held_back = rest;
                    self.place = Place::Call;
                    return true;
                }
                let tag = if self.calls_tools { CALL } else { "" };
                self.let_out(parts, tag, Part::Content)
            }
            Place::Call => {
                let Some((json, rest)) = split(&self.held_back, CALL_END) else {
                    return false;
                };
                let part = call(&json);
                parts.push(part.unwrap_or(Part::Content(format!("{CALL}{json}{CALL_END}"))));
                self.held_back = rest;
                self.place = Place::Content;
                self.skips_space = true;
                true
            }
        }
    }

    fn skip_space(&mut self) {
        if self.skips_space {
            self.held_back = self.held_back.trim_start().to_owned();
            self.skips_space = self.held_back.is_empty();
        }
    }

    /// Lets out what is neither the beginning of the tag nor white space that a tag may follow.
    fn let_out(&mut self, parts: &mut Vec<Part>, tag: &str, part: fn(String) -> Part) -> bool {
        let undecided = (0..self.held_back.len())
            .filter(|&start| self.held_back.is_char_boundary(start))
            .find(|&start| tag.starts_with(&self.held_back[start..]));
        let mut end = undecided.unwrap_or(self.held_back.len());
        if !tag.is_empty() {
            end = self.held_back[..end].trim_end().len();
        }
        let rest = self.held_back.split_off(end);
        let text = std::mem::replace(&mut self.held_back, rest);
        push_text(parts, part, text);
        false
    }
}

fn push_text(parts: &mut Vec<Part>, part: fn(String) -> Part, text: String) {
    if !text.is_empty() {
        parts.push(part(text));
    }
}

/// The text before and behind the first tag.
fn split(text: &str, tag: &str) -> Option<(String, String)> {
    let (before, behind) = text.split_once(tag)?;
    Some((before.to_owned(), behind.to_owned()))
}

/// `{"name": .., "arguments": {..}}`, as a model writes it.
fn call(json: &str) -> Option<Part> {
    let value: Value = serde_json::from_str(json.trim()).ok()?;
    let name = value.get("name")?.as_str()?.to_owned();
    let arguments = match value.get("arguments") {
        None | Some(Value::Null) => "{}".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(arguments) => arguments.to_string(),
    };
    Some(Part::ToolCall { name, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of a text given whole and character by character; neighbours of a kind are joined.
    fn parts(prompt: &str, calls_tools: bool, text: &str) -> Vec<Part> {
        let whole = joined(prompt, calls_tools, &[text]);
        let characters: Vec<String> = text.chars().map(String::from).collect();
        let characters: Vec<&str> = characters.iter().map(String::as_str).collect();
        assert_eq!(joined(prompt, calls_tools, &characters), whole, "{text}");
        whole
    }

    fn joined(prompt: &str, calls_tools: bool, pieces: &[&str]) -> Vec<Part> {
        let mut assistant = AssistantText::new(prompt, calls_tools);
        let mut found: Vec<Part> = Vec::new();
        let pieces: Vec<Part> = pieces.iter().flat_map(|p| assistant.push(p)).collect();
        for part in pieces.into_iter().chain(assistant.finish()) {
            match (found.last_mut(), part) {
                (Some(Part::Content(text)), Part::Content(more))
                | (Some(Part::Reasoning(text)), Part::Reasoning(more)) => text.push_str(&more),
                (_, part) => found.push(part),
            }
        }
        found
    }

    fn content(text: &str) -> Part {
        Part::Content(text.to_owned())
    }

    fn reasoning(text: &str) -> Part {
        Part::Reasoning(text.to_owned())
    }

    fn tool_call(name: &str, arguments: &str) -> Part {
        Part::ToolCall {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }
    }

    /// Text without tags comes out as it is, white space included.
    #[test]
    fn plain_text_is_content() {
        assert_eq!(parts("user\n", false, "a < b\n "), [content("a < b\n ")]);
        assert_eq!(parts("", true, "a <tool b\n "), [content("a <tool b\n ")]);
        let call = "<tool_call>{}</tool_call>";
        assert_eq!(parts("", false, call), [content(call)]);
        assert_eq!(parts("", true, ""), []);
    }

    /// In the answer itself, or opened by the prompt as MiniMind-3's template does.
    #[test]
    fn thoughts_are_no_content() {
        let expected = [reasoning("1+1\n\nis 2"), content("2 <think>")];
        let text = "<think>\n1+1\n\nis 2\n</think>\n\n2 <think>";
        assert_eq!(parts("assistant\n", false, text), expected);
        let text = "1+1\n\nis 2\n</think>\n\n2 <think>";
        assert_eq!(parts("assistant\n<think>\n", true, text), expected);
        assert_eq!(parts("<think>", false, "cut "), [reasoning("cut")]);
    }

    /// Two calls with text before them; nothing of them is content.
    #[test]
    fn calls_are_taken_out_of_the_content() {
        let text = "Let me see.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": 1}}\n\
                    </tool_call>\n<tool_call>{\"name\":\"g\"}</tool_call>";
        let expected = [
            content("Let me see."),
            tool_call("f", "{\"x\":1}"),
            tool_call("g", "{}"),
        ];
        assert_eq!(parts("", true, text), expected);
    }

    /// What is no call is shown rather than lost.
    #[test]
    fn a_broken_call_is_content() {
        let text = "<tool_call>{\"name\": }</tool_call>";
        assert_eq!(parts("", true, text), [content(text)]);
        let text = "<tool_call>{\"name\"";
        assert_eq!(parts("", true, text), [content(text)]);
    }
}
