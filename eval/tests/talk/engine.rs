//! The engine's text against scripted models, whose answers are known byte by byte.

use std::fs;
use std::path::Path;

use crate::scripted::{
    BOS, EOS, byte_tokenizer, model_that_writes, token_of, write_byte_tokenizer,
};
use burn::prelude::Device;
use eval::engine::{Answer, AnswerConfig, Engine, EngineError};
use model::causal_lm::CausalLm;
use model::generate::{FinishReason, Prompt};
use model::hf::save_model;

fn engine_that_writes(answer: &str) -> Engine {
    Engine::new(model_that_writes('?', answer), byte_tokenizer())
}

fn question() -> Prompt {
    Prompt {
        input_ids: vec![BOS, token_of(b'?')],
        seed: 0,
    }
}

fn config(engine: &Engine, stop_strings: &[&str], max_new_tokens: usize) -> AnswerConfig {
    let mut config = engine.defaults.clone();
    config.generate.max_new_tokens = max_new_tokens;
    config.stop_strings = stop_strings.iter().map(ToString::to_string).collect();
    config
}

/// The pieces of one answer, how it ended and the number of its tokens.
fn stream(engine: &Engine, config: &AnswerConfig) -> (Vec<String>, FinishReason, usize) {
    let mut stream = engine.stream(question(), config).unwrap();
    let pieces = stream.by_ref().map(Result::unwrap).collect();
    (pieces, stream.finish_reason().unwrap(), stream.num_tokens())
}

/// One piece per token (the last of them the stop id) and one for what was held back.
#[test]
fn half_characters_are_held_back() {
    let engine = engine_that_writes("a中é!");
    let (pieces, reason, num_tokens) = stream(&engine, &engine.defaults);
    assert_eq!(pieces, ["a", "", "", "中", "", "é", "!", "", ""]);
    assert_eq!((reason, num_tokens), (FinishReason::Stop, 8));
}

/// `S`, `ST` and `STO` could be the stop string, so they are never seen; `d` is never written.
#[test]
fn a_stop_string_over_several_tokens_never_shows() {
    let engine = engine_that_writes("abcSTOPd");
    let (pieces, reason, num_tokens) = stream(&engine, &config(&engine, &["STOP"], 100));
    assert_eq!(pieces, ["a", "b", "c", "", "", "", "", ""]);
    assert_eq!((reason, num_tokens), (FinishReason::Stop, 7));
}

/// Five tokens, none of which is a whole character.
#[test]
fn a_stop_string_may_be_of_several_bytes_per_character() {
    let engine = engine_that_writes("x中é");
    let (pieces, reason, _) = stream(&engine, &config(&engine, &["中é"], 100));
    assert_eq!(pieces.concat(), "x");
    assert_eq!(reason, FinishReason::Stop);
}

/// The answer ends in the middle of what could have been a stop string.
#[test]
fn the_beginning_of_a_stop_string_shows_at_the_end() {
    let engine = engine_that_writes("abST");
    let (pieces, reason, _) = stream(&engine, &config(&engine, &["STOP"], 100));
    assert_eq!(pieces, ["a", "b", "", "", "", "ST"]);
    assert_eq!(reason, FinishReason::Stop);
}

/// Four tokens are allowed and the fourth completes the stop string: the text ended by itself.
#[test]
fn a_stop_string_in_the_last_token_allowed_is_a_stop() {
    let engine = engine_that_writes("abSTx");
    let (pieces, reason, _) = stream(&engine, &config(&engine, &["ST"], 4));
    assert_eq!(
        (pieces.concat().as_str(), reason),
        ("ab", FinishReason::Stop)
    );
    let (pieces, reason, _) = stream(&engine, &config(&engine, &["STx"], 4));
    assert_eq!(
        (pieces.concat().as_str(), reason),
        ("abST", FinishReason::Length)
    );
}

