//! Every command as its user runs it: real processes on a tiny model, on the CPU.

#![expect(
    clippy::unwrap_used,
    reason = "what a fixture cannot do fails its test"
)]

mod bad_input;
mod configs;
mod data;
mod eval;
mod experts;
mod fixture;
mod killed;
mod magpie;
mod pipeline;
mod readme;
mod recipe;
mod serve;
