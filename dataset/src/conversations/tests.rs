//! What is trained of random conversations, and the options that change conversations.

use std::fmt::Write as _;
use std::fs;

use super::*;
use crate::draw::Draw;
use crate::rows::RowFormat;
use crate::tokenizer_train::{SpecialTokens, TokenizerTrainer};

const WORDS: [&str; 9] = [
    "the",
    " cat",
    "\n",
    " hat ",
    "人工智能",
    "🦀",
    "<|im_end|>",
    "  ",
    "<s>",
];

fn tokenizer(special_tokens: SpecialTokens) -> Tokenizer {
    let trainer = TokenizerTrainer {
        vocab_size: 340,
        special_tokens,
        ..TokenizerTrainer::default()
    };
    trainer
        .train(["the cat and the hat", "人工智能"].iter())
        .unwrap()
}

fn encoder<'a>(
    tokenizer: &'a Tokenizer,
    options: &'a ConversationOptions,
) -> ConversationEncoder<'a> {
    ConversationEncoder {
        tokenizer,
        template: tokenizer.chat_template().unwrap(),
        options,
    }
}

fn text_of_trained(tokenizer: &Tokenizer, document: &DocumentTokens) -> String {
    let trained = document.trained.as_ref().unwrap();
    let ids = document.ids.iter().zip(trained);
    let ids: Vec<u32> = ids
        .filter(|(_, trained)| **trained)
        .map(|(id, _)| *id)
        .collect();
    tokenizer.decode(&ids, false)
}

fn chat(turns: &[(&str, &str)]) -> ChatRow {
    ChatRow {
        conversations: turns
            .iter()
            .map(|(role, text)| Message::new(*role, *text))
            .collect(),
        tools: Vec::new(),
    }
}

/// The labelled tokens of a conversation are what its assistant says, with the ends of its turns,
/// and nothing else; the text of all tokens is the template's.
#[test]
fn labelled_tokens_are_exactly_what_assistants_say() {
    let mut draw = Draw::new(5, 0);
    for (special_tokens, end) in [
        (SpecialTokens::V1, "</s>"),
        (SpecialTokens::V3, "<|im_end|>"),
    ] {
        let tokenizer = tokenizer(special_tokens);
        let options = ConversationOptions::default();
        let encoder = encoder(&tokenizer, &options);
        for number in 0..200 {
            let mut row = ChatRow::default();
            if draw.chance(30) {
                row.conversations.push(Message::new("system", "the hat"));
            }
            let mut expected = String::new();
            for _ in 0..=draw.below(3) {
                let mut text = |most| -> String {
                    (0..=draw.below(most)).map(|_| *draw.pick(&WORDS)).collect()
                };
                row.conversations.push(Message::new("user", text(6)));
                // What a template trims of an answer is its business, so answers end in a word.
                let answer = format!("a{}z", text(6));
                expected.push_str(&answer);
                expected.push_str(end);
                row.conversations.push(Message::new("assistant", answer));
            }
            let rendered = encoder
                .template
                .render(&row.conversations, &RenderOptions::default())
                .unwrap();
            let document = encoder.encode(row, number).unwrap();
            assert_eq!(text_of_trained(&tokenizer, &document), expected);
            assert_eq!(document.num_bytes, expected.len() as u64);
            assert_eq!(tokenizer.decode(&document.ids, false), rendered);
        }
    }
}

/// With thoughts, calls and what functions answer in between, in MiniMind-3's form: an answer without
/// thoughts begins behind the closed think block, one with thoughts inside the open one.
#[test]
fn labelled_tokens_are_exactly_what_assistants_think_and_call() {
    let mut draw = Draw::new(6, 0);
    let tokenizer = tokenizer(SpecialTokens::V3);
    let options = ConversationOptions::default();
    let encoder = encoder(&tokenizer, &options);
    let call = serde_json::json!({"name": "f", "arguments": {"x": "人工"}});
    let written = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"人工\"}}\n</tool_call>";
    let (mut num_thoughts, mut num_calls) = (0, 0);
    for number in 0..200 {
        let mut row = chat(&[("user", "the cat")]);
        if draw.chance(50) {
            row.tools = vec![serde_json::json!({"name": "f"})];
        }
        let mut expected = String::new();
        for _ in 0..=draw.below(3) {
            let mut text = |most| -> String {
                let words = (0..=draw.below(most)).map(|_| *draw.pick(&WORDS));
                format!("a{}z", words.collect::<String>())
            };
            let mut turn = Message::new("assistant", text(4));
            let (thoughts, observation) = (text(4), text(4));
            if draw.chance(50) {
                num_thoughts += 1;
                let _ = write!(expected, "{thoughts}\n</think>\n\n");
                turn.reasoning_content = Some(thoughts);
            }
            let is_call = draw.chance(40);
            if is_call && draw.chance(50) {
                turn.content.clear();
            }
            expected.push_str(&turn.content);
            if is_call {
                num_calls += 1;
                if !turn.content.is_empty() {
                    expected.push('\n');
                }
                expected.push_str(written);
                turn.tool_calls = vec![call.clone()];
            }
            expected.push_str("<|im_end|>");
            row.conversations.push(turn);
            let speaker = if is_call { "tool" } else { "user" };
            row.conversations.push(Message::new(speaker, observation));
        }
        let document = encoder.encode(row, number).unwrap();
        assert_eq!(text_of_trained(&tokenizer, &document), expected);
    }
    assert!(num_thoughts > 50 && num_calls > 50);
}

