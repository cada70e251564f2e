//! Pretraining and instruction tuning from files to an exported model, on a tiny decoder.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod chat;
mod distill;
mod grpo;
mod loyalty;
mod preference;
mod reject;
mod reward;
mod storm;
mod world;

use std::fs;

use burn::prelude::*;
use dataset::Tokenizer;
use model::precision::Precision;
use train::config::PretrainConfig;
use train::run::Outcome;
use train::run_folder::IfExists;
use train::{full_sft, pretrain};
use world::{NUM_STEPS, World, final_weights, metrics, summary};

/// From a text file to a model that loads again, and from there to a chat model.
#[test]
fn text_becomes_a_model_and_the_model_a_chat_model() {
    let world = World::new();
    let summary_of_text = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    );
    assert_eq!(summary_of_text.steps, NUM_STEPS);
    let run = world.path("1-pretrain");
    let rows = metrics(&run);
    let losses: Vec<f64> = rows
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert_eq!(losses.len(), NUM_STEPS);
    assert!((losses[0] - 300f64.ln()).abs() < 0.3, "{}", losses[0]);
    assert!(losses[NUM_STEPS - 1] < losses[0] - 0.3, "{losses:?}");
    let count = |kind: &str| rows.iter().filter(|row| row["kind"] == kind).count();
    assert_eq!((count("validation"), count("sample")), (2, 1));
    for name in [
        "config.toml",
        "plan.txt",
        "latest",
        "best",
        "step_000006",
        "step_000008",
    ] {
        assert!(run.join(name).exists(), "{name}");
    }
    let saved: PretrainConfig =
        toml::from_str(&fs::read_to_string(run.join("config.toml")).unwrap()).unwrap();
    assert_eq!(saved, world.pretrain_config());
    let model = model::hf::load_model(&summary_of_text.final_dir, &Device::flex()).unwrap();
    let tokenizer = Tokenizer::load(&summary_of_text.final_dir).unwrap();
    assert_eq!(model.config().eos_token_id, [tokenizer.eos_id().unwrap()]);

    let config = world.chat_config(&summary_of_text.final_dir);
    let options = world.options("3-full_sft", IfExists::Refuse, false);
    let summary_of_chat = summary(full_sft::run(&config, options).unwrap());
    assert!(
        summary_of_chat
            .held_out
            .unwrap()
            .bits_per_byte
            .unwrap()
            .is_finite()
    );
    let rows = metrics(&world.path("3-full_sft"));
    let step = rows.iter().find(|row| row["kind"] == "step").unwrap();
    assert!(
        step["supervised"].as_u64() < step["tokens"].as_u64(),
        "{step}"
    );
    assert!(step["supervised"].as_u64() > Some(0), "{step}");
}

/// A stopped and resumed run leaves the same file, byte for byte, as one that was never stopped.
#[test]
fn a_resumed_run_exports_the_same_bytes() {
    let world = World::new();
    let config = world.pretrain_config();
    summary(world.pretrain(&config, "whole").unwrap());
    let stopped = pretrain::run(&config, world.options("parts", IfExists::Refuse, true)).unwrap();
    let expected = world.path("parts").join("step_000000");
    assert_eq!(
        stopped,
        Outcome::Interrupted {
            step: 0,
            checkpoint: expected
        }
    );
    let resumed = pretrain::run(&config, world.options("parts", IfExists::Resume, false)).unwrap();
    assert_eq!(summary(resumed).steps, NUM_STEPS);
    assert_eq!(
        final_weights(&world.path("parts")),
        final_weights(&world.path("whole"))
    );
}

/// Going on from the middle of the data is still the same run, in every precision.
#[test]
fn a_lost_end_is_trained_again_to_the_same_bytes() {
    let wholes = [Precision::F32, Precision::Bf16, Precision::F16].map(|precision| {
        let world = World::new();
        let mut config = world.pretrain_config();
        config.checkpoint.keep_last = 9;
        config.train.precision = precision;
        summary(world.pretrain(&config, "run").unwrap());
        let run = world.path("run");
        let whole = final_weights(&run);
        for name in ["final", "step_000008", "step_000006", "step_000004"] {
            fs::remove_dir_all(run.join(name)).unwrap();
        }
        let resumed = pretrain::run(&config, world.options("run", IfExists::Resume, false));
        assert_eq!(summary(resumed.unwrap()).steps, NUM_STEPS);
        assert_eq!(final_weights(&run), whole, "{precision}");
        whole
    });
    assert_ne!(wholes[0], wholes[1], "bf16 must differ from f32");
    assert_ne!(wholes[0], wholes[2], "f16 must differ from f32");
    assert_ne!(wholes[1], wholes[2], "f16 must differ from bf16");
}

/// What losses were multiplied by stands in every step's line in f16, and in no other precision.
#[test]
fn the_loss_scale_is_reported_in_f16_only() {
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        let world = World::new();
        let mut config = world.pretrain_config();
        config.train.precision = precision;
        summary(world.pretrain(&config, "run").unwrap());
        let rows = metrics(&world.path("run"));
        for row in rows.iter().filter(|row| row["kind"] == "step") {
            let scale = row["loss_scale"].as_f64();
            assert_eq!(scale.is_some(), precision == Precision::F16, "{row}");
            assert!(scale.is_none_or(|scale| scale >= 1.0), "{row}");
        }
    }
}

