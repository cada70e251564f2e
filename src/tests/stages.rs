//! Every command as its user runs it: real processes on a tiny model, on the CPU.

#![expect(
    clippy::unwrap_used,
    reason = "what a fixture cannot do fails its test"
)]

mod bad_input;
#[cfg(feature = "wgpu")]
mod card;
mod configs;
mod convert;
mod data;
mod eval;
mod experts;
mod fit;
mod fixture;
#[expect(dead_code, reason = "its faults are for the tests of downloads")]
#[path = "../../dataset/tests/prepare/server.rs"]
mod hub_server;
mod identity;
mod killed;
mod launch;
mod magpie;
mod magpie_loop;
mod pipeline;
mod prepare;
mod readme;
mod recipe;
#[cfg(feature = "remote")]
mod remote;
mod serve;
mod server;