/// What the model had written but could have been a stop string belongs to the answer.
#[test]
fn an_interrupted_answer_keeps_what_was_held_back() {
    let engine = engine_that_writes("abcde");
    let config = config(&engine, &["bX"], 100);
    let mut stream = engine.stream(question(), &config).unwrap();
    let mut text = stream.next().unwrap().unwrap() + &stream.next().unwrap().unwrap();
    assert_eq!(text, "a");
    stream.interrupt();
    stream.for_each(|piece| text.push_str(&piece.unwrap()));
    assert_eq!(text, "ab");
}

/// Two rows of different length; the second begins within the script.
#[test]
fn a_batch_of_answers_is_what_each_prompt_gets_alone() {
    let engine = engine_that_writes("a中bSTOPc");
    let inside = Prompt {
        input_ids: vec![token_of(b'x'), token_of(b'y'), token_of(b'b')],
        seed: 1,
    };
    let answers = engine
        .answer_all(
            &[
                question(),
                inside,
                Prompt {
                    input_ids: vec![token_of(b'c')],
                    seed: 2,
                },
            ],
            &config(&engine, &["OP"], 6),
        )
        .unwrap();
    let expected = [
        ("a中bS", 6, FinishReason::Length),
        ("ST", 4, FinishReason::Stop),
        ("", 1, FinishReason::Stop),
    ];
    let expected = expected.map(|(text, num_tokens, finish_reason)| Answer {
        text: text.to_owned(),
        num_tokens,
        finish_reason,
    });
    assert_eq!(answers, expected);
}

fn saved(model: &CausalLm) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    save_model(model, dir.path()).unwrap();
    write_byte_tokenizer(dir.path());
    dir
}

fn load(dir: &Path) -> Result<Engine, EngineError> {
    Engine::load(dir, &Device::flex())
}

/// Weights, tokenizer and stop id all come from the folder.
#[test]
fn a_saved_folder_answers_as_the_model_in_memory() {
    let dir = saved(&model_that_writes('?', "helo"));
    let engine = load(dir.path()).unwrap();
    assert_eq!(engine.defaults.generate.eos_token_id, [EOS]);
    let (pieces, reason, _) = stream(&engine, &engine.defaults);
    assert_eq!(
        (pieces.concat().as_str(), reason),
        ("helo", FinishReason::Stop)
    );
}

/// The folder's settings are the defaults, and MiniMind's where it has none.
#[test]
fn the_folder_says_how_it_wants_to_be_asked() {
    let dir = saved(&model_that_writes('?', "a"));
    let settings = r#"{"eos_token_id": [2, 7], "temperature": 0.5, "max_new_tokens": 9}"#;
    fs::write(dir.path().join("generation_config.json"), settings).unwrap();
    let generate = load(dir.path()).unwrap().defaults.generate;
    assert_eq!(generate.eos_token_id, [2, 7]);
    assert_eq!((generate.max_new_tokens, generate.top_k), (9, 50));
    assert_eq!(generate.temperature.to_bits(), 0.5_f64.to_bits());
}

/// A tokenizer with one token too many would index past the embedding.
#[test]
fn a_tokenizer_that_does_not_fit_the_model_is_refused() {
    let dir = saved(&model_that_writes('?', "a"));
    let path = dir.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let larger = text.replacen(r#""vocab":{"#, r#""vocab":{"extra":259,"#, 1);
    assert_ne!(text, larger);
    fs::write(&path, larger).unwrap();
    let message = load(dir.path()).unwrap_err().to_string();
    let expected = format!(
        "{}: the tokenizer has 260 tokens, expected at most the model's vocab_size = 259",
        dir.path().display()
    );
    assert_eq!(message, expected);
}

/// The tokenizer is looked for first: it is small.
#[test]
fn an_empty_folder_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let message = load(dir.path()).unwrap_err().to_string();
    assert!(
        message.ends_with("tokenizer.json: cannot be read"),
        "{message}"
    );
}