/// Thoughts are learned or left out, wherever the file has them.
#[test]
fn thoughts_are_kept_or_stripped() {
    let tokenizer = tokenizer(SpecialTokens::V3);
    let mut thinking = chat(&[("user", "the"), ("assistant", "cat")]);
    thinking.conversations[1].reasoning_content = Some("hat".to_owned());
    let inline = chat(&[
        ("user", "the"),
        ("assistant", "<think>\nhat\n</think>\n\ncat"),
    ]);
    for (thinking_option, expected) in [
        (Thinking::Keep, "hat\n</think>\n\ncat<|im_end|>"),
        (Thinking::Strip, "cat<|im_end|>"),
    ] {
        let options = ConversationOptions {
            thinking: thinking_option,
            ..ConversationOptions::default()
        };
        for row in [&thinking, &inline] {
            let document = encoder(&tokenizer, &options)
                .encode(row.clone(), 0)
                .unwrap();
            assert_eq!(text_of_trained(&tokenizer, &document), expected);
        }
    }
}

/// Of 500 conversations a fifth is given a prompt, and a fifth keeps its empty block (3 sigma are
/// 27); the same ones every time.
#[test]
fn augmentation_follows_the_seed() {
    let tokenizer = tokenizer(SpecialTokens::V3);
    let options = ConversationOptions {
        empty_think_ratio: 0.2,
        system_prompt_ratio: 0.2,
        system_prompts: vec!["the hat".to_owned(), "the cat".to_owned()],
        seed: 3,
        ..ConversationOptions::default()
    };
    let texts = |options: &ConversationOptions| -> Vec<String> {
        (0..500)
            .map(|number| {
                let row = chat(&[("user", "and"), ("assistant", "cat")]);
                let document = encoder(&tokenizer, options).encode(row, number).unwrap();
                assert_eq!(text_of_trained(&tokenizer, &document), "cat<|im_end|>");
                tokenizer.decode(&document.ids, false)
            })
            .collect()
    };
    let first = texts(&options);
    let count = |part: &str| first.iter().filter(|text| text.contains(part)).count();
    assert!(count("<think>").abs_diff(100) < 27, "{}", count("<think>"));
    let (hats, cats) = (count("system\nthe hat"), count("system\nthe cat"));
    assert!(
        (hats + cats).abs_diff(100) < 27 && hats.min(cats) > 25,
        "{hats} {cats}"
    );
    assert_eq!(first, texts(&options));
    assert_ne!(first, texts(&ConversationOptions { seed: 4, ..options }));
}

/// A system prompt of its own, or functions to call, leave a conversation as it is.
#[test]
fn conversations_with_instructions_are_not_augmented() {
    let tokenizer = tokenizer(SpecialTokens::V3);
    let options = ConversationOptions {
        system_prompt_ratio: 1.0,
        system_prompts: vec!["the hat".to_owned()],
        ..ConversationOptions::default()
    };
    let mut with_tools = chat(&[("user", "the"), ("assistant", "cat")]);
    with_tools.tools = vec![serde_json::json!({"name": "f"})];
    let with_system = chat(&[("system", "S"), ("user", "the"), ("assistant", "cat")]);
    for row in [with_tools, with_system] {
        let document = encoder(&tokenizer, &options).encode(row, 0).unwrap();
        let text = tokenizer.decode(&document.ids, false);
        assert!(!text.contains("the hat"), "{text}");
    }
}

/// A file may hold a few bad rows, not many, and never only such.
#[test]
fn too_many_bad_rows_are_an_error() {
    let tokenizer = tokenizer(SpecialTokens::V1);
    let options = ConversationOptions::default();
    let encoder = encoder(&tokenizer, &options);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jsonl");
    let good = "{\"instruction\": \"the\", \"output\": \"cat\"}\n";
    fs::write(&path, format!("{}nope\n", good.repeat(9))).unwrap();
    let files = [path.display().to_string()];

    let read = |max_bad_ratio| encoder.encode_files(&files, RowFormat::Auto, max_bad_ratio);
    let (documents, summaries) = read(0.1).unwrap();
    assert_eq!(documents.len(), 9);
    let text = summaries[0].to_string();
    assert!(
        text.ends_with(
            "10 rows of the format alpaca, 1 of them left out, the first at line 10: not JSON: \
             expected ident at line 1 column 2"
        ),
        "{text}"
    );
    let text = read(0.09).unwrap_err().to_string();
    assert!(
        text.ends_with(
            "a.jsonl:10: not a valid row (1 of 10 rows are not, expected at most a share of 0.09): \
             not JSON: expected ident at line 1 column 2"
        ),
        "{text}"
    );
    fs::write(&path, "{\"instruction\": \"the\", \"output\": 1}\n").unwrap();
    let text = read(1.0).unwrap_err().to_string();
    assert!(
        text.ends_with("a.jsonl: found no conversation, expected at least one"),
        "{text}"
    );
}
