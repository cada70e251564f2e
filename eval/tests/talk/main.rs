//! Talking to scripted models, whose answers are known byte by byte.
#![expect(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod answers;
mod chat;
mod engine;
mod scripted;
