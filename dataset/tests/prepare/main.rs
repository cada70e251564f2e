//! Preparation of published sets from a hub and from folders.

#![expect(clippy::unwrap_used, reason = "what a test cannot prepare fails it")]

mod downloads;
mod server;
mod sets;
