//! A good file, an empty one, a broken line, a wrong type and a huge line, of every format.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::*;

fn read_as(
    name: &str,
    bytes: impl AsRef<[u8]>,
    format: RowFormat,
) -> (RowFormat, Vec<NumberedRow>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let reader = RowReader::open(&path, format).unwrap();
    let format = reader.format();
    (format, reader.map(Result::unwrap).collect())
}

fn read(name: &str, bytes: impl AsRef<[u8]>) -> (RowFormat, Vec<NumberedRow>) {
    read_as(name, bytes, RowFormat::Auto)
}

/// Speakers and texts of the rows, with what was thought in parentheses.
fn chats(rows: Vec<NumberedRow>) -> Vec<String> {
    let chat = |row: NumberedRow| match row.row.and_then(Row::into_chat) {
        Ok(row) => row
            .conversations
            .iter()
            .fold(String::new(), |mut text, turn| {
                let _ = write!(text, "{}:", turn.role.chars().next().unwrap());
                if let Some(reasoning) = &turn.reasoning_content {
                    let _ = write!(text, "({reasoning})");
                }
                let _ = write!(text, "{};", turn.content);
                text
            }),
        Err(fault) => format!("{}: {fault}", row.line),
    };
    rows.into_iter().map(chat).collect()
}

fn open_error(name: &str, bytes: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let error = RowReader::open(&path, RowFormat::Auto).unwrap_err();
    error
        .to_string()
        .replace(&format!("{}/", folder.path().display()), "")
}

/// One row of each maker, as their files have them.
#[test]
fn every_format_is_found_out_and_read() {
    let cases = [
        (
            r#"{"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "reasoning_content": "r"}]}"#,
            RowFormat::Messages,
            "u:q;a:(r)a;",
        ),
        (
            r#"{"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": [{"type": "reasoning", "value": "r"}, {"type": "text", "value": "a"}]}]}"#,
            RowFormat::Messages,
            "s:s;u:q;a:(r)a;",
        ),
        (
            r#"{"id": 1, "system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}"#,
            RowFormat::Sharegpt,
            "s:s;u:q;a:a;",
        ),
        (
            r#"{"instruction": "q", "input": "i", "output": "a", "system": "s", "history": [["q0", "a0"]]}"#,
            RowFormat::Alpaca,
            "s:s;u:q0;a:a0;u:q\ni;a:a;",
        ),
        (
            r#"{"instruction": "q", "output": "a"}"#,
            RowFormat::Alpaca,
            "u:q;a:a;",
        ),
        (
            r#"{"prompt": "q", "response": "a", "metadata": {}}"#,
            RowFormat::PromptResponse,
            "u:q;a:a;",
        ),
        (
            r#"{"problem": "q", "cot": ["r1", "r2"], "answer": "a"}"#,
            RowFormat::PromptResponse,
            "u:q;a:(r1\nr2)a;",
        ),
        (
            r#"{"id": 0, "pre_query_template": "<|im_start|>user\n", "instruction": "q", "response": "a", "gen_input_configs": {}}"#,
            RowFormat::Magpie,
            "u:q;a:a;",
        ),
        (
            r#"{"instruction": "q", "response": null, "responses": ["a", "b", "c"], "rewards_armorm": [{"score": 0.1}, {"score": 0.3}, {"score": 0.2}], "gen_input_configs": {}}"#,
            RowFormat::Magpie,
            "u:q;a:b;",
        ),
        (
            r#"{"instruction": "q", "responses": ["a", "b"], "rewards_kindling": [{"score": 0.1}, {"score": 0.3}], "gen_input_configs": {}}"#,
            RowFormat::Magpie,
            "u:q;a:b;",
        ),
        (
            r#"{"conversation_id": "m_0", "instruction": "q", "response": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "gen_input_configs": {}}"#,
            RowFormat::Sharegpt,
            "u:q;a:a;",
        ),
    ];
    for (row, format, turns) in cases {
        let (found, rows) = read("a.jsonl", row);
        assert_eq!(
            (found, chats(rows)),
            (format, vec![turns.to_owned()]),
            "{row}"
        );
        let (found, rows) = read("a.json", format!("[{row},\n{row}]"));
        assert_eq!(found, format);
        assert_eq!(rows[1].line, 2);
        assert_eq!(chats(rows), [turns, turns]);
    }
}

/// MiniMind v1's table: the history is a Python list, a cell may hold line ends.
#[test]
fn minimind_tables_are_read() {
    let table = "history,q,a\n[],q1,\"a\n1\"\n\"[['q0', 'it\\'s'], ['x', 'y']]\",q2,a2\n\
        system(),q3,a3\n[],q4\n";
    let (format, rows) = read("sft.csv", table);
    assert_eq!(format, RowFormat::MinimindCsv);
    let chats = chats(rows);
    assert_eq!(
        chats[..3],
        [
            "u:q1;a:a\n1;",
            "u:q0;a:it's;u:x;a:y;u:q2;a:a2;",
            "5: field `history`: found `s` at character 1, expected a list"
        ]
    );
    assert!(
        chats[3].starts_with("6: not a row of the table: "),
        "{chats:?}"
    );
}

