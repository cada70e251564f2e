//! Memory of a training run, estimated from shapes before anything is allocated.
//!
//! Axis letters: `M` slots of a micro-batch (`B * T`), `D` hidden size, `I` intermediate size, `Q`
//! query width (heads times head size), `K` key/value width, `V` vocabulary.

use std::fmt;

use model::config::ModelConfig;
use model::precision::Precision;

use crate::optimizer::OptimizerKind;

const F32: u64 = 4;
/// Rows whose logits the loss holds at a time, forward and backward.
const LOGITS_CHUNK_ROWS: u64 = 256;
/// The program, its tokenizer and batches on their way.
const PROGRAM_BYTES: u64 = 96 << 20;
/// The allocator keeps about this part of what is in use besides, in gaps between buffers.
const SLACK: u64 = 10;
/// Tensors of `[S, V]` at once where a student learns from a teacher: the student's logits, their
/// log-softmax plain and at the temperature, the teacher's log-softmax and its exponential, the
/// difference of the two, and two gradients.
const WHOLE_LOGITS: u64 = 8;

/// What decides the memory of a run, besides the model.
#[derive(Debug, Clone, Copy)]
pub struct MemoryInputs {
    /// Sequences per forward and backward pass.
    pub micro_batch_size: usize,
    /// Tokens per sequence.
    pub seq_len: usize,
    /// Forward and backward passes per optimizer step.
    pub grad_accumulation_steps: usize,
    /// Whether layers are recomputed in the backward pass.
    pub activation_checkpointing: bool,
    /// What the operands of products are rounded to.
    pub precision: Precision,
    /// Update rule.
    pub optimizer: OptimizerKind,
}

/// Estimated peak memory of a run, in bytes by purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// The parameters: 4 N.
    pub weights: u64,
    /// Gradients: 4 N, and once more while a second micro-batch is added.
    pub gradients: u64,
    /// Moments: 8 N for AdamW, 4 N for the matrices of Muon.
    pub optimizer: u64,
    /// What the backward pass needs of the forward pass, and its largest intermediates.
    pub activations: u64,
    /// Logits of one chunk and their gradient.
    pub logits: u64,
    /// What the model writes its own training data with: keys and values, logits, a reference.
    pub rollouts: u64,
    /// The program itself and the data on its way.
    pub program: u64,
    /// What the allocator holds without use.
    pub slack: u64,
}

impl MemoryEstimate {
    /// Estimate from shapes.
    ///
    /// Kept per layer and slot: the residual stream before both norms and both norms' outputs (`4
    /// D`), queries and the attention's output (`2 Q`), keys and values (`2 K`), gate, up and their
    /// product (`3 I`), and with QK-norm queries and keys once more. Recomputing keeps `D` per
    /// layer and all of one layer. The backward pass holds up to three tensors of the widest kind
    /// besides.
    ///
    /// In bf16 and f16 the norms' outputs and the product are kept in half the bytes, and the attention's
    /// output once more for the projection after it; what the backward pass multiplies is copied.
    pub fn new(model: &ModelConfig, inputs: MemoryInputs) -> Self {
        let num_params = model.num_params() as u64;
        let slots = (inputs.micro_batch_size * inputs.seq_len) as u64;
        let hidden = model.hidden_size as u64;
        let is_rounded = inputs.precision != Precision::F32;
        let operand = |width: u64| if is_rounded { width / 2 } else { width };
        let per_network = |width: usize| 2 * width as u64 + operand(width as u64);
        let query = (model.num_attention_heads * model.head_dim) as u64;
        let key = (model.num_key_value_heads * model.head_dim) as u64;
        let layers = model.num_hidden_layers as u64;

        let normed = if model.model_type.has_qk_norm() {
            query + key
        } else {
            0
        };
        let read_again = if is_rounded { operand(query) } else { 0 };
        let attention =
            2 * hidden + 2 * operand(hidden) + 2 * query + read_again + 2 * key + normed;
        let dense = attention + per_network(model.intermediate_size);
        // A routed expert keeps its input, gate and up, and its output; their product is computed
        // once more.
        let sparse = model.experts.as_ref().map_or(0, |experts| {
            let routed = 2 * hidden + 2 * experts.moe_intermediate_size as u64;
            let shared = per_network(experts.shared_intermediate_size());
            attention + experts.num_experts_per_tok as u64 * routed + shared
        });
        let num_sparse = model.num_sparse_layers() as u64;
        let kept = if inputs.activation_checkpointing {
            layers * hidden + dense.max(sparse)
        } else {
            (layers - num_sparse) * dense + num_sparse * sparse
        };
        let at_once = if is_rounded { 4 } else { 3 };
        let widest = at_once * hidden.max(widest_network(model)).max(query);
        let head = 3 * hidden;
        let activations = F32 * slots * (kept + head + widest);

        let copies = if inputs.grad_accumulation_steps > 1 {
            2
        } else {
            1
        };
        let embedding = (model.vocab_size * model.hidden_size) as u64;
        let matrices = num_params.saturating_sub(embedding);
        let moments = match inputs.optimizer {
            OptimizerKind::AdamW => 2 * num_params,
            OptimizerKind::Muon => 2 * embedding + matrices,
        };
        Self {
            weights: F32 * num_params,
            gradients: F32 * num_params * copies,
            optimizer: F32 * moments,
            activations,
            logits: F32 * 2 * slots.min(LOGITS_CHUNK_ROWS) * model.vocab_size as u64,
            rollouts: 0,
            program: PROGRAM_BYTES,
            slack: 0,
        }
        .with_slack()
    }

