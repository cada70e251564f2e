//! What the mains share: flags, configs, the device, signals, and the commands themselves.

#[cfg(not(target_env = "msvc"))]
mod allocator;
pub mod args;
pub mod bench;
pub mod chat;
pub mod config;
pub mod convert;
pub mod data;
pub mod device;
mod engine;
pub mod eval;
pub mod exam;
pub mod examiner;
mod fit;
pub mod identity;
pub mod inspect;
pub mod interrupt;
pub mod launch;
pub mod magpie;
pub mod pipeline;
pub mod quickstart;
pub mod reject;
pub mod serve;
pub mod stage;
mod stdout;
pub mod tokenizer_stage;
pub mod worker;
pub mod world_exam;
