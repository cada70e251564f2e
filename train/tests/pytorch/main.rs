//! Training steps against numbers that PyTorch recorded.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod adamw_steps;
mod packed_curve;
mod recorded;
