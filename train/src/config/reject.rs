//! Config of rejection sampling: who answers which prompts, and which answers are kept.

use documented::DocumentedFields;
use serde::{Deserialize, Serialize};

use super::{
    ConfigError, FieldDocs, ModelSection, PromptDataSection, RolloutSection, TokenizerSection,
    shared_field_doc,
};
use crate::reward::RewardsSection;

/// Config of `reject`: a model's own best answers as conversations to tune on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RejectConfig {
    /// Which model answers.
    pub model: ModelSection,
    /// How text becomes token ids.
    pub tokenizer: TokenizerSection,
    /// Which prompts are answered; those held out are not.
    pub data: PromptDataSection,
    /// How the model answers.
    pub rollout: RolloutSection,
    /// Which answers are kept.
    pub reject: RejectSection,
    /// What an answer is worth.
    pub rewards: RewardsSection,
}

/// `[reject]`: which answers are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RejectSection {
    /// Least reward of an answer that is kept; answers that were cut off never are.
    pub min_reward: f64,
    /// Most different answers that are kept of a prompt, the best ones, at least 1.
    pub max_kept: usize,
    /// Seed of the answers.
    pub seed: u64,
}

impl Default for RejectSection {
    fn default() -> Self {
        Self {
            min_reward: 1.0,
            max_kept: 1,
            seed: 42,
        }
    }
}

impl RejectConfig {
    /// Checks every field and the fields against each other.
    ///
    /// # Errors
    ///
    /// Names the field, what it holds and what it may hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.model.validate()?;
        if self.model.from.as_os_str().is_empty() {
            let expected = "the folder of a model that answers already";
            return Err(ConfigError::field("model.from", "nothing", expected));
        }
        self.tokenizer.validate()?;
        self.data.validate()?;
        if self.data.identities {
            let expected = "false: conversations do not say who asks";
            return Err(ConfigError::field("data.identities", "true", expected));
        }
        if !self.data.validation_files.is_empty() {
            let (found, expected) = (
                self.data.validation_files.len(),
                "none: nothing is validated",
            );
            return Err(ConfigError::field("data.validation_files", found, expected));
        }
        self.rollout.validate()?;
        self.rewards.validate()?;
        ConfigError::check_at_least("reject.max_kept", self.reject.max_kept, 1)?;
        if !self.reject.min_reward.is_finite() {
            let found = self.reject.min_reward;
            return Err(ConfigError::field("reject.min_reward", found, "a number"));
        }
        Ok(())
    }
}

impl FieldDocs for RejectConfig {
    fn field_doc(section: &str, field: &str) -> Option<&'static str> {
        match section {
            "" => Self::get_field_docs(field).ok(),
            "data" => PromptDataSection::get_field_docs(field).ok(),
            "rollout" => RolloutSection::get_field_docs(field).ok(),
            "reject" => RejectSection::get_field_docs(field).ok(),
            _ => shared_field_doc(section, field),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(change: impl FnOnce(&mut RejectConfig)) -> String {
        let text = "[model]\nfrom = \"final\"\n[tokenizer]\npath = \"final\"\n\
                    [data]\nfiles = [\"a.jsonl\"]\n[[rewards.functions]]\nkind = \"answer\"";
        let mut config: RejectConfig = toml::from_str(text).unwrap();
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    /// What the other users of these sections read and this one does not is refused.
    #[test]
    fn fields_that_are_not_read_are_refused() {
        assert_eq!(
            refusal(|config| config.data.identities = true),
            "data.identities: found true, expected false: conversations do not say who asks"
        );
        assert_eq!(
            refusal(|config| config.data.validation_files = vec!["b".to_owned()]),
            "data.validation_files: found 1, expected none: nothing is validated"
        );
        assert_eq!(
            refusal(|config| config.reject.max_kept = 0),
            "reject.max_kept: found 0, expected at least 1"
        );
        assert_eq!(
            refusal(|config| config.reject.min_reward = f64::NAN),
            "reject.min_reward: found NaN, expected a number"
        );
    }
}
