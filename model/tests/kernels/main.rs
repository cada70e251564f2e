//! Every fused kernel against its composed body in f64, against finite differences, and against
//! itself on other numbers of threads.

mod check;

mod adamw;
#[cfg(feature = "cube")]
mod batch;
#[cfg(feature = "cube")]
mod card;
mod causal_attention;
mod choice;
mod experts;
mod linear;
mod linear_cross_entropy;
mod rms_norm;
mod rotary;
mod rounded;
mod swiglu;
