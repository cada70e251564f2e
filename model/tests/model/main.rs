//! Parity with PyTorch and transformers, and the decoder's invariances.

#![expect(
    clippy::unwrap_used,
    reason = "what fails here fails the test, in a helper as in a test"
)]

mod config;
mod decoder;
mod experts;
mod fixture;
mod folder_copy;
mod folders;
mod gguf;
mod hugging_face;
mod import;
mod layers;
mod lora;
mod mutations;
mod packed;
mod pytorch;
mod refusals;
mod resize;
mod reward;
mod upcycle;
