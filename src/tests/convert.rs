//! `kindling convert` and `kindling inspect` on a tiny model.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::process::Command;

use burn::tensor::Device;
use model::gguf::GgufFile;
use model::hf::{load_model, save_model};
use model::lora::{LoraConfig, save_adapter};
use model::params::{fill_params, named_params};
use model::{CausalLm, ModelConfig};

use crate::fixture::{Fixture, fails, succeeds};

/// A folder `tiny` with random weights and the fixture's tokenizer.
fn with_model(config: &str) -> Fixture {
    let fixture = Fixture::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = ModelConfig::load(&root.join("configs/model").join(config)).unwrap();
    let dir = fixture.path("tiny");
    save_model(&CausalLm::new(&config, 3, &Device::flex()), &dir).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture.path("tokenizer").join(name), dir.join(name)).unwrap();
    }
    fixture
}

fn convert(fixture: &Fixture, model: &Path, flags: &[&str], out: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.args(["convert", "--model"]).arg(model);
    command.args(flags).arg("--out").arg(fixture.path(out));
    command
}

/// Parameters of a folder by name.
fn params(dir: &Path) -> BTreeMap<String, Vec<f32>> {
    let params = named_params(&load_model(dir, &Device::flex()).unwrap());
    let pairs = params.into_iter().map(|param| (param.path, param.values));
    pairs.collect()
}

/// f32 keeps all bits of a number, f16 eleven (and of tiny ones what is above 2^-25), bf16 eight;
/// what was rounded once is not rounded again.
#[test]
fn a_folder_is_written_in_the_type_that_is_asked_for() {
    let fixture = with_model("debug.json");
    let tiny = fixture.path("tiny");
    for (number_type, relative, absolute) in [
        ("f32", 0.0, 0.0),
        ("f16", f32::powi(2.0, -11), f32::powi(2.0, -25)),
        ("bf16", f32::powi(2.0, -8), 0.0),
    ] {
        let flags = ["--to", "hf", "--type", number_type];
        let again = format!("{number_type}-again");
        succeeds(convert(&fixture, &tiny, &flags, number_type));
        let written = fixture.path(number_type);
        succeeds(convert(&fixture, &written, &flags, &again));
        for (ours, theirs) in params(&written).values().zip(params(&tiny).values()) {
            for (ours, theirs) in ours.iter().zip(theirs) {
                assert!((ours - theirs).abs() <= relative * theirs.abs() + absolute);
            }
        }
        let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
        assert!(weights(&written) == weights(&fixture.path(&again)));
    }
    let config = fs::read_to_string(fixture.path("bf16/config.json")).unwrap();
    assert!(config.contains("\"dtype\": \"bfloat16\""), "{config}");

    let message = fails(convert(&fixture, &tiny, &[], "f32"));
    assert!(message.ends_with("/f32: exists already\n"), "{message}");
    let message = fails(convert(&fixture, &tiny, &["--type", "q8_0"], "x"));
    assert!(
        message.contains("--type q8_0: expected f32, f16 or bf16 outside GGUF"),
        "{message}"
    );
}

/// Rank 2, alpha 4 and 0.1 everywhere: each number of `q_proj` grows by 4 / 2 * 2 * 0.1 * 0.1, and
/// nothing else does.
#[test]
fn adapters_are_merged_into_the_weights() {
    let fixture = with_model("debug.json");
    let tiny = fixture.path("tiny");
    let config = LoraConfig {
        rank: 2,
        alpha: 4.0,
        dropout: 0.0,
        target_modules: vec!["q_proj".to_owned()],
    };
    let base = load_model(&tiny, &Device::flex()).unwrap();
    let adapted = base.with_adapters(&config, 1).unwrap();
    let filled = fill_params(adapted, |_, shape| -> Result<_, Infallible> {
        Ok(vec![0.1; shape.iter().product()])
    });
    let adapter = fixture.path("adapter");
    save_adapter(&filled.unwrap(), &config, &tiny, &adapter).unwrap();

    let flags = ["--to", "hf", "--adapter", adapter.to_str().unwrap()];
    succeeds(convert(&fixture, &tiny, &flags, "merged"));
    let merged = params(&fixture.path("merged"));
    for (name, before) in params(&tiny) {
        let growth = if name.contains("q_proj") { 0.04 } else { 0.0 };
        for (after, before) in merged[&name].iter().zip(before) {
            assert!((after - before - growth).abs() <= 1e-6, "{name}");
        }
    }
}

/// The tokenizer is in the file, every id has a token, and Ollama's folder says where it is.
#[test]
fn gguf_files_hold_the_tokenizer_too() {
    for config in ["debug.json", "debug-moe.json"] {
        let fixture = with_model(config);
        let tiny = fixture.path("tiny");
        succeeds(convert(
            &fixture,
            &tiny,
            &["--to", "gguf", "--type", "q8_0"],
            "t.gguf",
        ));
        let file = GgufFile::read(&fixture.path("t.gguf")).unwrap();
        let value = |key: &str| {
            let pair = file.metadata.iter().find(|(found, _)| found == key);
            pair.map(|(_, value)| value.clone()).unwrap_or_default()
        };
        assert_eq!(value("general.name"), "tiny");
        assert_eq!(value("tokenizer.ggml.pre"), "gpt-2");
        assert!(value("tokenizer.ggml.tokens").starts_with("[<unk>, <s>, </s>, "));
        assert!(value("tokenizer.chat_template").contains("<s>user"));
        assert!(!file.tensors.is_empty());
    }
    let fixture = with_model("debug.json");
    succeeds(convert(
        &fixture,
        &fixture.path("tiny"),
        &["--to", "ollama"],
        "o",
    ));
    let modelfile = fs::read_to_string(fixture.path("o/Modelfile")).unwrap();
    assert!(
        modelfile.starts_with("FROM ./model.gguf\nPARAMETER num_ctx "),
        "{modelfile}"
    );
    assert!(
        modelfile.contains("<s>user\n{{ .Content }}</s>\n<s>assistant\n"),
        "{modelfile}"
    );
    assert!(fixture.path("o/model.gguf").exists());
}

/// A PyTorch file needs what it does not say, and becomes a folder like any other.
#[test]
fn a_weight_file_is_imported_and_listed() {
    let fixture = Fixture::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let pth = root.join("model/tests/golden/pth/third.pth");
    let message = fails(convert(&fixture, &pth, &[], "x"));
    assert!(
        message.contains("--tokenizer: a weight file has none"),
        "{message}"
    );

    let mut command = Command::new(env!("CARGO_BIN_EXE_kindling"));
    command.arg("inspect").arg(&pth);
    let listed = String::from_utf8(succeeds(command).stdout).unwrap();
    let line = listed
        .lines()
        .find(|line| line.contains("layers.0.self_attention.k_proj"));
    assert!(line.unwrap().contains("F16   [4, 8]"), "{listed}");
    assert!(
        listed.contains("12 tensors, 984 numbers, 1968 bytes"),
        "{listed}"
    );
}
