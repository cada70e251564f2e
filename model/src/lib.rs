//! The model room: tensors only, token ids in, logits out.

pub mod attention;
pub mod batch;
pub mod block;
mod candidates;
pub mod causal_lm;
pub mod config;
pub mod experts;
pub mod feed_forward;
pub mod flops;
pub mod generate;
mod generate_config;
pub mod gguf;
pub mod hf;
pub mod import;
mod init;
pub mod kernels;
pub mod kv_cache;
pub mod linear;
pub mod listing;
pub mod logprobs;
pub mod lora;
pub mod norm;
pub mod packed;
pub mod params;
pub mod positions;
mod prefix_cache;
mod resize;
pub mod reward;
pub mod rope;
pub mod sample;
pub mod training_pass;
pub mod training_record;
pub mod workers;

pub use causal_lm::CausalLm;
pub use config::ModelConfig;
pub use positions::Positions;
