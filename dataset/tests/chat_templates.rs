//! Rendered conversations and their ids against transformers and MiniMind's own files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dataset::chat::{V1_TEMPLATE, V3_TEMPLATE};
use dataset::{ChatTemplate, Message, RenderOptions, Tokenizer};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    messages: Vec<Message>,
    kwargs: Kwargs,
    text: String,
    ids: Vec<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Kwargs {
    #[serde(default)]
    add_generation_prompt: bool,
    open_thinking: Option<bool>,
    #[serde(default)]
    tools: Vec<Value>,
}

impl Case {
    fn options(&self) -> RenderOptions {
        RenderOptions {
            add_generation_prompt: self.kwargs.add_generation_prompt,
            tools: self.kwargs.tools.clone(),
            enable_thinking: self.kwargs.open_thinking,
        }
    }
}

fn cases() -> BTreeMap<String, Case> {
    let cases: BTreeMap<String, Case> =
        serde_json::from_str(include_str!("golden/chat_templates.json")).expect("it is JSON");
    assert_eq!(cases.len(), 10);
    cases
}

/// MiniMind's tokenizer of that name, or `None` where the corpora are not at hand.
fn minimind_tokenizer(name: &str) -> Option<Tokenizer> {
    let Some(corpora) = std::env::var_os("KINDLING_CORPORA") else {
        println!("skipped: KINDLING_CORPORA is not set");
        return None;
    };
    let folder = PathBuf::from(corpora).join("tokenizer").join(name);
    Some(Tokenizer::load(&folder).expect("a tokenizer of MiniMind"))
}

/// Our templates are written anew; the text is transformers' with MiniMind's templates.
#[test]
fn own_templates_render_as_minimind_does() {
    for (name, case) in cases() {
        let source = if case.tokenizer == "minimind_v1" {
            V1_TEMPLATE
        } else {
            V3_TEMPLATE
        };
        let template: ChatTemplate = source.parse().unwrap();
        let text = template.render(&case.messages, &case.options()).unwrap();
        assert_eq!(text, case.text, "{name}");
    }
}

/// The spans of a conversation are its text, and each assistant turn is trained up to its end.
#[test]
fn spans_of_golden_conversations_join_to_their_text() {
    for (name, case) in cases() {
        let source = if case.tokenizer == "minimind_v1" {
            V1_TEMPLATE
        } else {
            V3_TEMPLATE
        };
        let template: ChatTemplate = source.parse().unwrap();
        let spans = template
            .render_spans(&case.messages, &case.options())
            .unwrap();
        let text: String = spans.iter().map(|span| span.text.as_str()).collect();
        assert_eq!(text, case.text, "{name}");
        let num_trained = spans.iter().filter(|span| span.trained).count();
        let num_turns = case
            .messages
            .iter()
            .filter(|turn| turn.is_assistant())
            .count();
        assert_eq!(num_trained, num_turns, "{name}");
        for span in spans.iter().filter(|span| span.trained) {
            assert!(
                span.text.ends_with("</s>") || span.text.ends_with("<|im_end|>"),
                "{name}"
            );
        }
    }
}

/// MiniMind's own templates and tokenizers, in this room's hands.
#[test]
fn minimind_conversations_have_minimind_ids() {
    for (name, case) in cases() {
        let Some(tokenizer) = minimind_tokenizer(&case.tokenizer) else {
            return;
        };
        let template = tokenizer.chat_template().unwrap();
        let text = template.render(&case.messages, &case.options()).unwrap();
        assert_eq!(text, case.text, "{name}");
        assert_eq!(tokenizer.encode(&text), case.ids, "{name}");
        let encoded = tokenizer
            .encode_chat(&case.messages, &case.options())
            .unwrap()
            .unwrap();
        assert_eq!(encoded.ids, case.ids, "{name}: encoded span by span");
        assert_eq!(tokenizer.decode(&case.ids, false), case.text, "{name}");
    }
}

