//! Presets, both spellings of the rotary fields, and what a config may not say.

use std::fs;
use std::path::Path;

use burn::module::Module;
use burn::prelude::*;
use model::config::{ConfigError, RopeScaling};
use model::rope::inverse_frequencies;
use model::{CausalLm, ModelConfig};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::fixture::golden_json;

/// Counts by MiniMind's own programs; `debug` by hand:
/// `512·64 + 2·(2·64·(64+32) + 2·16 + 3·64·192 + 2·64) + 64`, `debug-moe` likewise:
/// `512·64 + 2·(2·64·(64+32) + 64·4 + 4 + 5·3·64·64 + 2·64) + 64`.
#[test]
fn presets_have_their_exact_parameter_counts() {
    for (name, num_params) in [
        ("v1-26m", 26_878_464),
        ("v1-108m", 108_749_568),
        ("v3-64m", 63_912_192),
        ("debug", 131_456),
        ("v1-26m-moe", 96_100_864),
        ("v1-26m-moe-2shared", 113_402_368),
        ("v3-198m-moe", 198_416_640),
        ("debug-moe", 181_064),
    ] {
        assert_eq!(preset(name).num_params(), num_params, "{name}");
    }
}

/// Counts by MiniMind's own programs; a dense model's tokens meet all of it.
#[test]
fn a_token_meets_its_own_experts_only() {
    for (name, num_params) in [
        ("v1-26m", 26_878_464),
        ("v1-26m-moe", 61_497_856),
        ("v1-26m-moe-2shared", 78_799_360),
        ("v3-198m-moe", 63_936_768),
    ] {
        assert_eq!(preset(name).num_active_params(), num_params, "{name}");
    }
}

/// The rotary tables are no parameters; a tied head is counted once, an untied one apart.
#[test]
fn the_built_model_has_as_many_parameters_as_its_config_counts() {
    let device = Device::flex();
    for tie_word_embeddings in [true, false] {
        let config = ModelConfig {
            tie_word_embeddings,
            ..preset("debug")
        };
        let model = CausalLm::new(&config, 0, &device);
        assert_eq!(model.num_params(), config.num_params());
    }
    assert_eq!(
        CausalLm::new(&preset("v1-26m"), 0, &device).num_params(),
        26_878_464
    );
}

/// MiniMind trained v1 at 512 tokens and gives v3 room for 32,768.
#[test]
fn presets_have_their_context() {
    for (name, max_position_embeddings) in [
        ("v1-26m", 2048),
        ("v1-108m", 2048),
        ("v3-64m", 32_768),
        ("debug", 512),
    ] {
        assert_eq!(
            preset(name).max_position_embeddings,
            max_position_embeddings,
            "{name}"
        );
    }
}

/// `6·26,878,464 + 6·8·512·512` by hand; an untied model looks its embedding up for nothing.
#[test]
fn flops_count_every_multiplied_weight_once() {
    let config = preset("v1-26m");
    assert_eq!(config.flops_per_token(512), 173_853_696);
    let untied = ModelConfig {
        tie_word_embeddings: false,
        ..config.clone()
    };
    assert_eq!(untied.flops_per_token(512), config.flops_per_token(512));
}

/// Both places and both names say the same thing.
#[test]
fn rotary_fields_are_read_where_either_transformers_writes_them() {
    let old = ModelConfig::load(&golden_path("v3_yarn")).unwrap();
    let mut json = golden_json("v3_yarn", "config.json");
    let fields = json.as_object_mut().unwrap();
    let mut rope = fields.remove("rope_scaling").unwrap();
    rope["rope_type"] = rope.as_object_mut().unwrap().remove("type").unwrap();
    rope["rope_theta"] = fields.remove("rope_theta").unwrap();
    fields.insert("rope_parameters".to_owned(), rope);
    assert_eq!(parse(&json).unwrap(), old);
}

/// What is written loads again in either generation of transformers.
#[test]
fn a_written_config_says_everything_in_both_places() {
    let config = ModelConfig::load(&golden_path("hf_llama_yarn")).unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("config.json");
    config.save(&path).unwrap();
    assert_eq!(ModelConfig::load(&path).unwrap(), config);

    let written: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(written["rope_theta"], 10000.0);
    assert_eq!(written["rope_scaling"]["rope_type"], "yarn");
    assert_eq!(written["rope_parameters"]["rope_theta"], 10000.0);
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no partial file stays"
    );
}

/// `0.1·ln 4 + 1`, as transformers has it where the config names none.
#[test]
fn yarn_has_the_default_attention_factor_of_transformers() {
    let config = ModelConfig::load(&golden_path("hf_llama_yarn")).unwrap();
    let scaling = config.rope_scaling.unwrap();
    assert!((scaling.attention_factor - 1.138_629_436_111_989).abs() < 1e-12);
    assert!((RopeScaling::default_attention_factor(1.0) - 1.0).abs() < 1e-12);
}

