//! Distillation: what a student learns from a teacher, and what the teacher is asked.

use std::fs;
use std::path::{Path, PathBuf};

use burn::prelude::*;
use model::CausalLm;
use model::config::ModelConfig;
use model::hf::load_model;
use model::params::named_params;
use model::precision::Precision;
use train::config::{DistillConfig, SftConfig};
use train::run_folder::IfExists;
use train::{distill, full_sft};

use crate::world::{World, final_weights, metrics, summary};

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

/// A small mixture of experts with the tokenizer's vocabulary.
fn shape_of_experts() -> ModelConfig {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut shape = ModelConfig::load(&root.join("configs/model/debug-moe.json")).unwrap();
    shape.vocab_size = 300;
    shape
}

/// What a teacher answered about all tokens of its vocabulary teaches what the teacher itself
/// does; the likeliest alone teach something near it. It is asked once: the second run reads.
#[test]
fn students_learn_from_what_a_teacher_answered() {
    let world = World::new();
    let base = world.base();
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

/// A student's loss is scaled in f16 as every other, and what is reported is without the scale: where
/// nothing is learned, the steps that do not overflow have the norms of f32.
#[test]
fn a_student_in_f16_has_the_gradients_of_f32() {
    let world = World::new();
    let base = world.base();
    let norms = [Precision::F32, Precision::F16].map(|precision| {
        let mut config = distill_config(world.chat_config(&base), &base, &world);
        config.train.precision = precision;
        config.optimizer.lr = 1e-12;
        let name = precision.to_string();
        let options = world.options(&name, IfExists::Refuse, false);
        summary(distill::run(&config, options).unwrap());
        let rows = metrics(&world.path(&name)).into_iter();
        let steps = rows.filter(|row| row["kind"] == "step");
        steps
            .map(|row| row["grad_norm"].as_f64())
            .collect::<Vec<_>>()
    });
    let [plain, rounded] = &norms;
    let pairs = plain.iter().zip(rounded);
    let ratios: Vec<f64> = pairs
        .filter_map(|(plain, rounded)| Some((*rounded)? / (*plain)?))
        .collect();
    assert!(ratios.len() > 1, "{norms:?}");
    assert!(
        ratios.iter().all(|ratio| (ratio - 1.0).abs() < 1e-2),
        "{norms:?}"
    );
    assert_ne!(plain, rounded);
}

/// The divergence from a teacher of experts falls; only the vocabulary must be the student's.
#[test]
fn a_dense_student_learns_from_experts() {
    let world = World::new();
    let base = world.base();
    let teacher = world.path("experts");
    fs::create_dir(&teacher).unwrap();
    let model = CausalLm::new(&shape_of_experts(), 1, &Device::flex());
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
    let base = world.base();
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

/// A conversation is another question where it is cut elsewhere: what was answered about the rest
/// of it is not read, however many rows there are.
#[test]
fn conversations_that_are_cut_elsewhere_are_asked_about_again() {
    let world = World::new();
    let base = world.base();
    // More than 64 tokens: a token of the tokenizer's 300 is not longer than a few words of these.
    let long = serde_json::json!({"conversations": [
        {"role": "user", "content": "sing"},
        {"role": "assistant", "content": "xyz".repeat(100)},
    ]});
    let chats = fs::read_to_string(world.path("chat.jsonl")).unwrap();
    fs::write(world.path("chat.jsonl"), format!("{chats}\n{long}")).unwrap();
    let num_cached = |run: &str, seq_len: usize| {
        let mut config = distill_config(world.chat_config(&base), &base, &world);
        config.data.validation_fraction = 0.0;
        config.data.seq_len = seq_len;
        let options = world.options(run, IfExists::Refuse, false);
        summary(distill::run(&config, options).unwrap());
        fs::read_dir(world.path("cache")).unwrap().count()
    };
    let whole = num_cached("a", 64);
    assert_eq!(num_cached("b", 63), whole + 1);
    assert_eq!(num_cached("c", 64), whole + 1);
}

/// Noise on a student's routers changes what it learns, by the same bits every time.
#[test]
fn noise_on_routers_reaches_a_student_of_experts() {
    let world = World::new();
    let base = world.base();
    shape_of_experts()
        .save(&world.path("experts.json"))
        .unwrap();
    let taught = |run: &str, noise_std: f64| {
        let mut config = distill_config(world.chat_config(&base), &base, &world);
        config.model.from = PathBuf::new();
        config.model.config = world.path("experts.json");
        config.router.noise_std = noise_std;
        let options = world.options(run, IfExists::Refuse, false);
        summary(distill::run(&config, options).unwrap());
        final_weights(&world.path(run))
    };
    let (plain, noisy) = (taught("a", 0.0), taught("b", 1.0));
    assert_ne!(plain, noisy);
    assert_eq!(taught("c", 1.0), noisy);
}

/// A run goes on with the teacher it began with, or not at all.
#[test]
fn students_are_not_resumed_with_another_teacher() {
    let world = World::new();
    let base = world.base();
    let teacher = world.path("experts");
    fs::create_dir(&teacher).unwrap();
    let save_teacher = |seed: u64| {
        let model = CausalLm::new(&shape_of_experts(), seed, &Device::flex());
        model::hf::save_model(&model, &teacher).unwrap();
    };
    save_teacher(1);
    let mut config = distill_config(world.chat_config(&base), &teacher, &world);
    let taught = || distill::run(&config, world.options("run", IfExists::Resume, false));
    taught().unwrap();
    save_teacher(2);
    assert_eq!(
        taught().unwrap_err().to_string(),
        "cannot resume: the training data, the tokenizer or frozen weights changed since the \
         checkpoint was saved"
    );
    config.train.dump_curve_inputs = 3;
    assert_eq!(
        distill::plan(&config).unwrap_err().to_string(),
        "train.dump_curve_inputs: found 3, expected 0: only plain training of all weights is \
         compared with PyTorch"
    );
}

/// By hand: the teacher's weights beside the student's, and eight whole logits of 2 x 64 slots.
#[test]
fn the_plan_holds_the_teacher() {
    let world = World::new();
    let base = world.base();
    let plan = distill::plan(&distill_config(world.chat_config(&base), &base, &world)).unwrap();
    assert_eq!(plan.memory.weights, 2 * 4 * plan.num_params);
    assert_eq!(plan.memory.logits, 4 * 8 * 2 * 64 * 300);
}