/// Fields that reach the weights are compared; the text carries the field and both values.
#[test]
fn a_resume_with_another_config_or_other_data_is_refused() {
    let world = World::new();
    let config = world.pretrain_config();
    summary(world.pretrain(&config, "run").unwrap());
    let resume = |config: &PretrainConfig| {
        let options = world.options("run", IfExists::Resume, false);
        pretrain::run(config, options).unwrap_err().to_string()
    };
    let mut other = config.clone();
    other.optimizer.lr = 0.5;
    other.report.log_every = 3;
    assert_eq!(
        resume(&other),
        "cannot resume with another config: optimizer.lr: the checkpoint has 0.01, asked is 0.5"
    );
    let mut text = fs::read_to_string(world.path("text.jsonl")).unwrap();
    text.push_str("\n{\"text\": \"one more bird\"}");
    fs::write(world.path("text.jsonl"), text).unwrap();
    assert_eq!(
        resume(&config),
        "cannot resume: the training data, the tokenizer or frozen weights changed since the \
         checkpoint was saved"
    );
}

/// What does not fit together is refused before anything is written.
#[test]
fn what_does_not_fit_is_refused_before_the_run_begins() {
    let world = World::new();
    let refusal = |change: &dyn Fn(&mut PretrainConfig)| {
        let mut config = world.pretrain_config();
        change(&mut config);
        let text = world.pretrain(&config, "run").unwrap_err().to_string();
        assert!(!world.path("run").exists());
        text
    };
    assert_eq!(
        refusal(&|config| config.data.seq_len = 65),
        "data.seq_len: found 65, expected at most the model's max_position_embeddings = 64"
    );
    let shape = fs::read_to_string(world.path("model.json")).unwrap();
    fs::write(world.path("small.json"), shape.replace("300", "299")).unwrap();
    assert_eq!(
        refusal(&|config| config.model.config = world.path("small.json")),
        format!(
            "{}: the tokenizer has 300 tokens, expected at most the model's vocab_size = 299",
            world.path("tokenizer").display()
        )
    );
    assert!(refusal(&|config| config.tokenizer.path = world.path("none")).contains("none"));
}

/// The first batches and the initial weights are there for PyTorch to learn from.
#[test]
fn curve_inputs_are_written_when_asked_for() {
    let world = World::new();
    let mut config = world.pretrain_config();
    config.train.dump_curve_inputs = 3;
    summary(world.pretrain(&config, "run").unwrap());
    let folder = world.path("run").join("curve_inputs");
    let bytes = fs::read(folder.join("batches.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.tensor("input_ids").unwrap().shape(), [3, 2, 2, 32]);
    let initial = model::hf::load_model(&folder.join("init"), &Device::flex()).unwrap();
    assert_eq!(initial.config().vocab_size, 300);
}

/// By hand: 8 steps of 2 x 2 rows of 32 slots, 2 checkpoints by step and one at the end; AdamW
/// keeps two moments per parameter beside the weight.
#[test]
fn the_plan_counts_steps_tokens_and_bytes() {
    let world = World::new();
    let plan = pretrain::plan(&world.pretrain_config()).unwrap();
    assert_eq!(plan.slots_per_step, 128);
    assert_eq!(plan.num_checkpoints, 3);
    assert_eq!(plan.checkpoint_bytes, plan.num_params * 12);
    assert_eq!(plan.memory.weights, plan.num_params * 4);
    assert_eq!(plan.memory.gradients, plan.num_params * 8);
    assert_eq!(plan.data.num_documents + plan.data.num_held_out, 60);
    let epochs = plan.epochs.unwrap();
    let expected = 8.0 * 4.0 / plan.data.rows_per_epoch as f64;
    assert!((epochs - expected).abs() < 1e-9, "{epochs}");
    let text = plan.to_string();
    assert!(text.contains("steps             8\n"), "{text}");
    assert!(!text.contains("without a token"), "{text}");
    assert!(!world.path("run").exists());
}

/// A tokenizer that marks no beginning and no end makes nothing of a text that it replaces by
/// nothing; who reads the plan must hear of it.
#[test]
fn documents_without_a_token_are_told() {
    let world = World::new();
    let path = world.path("tokenizer/tokenizer.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json["normalizer"] =
        serde_json::json!({"type": "Replace", "pattern": {"String": "zzz"}, "content": ""});
    fs::write(&path, json.to_string()).unwrap();
    fs::write(world.path("tokenizer/tokenizer_config.json"), "{}").unwrap();
    let mut text = fs::read_to_string(world.path("text.jsonl")).unwrap();
    text.push_str("\n{\"text\": \"zzz\"}\n");
    fs::write(world.path("text.jsonl"), text).unwrap();
    let plan = pretrain::plan(&world.pretrain_config())
        .unwrap()
        .to_string();
    assert!(
        plan.contains("documents held out, 1 without a token\n"),
        "{plan}"
    );
}
