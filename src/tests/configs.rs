//! Every file in configs/ is read as its stage reads it, and says above each field what the field's
//! documentation says.

use std::fs;
use std::path::Path;

use kindling::config::load_config;
use kindling::magpie::MagpieConfig;
use kindling::pipeline::PipelineConfig;
use kindling::tokenizer_stage::TokenizerConfig;
use model::ModelConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use train::config::{
    DistillConfig, DpoConfig, FieldDocs, GrpoConfig, LoraSftConfig, LoyaltyConfig, PretrainConfig,
    RejectConfig, RewardModelConfig, SftConfig, StormConfig, commented_toml,
};

/// The file as `--print-config` would print it, once its config holds together.
fn printed<C>(path: &Path, validate: impl Fn(&C) -> Result<(), String>) -> String
where
    C: DeserializeOwned + Serialize + FieldDocs,
{
    let config: C = load_config(path, &[]).unwrap();
    validate(&config).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    commented_toml(&config).unwrap()
}

/// The printed form is the only form: no field is missing, no sentence is out of date. A file that
/// differs is mended with `--config FILE --print-config`.
#[test]
fn every_config_is_what_print_config_prints() {
    let mut num_files = 0;
    for entry in fs::read_dir("configs").unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_none_or(|ending| ending != "toml") {
            continue;
        }
        let expected = match name.split('.').next().unwrap() {
            "0-tokenizer" => {
                printed::<TokenizerConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "1-pretrain" => {
                printed::<PretrainConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "3-full_sft" => {
                printed::<SftConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "4-lora_sft" => {
                printed::<LoraSftConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "7-loyalty" => {
                printed::<LoyaltyConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "reject" => printed::<RejectConfig>(&path, |c| c.validate().map_err(|e| e.to_string())),
            "reward_model" => {
                printed::<RewardModelConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "5-dpo" => printed::<DpoConfig>(&path, |c| c.validate().map_err(|e| e.to_string())),
            "6-grpo" => printed::<GrpoConfig>(&path, |c| c.validate().map_err(|e| e.to_string())),
            "8-storm" => printed::<StormConfig>(&path, |c| c.validate().map_err(|e| e.to_string())),
            "9-distill" => {
                printed::<DistillConfig>(&path, |c| c.validate().map_err(|e| e.to_string()))
            }
            "magpie" => printed::<MagpieConfig>(&path, |c| c.validate().map_err(|e| e.to_string())),
            "pipeline" => {
                let config: PipelineConfig = load_config(&path, &[]).unwrap();
                config.validate().unwrap();
                for stage in config.stages.iter().filter(|stage| stage.args.is_empty()) {
                    assert!(stage.config.exists(), "{name}: {}", stage.config.display());
                }
                continue;
            }
            stage => panic!("{name}: no stage is called {stage}"),
        };
        let text = fs::read_to_string(&path).unwrap();
        let first = text
            .lines()
            .zip(expected.lines())
            .position(|(found, printed)| found != printed);
        assert!(
            text == expected,
            "{name}: differs from --print-config at line {first:?}"
        );
        num_files += 1;
    }
    assert!(num_files >= 9, "found {num_files} configs");
}

/// Shapes are read by the rules of training, not only as JSON.
#[test]
fn every_model_shape_is_valid() {
    for entry in fs::read_dir("configs/model").unwrap() {
        let path = entry.unwrap().path();
        let config = ModelConfig::load(&path).unwrap();
        config
            .validate()
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
