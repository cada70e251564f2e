//! Batches against the same requests alone.

use super::*;
use crate::config::{ModelConfig, ModelType};
use crate::generate::{GenerateConfig, Prompt};

const VOCAB_SIZE: u32 = 67;

/// Wide enough that its choices are no near ties; its longest prompts are of several pieces.
fn model() -> CausalLm {
    let config = ModelConfig {
        model_type: ModelType::Qwen3,
        vocab_size: VOCAB_SIZE as usize,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 300,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        experts: None,
        rope_scaling: None,
        tie_word_embeddings: true,
        initializer_range: 0.3,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        pad_token_id: Some(0),
    };
    CausalLm::new(&config, 7, &Device::flex())
}

/// A request of some length; every second one samples.
fn request(number: usize, prompt_len: usize) -> Request {
    let ids = (0..prompt_len as u32).map(|t| (t * t + 5 * number as u32) % VOCAB_SIZE);
    let prompt = Prompt {
        input_ids: ids.collect(),
        seed: number as u64,
    };
    let config = if number.is_multiple_of(2) {
        GenerateConfig::greedy(12 + number)
    } else {
        GenerateConfig::minimind(12 + number)
    };
    Request {
        num_top_logprobs: Some(2),
        ..Request::new(prompt, &config)
    }
}

/// Ids, and bits of the log-probabilities: the whole logits went into them.
type Answer = Vec<(u32, u32)>;

fn collect(answers: &mut [Answer], events: Vec<(RequestId, Event)>, first: RequestId) {
    for (id, event) in events {
        if let Event::Token {
            token_id, logprobs, ..
        } = event
        {
            let bits = logprobs.unwrap().logprob.to_bits();
            answers[id - first].push((token_id, bits));
        }
    }
}

fn alone(model: &CausalLm, request: &Request) -> Answer {
    let mut batch = Batch::new(model, BatchLimits::default());
    batch.submit(request.clone()).unwrap();
    let mut answers = vec![Answer::new()];
    while batch.num_requests() > 0 {
        collect(&mut answers, batch.step(), 0);
    }
    answers.remove(0)
}

/// Eleven requests in a batch of six rows, one more every second step: rows join beside rows in
/// the middle of their answers, and prompts are read in pieces between their tokens.
#[test]
fn a_request_does_not_depend_on_who_shares_the_batch() {
    let model = model();
    let lens = [3, 70, 1, 130, 64, 9, 65, 200, 2, 128, 30];
    let requests: Vec<Request> = lens
        .into_iter()
        .enumerate()
        .map(|(number, len)| request(number, len))
        .collect();
    let limits = BatchLimits {
        max_rows: 6,
        pieces_per_step: 1,
        max_cached_tokens: 0,
    };
    let mut batch = Batch::new(&model, limits);
    let mut answers = vec![Answer::new(); requests.len()];
    let mut next = requests.iter();
    let mut most_rows = 0;
    for step in 0.. {
        if step % 2 == 0
            && let Some(request) = next.next()
        {
            batch.submit(request.clone()).unwrap();
        }
        collect(&mut answers, batch.step(), 0);
        most_rows = most_rows.max(batch.rows.len());
        if batch.num_requests() == 0 {
            break;
        }
    }
    assert!(most_rows > 4, "only {most_rows} rows were decoded together");
    for (request, answer) in requests.iter().zip(answers) {
        assert_eq!(answer, alone(&model, request));
        assert_eq!(answer.len(), request.config.max_new_tokens);
    }
}

/// Two pieces are kept; the prompt of exactly two pieces may reuse one only, since its last
/// token has to be read.
#[test]
fn a_beginning_that_was_read_before_changes_nothing() {
    let model = model();
    let limits = BatchLimits {
        max_cached_tokens: 256,
        ..BatchLimits::default()
    };
    let mut batch = Batch::new(&model, limits);
    let mut reused = 0;
    for (number, (len, expected)) in [(150, 0), (150, 128), (128, 64), (100, 64), (40, 0)]
        .into_iter()
        .enumerate()
    {
        let mut asked = request(1, len);
        asked.prompt.seed = number as u64;
        let first = batch.submit(asked.clone()).unwrap();
        let mut answers = vec![Answer::new()];
        while batch.num_requests() > 0 {
            collect(&mut answers, batch.step(), first);
        }
        assert_eq!(answers[0], alone(&model, &asked), "{len} tokens");
        assert_eq!(batch.num_reused_tokens() - reused, expected, "{len} tokens");
        reused = batch.num_reused_tokens();
    }
}

