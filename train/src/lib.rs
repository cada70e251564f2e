//! Batches to weights: the training loop, its stages, its losses and its reports.

mod adamw;
pub mod checkpoint;
pub mod config;
mod curve_inputs;
pub mod data;
pub mod export;
pub mod full_sft;
mod grad_norm;
pub mod guard;
pub mod loss;
pub mod memory;
mod muon;
pub mod optimizer;
pub mod plan;
pub mod pretrain;
mod recompute;
pub mod report;
pub mod run;
pub mod run_folder;
pub mod schedule;
pub mod stage;
pub mod start;
pub mod step;
mod token_stage;
pub mod trainer;
pub mod validate;
mod weights;
