//! Preparation of APT's sets from a hub and from folders.

mod downloads;
mod server;
mod sets;
