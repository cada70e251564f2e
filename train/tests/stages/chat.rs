//! Tuning on conversations: adapters, noise, and what is written.

use std::fs;
use std::path::Path;

use burn::prelude::*;
use model::CausalLm;
use model::config::ModelConfig;
use model::hf::load_model;
use model::lora::load_adapter;
use model::params::named_params;
use train::config::{DistillConfig, LoraSftConfig, SftConfig};
use train::run_folder::IfExists;
use train::{distill, full_sft, lora_sft};

use crate::world::{World, final_weights, metrics, summary};

fn lora_config(config: SftConfig) -> LoraSftConfig {
    let mut lora = LoraSftConfig {
        model: config.model,
        tokenizer: config.tokenizer,
        data: config.data,
        train: config.train,
        report: config.report,
        samples: config.samples,
        ..LoraSftConfig::default()
    };
    lora.lora.rank = 4;
    lora.lora.dropout = 0.1;
    lora.lora.target_modules = vec!["q_proj".to_owned(), "mlp.down_proj".to_owned()];
    lora.optimizer.lr = 5e-2;
    lora.optimizer.weight_decay = 0.0;
    lora
}

/// The weights that adapters stand beside are the same bits after training, checkpoints hold the
/// adapters alone, and a run that was stopped ends like one that was not, dropout included.
#[test]
fn adapters_learn_and_weights_do_not_change() {
    let world = World::new();
    let base = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    )
    .final_dir;
    let mut config = lora_config(world.chat_config(&base));
    config.checkpoint.every_steps = 3;
    config.checkpoint.keep_last = 9;
    let run = world.path("4-lora_sft");
    let options = || world.options("4-lora_sft", IfExists::Resume, false);
    let result = summary(lora_sft::run(&config, options()).unwrap());

    let device = Device::flex();
    let plain = load_model(&base, &device).unwrap();
    let adapted = load_adapter(plain.clone(), &run.join("adapter")).unwrap();
    let weights: Vec<_> = named_params(&adapted)
        .into_iter()
        .filter(|param| !param.path.contains(".adapters."))
        .collect();
    assert_eq!(weights, named_params(&plain));
    let merged = load_model(&result.final_dir, &device).unwrap();
    for (merged, plain) in named_params(&merged).iter().zip(named_params(&plain)) {
        let is_adapted = plain.path.contains("q_proj") || plain.path.contains("down_proj");
        assert_eq!(merged.values != plain.values, is_adapted, "{}", plain.path);
    }

    let plan = lora_sft::plan(&config).unwrap();
    // By hand: 2 layers of 4 * (16 + 16) for queries and 4 * (32 + 16) behind the gates.
    let adapters = plan.adapters.unwrap();
    assert_eq!(adapters.num_params, 2 * 4 * (32 + 48));
    assert!(plan.memory.total() < adapters.full_memory);
    let saved = fs::metadata(run.join("step_000006/model.safetensors")).unwrap();
    assert!(
        saved.len() < 4 * adapters.num_params + 2048,
        "{}",
        saved.len()
    );
    let losses: Vec<f64> = metrics(&run)
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[7] < losses[0] - 0.1, "{losses:?}");

    let whole = final_weights(&run);
    for name in ["final", "adapter", "step_000008", "step_000006"] {
        fs::remove_dir_all(run.join(name)).unwrap();
    }
    summary(lora_sft::run(&config, options()).unwrap());
    assert_eq!(final_weights(&run), whole);

    // Recomputing layers gives the same gradients, and so the same weights within rounding.
    config.train.activation_checkpointing = true;
    let options = world.options("recomputed", IfExists::Refuse, false);
    let result = summary(lora_sft::run(&config, options).unwrap());
    let recomputed = load_model(&result.final_dir, &device).unwrap();
    for (a, b) in named_params(&recomputed).iter().zip(named_params(&merged)) {
        let difference = a.values.iter().zip(&b.values).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-4, "{}", a.path);
    }
}

/// Noise changes what is learned, by the same bits every time; without it nothing changes.
#[test]
fn noise_on_embeddings_follows_the_seed() {
    let world = World::new();
    let base = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    )
    .final_dir;
    let mut config = world.chat_config(&base);
    let mut tuned = |run: &str, alpha: f64| {
        config.neftune.alpha = alpha;
        let options = world.options(run, IfExists::Refuse, false);
        summary(full_sft::run(&config, options).unwrap());
        final_weights(&world.path(run))
    };
    let (plain, noisy) = (tuned("a", 0.0), tuned("b", 5.0));
    assert_ne!(plain, noisy);
    assert_eq!(tuned("c", 5.0), noisy);
}

