//! Data that a model makes itself: instructions out of nothing, answers, tags, pairs.
//!
//! Source: Xu et al. 2024, "Magpie: Alignment Data Synthesis from Scratch by Prompting Aligned LLMs
//! with Nothing", arXiv:2406.08464.

pub mod candidates;
pub mod clean;
pub mod completer;
pub mod dedup;
pub mod domains;
pub mod endpoint;
pub mod error;
pub mod families;
pub mod family_table;
pub mod filter;
mod held_out;
pub mod http;
pub mod instruct;
pub mod judgement;
pub mod language;
pub mod leaks;
pub mod manifest;
pub mod merge;
mod neighbours;
pub mod prefer;
mod range;
pub mod record;
pub mod respond;
mod retry;
pub mod reward;
pub mod seed;
pub mod sharegpt;
pub mod tag;
mod vectors;
pub mod work;

#[cfg(test)]
mod http_tests;
#[cfg(test)]
mod judge_tests;
#[cfg(test)]
mod tests;
