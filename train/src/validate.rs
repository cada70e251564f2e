//! Loss on held-out documents, per token and per byte of text.

use burn::module::Module;
use dataset::batch::TokenBatch;
use model::CausalLm;

use crate::device_error::DeviceError;
use crate::loss::{masked_cross_entropy, read_scalars, to_device};
use crate::stage::Metrics;

/// Loss of a model on a held-out split.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldOutLoss {
    /// Mean loss per trained token, or per pair of answers.
    pub loss: f64,
    /// Negative log-likelihood per UTF-8 byte of text, in bits: comparable between tokenizers.
    /// `None` where the loss is no likelihood of text.
    pub bits_per_byte: Option<f64>,
    /// Other numbers of the held-out split.
    pub metrics: Metrics,
}

impl HeldOutLoss {
    /// Loss per token and per byte of a summed negative log-likelihood.
    ///
    /// `bits_per_byte = nll / ln 2 / bytes`
    pub fn new(nll_sum: f64, num_supervised: usize, num_bytes: f64) -> Self {
        Self {
            loss: nll_sum / num_supervised as f64,
            bits_per_byte: Some(nll_sum / std::f64::consts::LN_2 / num_bytes),
            metrics: Metrics::new(),
        }
    }
}

/// Summed negative log-likelihood of batches, in nats, and the number of trained tokens.
///
/// # Errors
///
/// When the device fails.
pub fn score_batches(
    model: &CausalLm,
    batches: impl IntoIterator<Item = TokenBatch>,
) -> Result<(f64, usize), DeviceError> {
    let model = model.valid();
    let device = model.lm_head_weight().device();
    let mut losses = Vec::new();
    let mut num_supervised = 0;
    for batch in batches {
        // A batch without trained tokens has no loss to add.
        if batch.num_supervised() > 0 {
            num_supervised += batch.num_supervised();
            losses.push(masked_cross_entropy(&model, to_device(&batch, &device))); // [1]
        }
    }
    Ok((read_scalars(losses)?.iter().sum(), num_supervised))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A uniform model over V tokens needs log2(V) bits per token, so log2(V) * tokens / bytes per
    /// byte.
    #[test]
    fn a_uniform_model_needs_log2_of_the_vocabulary() {
        let (vocab_size, num_tokens, num_bytes) = (64.0f64, 30, 90.0);
        let scored = HeldOutLoss::new(vocab_size.ln() * 30.0, num_tokens, num_bytes);
        assert!((scored.loss - 64.0f64.ln()).abs() < 1e-12);
        assert!((scored.bits_per_byte.unwrap() - 6.0 * 30.0 / 90.0).abs() < 1e-12);
    }
}
