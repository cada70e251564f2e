//! The decoder's shape, under the names that Hugging Face's `config.json` gives its fields.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::experts::{ExpertsConfig, ScoringFunc};
use crate::hf::config_json::{self, ConfigJson};
use crate::hf::write_atomically;

/// Which of the decoders that `transformers` knows a config describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelType {
    /// Llama, and MiniMind v1 once the rows of its query and key weights are reordered.
    Llama,
    /// Qwen3 and MiniMind-3: Llama with an RMSNorm on every query and key head.
    Qwen3,
    /// Qwen3 with routed experts, and MiniMind-3's.
    #[serde(rename = "qwen3_moe")]
    Qwen3Moe,
    /// Llama with routed and shared experts, softmax scores and weights that sum to one: MiniMind
    /// v1's, once the rows of its query and key weights are reordered.
    #[serde(rename = "ernie4_5_moe")]
    Ernie45Moe,
    /// Llama with routed and shared experts and sigmoid scores.
    #[serde(rename = "glm4_moe")]
    Glm4Moe,
}

impl ModelType {
    /// The value of `model_type` in `config.json`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3_moe",
            Self::Ernie45Moe => "ernie4_5_moe",
            Self::Glm4Moe => "glm4_moe",
        }
    }

    /// The class of `transformers` that loads the folder.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen3Moe => "Qwen3MoeForCausalLM",
            Self::Ernie45Moe => "Ernie4_5_MoeForCausalLM",
            Self::Glm4Moe => "Glm4MoeForCausalLM",
        }
    }

    /// Whether layers may have experts.
    pub fn has_experts(self) -> bool {
        matches!(self, Self::Qwen3Moe | Self::Ernie45Moe | Self::Glm4Moe)
    }

    /// How its routers score experts.
    pub fn scoring_func(self) -> ScoringFunc {
        match self {
            Self::Glm4Moe => ScoringFunc::Sigmoid,
            _ => ScoringFunc::Softmax,
        }
    }

    /// Whether queries and keys pass an RMSNorm over the head size before the rotation.
    pub fn has_qk_norm(self) -> bool {
        matches!(self, Self::Qwen3 | Self::Qwen3Moe)
    }
}

/// YaRN context extension of the rotary frequencies.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeScaling {
    /// How many times longer the context becomes.
    pub factor: f64,
    /// Positions the model was trained on before the extension.
    pub original_max_position_embeddings: usize,
    /// Frequencies that turn more often than this over the original context stay as they are.
    pub beta_fast: f64,
    /// Frequencies that turn less often than this are divided by `factor`.
    pub beta_slow: f64,
    /// What the cosines and sines are multiplied by; MiniMind has 1.
    pub attention_factor: f64,
    /// Whether the ends of the ramp between the two are rounded outwards to whole frequencies.
    pub truncate: bool,
}

impl RopeScaling {
    /// The factor that YaRN gives cosines and sines where a config names none.
    ///
    /// `0.1 · ln(factor) + 1`. Source: Peng et al. 2023, arXiv:2309.00071, eq. 22.
    pub fn default_attention_factor(factor: f64) -> f64 {
        if factor <= 1.0 {
            1.0
        } else {
            0.1 * factor.ln() + 1.0
        }
    }
}

/// Everything that fixes a decoder's tensors and what they compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "ConfigJson", into = "ConfigJson")]
pub struct ModelConfig {
    /// Which decoder it is.
    pub model_type: ModelType,
    /// Token ids the embedding has rows for.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the feed-forward network.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by an equal number of query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; need not be `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// Positions the rotary tables hold.
    pub max_position_embeddings: usize,
    /// Added to the mean square inside every RMSNorm.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Routed experts in the place of the feed-forward network, if any.
    pub experts: Option<ExpertsConfig>,
    /// Context extension, if any.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// Token that opens a document.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a generation.
    pub eos_token_id: Vec<u32>,
    /// Token that fills the end of a row.
    pub pad_token_id: Option<u32>,
}

/// A field of a config whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` is {found}, expected {expected}")]
pub struct FieldError {
    /// The field, as `config.json` spells it.
    pub field: String,
    /// Its value.
    pub found: String,
    /// What would have been accepted.
    pub expected: String,
}

impl FieldError {
    pub(crate) fn new(
        field: &str,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }
}

/// Why a `config.json` could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was being read.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not the JSON of a model config.
    #[error("{}: not a model config", path.display())]
    Json {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
    /// A field has a value that cannot be used.
    #[error("{}", path.display())]
    Field {
        /// File that was being read.
        path: PathBuf,
        /// The field, its value and what was expected.
        source: FieldError,
    },
}

