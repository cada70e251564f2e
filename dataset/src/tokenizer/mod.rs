//! Text to token ids and back, for any Hugging Face `tokenizer.json`.

mod config;
mod llama2c;
mod ordinary;
mod reserved;
mod spans;
mod token_bytes;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::chat::{ChatError, ChatTemplate};
pub use config::TokenizerConfig;
pub use ordinary::ControlToken;
pub use spans::EncodedSpans;

const TOKENIZER_FILE: &str = "tokenizer.json";
const CONFIG_FILE: &str = "tokenizer_config.json";
const TEMPLATE_FILE: &str = "chat_template.jinja";

/// Characters of every plane, a lone combining mark and a control: what a sound tokenizer encodes.
const PROBE: &str = "a 1\n\t中\u{301}\u{0}\u{1F600}\u{10FFFD}";

/// Why a tokenizer could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// A file cannot be read.
    #[error("{}: cannot be read", path.display())]
    Read {
        /// File that was asked for.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// File that was being written.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is JSON, but no tokenizer, or no JSON at all.
    #[error("{}: not a tokenizer that the `tokenizers` library reads", path.display())]
    Parse {
        /// File that was being read.
        path: PathBuf,
        /// What the library expected.
        source: tokenizers::Error,
    },
    /// A tokenizer of llama2.c is damaged or something else.
    #[error("{}: token {index} {problem}", path.display())]
    Llama2c {
        /// File that was being read.
        path: PathBuf,
        /// The token, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The configuration beside the tokenizer is broken.
    #[error("{}: not a valid tokenizer configuration", path.display())]
    Config {
        /// File that was being read.
        path: PathBuf,
        /// Where in the file, and what was expected.
        source: serde_json::Error,
    },
    /// The configuration names a token that the vocabulary lacks.
    #[error("{}: {field} is `{token}`, which is not in the vocabulary", path.display())]
    UnknownToken {
        /// File that names the token.
        path: PathBuf,
        /// Field that names it.
        field: &'static str,
        /// The token.
        token: String,
    },
    /// The tokenizer has no ids for some characters and no unknown token either.
    #[error("{}: cannot encode every text", path.display())]
    Incomplete {
        /// File that was being read.
        path: PathBuf,
        /// What the library missed.
        source: tokenizers::Error,
    },
    /// The chat template is broken.
    #[error("{}: the chat template is broken", path.display())]
    ChatTemplate {
        /// File that holds the template.
        path: PathBuf,
        /// What is wrong with it.
        source: ChatError,
    },
}

/// Text to token ids and back.
///
/// Two views of one vocabulary: templates may write control tokens such as `<|im_end|>`, user text
/// may not, so its characters go through a view that does not know them.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    full: tokenizers::Tokenizer,
    ordinary: tokenizers::Tokenizer,
    control_tokens: Vec<ControlToken>,
    config: TokenizerConfig,
    chat_template: Option<ChatTemplate>,
    vocab_size: usize,
    bos_id: Option<u32>,
    eos_id: Option<u32>,
    pad_id: u32,
}

impl Tokenizer {
    /// Reads a folder with `tokenizer.json` (and `tokenizer_config.json` and
    /// `chat_template.jinja`, if it has them), or a `tokenizer.json` with its neighbours.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, is no tokenizer, or names tokens that the vocabulary lacks.
    pub fn load(path: &Path) -> Result<Self, TokenizerError> {
        let file = if path.is_dir() {
            path.join(TOKENIZER_FILE)
        } else {
            path.to_owned()
        };
        let folder = file.parent().unwrap_or(Path::new(""));
        let json = read(&file)?;
        let full =
            tokenizers::Tokenizer::from_bytes(&json).map_err(|source| TokenizerError::Parse {
                path: file.clone(),
                source,
            })?;
        let mut config = TokenizerConfig::load(&folder.join(CONFIG_FILE))?;
        let template = folder.join(TEMPLATE_FILE);
        if template.exists() {
            let source = fs::read_to_string(&template).map_err(|source| TokenizerError::Read {
                path: template,
                source,
            })?;
            config.set_chat_template(source);
        }
        Self::new(full, config, &file)
    }

    /// Puts a tokenizer together; `path` is what error messages name.
    pub(crate) fn new(
        mut full: tokenizers::Tokenizer,
        config: TokenizerConfig,
        path: &Path,
    ) -> Result<Self, TokenizerError> {
        // Both would silently change the number of ids.
        full.with_padding(None);
        full.with_truncation(None)
            .expect("no truncation is a valid truncation");
        let parse = |source| TokenizerError::Parse {
            path: path.to_owned(),
            source,
        };
        let control_tokens = ordinary::control_tokens(&full);
        let ordinary = ordinary::without_control_tokens(&full, &control_tokens).map_err(parse)?;
        for view in [&full, &ordinary] {
            view.encode_fast(PROBE, false)
                .map_err(|source| TokenizerError::Incomplete {
                    path: path.to_owned(),
                    source,
                })?;
        }
        let chat_template = config
            .chat_template()
            .map(|source| {
                let template: ChatTemplate = source.parse()?;
                Ok(template
                    .with_special_token("bos_token", config.bos_token())
                    .with_special_token("eos_token", config.eos_token())
                    .with_special_token("pad_token", config.pad_token())
                    .with_special_token("unk_token", config.unk_token())
                    .with_control_tokens(&control_tokens))
            })
            .transpose()
            .map_err(|source| TokenizerError::ChatTemplate {
                path: path.with_file_name(CONFIG_FILE),
                source,
            })?;
        let largest_id = full.get_vocab(true).into_values().max();
        let id_of = |field, token: Option<&str>| match token {
            Some(token) => match full.token_to_id(token) {
                Some(id) => Ok(Some(id)),
                None => Err(TokenizerError::UnknownToken {
                    path: path.with_file_name(CONFIG_FILE),
                    field,
                    token: token.to_owned(),
                }),
            },
            None => Ok(None),
        };
        Ok(Self {
            vocab_size: largest_id.map_or(0, |id| id as usize + 1),
            bos_id: id_of("bos_token", config.bos_token())?,
            eos_id: id_of("eos_token", config.eos_token())?,
            pad_id: id_of("pad_token", config.pad_token())?.unwrap_or(0),
            full,
            ordinary,
            control_tokens,
            config,
            chat_template,
        })
    }