/// Some files are one object around the list of rows, whose name says what they are.
#[test]
fn wrapped_files_are_unwrapped() {
    let (format, rows) = read(
        "a.json",
        r#"{"instructions": [{"instruction": "q", "input": "", "output": "a"}, {"instruction": "r", "output": "b"}]}"#,
    );
    assert_eq!(format, RowFormat::Alpaca);
    assert_eq!(chats(rows), ["u:q;a:a;", "u:r;a:b;"]);
    let (format, rows) = read(
        "a.json",
        r#"{"reasoning_examples": [{"problem": "q", "cot": ["r"], "answer": "a"}]}"#,
    );
    assert_eq!(format, RowFormat::PromptResponse);
    assert_eq!(chats(rows), ["u:q;a:(r)a;"]);
    let (format, rows) = read(
        "a.json",
        r#"{"pairs": [{"prompt": "q", "chosen": "a", "rejected": "b"}]}"#,
    );
    assert_eq!(format, RowFormat::Preference);
    assert_eq!(chats(rows), ["u:q;a:a;"]);
    let error = open_error("a.json", r#"{"prompts": ["q"]}"#);
    assert!(
        error.starts_with("a.json: the first rows look like no known format, found `prompt`;"),
        "{error}"
    );
}

/// The two answers of one question, in the layouts of eight makers.
#[test]
fn preferences_of_every_layout_are_read() {
    let rows = [
        r#"{"prompt": "q", "chosen": "a", "rejected": "b"}"#,
        r#"{"question": "q", "response_chosen": "a", "response_rejected": "b"}"#,
        r#"{"instruction": "q", "input": "", "output": "x", "chosen": "a", "rejected": "b"}"#,
        r#"{"instruction": "q", "input": "", "output": ["a", "b"], "history": []}"#,
        r#"{"conversations": [{"from": "human", "value": "q"}], "chosen": {"from": "gpt", "value": "a"}, "rejected": {"from": "gpt", "value": "b"}}"#,
        r#"{"conversations": [{"from": "human", "value": "q"}], "chosen": "a", "rejected": "b"}"#,
        r#"{"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"prompt": "q", "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"prompt": "q", "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}"#,
        r#"{"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"}"#,
    ];
    let expected = PreferenceRow {
        prompt: vec![Message::new("user", "q")],
        tools: Vec::new(),
        chosen: Some(Message::new("assistant", "a")),
        rejected: Some(Message::new("assistant", "b")),
    };
    for row in rows {
        let (format, mut found) = read("a.jsonl", row);
        assert_eq!(format, RowFormat::Preference, "{row}");
        let found = found.remove(0).row.unwrap();
        assert_eq!(found, Row::Preference(Box::new(expected.clone())), "{row}");
    }
}

/// The whole dialogue before the last answer is the question (and nothing of it is an answer).
#[test]
fn dialogues_keep_their_shared_beginning() {
    let text = |question: &str, answer: &str| {
        format!("\\n\\nHuman: q\\n\\nAssistant: x\\n\\nHuman: {question}\\n\\nAssistant: {answer}")
    };
    let row = |chosen: &str, rejected: &str| {
        format!("{{\"chosen\": \"{chosen}\", \"rejected\": \"{rejected}\"}}\n")
    };
    let file = row(&text("r", "a"), &text("r", "b"))
        + &row(&text("r", "a"), &text("s", "b"))
        + &row("a", "b");
    let (_, rows) = read("a.jsonl", file);
    assert_eq!(
        chats(rows),
        [
            "u:q;a:x;u:r;a:a;",
            "2: `chosen` and `rejected` differ before their last turn, expected one question",
            "3: `chosen` has no \"Human:\" followed by \"Assistant:\", expected a dialogue",
        ]
    );
}

/// KTO's rows have one answer and say whether it is good.
#[test]
fn judged_answers_are_half_a_preference() {
    let row = |label: &str| {
        format!(
            r#"{{"messages": [{{"role": "user", "content": "q"}}, {{"role": "assistant", "content": "a"}}], "label": {label}}}"#
        )
    };
    let (format, rows) = read("a.jsonl", row("true") + "\n" + &row("false"));
    assert_eq!(format, RowFormat::Preference);
    assert_eq!(
        chats(rows),
        [
            "u:q;a:a;",
            "2: field `chosen` holds no answer, expected one to learn from"
        ]
    );
}

/// ShareGPT's calls and observations become the turns that templates know.
#[test]
fn tool_calls_are_read() {
    let row = r#"{"tools": "[{\"name\": \"f\"}]", "conversations": [
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"x\": 1}}"},
        {"from": "observation", "value": {"y": 2}},
        {"from": "gpt", "value": "a"}]}"#;
    let (_, mut rows) = read("a.json", row);
    let row = rows.remove(0).row.unwrap().into_chat().unwrap();
    assert_eq!(row.tools, [serde_json::json!({"name": "f"})]);
    let calls = &row.conversations[1].tool_calls;
    assert_eq!(
        calls,
        &[serde_json::json!({"name": "f", "arguments": {"x": 1}})]
    );
    assert_eq!(row.conversations[2], Message::new("tool", "{\"y\":2}"));
    let row = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": null,
        "tool_calls": [{"id": "0", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]}"#;
    let (_, mut rows) = read("a.json", row);
    let row = rows.remove(0).row.unwrap().into_chat().unwrap();
    assert_eq!(row.conversations[1].tool_calls.len(), 1);
}

