//! What a conversation shows a model, in MiniMind v1's template and one token per byte.

use crate::scripted::{BOS, EOS, MAX_POSITIONS, byte_tokenizer, model_that_writes, token_of};
use eval::chat::{Conversation, Mode};
use eval::engine::Engine;
use model::training_record::TrainingRecord;

fn engine() -> Engine {
    Engine::new(model_that_writes('\n', "ok"), byte_tokenizer())
}

fn chat<'a>(engine: &'a Engine, system: Option<&str>, num_remembered: usize) -> Conversation<'a> {
    Conversation::new(
        engine,
        Mode::Chat,
        system.map(str::to_owned),
        num_remembered,
    )
    .unwrap()
}

fn bytes(text: &str) -> impl Iterator<Item = u32> {
    text.bytes().map(token_of)
}

/// Ids of a text in which `[` stands for bos and `]` for eos.
fn ids(text: &str) -> Vec<u32> {
    let id = |byte| match byte {
        b'[' => BOS,
        b']' => EOS,
        byte => token_of(byte),
    };
    text.bytes().map(id).collect()
}

/// MiniMind v1's template: turns stand between bos and eos.
#[test]
fn a_question_is_asked_in_the_template() {
    let engine = engine();
    let prompt = chat(&engine, None, 0).prompt_ids("hi", 8).unwrap();
    assert_eq!(prompt.ids, ids("[user\nhi]\n[assistant\n"));
    assert_eq!(prompt.num_forgotten, 0);
}

/// MiniMind's `--historys 0` forgets, `2` shows the last exchanges.
#[test]
fn only_as_many_turns_are_shown_as_are_remembered() {
    let engine = engine();
    for (num_remembered, shown) in [
        (0, ""),
        (1, "[user\nb]\n[assistant\nB]\n"),
        (5, "[user\na]\n[assistant\nA]\n[user\nb]\n[assistant\nB]\n"),
    ] {
        let mut conversation = chat(&engine, None, num_remembered);
        conversation.remember("a", "A");
        conversation.remember("b", "B");
        let prompt = conversation.prompt_ids("c", 8).unwrap();
        assert_eq!(prompt.ids, ids(&format!("{shown}[user\nc]\n[assistant\n")));
        conversation.reset();
        let prompt = conversation.prompt_ids("c", 8).unwrap();
        assert_eq!(prompt.ids, ids("[user\nc]\n[assistant\n"));
    }
}

/// As Qwen3's template, which writes an empty thought before the last answer only.
#[test]
fn a_template_may_render_earlier_answers_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("template.jinja");
    let template = "{% for m in messages %}{{ m.role[0] }}:{{ m.content }}\
                    {% if loop.last and m.role == 'assistant' %}~{% endif %};{% endfor %}";
    std::fs::write(&path, template).unwrap();
    let tokenizer = byte_tokenizer().with_chat_template(&path).unwrap();
    let engine = Engine::new(model_that_writes('\n', "ok"), tokenizer);
    let mut conversation = chat(&engine, None, 5);
    conversation.remember("a", "A");
    let prompt = conversation.prompt_ids("b", 8).unwrap();
    assert_eq!(prompt.ids, ids("u:a;a:A;u:b;"));
}

/// The bytes of `</s>` in a question are four letters, not the end of the turn.
#[test]
fn a_question_cannot_end_its_turn() {
    let engine = engine();
    let prompt = chat(&engine, None, 0).prompt_ids("a</s>b", 8).unwrap();
    let mut expected = ids("[user\n");
    expected.extend(bytes("a</s>b"));
    expected.extend(ids("]\n[assistant\n"));
    assert_eq!(prompt.ids, expected);
}

/// By hand: 72 of 96 positions are for the prompt; a turn takes 23 and the question 20, so two fit.
/// An answer of one token leaves 95, which hold three.
#[test]
fn the_oldest_turns_make_room_for_the_answer() {
    let engine = engine();
    let mut conversation = chat(&engine, None, 10);
    for question in ["a", "b", "c", "d"] {
        conversation.remember(question, "1");
    }
    let last_two = "[user\nc]\n[assistant\n1]\n[user\nd]\n[assistant\n1]\n";
    let prompt = conversation.prompt_ids("q", 512).unwrap();
    assert_eq!(prompt.num_forgotten, 2);
    assert_eq!(
        prompt.ids,
        ids(&format!("{last_two}[user\nq]\n[assistant\n"))
    );
    assert_eq!(conversation.prompt_ids("q", 1).unwrap().num_forgotten, 1);
}

/// The model's own limit then says what is wrong.
#[test]
fn a_question_that_fills_the_context_is_passed_on() {
    let engine = engine();
    let mut conversation = chat(&engine, None, 10);
    conversation.remember("a", "A");
    let prompt = conversation
        .prompt_ids(&"x".repeat(MAX_POSITIONS), 8)
        .unwrap();
    assert_eq!(prompt.num_forgotten, 1);
    assert!(prompt.ids.len() > MAX_POSITIONS);
}

/// The template puts the system text in front of everything; another one begins anew.
#[test]
fn a_system_prompt_comes_first() {
    let engine = engine();
    let mut conversation = chat(&engine, Some("S"), 3);
    conversation.remember("a", "A");
    let shown = conversation.prompt_ids("q", 8).unwrap().ids;
    assert_eq!(
        shown,
        ids("S[user\na]\n[assistant\nA]\n[user\nq]\n[assistant\n")
    );
    conversation.set_system(Some("T".to_owned())).unwrap();
    assert_eq!(
        conversation.prompt_ids("q", 8).unwrap().ids,
        ids("T[user\nq]\n[assistant\n")
    );
}

/// A base model continues the document that the text begins.
#[test]
fn continued_text_stands_behind_bos_alone() {
    let engine = engine();
    let mut conversation = Conversation::new(&engine, Mode::Continue, None, 5).unwrap();
    conversation.remember("a", "A");
    let mut expected = vec![BOS];
    expected.extend(bytes("Once</s>"));
    assert_eq!(
        conversation.prompt_ids("Once</s>", 8).unwrap().ids,
        expected
    );
    let error = conversation.set_system(Some("S".to_owned())).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a system prompt needs a chat model, this one continues text"
    );
}

/// MiniMind's tokenizers carry a template before the model knows it, so the record decides.
#[test]
fn the_training_record_decides_how_a_model_is_talked_to() {
    let mut engine = engine();
    assert_eq!(Mode::of(&engine), Mode::Chat);
    for (is_chat_tuned, mode) in [(false, Mode::Continue), (true, Mode::Chat)] {
        engine.record = Some(TrainingRecord {
            stage: String::new(),
            is_chat_tuned,
            knows_identities: false,
        });
        assert_eq!(Mode::of(&engine), mode);
    }
}
