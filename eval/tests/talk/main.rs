//! Models whose answers are known, talked to and scored.
#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod answers;
mod chat;
mod engine;
mod exam;
mod pairs;
mod perplexity;
mod published;
mod report;
mod score;
mod scripted;
mod world_exam;
