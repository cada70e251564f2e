//! Talking to scripted models, whose answers are known byte by byte.

mod chat;
mod engine;
mod scripted;
