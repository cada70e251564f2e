//! Training: from batches to weights, with one loop for every stage.

pub mod checkpoint;
pub mod config;
pub mod early_stopping;
pub mod export;
pub mod guard;
pub mod loss;
pub mod memory;
mod muon;
pub mod optimizer;
pub mod plan;
mod recompute;
pub mod report;
pub mod run_folder;
pub mod schedule;
pub mod stage;
pub mod step;
pub mod trainer;
pub mod validate;
mod weights;