    /// The estimate of a run that learns from a teacher of this shape, about so many slots at once.
    ///
    /// The teacher's weights are held besides, and logits are whole. Their number is counted in the
    /// formulas of the loss, not measured, as if every slot were trained on.
    #[must_use]
    pub fn with_teacher(self, teacher: &ModelConfig, num_slots: u64) -> Self {
        Self {
            weights: self.weights + F32 * teacher.num_params() as u64,
            logits: F32 * WHOLE_LOGITS * num_slots * teacher.vocab_size as u64,
            ..self
        }
        .with_slack()
    }

    /// The estimate with the slack that goes with all other purposes.
    #[must_use]
    pub(crate) fn with_slack(self) -> Self {
        let used = Self { slack: 0, ..self };
        Self {
            slack: used.total() / SLACK,
            ..used
        }
    }

    /// The same for a run that writes its own training data.
    #[must_use]
    pub fn with_rollouts(self, bytes: u64) -> Self {
        Self {
            rollouts: bytes,
            slack: self.slack + bytes / SLACK,
            ..self
        }
    }

    /// All purposes together.
    pub fn total(&self) -> u64 {
        self.weights
            + self.gradients
            + self.optimizer
            + self.activations
            + self.logits
            + self.rollouts
            + self.program
            + self.slack
    }
}

/// What decides the memory of rollouts, besides the model.
#[derive(Debug, Clone, Copy)]
pub struct RolloutInputs {
    /// Answers written together.
    pub num_rows: usize,
    /// Tokens of the longest prompt with its answer.
    pub seq_len: usize,
    /// Whether the model that training started from stays beside the one that learns.
    pub has_reference: bool,
}

/// Bytes of keys and values (twice while the cache grows) and of the logits of one token per row,
/// and of the reference's weights.
pub fn rollout_bytes(model: &ModelConfig, inputs: RolloutInputs) -> u64 {
    let key = (model.num_key_value_heads * model.head_dim) as u64;
    let slots = (inputs.num_rows * inputs.seq_len) as u64;
    let cache = 2 * 2 * key * slots * model.num_hidden_layers as u64;
    let logits = 2 * (inputs.num_rows * model.vocab_size) as u64;
    let reference = if inputs.has_reference {
        model.num_params() as u64
    } else {
        0
    };
    F32 * (cache + logits + reference)
}

/// Width of what one network makes of all slots, or each of a token's experts of its share of them.
fn widest_network(model: &ModelConfig) -> u64 {
    let width = model
        .experts
        .as_ref()
        .map_or(model.intermediate_size, |experts| {
            let routed = experts.num_experts_per_tok * experts.moe_intermediate_size;
            let dense = if experts.dense_layers.is_empty() {
                0
            } else {
                model.intermediate_size
            };
            routed
                .div_ceil(experts.num_experts)
                .max(experts.shared_intermediate_size())
                .max(dense)
        });
    width as u64
}

/// Largest resident memory of this process so far, in bytes; `None` where the system does not tell
/// (it is read from Linux's `/proc`).
pub fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}

/// A number of bytes as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = self.0 as f64 / f64::from(1 << 20);
        if mebibytes < 1024.0 {
            write!(f, "{mebibytes:.0} MiB")
        } else {
            write!(f, "{:.2} GiB", mebibytes / 1024.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const INPUTS: MemoryInputs = MemoryInputs {
        micro_batch_size: 2,
        seq_len: 8,
        grad_accumulation_steps: 1,
        activation_checkpointing: false,
        precision: Precision::F32,
        optimizer: OptimizerKind::AdamW,
    };

    fn preset(name: &str) -> ModelConfig {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/model");
        ModelConfig::load(&folder.join(name)).unwrap()
    }

    /// By hand: 16 slots keep three widths of the one dense layer, and three more while it is
    /// differentiated.
    #[test]
    fn a_dense_layer_among_experts_counts_at_its_own_width() {
        let activations = |intermediate_size: usize| {
            let mut model = preset("v3-198m-moe.json");
            model.intermediate_size = intermediate_size;
            model.experts.as_mut().unwrap().dense_layers = vec![0];
            MemoryEstimate::new(&model, INPUTS).activations
        };
        assert_eq!(
            activations(3432) - activations(2432),
            4 * 16 * (3 + 3) * 1000
        );
    }

    /// By hand: of 16 slots' thousand more of width, gate and up stay whole and their product is
    /// halved; four instead of three are differentiated at once.
    #[test]
    fn rounded_operands_are_kept_in_half_the_bytes() {
        let activations = |precision: Precision, intermediate_size: usize| {
            let mut model = preset("debug.json");
            model.num_hidden_layers = 1;
            model.intermediate_size = intermediate_size;
            let inputs = MemoryInputs {
                precision,
                ..INPUTS
            };
            MemoryEstimate::new(&model, inputs).activations
        };
        for precision in [Precision::Bf16, Precision::F16] {
            assert_eq!(
                activations(precision, 3432) - activations(precision, 2432),
                4 * 16 * (2500 + 4000)
            );
        }
    }

    /// By hand: `debug` has 131,456 parameters and 512 tokens; a tenth of everything is slack.
    #[test]
    fn a_teacher_is_held_beside_its_student() {
        let model = preset("debug.json");
        let alone = MemoryEstimate::new(&model, INPUTS);
        let taught = alone.with_teacher(&model, 16);
        assert_eq!(taught.weights - alone.weights, 4 * 131_456);
        assert_eq!(taught.logits, 4 * 8 * 16 * 512);
        assert_eq!(taught.slack, (taught.total() - taught.slack) / 10);
    }
}
