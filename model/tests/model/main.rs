//! Parity with PyTorch and transformers, and the decoder's invariances.

mod config;
mod decoder;
mod fixture;
mod folder_copy;
mod folders;
mod hugging_face;
mod pytorch;
mod refusals;