impl ModelConfig {
    /// Reads and validates a `config.json`, given the file or its folder.
    ///
    /// # Errors
    ///
    /// Names the file and, where one is at fault, the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = if path.is_dir() {
            path.join("config.json")
        } else {
            path.to_path_buf()
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(ConfigError::Read { path, source }),
        };
        config_json::parse(&text, &path)
    }

    /// Writes the `config.json` that `transformers` loads, whole or not at all.
    ///
    /// # Errors
    ///
    /// Names the file when it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        write_atomically(path, config_json::render(self).as_bytes()).map_err(|source| {
            ConfigError::Write {
                path: path.to_path_buf(),
                source,
            }
        })
    }

    /// Compares the fields with one another.
    ///
    /// # Errors
    ///
    /// Names the first field that does not fit.
    pub fn validate(&self) -> Result<(), FieldError> {
        for (field, count) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ] {
            if count == 0 || count > i32::MAX as usize {
                return Err(FieldError::new(field, count, "1 to 2147483647"));
            }
        }
        self.validate_heads()?;
        for (field, value) in [
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ] {
            require_positive(field, value)?;
        }
        if !(0.0..=1.0).contains(&self.initializer_range) {
            return Err(FieldError::new(
                "initializer_range",
                self.initializer_range,
                "0 to 1",
            ));
        }
        if let Some(scaling) = &self.rope_scaling {
            scaling.validate()?;
        }
        if let Some(experts) = &self.experts {
            experts.validate(self)?;
        }
        self.validate_token_ids()
    }

    /// Width of all query heads together.
    pub fn query_width(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of all key heads together, and of all value heads.
    pub fn key_value_width(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Trained numbers in the model, a tied head counted once.
    pub fn num_params(&self) -> usize {
        self.params_met_by_a_token(|experts| experts.num_experts)
    }

    /// Numbers that one token is computed with: those of its own experts only.
    pub fn num_active_params(&self) -> usize {
        self.params_met_by_a_token(|experts| experts.num_experts_per_tok)
    }

    fn params_met_by_a_token(&self, num_routed: impl Fn(&ExpertsConfig) -> usize) -> usize {
        let attention = 2 * self.hidden_size * (self.query_width() + self.key_value_width());
        let qk_norm = if self.model_type.has_qk_norm() {
            2 * self.head_dim
        } else {
            0
        };
        let layer = attention + qk_norm + 2 * self.hidden_size;
        let feed_forward: usize = (0..self.num_hidden_layers)
            .map(|layer| match self.experts_of(layer) {
                Some(experts) => experts.num_params(self.hidden_size, num_routed(experts)),
                None => 3 * self.hidden_size * self.intermediate_size,
            })
            .sum();
        let embedding = self.vocab_size * self.hidden_size;
        let num_embeddings = if self.tie_word_embeddings { 1 } else { 2 };
        num_embeddings * embedding
            + self.num_hidden_layers * layer
            + feed_forward
            + self.hidden_size
    }

    fn validate_heads(&self) -> Result<(), FieldError> {
        let (heads, hidden_size) = (self.num_attention_heads, self.hidden_size);
        // `transformers` refuses such a Llama even where `head_dim` is given.
        if self.model_type == ModelType::Llama && !hidden_size.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size {hidden_size}");
            return Err(FieldError::new("num_attention_heads", heads, expected));
        }
        if !heads.is_multiple_of(self.num_key_value_heads) {
            let expected = format!("a divisor of num_attention_heads {heads}");
            return Err(FieldError::new(
                "num_key_value_heads",
                self.num_key_value_heads,
                expected,
            ));
        }
        if !self.head_dim.is_multiple_of(2) {
            let expected = "an even number, since positions rotate pairs";
            return Err(FieldError::new("head_dim", self.head_dim, expected));
        }
        Ok(())
    }

    fn validate_token_ids(&self) -> Result<(), FieldError> {
        let expected = || format!("less than vocab_size {}", self.vocab_size);
        let named = [
            ("bos_token_id", self.bos_token_id),
            ("pad_token_id", self.pad_token_id),
        ]
        .into_iter()
        .filter_map(|(field, id)| id.map(|id| (field, id)))
        .chain(self.eos_token_id.iter().map(|id| ("eos_token_id", *id)));
        for (field, id) in named {
            if id as usize >= self.vocab_size {
                return Err(FieldError::new(field, id, expected()));
            }
        }
        Ok(())
    }
}

impl RopeScaling {
    fn validate(&self) -> Result<(), FieldError> {
        for (field, value) in [
            ("rope_parameters.factor", self.factor),
            ("rope_parameters.beta_slow", self.beta_slow),
            ("rope_parameters.attention_factor", self.attention_factor),
        ] {
            require_positive(field, value)?;
        }
        if !self.beta_fast.is_finite() || self.beta_fast < self.beta_slow {
            let expected = format!("at least beta_slow {}", self.beta_slow);
            return Err(FieldError::new(
                "rope_parameters.beta_fast",
                self.beta_fast,
                expected,
            ));
        }
        if self.original_max_position_embeddings == 0 {
            let field = "rope_parameters.original_max_position_embeddings";
            return Err(FieldError::new(field, 0, "at least 1"));
        }
        Ok(())
    }
}

fn require_positive(field: &str, value: f64) -> Result<(), FieldError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(FieldError::new(field, value, "a positive number"))
    }
}
