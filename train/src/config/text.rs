//! A config as TOML text with each field's sentence above it.

use std::collections::BTreeSet;

use dataset::source::SourceConfig;
use documented::DocumentedFields;
use serde::Serialize;

use super::exam::ExamSection;
use super::router::RouterSection;
use super::sections::{
    CheckpointSection, GuardSection, ModelSection, SamplesSection, TokenizerSection, TrainSection,
    ValidationSection,
};
use crate::optimizer::OptimizerConfig;
use crate::report::ReportConfig;
use crate::reward::RewardConfig;
use crate::schedule::ScheduleConfig;

/// Gives the sentence that explains a field to users.
pub trait FieldDocs {
    /// Sentence of a field in a section (`""` for the sections themselves); `None` for unknown
    /// names.
    fn field_doc(section: &str, field: &str) -> Option<&'static str>;
}

/// Sentence of a field of the sections that every stage has.
pub(super) fn shared_field_doc(section: &str, field: &str) -> Option<&'static str> {
    let doc = match section {
        "data.sources" => SourceConfig::get_field_docs(field),
        "rewards.functions" => RewardConfig::get_field_docs(field),
        "model" => ModelSection::get_field_docs(field),
        "tokenizer" => TokenizerSection::get_field_docs(field),
        "train" => TrainSection::get_field_docs(field),
        "optimizer" => OptimizerConfig::get_field_docs(field),
        "router" => RouterSection::get_field_docs(field),
        "schedule" => ScheduleConfig::get_field_docs(field),
        "validation" => ValidationSection::get_field_docs(field),
        "samples" => SamplesSection::get_field_docs(field),
        "exam" => ExamSection::get_field_docs(field),
        "checkpoint" => CheckpointSection::get_field_docs(field),
        "guard" => GuardSection::get_field_docs(field),
        "report" => ReportConfig::get_field_docs(field),
        _ => return None,
    };
    doc.ok()
}

/// The config as TOML, every field with its sentence above it; it reads back as the same config.
///
/// # Errors
///
/// When the config holds something that TOML cannot, such as a path that is not UTF-8.
pub fn commented_toml<C: Serialize + FieldDocs>(config: &C) -> Result<String, toml::ser::Error> {
    let mut text = String::new();
    let mut section = String::new();
    let mut explained = BTreeSet::new();
    for line in toml::to_string(config)?.lines() {
        let key = line.split_once(" = ").map(|(key, _)| key);
        let doc = if let Some(header) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            header.trim_matches(['[', ']']).clone_into(&mut section);
            let (parent, name) = section.rsplit_once('.').unwrap_or(("", &section));
            C::field_doc(parent, name)
        } else {
            key.and_then(|key| C::field_doc(&section, key))
        };
        // Of several sections of one name only the first is explained.
        let is_first = explained.insert((section.clone(), key.map(str::to_owned)));
        for sentence in doc.filter(|_| is_first).unwrap_or_default().lines() {
            text.push_str("# ");
            text.push_str(sentence.trim());
            text.push('\n');
        }
        text.push_str(line);
        text.push('\n');
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use crate::config::{
        DistillConfig, Length, LoraSftConfig, PretrainConfig, SftConfig, commented_toml,
    };

    /// Reading what was printed gives the same config back.
    #[test]
    fn a_printed_config_reads_back() {
        let mut config = SftConfig::default();
        config.data.files = vec!["a \"quoted\" [name].jsonl".to_owned()];
        config.train.length = Length::Minutes(1.5);
        config.samples.prompts = vec!["a = b\nc".to_owned()];
        let text = commented_toml(&config).unwrap();
        assert_eq!(
            toml::from_str::<SftConfig>(&text).unwrap(),
            config,
            "{text}"
        );
    }

    /// Every line that sets a field is preceded by a comment, in the config of every stage.
    #[test]
    fn every_field_has_its_sentence() {
        for text in [
            commented_toml(&PretrainConfig::default()),
            commented_toml(&SftConfig::default()),
            commented_toml(&LoraSftConfig::default()),
            commented_toml(&DistillConfig::default()),
        ] {
            let text = text.unwrap();
            let lines: Vec<&str> = text.lines().collect();
            for (before, line) in lines.iter().zip(&lines[1..]) {
                if line.contains(" = ") && !line.starts_with('#') {
                    assert!(before.starts_with("# "), "{line}");
                }
            }
            assert!(text.contains("# Length of the run"), "{text}");
        }
    }
}
