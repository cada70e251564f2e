//! Finished models: talk to them.

pub mod chat;
pub mod engine;
pub mod stop;
pub mod text_stream;