    /// The same tokenizer with the chat template of a Jinja file in the place of its own.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or is no template.
    pub fn with_chat_template(self, path: &Path) -> Result<Self, TokenizerError> {
        let source = fs::read_to_string(path).map_err(|source| TokenizerError::Read {
            path: path.to_owned(),
            source,
        })?;
        let mut config = self.config;
        config.set_chat_template(source);
        let with_path = |error| match error {
            TokenizerError::ChatTemplate { source, .. } => TokenizerError::ChatTemplate {
                path: path.to_owned(),
                source,
            },
            error => error,
        };
        Self::new(self.full, config, path).map_err(with_path)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` (with the chat template in it).
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Write`]; each file is either whole or as it was before.
    pub fn save(&self, dir: &Path) -> Result<(), TokenizerError> {
        let json = self.to_json();
        fs::create_dir_all(dir).map_err(|source| TokenizerError::Write {
            path: dir.to_owned(),
            source,
        })?;
        write_whole(&dir.join(TOKENIZER_FILE), &(format!("{json:#}") + "\n"))?;
        write_whole(&dir.join(CONFIG_FILE), &self.config.to_json())
    }

    /// Ids of a text in which control tokens are recognised: for text that a template made.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        ids_of(&self.full, text)
    }

    /// Ids of a text in which the characters of control tokens stay ordinary text.
    pub fn encode_ordinary(&self, text: &str) -> Vec<u32> {
        ids_of(&self.ordinary, text)
    }

    /// Ids of a pretraining document: beginning, ordinary text, end.
    pub fn encode_document(&self, text: &str) -> Vec<u32> {
        let text_ids = self.encode_ordinary(text);
        let mut ids = Vec::with_capacity(text_ids.len() + 2);
        ids.extend(self.bos_id);
        ids.extend(text_ids);
        ids.extend(self.eos_id);
        ids
    }

    /// Text of ids; bytes that are no whole character become U+FFFD, unknown ids nothing.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> String {
        self.full
            .decode(ids, skip_special_tokens)
            .unwrap_or_default()
    }

    /// Number of ids that an embedding needs: the largest id and one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Id that begins a document, if the tokenizer has one.
    pub fn bos_id(&self) -> Option<u32> {
        self.bos_id
    }

    /// Id that ends a document or an assistant's turn, if the tokenizer has one.
    pub fn eos_id(&self) -> Option<u32> {
        self.eos_id
    }

    /// Id that fills rows up: the padding token, or 0 as MiniMind v1 does.
    pub fn pad_id(&self) -> u32 {
        self.pad_id
    }

    /// Id of a token by its text, added or not.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.full.token_to_id(token)
    }

    /// Text of a token as the vocabulary has it (byte-level letters, not characters).
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.full.id_to_token(id)
    }

    /// The tokens that user text must not become, in the order of their ids.
    pub fn control_tokens(&self) -> &[ControlToken] {
        &self.control_tokens
    }

    /// How a conversation becomes text, if the tokenizer says so.
    pub fn chat_template(&self) -> Option<&ChatTemplate> {
        self.chat_template.as_ref()
    }

    /// What `tokenizer_config.json` says.
    pub fn config(&self) -> &TokenizerConfig {
        &self.config
    }

    /// SHA-256 over everything that changes ids, in hexadecimal: two tokenizers with the same
    /// fingerprint encode every document alike.
    pub fn fingerprint(&self) -> String {
        let json = self.to_json();
        let mut hash = Sha256::new();
        for part in ["added_tokens", "normalizer", "pre_tokenizer", "model"] {
            hash.update(json.get(part).unwrap_or(&Value::Null).to_string());
            hash.update([0]);
        }
        hash.update(format!(
            "{:?} {:?} {}",
            self.bos_id, self.eos_id, self.pad_id
        ));
        hash.finalize()
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"))
    }

    /// What `tokenizer.json` says: the model, its merges and every step around it.
    ///
    /// # Panics
    ///
    /// Never: a tokenizer was read from JSON.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(&self.full).expect("a tokenizer is representable as JSON")
    }
}

fn ids_of(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<u32> {
    let encoding = tokenizer
        .encode_fast(text, false)
        .expect("loading checked that every text encodes");
    encoding.get_ids().to_vec()
}

fn read(path: &Path) -> Result<Vec<u8>, TokenizerError> {
    fs::read(path).map_err(|source| TokenizerError::Read {
        path: path.to_owned(),
        source,
    })
}

fn write_whole(path: &Path, text: &str) -> Result<(), TokenizerError> {
    let temporary = path.with_extension("json.tmp");
    fs::write(&temporary, text)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|source| TokenizerError::Write {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