/// MiniMind-3 at head size 96: the ramp runs over pairs 8 to 21, its middle pair at 0.56730769.
#[test]
fn yarn_divides_slow_frequencies_only() {
    let scaling = ModelConfig::load(&golden_path("v3_yarn"))
        .unwrap()
        .rope_scaling;
    let plain = preset("v3-64m");
    let scaled = ModelConfig {
        rope_scaling: scaling,
        ..plain.clone()
    };
    let ratios: Vec<f64> = inverse_frequencies(&scaled)
        .iter()
        .zip(inverse_frequencies(&plain))
        .map(|(scaled, plain)| scaled / plain)
        .collect();
    for (pair, expected) in [
        (0, 1.0),
        (8, 1.0),
        (14, 0.567_307_69),
        (21, 0.0625),
        (47, 0.0625),
    ] {
        assert!(
            (ratios[pair] - expected).abs() < 1e-8,
            "pair {pair}: {}",
            ratios[pair]
        );
    }
}

/// MiniMind's rule `multiple_of · ceil(⌊8·dim/3⌋ / multiple_of)`, and its defaults.
#[test]
fn minimind_v1_fields_are_understood() {
    let config = parse(&json!({
        "dim": 512, "n_layers": 8, "n_heads": 16, "n_kv_heads": 8, "vocab_size": 6400,
        "norm_eps": 1e-5, "max_seq_len": 2048,
    }));
    assert_eq!(config.unwrap(), preset("v1-26m"));
}

/// Field, value, and the two halves of the message, written by hand.
#[test]
fn a_field_that_does_not_fit_is_named() {
    let unlike = json!({ "type": "yarn", "factor": 2.0 });
    let llama3 = json!({ "rope_type": "llama3", "low_freq_factor": 1.0 });
    let scaled = json!({ "rope_type": "yarn", "factor": 2.0, "mscale": 1.5 });
    let sliding = json!(["sliding_attention"]);
    for (field, value, found, expected) in [
        (
            "num_attention_heads",
            json!(3),
            "3",
            "a divisor of hidden_size 64",
        ),
        (
            "num_key_value_heads",
            json!(3),
            "3",
            "a divisor of num_attention_heads 4",
        ),
        (
            "head_dim",
            json!(15),
            "15",
            "an even number, since positions rotate pairs",
        ),
        ("vocab_size", json!(0), "0", "1 to 2147483647"),
        ("rms_norm_eps", json!(0.0), "0", "a positive number"),
        ("initializer_range", json!(2.0), "2", "0 to 1"),
        (
            "eos_token_id",
            json!([2, 160]),
            "160",
            "less than vocab_size 160",
        ),
        (
            "model_type",
            json!("gpt2"),
            "\"gpt2\"",
            "llama, qwen3, qwen3_moe, ernie4_5_moe or glm4_moe",
        ),
        ("hidden_act", json!("gelu"), "\"gelu\"", "silu"),
        ("attention_bias", json!(true), "true", "false"),
        (
            "layer_types",
            sliding,
            "\"sliding_attention\"",
            "full_attention in every layer",
        ),
        ("rope_theta", json!(5.0), "5", "10000 as in rope_parameters"),
        (
            "rope_scaling",
            unlike,
            "another than rope_parameters",
            "the same in both",
        ),
        (
            "rope_parameters.rope_type",
            llama3,
            "\"llama3\"",
            "default or yarn",
        ),
        ("rope_parameters.mscale", scaled, "1.5", "no such field"),
        (
            "rope_parameters.factor",
            json!({ "type": "yarn" }),
            "missing",
            "a positive number",
        ),
    ] {
        let mut config = golden_json("hf_llama", "config.json");
        config[field.split('.').next().unwrap()] = value;
        let source = match parse(&config) {
            Err(ConfigError::Field { source, .. }) => source,
            other => panic!("{field}: {other:?}"),
        };
        assert_eq!(
            source.to_string(),
            format!("`{field}` is {found}, expected {expected}")
        );
    }
}

/// Texts of `serde_json`, behind the file's name.
#[test]
fn a_config_that_is_not_one_is_refused_with_its_place() {
    let mut config = golden_json("hf_llama", "config.json");
    config.as_object_mut().unwrap().remove("hidden_size");
    for (text, message) in [
        (config.to_string(), "missing field `hidden_size`"),
        (
            String::new(),
            "EOF while parsing a value at line 1 column 0",
        ),
        (
            "{\n\"dim\" 5}".to_owned(),
            "expected `:` at line 2 column 7",
        ),
    ] {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        let error = ModelConfig::load(dir.path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{}: not a model config", path.display())
        );
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with(message), "{source}");
    }
}

fn preset(name: &str) -> ModelConfig {
    let presets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/model");
    ModelConfig::load(&presets.join(format!("{name}.json"))).unwrap()
}

fn golden_path(name: &str) -> std::path::PathBuf {
    crate::fixture::golden(name).join("config.json")
}

fn parse(json: &Value) -> Result<ModelConfig, ConfigError> {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
    ModelConfig::load(dir.path())
}
