//! Every command end to end on a tiny model, on the CPU.
