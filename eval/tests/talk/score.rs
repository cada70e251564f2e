//! Scores with a shared prefix and batches against one plain forward pass per continuation.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use eval::score::{ScoreError, ScoreRequest, score};
use model::causal_lm::CausalLm;
use model::config::{ModelConfig, ModelType};

/// f32 sums of a few tokens, added in another order.
const LOGPS: f64 = 2e-5;

pub(crate) fn model() -> CausalLm {
    let config = ModelConfig {
        model_type: ModelType::Qwen3,
        vocab_size: 50,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 40,
        rms_norm_eps: 1e-6,
        rope_theta: 1e4,
        experts: None,
        rope_scaling: None,
        tie_word_embeddings: true,
        initializer_range: 0.6,
        bos_token_id: Some(1),
        eos_token_id: vec![2],
        pad_token_id: Some(0),
    };
    CausalLm::new(&config, 5, &Device::flex())
}

/// The definition: read everything but the last token, look at every logit.
fn brute_force(model: &CausalLm, prompt: &[u32], continuation: &[u32]) -> f64 {
    let read = &continuation[..continuation.len() - 1];
    let ids = prompt.iter().chain(read).map(|&id| id as i32);
    let ids: Vec<i32> = ids.collect();
    let len = ids.len();
    let device = Device::flex();
    let positions: Vec<i32> = (0..len as i32).collect();
    let tensor = |values| Tensor::<2, Int>::from_data(TensorData::new(values, [1, len]), &device);
    let hidden = model.forward(tensor(ids), tensor(positions));
    let logps: Vec<f32> = log_softmax(model.logits(hidden), 2)
        .into_data()
        .try_into_vec()
        .unwrap();
    let vocab_size = model.config().vocab_size;
    let targets = continuation.iter().enumerate();
    targets
        .map(|(place, &id)| {
            let position = prompt.len() - 1 + place;
            f64::from(logps[position * vocab_size + id as usize])
        })
        .sum()
}

fn request(prompt: &[u32], continuations: &[&[u32]]) -> ScoreRequest {
    ScoreRequest {
        prompt: prompt.to_vec(),
        continuations: continuations.iter().map(|ids| ids.to_vec()).collect(),
    }
}

fn assert_brute_force(model: &CausalLm, requests: &[ScoreRequest]) {
    let scores = score(model, requests).unwrap();
    assert_eq!(scores.len(), requests.len());
    for (request, scores) in requests.iter().zip(scores) {
        let pairs = request.continuations.iter().zip(&scores.logps);
        for (continuation, &found) in pairs {
            let prompt = &request.prompt[scores.num_cut..];
            let expected = brute_force(model, prompt, continuation);
            assert!(
                (found - expected).abs() < LOGPS,
                "{found} for {expected}: {request:?}"
            );
        }
    }
}

/// Prompts of 4 to 25 tokens behind a shared beginning of 3, continuations of 1 to 6.
#[test]
fn scores_are_those_of_plain_forward_passes() {
    let model = model();
    let shared = [1, 7, 9];
    let requests: Vec<ScoreRequest> = (0..40_u32)
        .map(|number| {
            let own = (0..=(number * 7) % 22).map(|place| (number + 3 * place) % 50);
            let prompt: Vec<u32> = shared.into_iter().chain(own).collect();
            let long = [number % 50, 4, 8, 15, 16, 23];
            let len = 1 + number as usize % 6;
            request(&prompt, &[&long[..len], &[5], &[9, 9, number % 50]])
        })
        .collect();
    assert_brute_force(&model, &requests);
}

/// The shared beginning is longer than what a row adds, and one prompt is a beginning of another.
#[test]
fn a_long_prefix_is_shared() {
    let model = model();
    let shared: Vec<u32> = (0..30).map(|place| (place * 11) % 50).collect();
    let longer: Vec<u32> = shared.iter().copied().chain([3, 4, 5, 6]).collect();
    let requests = [
        request(&longer, &[&[1, 2], &[3]]),
        request(&shared, &[&[1, 2]]),
        request(&longer[..32], &[&[7], &[8, 9], &[8, 9, 10]]),
    ];
    assert_brute_force(&model, &requests);
    assert_brute_force(&model, &requests[..1]);
    assert_eq!(score(&model, &[]).unwrap(), []);
}

/// 45 tokens and 2 to read after them, where 40 fit: 7 go.
#[test]
fn prompts_that_are_too_long_lose_their_beginning() {
    let model = model();
    let long: Vec<u32> = (0..45).collect();
    let requests = [request(&long, &[&[1, 2, 3], &[4]]), request(&[1], &[&[2]])];
    let scores = score(&model, &requests).unwrap();
    assert_eq!([scores[0].num_cut, scores[1].num_cut], [7, 0]);
    assert_brute_force(&model, &requests);
}

#[test]
fn requests_that_cannot_be_scored_are_named() {
    let model = model();
    let message = |requests: &[ScoreRequest]| score(&model, requests).unwrap_err().to_string();
    let good = request(&[1], &[&[2]]);
    assert_eq!(
        message(&[good.clone(), request(&[], &[&[2]])]),
        "request 1: the prompt is empty, expected at least one token"
    );
    assert_eq!(
        message(&[request(&[1], &[&[]])]),
        "request 0: a continuation is empty, expected at least one token"
    );
    assert_eq!(
        message(&[request(&[1], &[&[2, 50]])]),
        "request 0 holds token id 50, expected ids below vocab_size = 50"
    );
    let long: Vec<u32> = vec![1; 41];
    assert_eq!(
        message(&[request(&[1], &[&long])]),
        "request 0: a continuation of 41 tokens, expected fewer than max_position_embeddings = 40"
    );
    let mut broken = model.clone();
    broken.norm.weight = broken.norm.weight.map(|weight| weight * f32::NAN);
    let error = score(&broken, &[good]).unwrap_err();
    assert!(matches!(error, ScoreError::NotFinite), "{error}");
}