/// Reading goes on after each of them; the line is the one that must be mended.
#[test]
fn bad_rows_are_named_and_passed_over() {
    let good = r#"{"instruction": "q", "output": "a"}"#;
    let file = format!(
        "{good}\n{{\"instruction\": \"q\"\n\n{{\"instruction\": 3, \"output\": \"a\"}}\n\
         {{\"instruction\": \"q\"}}\n[1]\n{good}\n"
    );
    let (_, rows) = read("a.jsonl", file.as_bytes());
    assert_eq!(
        chats(rows),
        [
            "u:q;a:a;",
            "2: not JSON: EOF while parsing an object at line 1 column 19",
            "4: field `instruction` is a number, expected a string",
            "5: no field `output`, found `instruction`",
            "6: the row is a list, expected an object",
            "u:q;a:a;",
        ]
    );
    let turns = r#"{"messages": [{"role": "user", "content": "q"}, {"role": "assistant"}]}
        {"messages": [{"role": "user", "content": "q"}, {"role": "gpt", "content": "a"}]}
        {"messages": [{"role": "user", "content": "q"}]}
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": 1}]}"#;
    let (_, rows) = read("a.jsonl", turns);
    assert_eq!(
        chats(rows),
        [
            "1: turn 2: no field `content`, found `role`",
            "2: turn 2 has the role `gpt`, expected one of system, user, assistant, tool",
            "3: found 1 turns and none of an assistant, expected at least one to learn from",
            "4: turn 2: field `content` is a number, expected a string or a list of parts",
        ]
    );
    let (_, rows) = read_as("a.jsonl", good, RowFormat::Sharegpt);
    assert_eq!(
        chats(rows),
        ["1: no field `conversations`, found `instruction`, `output`"]
    );
}

/// A row over the limit is one bad row, not the end of the file.
#[test]
fn a_huge_row_is_one_bad_row() {
    let good = r#"{"instruction": "q", "output": "a"}"#;
    let huge = "x".repeat(crate::lines::MAX_LINE_BYTES + 10);
    let expected = [
        "u:q;a:a;",
        "2: longer than the limit of 67108864 bytes",
        "u:q;a:a;",
    ];
    let (_, rows) = read("a.jsonl", format!("{good}\n{huge}\n{good}"));
    assert_eq!(chats(rows), expected);
    let (_, rows) = read(
        "a.json",
        format!("[{good},\n{{\"instruction\": \"{huge}\"}},\n{good}]"),
    );
    assert_eq!(chats(rows), expected);
}

/// A cell that is never closed has no end after which to go on: the file is refused at its line.
#[test]
fn a_huge_cell_ends_the_table() {
    let huge = "x".repeat(2 * crate::lines::MAX_LINE_BYTES);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    fs::write(
        &path,
        format!("history,q,a\n[],q,a\n[],q,\"{huge}\n[],q,a\n"),
    )
    .unwrap();
    let mut reader = RowReader::open(&path, RowFormat::MinimindCsv).unwrap();
    assert!(reader.next().unwrap().unwrap().row.is_ok());
    let error = reader.next().unwrap().unwrap_err().to_string();
    assert!(
        error.contains("a.csv:3: longer than the limit of 67108864 bytes"),
        "{error}"
    );
    assert!(reader.next().is_none());

    fs::write(&path, "history,q,a\n[],q,a\n[],q,\"a\n[],q,a\n").unwrap();
    let mut reader = RowReader::open(&path, RowFormat::MinimindCsv).unwrap();
    assert!(reader.next().unwrap().unwrap().row.is_ok());
    let error = reader.next().unwrap().unwrap_err().to_string();
    assert!(
        error.ends_with("a.csv:3: the row has a quote that is never closed"),
        "{error}"
    );
}

/// Nothing to find a format in, or nothing that has one.
#[test]
fn files_without_a_format_are_refused() {
    assert_eq!(
        open_error("a.jsonl", ""),
        "a.jsonl: the first rows look like no known format, found no row that can be read; expected \
         messages, sharegpt, alpaca, prompt_response, magpie, minimind_csv, preference or \
         loyalty, or set \
         the format"
    );
    for name in ["a.json", "a.csv"] {
        assert!(
            open_error(name, "").contains("no row that can be read"),
            "{name}"
        );
    }
    assert!(open_error("a.jsonl", r#"{"text": "hi"}"#).contains("found `text`;"));
    assert_eq!(
        open_error("a.xlsx", ""),
        "a.xlsx: unknown kind of file, expected .jsonl, .json or .csv, each also with .gz, or \
         .parquet"
    );
    let error = RowReader::open(Path::new("no/such.jsonl"), RowFormat::Auto).unwrap_err();
    assert_eq!(error.to_string(), "no/such.jsonl: cannot be read");
}
