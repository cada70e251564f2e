//! Generation against full forward passes, single prompts and recorded greedy ids.
#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

use std::ops::ControlFlow;
use std::path::Path;

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::Tolerance;
use model::causal_lm::CausalLm;
use model::config::{ModelConfig, ModelType};
use model::generate::{
    Completion, FinishReason, GenerateConfig, GenerateError, Prompt, TokenStream, generate,
};
use model::hf::load_model;
use model::kv_cache::KvCache;

const VOCAB_SIZE: usize = 61;
const MAX_POSITIONS: usize = 40;

/// A model whose weights are wide enough that its choices are not near ties; experts, where the
/// type has any, are those of a recorded folder.
fn random_model(model_type: ModelType) -> CausalLm {
    let name = model_type.as_str().replace("4_5", "");
    let folder = format!("{}/tests/golden/hf_{name}", env!("CARGO_MANIFEST_DIR"));
    let config = ModelConfig {
        vocab_size: VOCAB_SIZE,
        hidden_size: 32,
        intermediate_size: 48,
        head_dim: 8,
        max_position_embeddings: MAX_POSITIONS,
        rms_norm_eps: 1e-5,
        rope_theta: 1e4,
        tie_word_embeddings: true,
        initializer_range: 0.3,
        ..ModelConfig::load(folder.as_ref()).unwrap()
    };
    CausalLm::new(&config, 7, &Device::flex())
}

fn every_type() -> [CausalLm; 5] {
    use ModelType::{Ernie45Moe, Glm4Moe, Llama, Qwen3, Qwen3Moe};
    [Llama, Qwen3, Qwen3Moe, Ernie45Moe, Glm4Moe].map(random_model)
}

fn ints(rows: &[Vec<i32>]) -> Tensor<2, Int> {
    let shape = [rows.len(), rows[0].len()];
    Tensor::from_data(TensorData::new(rows.concat(), shape), &Device::flex())
}

fn prompt(ids: &[u32]) -> Prompt {
    Prompt {
        input_ids: ids.to_vec(),
        seed: 0,
    }
}

fn sampling(max_new_tokens: usize) -> GenerateConfig {
    GenerateConfig {
        repetition_penalty: 1.1,
        ..GenerateConfig::minimind(max_new_tokens)
    }
}

fn complete(model: &CausalLm, prompts: &[Prompt], config: &GenerateConfig) -> Vec<Completion> {
    generate(model, prompts, config, |_, _| ControlFlow::Continue(())).unwrap()
}

fn complete_one(model: &CausalLm, prompt: &Prompt, config: &GenerateConfig) -> Completion {
    complete(model, std::slice::from_ref(prompt), config).remove(0)
}

fn reasons(completions: &[Completion]) -> Vec<FinishReason> {
    completions
        .iter()
        .map(|completion| completion.finish_reason)
        .collect()
}

/// The greedy answer by a whole forward pass for every token.
fn greedy_without_cache(model: &CausalLm, prompt_ids: &[u32], num_new_tokens: usize) -> Vec<u32> {
    let mut ids: Vec<i32> = prompt_ids.iter().map(|&id| id as i32).collect();
    for _ in 0..num_new_tokens {
        let positions = (0..ids.len() as i32).collect();
        let hidden = model.forward(ints(&[ids.clone()]), ints(&[positions]));
        let logits: Vec<f32> = model.logits(hidden).into_data().try_into_vec().unwrap();
        let last = &logits[logits.len() - model.config().vocab_size..];
        let best = (0..last.len())
            .rev()
            .max_by(|&a, &b| last[a].total_cmp(&last[b]))
            .unwrap();
        ids.push(best as i32);
    }
    ids[prompt_ids.len()..]
        .iter()
        .map(|&id| id as u32)
        .collect()
}

/// A prompt read in pieces gives the hidden states of the whole; f32 sums in another order differ
/// by rounding.
#[test]
fn a_prompt_read_in_pieces_equals_the_whole() {
    let ids: Vec<Vec<i32>> = (0..2)
        .map(|row| (0..11).map(|t| (7 * t + 5 * row) % 61).collect())
        .collect();
    let positions: Vec<Vec<i32>> = vec![(0..11).collect(); 2];
    for model in every_type() {
        let whole = model.forward(ints(&ids), ints(&positions));
        // Capacity 4 is outgrown on the way.
        let mut cache = KvCache::new(model.config(), 2, 4, &Device::flex());
        let pieces = [0..5, 5..6, 6..7, 7..11].map(|range| {
            let cut = |rows: &[Vec<i32>]| -> Vec<Vec<i32>> {
                rows.iter().map(|row| row[range.clone()].to_vec()).collect()
            };
            model.forward_cached(ints(&cut(&ids)), ints(&cut(&positions)), &mut cache)
        });
        let joined = Tensor::cat(pieces.to_vec(), 1);
        assert_eq!(cache.num_slots(), 11);
        joined
            .into_data()
            .assert_approx_eq::<f32>(&whole.into_data(), Tolerance::absolute(1e-5));
    }
}

