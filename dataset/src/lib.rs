//! Text to batches: readers, tokenizer, chat templates, token cache, packing, loader.

pub mod chat;
pub mod jsonl;
pub mod lines;
pub mod rows;
pub mod source;
pub mod stream_decoder;
pub mod tokenizer;
pub mod tokenizer_train;

pub use chat::{ChatError, ChatTemplate, Message, RenderOptions, Span};
pub use stream_decoder::StreamDecoder;
pub use tokenizer::{EncodedSpans, Tokenizer, TokenizerError};