fn distill_config(config: SftConfig, teacher: &Path, world: &World) -> DistillConfig {
    let mut distill = DistillConfig {
        model: config.model,
        tokenizer: config.tokenizer,
        data: config.data,
        train: config.train,
        report: config.report,
        samples: config.samples,
        ..DistillConfig::default()
    };
    teacher.clone_into(&mut distill.distill.teacher);
    distill.distill.cache_dir = world.path("cache");
    distill
}

/// What a teacher answered about all tokens of its vocabulary teaches what the teacher itself
/// does; the likeliest alone teach something near it. It is asked once: the second run reads.
#[test]
fn students_learn_from_what_a_teacher_answered() {
    let world = World::new();
    let base = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    )
    .final_dir;
    let chat = world.chat_config(&base);
    let options = |run: &str| world.options(run, IfExists::Refuse, false);
    let teacher = summary(full_sft::run(&chat, options("3-full_sft")).unwrap()).final_dir;

    let taught = |run: &str, top_k: usize| {
        let mut config = distill_config(world.chat_config(&base), &teacher, &world);
        config.distill.alpha = 0.0;
        config.distill.top_k = top_k;
        summary(distill::run(&config, options(run)).unwrap());
        load_model(&world.path(run).join("final"), &Device::flex()).unwrap()
    };
    let difference = |a: &CausalLm, b: &CausalLm| {
        let params = named_params(a).into_iter().zip(named_params(b));
        params
            .flat_map(|(a, b)| a.values.into_iter().zip(b.values))
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max)
    };
    let (asked, remembered, likeliest) = (taught("a", 0), taught("b", 300), taught("c", 8));
    assert!(difference(&asked, &remembered) < 1e-4);
    assert!(difference(&asked, &likeliest) > 1e-4);
    let cached = || fs::read_dir(world.path("cache")).unwrap().count();
    let num_cached = cached();
    let again = taught("d", 8);
    assert_eq!(difference(&again, &likeliest).to_bits(), 0);
    assert_eq!(cached(), num_cached);

    // At the weights of the teacher itself there is nothing to learn from it.
    let mut config = distill_config(world.chat_config(&teacher), &teacher, &world);
    config.distill.alpha = 0.0;
    summary(distill::run(&config, options("e")).unwrap());
    let first = metrics(&world.path("e"))
        .into_iter()
        .find(|row| row["kind"] == "step");
    let loss = first.unwrap()["loss"].as_f64().unwrap();
    assert!(loss.abs() < 1e-5, "{loss}");
}

/// The divergence from a teacher of experts falls; only the vocabulary must be the student's.
#[test]
fn a_dense_student_learns_from_experts() {
    let world = World::new();
    let base = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    )
    .final_dir;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut shape = ModelConfig::load(&root.join("configs/model/debug-moe.json")).unwrap();
    shape.vocab_size = 300;
    let teacher = world.path("experts");
    fs::create_dir(&teacher).unwrap();
    let model = CausalLm::new(&shape, 1, &Device::flex());
    model::hf::save_model(&model, &teacher).unwrap();

    let mut config = distill_config(world.chat_config(&base), &teacher, &world);
    config.distill.alpha = 0.0;
    config.optimizer.lr = 1e-2;
    let options = world.options("run", IfExists::Refuse, false);
    summary(distill::run(&config, options).unwrap());
    let losses: Vec<f64> = metrics(&world.path("run"))
        .iter()
        .filter(|row| row["kind"] == "step")
        .map(|row| row["loss"].as_f64().unwrap())
        .collect();
    assert!(losses[losses.len() - 1] < 0.9 * losses[0], "{losses:?}");
}

/// Each text names the folder, what it has and what was expected.
#[test]
fn teachers_that_do_not_fit_are_refused() {
    let world = World::new();
    let base = summary(
        world
            .pretrain(&world.pretrain_config(), "1-pretrain")
            .unwrap(),
    )
    .final_dir;
    let refusal = |teacher: &Path| {
        let config = distill_config(world.chat_config(&base), teacher, &world);
        let options = world.options("run", IfExists::Refuse, false);
        let error = distill::run(&config, options).unwrap_err().to_string();
        error.replace(
            &format!("{}/", world.path("").display()).replace("//", "/"),
            "",
        )
    };
    let mut larger = base.clone();
    larger.set_file_name("larger");
    fs::create_dir(&larger).unwrap();
    let mut shape = load_model(&base, &Device::flex()).unwrap().config().clone();
    shape.vocab_size = 301;
    let model = CausalLm::new(&shape, 1, &Device::flex());
    model::hf::save_model(&model, &larger).unwrap();
    assert_eq!(
        refusal(&larger),
        "1-pretrain/larger: the teacher has 301 tokens, expected the student's 300"
    );
    assert_eq!(
        refusal(&world.path("none")),
        "none: the teacher cannot be read"
    );
}
