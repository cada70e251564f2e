//! A recipe's file: which stages, from which settings, each starting from which.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::{EVAL, REJECT, TOKENIZER};
use crate::stage::{
    DISTILL, DPO, FULL_SFT, GRPO, LORA_SFT, LOYALTY, PRETRAIN, REWARD_MODEL, STORM,
};

/// A recipe: stages in their order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineConfig {
    /// The stages.
    pub stages: Vec<StageConfig>,
}

/// One stage of a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Name of its folder in the pipeline's.
    pub name: String,
    /// What it does: 0-tokenizer, 1-pretrain, 3-full_sft, 4-lora_sft, 5-dpo, reward_model, 6-grpo,
    /// 7-loyalty, 8-storm, 9-distill, reject or eval.
    pub stage: String,
    /// Its settings, a TOML file; an evaluation has none.
    #[serde(default)]
    pub config: PathBuf,
    /// Name of the earlier stage whose model it starts from; empty: the one before.
    #[serde(default)]
    pub from: String,
    /// Changes of its settings, as after --set; {out} in them is the pipeline's folder.
    #[serde(default)]
    pub set: Vec<String>,
    /// Of an evaluation: the words after `kindling eval`, without model, folder and device.
    #[serde(default)]
    pub args: Vec<String>,
}

impl PipelineConfig {
    /// Compares the stages with each other.
    ///
    /// # Errors
    ///
    /// A recipe without stages, a name that is there twice, an unknown stage, a start that does not
    /// come before.
    pub fn validate(&self) -> Result<()> {
        ensure!(
            !self.stages.is_empty(),
            "stages is empty, expected at least one [[stages]]"
        );
        for (index, stage) in self.stages.iter().enumerate() {
            let name = &stage.name;
            let earlier = &self.stages[..index];
            let is_file_name = Path::new(name).file_name() == Some(name.as_ref());
            ensure!(
                is_file_name,
                "stages.name is {name:?}, expected the name of a folder"
            );
            ensure!(
                earlier.iter().all(|other| other.name != *name),
                "two stages are called {name}, expected a name of its own for each"
            );
            ensure!(
                stage.from.is_empty() || earlier.iter().any(|other| other.name == stage.from),
                "stage {name} starts from {:?}, expected the name of an earlier stage",
                stage.from
            );
            let known = [
                TOKENIZER,
                PRETRAIN.name,
                FULL_SFT.name,
                LORA_SFT.name,
                DPO.name,
                REWARD_MODEL.name,
                GRPO.name,
                LOYALTY.name,
                STORM.name,
                DISTILL.name,
                REJECT,
                EVAL,
            ];
            ensure!(
                known.contains(&stage.stage.as_str()),
                "stage {name} is {:?}, expected one of {}",
                stage.stage,
                known.join(", ")
            );
            let (given, missing) = if stage.stage == EVAL {
                (!stage.args.is_empty(), "args")
            } else {
                (!stage.config.as_os_str().is_empty(), "config")
            };
            ensure!(
                given,
                "stage {name} has no {missing}, expected some for {:?}",
                stage.stage
            );
            stage.refuse_unread_fields()?;
        }
        Ok(())
    }
}

impl StageConfig {
    /// Whoever writes a field down wants it to matter.
    fn refuse_unread_fields(&self) -> Result<()> {
        let is_eval = self.stage == EVAL;
        let has_config = !self.config.as_os_str().is_empty();
        for (field, is_given, is_read) in [
            ("config", has_config, !is_eval),
            ("from", !self.from.is_empty(), self.stage != TOKENIZER),
            ("set", !self.set.is_empty(), !is_eval),
            ("args", !self.args.is_empty(), is_eval),
        ] {
            ensure!(
                is_read || !is_given,
                "stage {} has {field}, expected none for {:?}",
                self.name,
                self.stage
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let config: PipelineConfig = toml::from_str(text).unwrap();
        config.validate().unwrap_err().to_string()
    }

    /// Each text says what was found and what was expected.
    #[test]
    fn recipes_that_do_not_hold_together_are_refused() {
        let stage = |name: &str, stage: &str, from: &str| {
            format!(
                "[[stages]]\nname = {name:?}\nstage = {stage:?}\nconfig = \"c.toml\"\n\
                 from = {from:?}\n"
            )
        };
        assert_eq!(
            refusal("stages = []"),
            "stages is empty, expected at least one [[stages]]"
        );
        assert_eq!(
            refusal(&stage("a", "2-chat", "")),
            "stage a is \"2-chat\", expected one of 0-tokenizer, 1-pretrain, 3-full_sft, \
             4-lora_sft, 5-dpo, reward_model, 6-grpo, 7-loyalty, 8-storm, 9-distill, reject, eval"
        );
        let twice = stage("a", "1-pretrain", "") + &stage("a", "3-full_sft", "");
        assert_eq!(
            refusal(&twice),
            "two stages are called a, expected a name of its own for each"
        );
        assert_eq!(
            refusal(&stage("a", "3-full_sft", "b")),
            "stage a starts from \"b\", expected the name of an earlier stage"
        );
        assert_eq!(
            refusal("[[stages]]\nname = \"a\"\nstage = \"eval\""),
            "stage a has no args, expected some for \"eval\""
        );
        let eval = "[[stages]]\nname = \"a\"\nstage = \"eval\"\nargs = [\"health\"]\n";
        let first = stage("t", "0-tokenizer", "");
        for (text, field, kind) in [
            (format!("{eval}config = \"c.toml\""), "config", "eval"),
            (format!("{eval}set = [\"a=1\"]"), "set", "eval"),
            (
                stage("a", "1-pretrain", "") + "args = [\"ceval\"]",
                "args",
                "1-pretrain",
            ),
            (
                first + &stage("a", "0-tokenizer", "t"),
                "from",
                "0-tokenizer",
            ),
        ] {
            let expected = format!("stage a has {field}, expected none for {kind:?}");
            assert_eq!(refusal(&text), expected);
        }
        assert_eq!(
            refusal(&stage("../a", "3-full_sft", "")),
            "stages.name is \"../a\", expected the name of a folder"
        );
    }
}