/// Five ask the same in a batch of three rows, another thing comes between, and the third of them
/// wants to know of the prompt: read are the first, the third, the other, and the fifth.
#[test]
fn a_prompt_that_many_ask_is_read_once() {
    let model = model();
    let limits = BatchLimits {
        max_rows: 3,
        max_cached_tokens: 0,
        ..BatchLimits::default()
    };
    let mut batch = Batch::new(&model, limits);
    let mut requests: Vec<Request> = (0..6)
        .map(|number| Request {
            prompt: Prompt {
                seed: number,
                ..request(1, 70).prompt
            },
            ..request(1, 70)
        })
        .collect();
    requests[2].with_prompt_logprobs = true;
    requests[3] = request(0, 9);
    for request in &requests {
        batch.submit(request.clone()).unwrap();
    }
    let mut answers = vec![Answer::new(); requests.len()];
    while batch.num_requests() > 0 {
        assert!(batch.rows.len() <= 3);
        collect(&mut answers, batch.step(), 0);
    }
    for (request, answer) in requests.iter().zip(answers) {
        assert_eq!(answer, alone(&model, request));
    }
    assert_eq!(batch.num_reused_tokens(), 2 * 70);
}

/// What a prompt's tokens are given must be what the same tokens are given when written.
#[test]
fn log_probabilities_of_a_prompt_are_those_of_writing_it() {
    let model = model();
    let asked = request(0, 5);
    let written = alone(&model, &asked);
    let ids = written.iter().map(|(id, _)| *id);
    let mut whole = asked.clone();
    whole.prompt.input_ids.extend(ids);
    whole.with_prompt_logprobs = true;
    let mut batch = Batch::new(&model, BatchLimits::default());
    batch.submit(whole).unwrap();
    let events = batch.step();
    let (_, Event::Prompt(logprobs)) = &events[0] else {
        panic!("{events:?}");
    };
    assert_eq!(logprobs.len(), 4 + written.len());
    for (found, (id, bits)) in logprobs[4..].iter().zip(written) {
        assert_eq!(found.token_id, id);
        assert!((found.logprob - f32::from_bits(bits)).abs() < 1e-5);
        assert_eq!(found.top.len(), 2);
    }
}

/// The one that waits is forgotten before it starts, the one that runs between two tokens.
#[test]
fn a_cancelled_request_is_heard_of_no_more() {
    let model = model();
    let limits = BatchLimits {
        max_rows: 2,
        ..BatchLimits::default()
    };
    let mut batch = Batch::new(&model, limits);
    for number in 0..4 {
        batch.submit(request(2 * number, 4)).unwrap();
    }
    batch.step();
    assert!(batch.cancel(0) && batch.cancel(2) && !batch.cancel(2));
    let mut answers = vec![Answer::new(); 4];
    while batch.num_requests() > 0 {
        collect(&mut answers, batch.step(), 0);
    }
    assert!(answers[0].is_empty() && answers[2].is_empty());
    assert_eq!(answers[3], alone(&model, &request(6, 4)));
}

/// Every token but one is ruled out; the log-probability is the model's own all the same.
#[test]
fn a_caller_may_rule_tokens_out() {
    let model = model();
    let mut batch = Batch::new(&model, BatchLimits::default());
    batch.submit(request(1, 4)).unwrap();
    let events = batch.step_with(&mut Adjust {
        concerns: &|_| true,
        change: &mut |_, logits| {
            logits.fill(f32::NEG_INFINITY);
            logits[9] = 0.0;
        },
    });
    let (
        _,
        Event::Token {
            token_id, logprobs, ..
        },
    ) = &events[0]
    else {
        panic!("{events:?}");
    };
    assert_eq!(*token_id, 9);
    assert!(logprobs.as_ref().unwrap().logprob < -0.1);
}
