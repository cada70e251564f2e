//! Finished models: talk to them and score them.

pub mod answers;
pub mod assistant_text;
pub mod chat;
pub mod engine;
pub mod exam;
pub mod fingerprint;
pub mod health;
pub mod json_object;
pub mod logps;
pub mod perplexity;
pub mod preference;
pub mod report;
pub mod score;
pub mod short_answer;
pub mod stats;
pub mod stop;
pub mod text_stream;
