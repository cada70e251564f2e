//! Batches to weights: the training loop, its losses and its reports.

pub mod early_stopping;
pub mod report;