/// The cache must not change what is written.
#[test]
fn greedy_with_a_cache_equals_greedy_without() {
    for model in every_type() {
        let found = complete_one(
            &model,
            &prompt(&[1, 17, 4, 33]),
            &GenerateConfig::greedy(20),
        );
        assert_eq!(
            found.token_ids,
            greedy_without_cache(&model, &[1, 17, 4, 33], 20)
        );
    }
}

/// Recorded with transformers 5.23 (`golden/README.md`): eight prompt ids, then twelve greedy ones.
#[test]
fn greedy_ids_are_those_of_transformers() {
    #[derive(serde::Deserialize)]
    struct Expected {
        greedy: Vec<u32>,
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in [
        "hf_llama",
        "hf_llama_untied",
        "hf_llama_yarn",
        "hf_qwen3",
        "hf_qwen3_head_dim",
    ] {
        let dir = golden.join(name);
        let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
        let Expected { greedy } = serde_json::from_str(&text).unwrap();
        let model = load_model(&dir, &Device::flex()).unwrap();
        let found = complete_one(&model, &prompt(&greedy[..8]), &GenerateConfig::greedy(12));
        assert_eq!(found.token_ids, greedy[8..], "{name}");
    }
}

/// Recorded with PyTorch (`golden/README.md`): a prompt and its greedy continuation.
#[test]
fn greedy_ids_of_minimind_models_are_those_of_pytorch() {
    #[derive(serde::Deserialize)]
    struct Golden {
        greedy: Greedy,
    }
    #[derive(serde::Deserialize)]
    struct Greedy {
        prompt: Vec<u32>,
        output: Vec<u32>,
    }
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for name in ["v1_dense", "v3_dense", "v3_yarn"] {
        let dir = golden.join(name);
        let text = std::fs::read_to_string(dir.join("golden.json")).unwrap();
        let Golden { greedy } = serde_json::from_str(&text).unwrap();
        let expected = &greedy.output[greedy.prompt.len()..];
        let model = load_model(&dir, &Device::flex()).unwrap();
        let config = GenerateConfig::greedy(expected.len());
        let found = complete_one(&model, &prompt(&greedy.prompt), &config);
        assert_eq!(found.token_ids, expected, "{name}");
    }
}

/// Four lengths, so that three rows are padded; the seeds are the rows' own.
#[test]
fn a_row_of_a_batch_reads_like_the_same_prompt_alone() {
    let prompts = [
        Prompt {
            input_ids: vec![1, 9, 30, 12, 5, 44, 20],
            seed: 3,
        },
        Prompt {
            input_ids: vec![50],
            seed: 4,
        },
        Prompt {
            input_ids: vec![1, 9, 31, 7],
            seed: 5,
        },
        Prompt {
            input_ids: vec![6, 8],
            seed: 3,
        },
    ];
    for model in every_type() {
        for config in [GenerateConfig::greedy(25), sampling(25)] {
            let together = complete(&model, &prompts, &config);
            for (prompt, found) in prompts.iter().zip(together) {
                assert_eq!(found, complete_one(&model, prompt, &config));
                assert_eq!(found.token_ids.len(), 25);
            }
        }
    }
}

/// Two streams taken in turns on one model: the cache belongs to the call.
#[test]
fn interleaved_streams_do_not_disturb_each_other() {
    let model = random_model(ModelType::Llama);
    let prompts = [
        prompt(&[1, 5, 9]),
        Prompt {
            input_ids: vec![1, 40],
            seed: 8,
        },
    ];
    let config = sampling(15);
    let mut streams = prompts
        .clone()
        .map(|prompt| TokenStream::new(&model, prompt, &config).unwrap());
    let mut found = [Vec::new(), Vec::new()];
    for _ in 0..15 {
        for (stream, ids) in streams.iter_mut().zip(&mut found) {
            ids.push(stream.next().unwrap().unwrap());
        }
    }
    for ((prompt, ids), stream) in prompts.iter().zip(found).zip(&mut streams) {
        assert!(stream.next().is_none());
        assert_eq!(stream.finish_reason(), Some(FinishReason::Length));
        assert_eq!(ids, complete_one(&model, prompt, &config).token_ids);
    }
}

/// The same seed repeats an answer, another one gives another.
#[test]
fn the_seed_of_a_row_decides_its_answer() {
    let model = random_model(ModelType::Qwen3);
    let answer = |seed| {
        complete_one(
            &model,
            &Prompt {
                input_ids: vec![1, 2],
                seed,
            },
            &sampling(30),
        )
        .token_ids
    };
    assert_eq!(answer(1), answer(1));
    assert_ne!(answer(1), answer(2));
}

/// The stop id is the fifth token of one row's own greedy answer, so the other row goes on without
/// it.
#[test]
fn a_row_ends_with_its_stop_id_and_the_others_go_on() {
    let model = random_model(ModelType::Llama);
    let prompts = [prompt(&[1, 17, 4, 33]), prompt(&[1, 3])];
    let free = complete(&model, &prompts, &GenerateConfig::greedy(20));
    let eos = free[0].token_ids[4];
    let end = free[0].token_ids.iter().position(|&id| id == eos).unwrap();
    assert!(
        !free[1].token_ids.contains(&eos),
        "another stop id is needed: {free:?}"
    );

    let config = GenerateConfig {
        eos_token_id: vec![60, eos],
        ..GenerateConfig::greedy(20)
    };
    let found = complete(&model, &prompts, &config);
    assert_eq!(found[0].token_ids, free[0].token_ids[..=end]);
    assert_eq!(found[0].finish_reason, FinishReason::Stop);
    assert_eq!(found[1], free[1]);
}

/// MiniMind v1 let the prompt count.
#[test]
fn max_new_tokens_does_not_count_the_prompt() {
    let model = random_model(ModelType::Llama);
    let found = complete_one(&model, &prompt(&[1; 12]), &GenerateConfig::greedy(3));
    assert_eq!(found.token_ids.len(), 3);
    assert_eq!(found.finish_reason, FinishReason::Length);
}

/// The short row may write 37 tokens, the long one 2; padding takes nothing from either.
#[test]
fn an_answer_ends_where_the_context_does() {
    let model = random_model(ModelType::Llama);
    let prompts = [prompt(&[1, 2, 3]), prompt(&[1; MAX_POSITIONS - 2])];
    let found = complete(&model, &prompts, &GenerateConfig::greedy(500));
    assert_eq!(found[0].token_ids.len(), MAX_POSITIONS - 3);
    assert_eq!(found[1].token_ids.len(), 2);
    assert_eq!(reasons(&found), [FinishReason::Length; 2]);
    assert_eq!(
        found[0].token_ids,
        greedy_without_cache(&model, &[1, 2, 3], MAX_POSITIONS - 3)
    );
}

/// What a stop string does to one row of a batch.
#[test]
fn the_caller_may_end_a_row() {
    let model = random_model(ModelType::Llama);
    let prompts = [prompt(&[1, 2]), prompt(&[1, 3])];
    let mut heard = [0, 0];
    let found = generate(&model, &prompts, &GenerateConfig::greedy(9), |row, _| {
        heard[row] += 1;
        if row == 1 && heard[row] == 4 {
            return ControlFlow::Break(FinishReason::Interrupted);
        }
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(heard, [9, 4]);
    assert_eq!(
        reasons(&found),
        [FinishReason::Length, FinishReason::Interrupted]
    );
    assert_eq!(found[1].token_ids.len(), 4);
}

#[test]
fn no_prompts_give_no_answers() {
    let model = random_model(ModelType::Llama);
    assert!(complete(&model, &[], &GenerateConfig::greedy(9)).is_empty());
}

/// Texts of the errors; the limits are this file's constants.
#[test]
fn an_unusable_prompt_is_refused_with_its_row() {
    let model = random_model(ModelType::Llama);
    let message = |ids: &[u32]| {
        let prompts = [prompt(&[1]), prompt(ids)];
        let result = generate(&model, &prompts, &GenerateConfig::greedy(9), |_, _| {
            ControlFlow::Continue(())
        });
        result.unwrap_err().to_string()
    };
    assert_eq!(
        message(&[]),
        "prompt 1 is empty, expected at least one token such as bos"
    );
    assert_eq!(
        message(&[1; MAX_POSITIONS]),
        "prompt 1 has 40 tokens, expected fewer than max_position_embeddings = 40"
    );
    assert_eq!(
        message(&[1, 61]),
        "prompt 1 holds token id 61, expected ids below vocab_size = 61"
    );

    let config = GenerateConfig {
        top_p: 2.0,
        ..GenerateConfig::greedy(9)
    };
    let error = TokenStream::new(&model, prompt(&[1]), &config).unwrap_err();
    assert!(matches!(error, GenerateError::Config(_)));
    assert_eq!(
        error.to_string(),
        "top_p is 2, expected above 0 and at most 1 (off)"
    );
}

/// A model whose training diverged must not panic a server.
#[test]
fn weights_that_hold_nan_are_an_error() {
    let mut model = random_model(ModelType::Llama);
    let weight = Tensor::full([32], f32::NAN, &Device::flex());
    model.norm.weight = Param::from_tensor(weight);
    let mut stream = TokenStream::new(&model, prompt(&[1]), &GenerateConfig::greedy(9)).unwrap();
    let error = stream.next().unwrap().unwrap_err();
    assert_eq!(
        error.to_string(),
        "prompt 0, token 0 of the answer: no token can be chosen"
    );
    assert!(stream.next().is_none());
}
