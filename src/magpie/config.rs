//! Settings of generated data: one TOML file for all steps.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use dataset::magpie::dedup::DedupSection;
use dataset::magpie::endpoint::EndpointSection;
use dataset::magpie::filter::FilterSection;
use dataset::magpie::instruct::GenerateSection;
use dataset::magpie::merge::MergeSection;
use dataset::magpie::prefer::PreferSection;
use dataset::magpie::respond::RespondSection;
use dataset::magpie::tag::{Mission, TagSection};
use documented::DocumentedFields;
use serde::{Deserialize, Serialize};
use train::config::FieldDocs;

/// Everything that `kindling magpie` is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields)]
pub struct MagpieConfig {
    /// Seed of everything that is drawn, for each row a stream of its own.
    pub seed: u64,
    /// Files of the steps: "jsonl", or "json" for arrays as Magpie writes them.
    pub format: RecordFormat,
    /// Rows between two saves, at least 1; a stopped step loses no more than these.
    pub save_every: usize,
    /// The model that asks and answers.
    pub engine: EngineSection,
    /// Instructions out of nothing.
    pub generate: GenerateSection,
    /// Answers to them.
    pub respond: RespondSection,
    /// Who is asked for tags and grades; with nothing named, the model that answers.
    pub judge: EngineSection,
    /// How good an answer is, as a number.
    pub reward: RewardSection,
    /// Tags of instructions and answers.
    pub tag: TagSection,
    /// Near-duplicates among the instructions.
    pub dedup: DedupSection,
    /// Which rows are kept.
    pub filter: FilterSection,
    /// Pairs of a better and a worse answer.
    pub prefer: PreferSection,
    /// Rows of several runs made one, and the file that instruction tuning reads.
    pub merge: MergeSection,
}

/// Who gives answers a number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct RewardSection {
    /// "likelihood" (mean log-probability of the answer's tokens to a model), "model" (the head that
    /// kindling reward_model trained), "judge" (a grade from 1 to 10) or "none".
    pub source: RewardSource,
    /// Folder of the chat model whose likelihood counts (empty: engine.model), or of the "model".
    pub model: PathBuf,
}

impl Default for RewardSection {
    fn default() -> Self {
        Self {
            source: RewardSource::Likelihood,
            model: PathBuf::new(),
        }
    }
}

/// Where rewards come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RewardSource {
    /// From nowhere.
    None,
    /// A model's own.
    Likelihood,
    /// A trained head.
    Model,
    /// The judge's grade.
    Judge,
}

/// How rows are laid out in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecordFormat {
    /// One object per line.
    Jsonl,
    /// One array.
    Json,
}

/// A model of our own, or one behind an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, DocumentedFields)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Folder of a chat model (a run's final/ or a Hugging Face folder); empty where the endpoint
    /// has a url. To ask, it must have learned users' turns: data.loss_on = "all".
    pub model: PathBuf,
    /// Texts that are written at the same time, at least 1; it changes no text.
    pub batch_size: usize,
    /// A model behind an OpenAI-compatible endpoint.
    pub endpoint: EndpointSection,
}

impl Default for EngineSection {
    fn default() -> Self {
        Self {
            model: PathBuf::new(),
            batch_size: 32,
            endpoint: EndpointSection::default(),
        }
    }
}

impl RecordFormat {
    /// Ending of the files.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Jsonl => "jsonl",
            Self::Json => "json",
        }
    }
}

impl EngineSection {
    /// Whether nothing is named.
    pub fn is_empty(&self) -> bool {
        self.model.as_os_str().is_empty() && self.endpoint.url.is_empty()
    }

    fn validate(&self, name: &str) -> Result<()> {
        let has_model = !self.model.as_os_str().is_empty();
        ensure!(
            !has_model || self.endpoint.url.is_empty(),
            "{name}.model and {name}.endpoint.url are both given, expected one of them"
        );
        ensure!(
            self.batch_size > 0,
            "{name}.batch_size is 0, expected at least 1"
        );
        Ok(self.endpoint.validate()?)
    }
}

impl MagpieConfig {
    /// Compares fields with their ranges and with each other.
    ///
    /// # Errors
    ///
    /// Names the field, what it is and what it must be.
    pub fn validate(&self) -> Result<()> {
        ensure!(self.save_every > 0, "save_every is 0, expected at least 1");
        ensure!(
            !self.engine.is_empty(),
            "engine.model is empty, expected a model folder (or engine.endpoint.url)"
        );
        self.engine.validate("engine")?;
        self.generate.validate()?;
        self.respond.validate()?;
        self.judge.validate("judge")?;
        self.tag.validate()?;
        self.dedup.validate()?;
        self.filter.validate()?;
        self.prefer.validate()?;
        let tags_rewards = self.tag.missions.contains(&Mission::Reward);
        ensure!(
            !(tags_rewards && self.reward.source == RewardSource::None),
            "tag.missions has reward, expected none while reward.source is \"none\""
        );
        ensure!(
            self.reward.source != RewardSource::Likelihood
                || !self.reward_model().as_os_str().is_empty(),
            "reward.model is empty, expected a model folder: an endpoint has no likelihoods \
             (or reward.source = \"judge\")"
        );
        ensure!(
            self.reward.source != RewardSource::Model || !self.reward.model.as_os_str().is_empty(),
            "reward.model is empty, expected the folder of a model that kindling reward_model left"
        );
        Ok(())
    }

    /// Folder of the model whose likelihood counts.
    pub fn reward_model(&self) -> &Path {
        if self.reward.model.as_os_str().is_empty() {
            &self.engine.model
        } else {
            &self.reward.model
        }
    }
}

impl FieldDocs for MagpieConfig {
    fn field_doc(section: &str, field: &str) -> Option<&'static str> {
        let doc = match section {
            "" => Self::get_field_docs(field),
            "engine" | "judge" => EngineSection::get_field_docs(field),
            "engine.endpoint" | "judge.endpoint" => EndpointSection::get_field_docs(field),
            "reward" => RewardSection::get_field_docs(field),
            "tag" => TagSection::get_field_docs(field),
            "dedup" => DedupSection::get_field_docs(field),
            "filter" => FilterSection::get_field_docs(field),
            "prefer" => PreferSection::get_field_docs(field),
            "merge" => MergeSection::get_field_docs(field),
            "generate" => GenerateSection::get_field_docs(field),
            "respond" => RespondSection::get_field_docs(field),
            _ => return None,
        };
        doc.ok()
    }
}