/// Ids as MiniMind v1's scripts have them hard-coded or print them.
#[test]
fn minimind_v1_ids_are_reproduced() {
    let Some(tokenizer) = minimind_tokenizer("minimind_v1") else {
        return;
    };
    let expected: [(&str, &[u32]); 10] = [
        ("A", &[35]),
        ("D", &[38]),
        ("\n", &[201]),
        ("<s>assistant", &[1, 1078, 538, 501]),
        ("</s>\n", &[2, 201]),
        (
            "<s>user\n你好</s>\n<s>assistant\n",
            &[1, 320, 275, 201, 5134, 2, 201, 1, 1078, 538, 501, 201],
        ),
        ("开始回答问题", &[2112, 6170]),
        ("Hello World", &[42, 392, 338, 6317]),
        (
            "人工智能是计算机科学的一个分支",
            &[2835, 345, 4023, 2603, 6127, 554, 1471],
        ),
        ("", &[]),
    ];
    for (text, ids) in expected {
        assert_eq!(tokenizer.encode(text), ids, "{text:?}");
        assert_eq!(tokenizer.decode(ids, false), text);
    }
    assert_eq!(tokenizer.encode_document("A"), [1, 35, 2]);
    assert_eq!(tokenizer.vocab_size(), 6400);
    assert_eq!(
        (tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()),
        (Some(1), Some(2), 0)
    );
}

/// Ids of MiniMind-3's vocabulary, special and shown tokens among them.
#[test]
fn minimind_v3_ids_are_reproduced() {
    for name in ["minimind_current", "minimind3_hf"] {
        let Some(tokenizer) = minimind_tokenizer(name) else {
            return;
        };
        let expected: [(&str, &[u32]); 6] = [
            ("<|im_start|>assistant\n", &[1, 1388, 570, 811, 234]),
            ("<|im_end|>\n", &[2, 234]),
            ("A", &[68]),
            ("D", &[71]),
            ("Hello World", &[1602, 2968]),
            ("<think>\n\n</think>\n\n", &[25, 234, 234, 26, 234, 234]),
        ];
        for (text, ids) in expected {
            assert_eq!(tokenizer.encode(text), ids, "{name} {text:?}");
        }
        assert_eq!(
            tokenizer.decode(&[1, 25, 68, 2], true),
            "<think>A",
            "{name}"
        );
        assert_eq!(tokenizer.vocab_size(), 6400, "{name}");
        assert_eq!(tokenizer.control_tokens().len(), 36, "{name}");
        assert!(tokenizer.chat_template().is_some(), "{name}");
    }
}

/// What a model is trained on is what MiniMind v1 trains it on, without the line ends around.
#[test]
fn the_answer_and_its_end_are_trained() {
    let Some(tokenizer) = minimind_tokenizer("minimind_v1") else {
        return;
    };
    let messages = [
        Message::new("user", "你好"),
        Message::new("assistant", "你好！"),
    ];
    let encoded = tokenizer
        .encode_chat(&messages, &RenderOptions::default())
        .unwrap()
        .unwrap();
    let trained: Vec<u32> = encoded
        .ids
        .iter()
        .zip(&encoded.trained)
        .filter(|(_, trained)| **trained)
        .map(|(id, _)| *id)
        .collect();
    assert_eq!(trained, [5134, 2207, 2]);
    assert_eq!(encoded.trained[11..], [false, true, true, true, false]);
}

/// The MiniMind 2 tokenizer has no golden conversations, but a template of its own.
#[test]
fn minimind_v2_adds_its_default_system_text() {
    let Some(tokenizer) = minimind_tokenizer("minimind2_v2") else {
        return;
    };
    let template = tokenizer.chat_template().unwrap();
    let text = template
        .render(&[Message::new("user", "你好")], &RenderOptions::default())
        .unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nYou are a helpful assistant<|im_end|>\n<|im_start|>user\n你好<|im_end|>\n"
    );
}
