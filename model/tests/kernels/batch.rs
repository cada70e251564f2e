//! Batches on a graphics card against the same requests on the CPU, and how a card reads their cache.

use burn::prelude::*;
use burn::tensor::DType;
use model::CausalLm;
use model::batch::{Batch, BatchLimits, Event, Request};
use model::config::{ModelConfig, ModelType};
use model::generate::{GenerateConfig, Prompt};
use model::kernels::causal_attention;

use crate::card::card;
use crate::check::Noise;

const VOCAB_SIZE: u32 = 67;

/// Absolute bound on log-probabilities and entropies: two layers of f32 sums in other orders.
const TOLERANCE: f64 = 1e-4;

/// Wide enough that its choices are no near ties.
fn model(device: &Device) -> CausalLm {
    let config = ModelConfig {
        model_type: ModelType::Qwen3,
        vocab_size: VOCAB_SIZE as usize,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        // Slots of a cache are then multiples of what graphics memory is aligned to.
        head_dim: 32,
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
    CausalLm::new(&config, 7, device)
}

/// Greedy, drawn, drawn with filters, and two kinds that need their logits on the host.
fn requests() -> Vec<Request> {
    let drawn = GenerateConfig {
        do_sample: true,
        ..GenerateConfig::greedy(1)
    };
    let configs = [
        GenerateConfig::greedy(9),
        GenerateConfig {
            max_new_tokens: 12,
            temperature: 0.7,
            ..drawn.clone()
        },
        GenerateConfig::minimind(7),
        GenerateConfig {
            max_new_tokens: 8,
            repetition_penalty: 1.2,
            ..drawn.clone()
        },
        GenerateConfig {
            max_new_tokens: 10,
            min_p: 0.05,
            ..drawn
        },
    ];
    let request = |(number, config): (usize, GenerateConfig)| {
        let ids = (0..2 + number as u32).map(|t| (t * t + 5 * number as u32) % VOCAB_SIZE);
        let prompt = Prompt {
            input_ids: ids.collect(),
            seed: number as u64,
        };
        Request {
            num_top_logprobs: Some(if number == 4 { 2 } else { 0 }),
            score_temperature: Some(0.7),
            ..Request::new(prompt, &config)
        }
    };
    configs.into_iter().enumerate().map(request).collect()
}

/// Ids with the numbers that were asked for.
type Answer = Vec<(u32, [f64; 3])>;

fn answers(model: &CausalLm, requests: &[Request]) -> Vec<Answer> {
    let mut batch = Batch::new(model, BatchLimits::default());
    for request in requests {
        batch.submit(request.clone()).unwrap();
    }
    let mut answers = vec![Answer::new(); requests.len()];
    while batch.num_requests() > 0 {
        for (id, event) in batch.step() {
            if let Event::Token {
                token_id,
                logprobs,
                score,
            } = event
            {
                let (logprobs, score) = (logprobs.unwrap(), score.unwrap());
                assert_eq!(logprobs.token_id, token_id);
                assert_eq!(Some(logprobs.top.len()), requests[id].num_top_logprobs);
                let numbers = [logprobs.logprob.into(), score.logp.into(), score.entropy];
                answers[id].push((token_id, numbers));
            }
        }
    }
    answers
}

/// The CPU's batch is the expected value.
#[test]
fn a_batch_on_a_graphics_card_answers_what_the_cpu_answers() {
    let Some(device) = card() else { return };
    let requests = requests();
    let expected = answers(&model(&Device::flex()), &requests);
    let found = answers(&model(&device), &requests);
    for (found, expected) in found.iter().zip(&expected) {
        let ids = |answer: &Answer| answer.iter().map(|token| token.0).collect::<Vec<_>>();
        assert_eq!(ids(found), ids(expected));
        for (found, expected) in found.iter().zip(expected) {
            for (found, expected) in found.1.iter().zip(expected.1) {
                assert!((found - expected).abs() < TOLERANCE, "{found}, {expected}");
            }
        }
    }
}

/// The filled slots of a cache that has room for more, and a copy of them.
#[test]
fn attention_reads_a_cache_in_its_place_on_a_graphics_card() {
    let Some(device) = card() else { return };
    let mut noise = Noise::new(47);
    let mut values = |shape: [usize; 4]| {
        let values = noise.values(shape.iter().product());
        Tensor::<4>::from_data(TensorData::new(values, shape), (&device, DType::F32))
    };
    // Three rows and 40 slots of five and 64; a slot is 256 bytes, so that the slice is no copy.
    let q = values([3, 1, 4, 32]);
    let [k, v] = [(); 2].map(|()| values([5, 64, 2, 32]));
    let filled = |storage: &Tensor<4>| storage.clone().slice([0..3, 0..40]);
    let copied = |storage: &Tensor<4>| {
        let data = filled(storage).into_data();
        Tensor::<4>::from_data(data, &device)
    };
    let places = Tensor::<2, Int>::from_data([[39], [7], [0]], &device);
    let read = |k, v| causal_attention(q.clone(), k, v, places.clone()).into_data();
    assert_eq!(read(filled(&k), filled(&v)), read(copied(&k), copied(&v)));
    assert_eq!(read(copied(&k), filled(&v)), read(copied(&k), copied(&v)));
}
