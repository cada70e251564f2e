//! What the kernels' tests share: seeded numbers, values with gradients, and comparisons.

use burn::prelude::*;
use burn::tensor::DType;
use half::bf16;

/// A seeded stream of numbers (SplitMix64, Steele et al. 2014).
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `limit - 1`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From -1 to 1, exact in f32.
    pub(crate) fn values(&mut self, count: usize) -> Vec<f64> {
        let mut value = || (self.next() >> 40) as f64 / f64::from(1_u32 << 23) - 1.0;
        (0..count).map(|_| value()).collect()
    }

    /// Positions of documents of random lengths, packed into rows of `len`.
    pub(crate) fn positions(&mut self, batch: usize, len: usize) -> Vec<i32> {
        let mut positions = Vec::new();
        for _ in 0..batch {
            let mut position = 0;
            for _ in 0..len {
                positions.push(position);
                position = if self.below(5) == 0 { 0 } else { position + 1 };
            }
        }
        positions
    }
}

/// An operation on flat inputs with a flat output, so that one harness serves every rank.
pub(crate) type Operation<'a> = &'a (dyn Fn(&[Tensor<1>]) -> Tensor<1> + Sync);

/// Output and gradient of every input.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Outcome {
    pub(crate) out: Vec<f64>,
    pub(crate) grads: Vec<Vec<f64>>,
}

fn floats(tensor: Tensor<1>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Runs `operation` and backward from the sum of the output times fixed noise.
pub(crate) fn outcome(operation: Operation<'_>, inputs: &[Vec<f64>], dtype: DType) -> Outcome {
    outcome_on(operation, inputs, dtype, &Device::flex().autodiff())
}

/// [`outcome`] on a device that may recompute what it did not keep.
pub(crate) fn outcome_on(
    operation: Operation<'_>,
    inputs: &[Vec<f64>],
    dtype: DType,
    device: &Device,
) -> Outcome {
    let inputs: Vec<Tensor<1>> = inputs
        .iter()
        .map(|values| tensor(values, dtype, device).require_grad())
        .collect();
    let out = operation(&inputs);
    let probe = tensor(&probe(out.dims()[0]), dtype, device);
    // Along the axis: a sum over all elements is atomic on graphics cards, and software drivers
    // have crashed on that.
    let loss = (out.clone() * probe).sum_dim(0);
    // Read first: Burn may fuse a sum with what follows it into a kernel whose one unit goes over all
    // elements twice, and Mesa's software driver ends a kernel's loops after 65,535 iterations.
    let _ = floats(loss.clone());
    let grads = loss.backward();
    let grads = inputs
        .iter()
        .map(|input| floats(input.grad(&grads).expect("every input is tracked")))
        .collect();
    Outcome {
        out: floats(out),
        grads,
    }
}

/// Noise that bf16 holds exactly, so that a kernel which rounds its operands rounds none of it.
fn probe(count: usize) -> Vec<f64> {
    let noise = Noise::new(count as u64).values(count).into_iter();
    noise.map(|value| bf16::from_f64(value).to_f64()).collect()
}

fn tensor(values: &[f64], dtype: DType, device: &Device) -> Tensor<1> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [values.len()]),
        (device, dtype),
    )
}

/// Output without autodiff.
pub(crate) fn untracked(operation: Operation<'_>, inputs: &[Vec<f64>], dtype: DType) -> Vec<f64> {
    untracked_on(operation, inputs, dtype, &Device::flex())
}

/// [`untracked`] on another device.
pub(crate) fn untracked_on(
    operation: Operation<'_>,
    inputs: &[Vec<f64>],
    dtype: DType,
    device: &Device,
) -> Vec<f64> {
    let inputs: Vec<Tensor<1>> = inputs
        .iter()
        .map(|values| tensor(values, dtype, device))
        .collect();
    floats(operation(&inputs))
}

/// The fused kernel in f32 gives what the composed body gives in f64: output and every gradient.
///
/// `tolerance` is absolute, for inputs from -1 to 1.
pub(crate) fn assert_equals_reference(
    fused: Operation<'_>,
    reference: Operation<'_>,
    inputs: &[Vec<f64>],
    tolerance: f64,
    what: &str,
) {
    let expected = outcome(reference, inputs, DType::F64);
    assert_outcomes_on(
        &Device::flex(),
        fused,
        inputs,
        &expected,
        |found, expected, part| {
            assert_close(found, expected, tolerance, &format!("{what}: {part}"));
        },
    );
}

/// Compares what `fused` gives in f32 on a device, tracked, untracked and recomputed.
pub(crate) fn assert_outcomes_on(
    device: &Device,
    fused: Operation<'_>,
    inputs: &[Vec<f64>],
    expected: &Outcome,
    compare: impl Fn(&[f64], &[f64], &str),
) {
    let tracking = device.clone().autodiff();
    let found = outcome_on(fused, inputs, DType::F32, &tracking);
    compare(&found.out, &expected.out, "output");
    for (index, (found, expected)) in found.grads.iter().zip(&expected.grads).enumerate() {
        compare(found, expected, &format!("gradient {index}"));
    }
    let found = untracked_on(fused, inputs, DType::F32, device);
    compare(&found, &expected.out, "untracked output");
    let recomputing = tracking.gradient_checkpointing();
    let found = outcome_on(fused, inputs, DType::F32, &recomputing);
    for (index, (found, expected)) in found.grads.iter().zip(&expected.grads).enumerate() {
        compare(found, expected, &format!("recomputed gradient {index}"));
    }
}

/// The fused gradients are the slopes of the composed body: central differences in f64.
pub(crate) fn assert_equals_finite_differences(
    fused: Operation<'_>,
    reference: Operation<'_>,
    inputs: &[Vec<f64>],
    tolerance: f64,
    what: &str,
) {
    const STEP: f64 = 1e-4;
    let found = outcome(fused, inputs, DType::F32);
    let loss = |inputs: &[Vec<f64>]| -> f64 {
        let out = untracked(reference, inputs, DType::F64);
        out.iter()
            .zip(probe(out.len()))
            .map(|(out, probe)| out * probe)
            .sum()
    };
    for (index, grads) in found.grads.iter().enumerate() {
        let slopes: Vec<f64> = (0..grads.len())
            .map(|element| {
                let mut moved = inputs.to_vec();
                moved[index][element] += STEP;
                let above = loss(&moved);
                moved[index][element] -= 2.0 * STEP;
                (above - loss(&moved)) / (2.0 * STEP)
            })
            .collect();
        assert_close(
            grads,
            &slopes,
            tolerance,
            &format!("{what}: slope of input {index}"),
        );
    }
}

/// The same bits from one, two and five threads, and again.
pub(crate) fn assert_deterministic(fused: Operation<'_>, inputs: &[Vec<f64>]) {
    let bits = |outcome: Outcome| -> Vec<Vec<u64>> {
        let all = std::iter::once(outcome.out).chain(outcome.grads);
        all.map(|values| values.into_iter().map(f64::to_bits).collect())
            .collect()
    };
    let expected = bits(outcome(fused, inputs, DType::F32));
    for num_threads in [1, 2, 5, 5, 2] {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(num_threads)
            .build()
            .expect("threads start");
        let found = bits(pool.install(|| outcome(fused, inputs, DType::F32)));
        assert!(found == expected, "other bits on {num_threads} threads");
    }
}

/// Largest absolute difference at most `tolerance`, and no value that is not finite.
pub(crate) fn assert_close(found: &[f64], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found - expected).abs();
        assert!(
            difference <= tolerance,
            "{what}: element {index} is {found}, expected {expected}, off by {difference:e}"
        );
    }
}
