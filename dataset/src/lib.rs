//! Text to batches: readers, tokenizer, chat templates, token cache, packing, loader.

pub mod answer;
pub mod batch;
pub mod cache;
pub mod chat;
pub mod conversations;
mod draw;
pub mod journal;
mod json_values;
pub mod lines;
pub mod loader;
pub mod loyalty;
pub mod magpie;
pub mod mask;
mod names;
pub mod pack;
pub mod playground;
pub mod preferences;
pub mod prepare;
pub mod prompts;
pub mod reasoned;
pub mod rows;
mod say;
pub mod source;
pub mod split;
pub mod stream_decoder;
pub mod tokenizer;
pub mod tokenizer_train;
pub mod validate;

pub use chat::{ChatError, ChatTemplate, Message, RenderOptions, Span};
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodedSpans, Tokenizer, TokenizerError};
