//! Finished models: talk to them.

pub mod answers;
pub mod assistant_text;
pub mod chat;
pub mod engine;
pub mod json_object;
pub mod stop;
pub mod text_stream;
