//! More tokens for a model: rows behind the last one of its embedding and its head.
//!
//! Axis letters: `V` vocabulary, `D` hidden size.

use burn::module::Param;
use burn::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::causal_lm::CausalLm;
use crate::init::draw_normal;

impl CausalLm {
    /// The model with embeddings, and outputs, for `vocab_size` tokens; what it says of the tokens
    /// that it knew changes only by what the new ones take of the probability.
    ///
    /// A new row is the mean of the others, which makes the token neither likely nor impossible
    /// (Hewitt 2021, "Initializing new word embeddings for pretrained language models"), and a draw
    /// of its own, so that new tokens differ from each other.
    ///
    /// # Panics
    ///
    /// If the model has more tokens already.
    #[must_use]
    pub fn with_vocab_size(mut self, vocab_size: usize, seed: u64) -> Self {
        let known = self.config().vocab_size;
        assert!(vocab_size >= known, "a vocabulary is not made smaller");
        if vocab_size == known {
            return self;
        }
        let num_new = vocab_size - known;
        let hidden_size = self.config().hidden_size;
        let std = self.config().initializer_range;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // On the host: what is made of a trained tensor could not be trained itself.
        let mut extend = |weight: Tensor<2>| {
            let device = weight.device();
            let mut values: Vec<f32> = weight.into_data().iter().collect();
            let mut means = vec![0.0_f64; hidden_size];
            for row in values.chunks(hidden_size) {
                for (mean, value) in means.iter_mut().zip(row) {
                    *mean += f64::from(*value) / known as f64;
                }
            }
            let draws = draw_normal(&mut rng, num_new * hidden_size, std).into_iter();
            let means = means.iter().cycle();
            values.extend(draws.zip(means).map(|(draw, mean)| draw + *mean as f32));
            let values = TensorData::new(values, [vocab_size, hidden_size]);
            Tensor::<2>::from_data(values, &device) // [V, D]
        };
        let embedding = &mut self.embed_tokens.weight;
        let is_trained = embedding.is_require_grad();
        let weight = extend(embedding.val()); // [V, D]
        *embedding = Param::initialized(embedding.id, weight).set_require_grad(is_trained);
        if let Some(head) = &mut self.lm_head {
            let weight = extend(head.weight.val().transpose()).transpose(); // [D, V]
            head.weight = Param::initialized(head.weight.id, weight).set_require_grad(is_trained);
        }
        self.set_vocab_size(vocab_size);
        self
    }
}
