//! Every command as its user runs it: real processes on a tiny model, on the CPU.

mod bad_input;
mod configs;
mod killed;
mod pipeline;
mod readme;
mod workplace;
