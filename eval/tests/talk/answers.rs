//! Many answers at once, from scripted models.

use std::collections::BTreeMap;

use crate::scripted::{BOS, byte_tokenizer, model_that_writes, token_of};
use eval::answers::{AnswerEvent, AnswerRequest, Answers, FirstTokenChange};
use eval::engine::Engine;
use model::batch::BatchLimits;
use model::generate::{FinishReason, Prompt};

fn request(engine: &Engine, last: u8, stop_strings: &[&str]) -> AnswerRequest {
    let mut config = engine.defaults.clone();
    config.generate.max_new_tokens = 8;
    config.stop_strings = stop_strings.iter().map(ToString::to_string).collect();
    AnswerRequest {
        prompt: Prompt {
            input_ids: vec![BOS, token_of(last)],
            seed: 0,
        },
        config,
        logit_bias: BTreeMap::new(),
        first_token: FirstTokenChange::default(),
        as_json_object: false,
        num_top_logprobs: None,
        with_prompt_logprobs: false,
    }
}

/// Text and end of every answer, in the order of the requests.
fn answers(engine: &Engine, requests: Vec<AnswerRequest>) -> Vec<(String, FinishReason)> {
    let mut found = vec![(String::new(), FinishReason::Interrupted); requests.len()];
    let limits = BatchLimits {
        max_rows: 2,
        ..BatchLimits::default()
    };
    let mut answers = Answers::new(engine, limits);
    for request in requests {
        answers.submit(request).unwrap();
    }
    while answers.num_requests() > 0 {
        for (id, event) in answers.step() {
            match event {
                AnswerEvent::Token { text, .. } => found[id].0.push_str(&text),
                AnswerEvent::Finished {
                    text,
                    finish_reason,
                } => {
                    found[id].0.push_str(&text);
                    found[id].1 = finish_reason;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    found
}

/// Three requests over two rows: a stop id, a stop string of one of them, the limit.
#[test]
fn every_answer_ends_as_its_own_request_says() {
    let engine = Engine::new(model_that_writes('?', "a中bSTOPcdef"), byte_tokenizer());
    let requests = vec![
        request(&engine, b'?', &["ST"]),
        request(&engine, b'e', &[]),
        request(&engine, b'a', &["xyz"]),
    ];
    let expected = [
        ("a中b", FinishReason::Stop),
        ("f", FinishReason::Stop),
        ("中bSTOP", FinishReason::Length),
    ];
    let expected = expected.map(|(text, reason)| (text.to_owned(), reason));
    assert_eq!(answers(&engine, requests), expected);
}

/// The model is certain to write `hello`; what comes out is an object all the same, closed where the
/// bias wants it.
#[test]
fn a_json_object_is_written_whatever_the_model_would_say() {
    let engine = Engine::new(model_that_writes('?', "helo"), byte_tokenizer());
    let mut asked = request(&engine, b'?', &[]);
    asked.as_json_object = true;
    asked.logit_bias = BTreeMap::from([(token_of(b'}'), 50.0), (token_of(b'{'), 20.0)]);
    let found = answers(&engine, vec![asked]);
    assert_eq!(found, [("{}".to_owned(), FinishReason::Stop)]);
}

/// The model would write `abc`. Without `b` in the first place it writes what is next by its id, and
/// after it what follows that; a divisor of certain logits changes nothing where the likeliest is
/// taken.
#[test]
fn only_the_first_token_is_changed() {
    let engine = Engine::new(model_that_writes('?', "abc"), byte_tokenizer());
    let mut suppressed = request(&engine, b'?', &[]);
    suppressed.config.generate.do_sample = false;
    suppressed.logit_bias = BTreeMap::from([(token_of(b'b'), 5.0)]);
    let mut divided = suppressed.clone();
    suppressed.first_token.suppressed = vec![token_of(b'a')];
    // The bias comes after the division. The final norm makes of the logit 10 · √259 = 161, and
    // 161 / 40 is less than 5.
    divided.first_token.divisor = 40.0;
    let first = |text: &str| (text.to_owned(), FinishReason::Stop);
    let plain = {
        let mut plain = divided.clone();
        plain.first_token = FirstTokenChange::default();
        plain
    };
    let found = answers(&engine, vec![suppressed, divided, plain]);
    assert_eq!(found, [first("bc"), first("bc"), first("abc")]);
}
