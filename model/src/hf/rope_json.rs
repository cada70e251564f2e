//! The rotary fields of `config.json`: the base of the frequencies and the context extension.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::config_json::quoted;
use crate::config::{FieldError, ModelConfig, RopeScaling};

/// How positions are rotated, as `transformers` spells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct RopeJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rope_theta: Option<f64>,
    /// `type` in old files.
    #[serde(alias = "type", default = "default_rope_type")]
    rope_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original_max_position_embeddings: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_fast: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    beta_slow: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attention_factor: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    /// Fields that would change the angles in a way that is not built.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl RopeJson {
    pub(super) fn from_config(config: &ModelConfig) -> Self {
        let scaling = config.rope_scaling.as_ref();
        Self {
            rope_theta: Some(config.rope_theta),
            rope_type: if scaling.is_some() {
                "yarn".to_owned()
            } else {
                default_rope_type()
            },
            factor: scaling.map(|scaling| scaling.factor),
            original_max_position_embeddings: scaling
                .map(|scaling| scaling.original_max_position_embeddings),
            beta_fast: scaling.map(|scaling| scaling.beta_fast),
            beta_slow: scaling.map(|scaling| scaling.beta_slow),
            attention_factor: scaling.map(|scaling| scaling.attention_factor),
            truncate: scaling.map(|scaling| scaling.truncate),
            other: Map::new(),
        }
    }

    pub(super) fn scaling(
        &self,
        max_position_embeddings: usize,
    ) -> Result<Option<RopeScaling>, FieldError> {
        if !["default", "yarn"].contains(&self.rope_type.as_str()) {
            let field = "rope_parameters.rope_type";
            return Err(FieldError::new(
                field,
                quoted(&self.rope_type),
                "default or yarn",
            ));
        }
        // GLM-4 says here too that every feature of a head is rotated.
        let whole = ("partial_rotary_factor", json!(1.0));
        let mut other = self.other.iter().filter(|(_, value)| !value.is_null());
        if let Some((name, value)) =
            other.find(|(name, value)| (name.as_str(), *value) != (whole.0, &whole.1))
        {
            let field = format!("rope_parameters.{name}");
            return Err(FieldError::new(&field, value, "no such field"));
        }
        if self.rope_type == "default" {
            return Ok(None);
        }
        let Some(factor) = self.factor else {
            return Err(FieldError::new(
                "rope_parameters.factor",
                "missing",
                "a positive number",
            ));
        };
        Ok(Some(RopeScaling {
            factor,
            original_max_position_embeddings: self
                .original_max_position_embeddings
                .unwrap_or(max_position_embeddings),
            beta_fast: self.beta_fast.unwrap_or(32.0),
            beta_slow: self.beta_slow.unwrap_or(1.0),
            attention_factor: self
                .attention_factor
                .unwrap_or_else(|| RopeScaling::default_attention_factor(factor)),
            truncate: self.truncate.unwrap_or(true),
        }))
    }
}

fn default_rope_type() -> String {
    "default".to_owned()
}
