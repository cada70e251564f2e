//! Arithmetic per trained token, as the speed reports count it.
//!
//! Source: Kaplan et al. 2020, arXiv:2001.08361, section 2.1 (two operations per weight forward and
//! four backward), plus the attention scores.

use crate::config::ModelConfig;

impl ModelConfig {
    /// Floating-point operations per trained token in rows of `seq_len` tokens.
    ///
    /// `6·N + 6·L·D·T`: N weights that a token is multiplied by (a tied head once, a separate
    /// embedding not at all, of routed experts those that it is sent to), and the causal half of
    /// `12·L·D·T` for scores and their weighted sum.
    pub fn flops_per_token(&self, seq_len: usize) -> u64 {
        let looked_up = if self.tie_word_embeddings {
            0
        } else {
            self.vocab_size * self.hidden_size
        };
        let multiplied = self.num_active_params() - looked_up;
        let scores = self.num_hidden_layers * self.query_width() * seq_len;
        6 * (multiplied as u64 + scores as u64)
    }
}
