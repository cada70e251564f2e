//! Text to batches: readers, tokenizer, chat templates, token cache, packing, loader.

pub mod batch;
pub mod cache;
pub mod chat;
mod draw;
pub mod jsonl;
pub mod lines;
pub mod loader;
pub mod mask;
pub mod pack;
pub mod playground;
pub mod rows;
pub mod source;
pub mod split;
pub mod stream_decoder;
pub mod tokenizer;
pub mod tokenizer_train;

pub use chat::{ChatError, ChatTemplate, Message, RenderOptions, Span};
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodedSpans, Tokenizer, TokenizerError};
