//! `α · CE + (1 − α) · T² · KL(teacher ‖ student)`, summed over the trained tokens.
//!
//! Axis letters: `S` trained tokens, `V` vocabulary, `K` tokens that the teacher thinks likeliest.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use super::teacher::Likeliest;

/// Smallest probability of all other tokens together: its logarithm must stay finite.
const LEAST_REST: f64 = 1e-7;

/// The loss of a student's logits.
///
/// `T²` keeps the gradient of the divergence in its size whatever the temperature is.
///
/// # Shapes
///
/// - `logits`: `[S, V]`
/// - `labels`: `[S]`
/// - `divergence`: `[1]`, at the temperature
/// - returns: `[1]`, in nats
pub fn distill_loss(
    logits: Tensor<2>,
    labels: Tensor<1, Int>,
    divergence: Tensor<1>,
    alpha: f64,
    temperature: f64,
) -> Tensor<1> {
    let [num_tokens] = labels.dims();
    let targets = labels.reshape([num_tokens, 1]); // [S, 1]
    let logps = log_softmax(logits, 1); // [S, V]
    let nll = -logps.gather(1, targets).sum(); // [1]
    nll.mul_scalar(alpha) + divergence.mul_scalar((1.0 - alpha) * temperature * temperature)
}

/// `Σ p · (ln p − ln q)` over tokens and vocabulary, both at the temperature.
///
/// # Shapes
///
/// - `teacher`, `student`: logits, `[S, V]`
/// - returns: `[1]`, in nats
pub fn divergence(teacher: Tensor<2>, student: Tensor<2>, temperature: f64) -> Tensor<1> {
    let teacher = log_softmax(teacher.div_scalar(temperature), 1); // [S, V]
    let student = log_softmax(student.div_scalar(temperature), 1); // [S, V]
    (teacher.clone().exp() * (teacher - student)).sum()
}

/// The same where only the likeliest tokens of the teacher are known: all others count as one.
///
/// A lower bound of the whole divergence, and equal to it for `K = V`.
///
/// # Shapes
///
/// - `student`: logits, `[S, V]`
/// - returns: `[1]`, in nats
pub fn divergence_of_likeliest(
    likeliest: Likeliest,
    student: Tensor<2>,
    temperature: f64,
) -> Tensor<1> {
    let Likeliest { ids, logps } = likeliest;
    let [_, num_known] = ids.dims();
    let [_, vocab_size] = student.dims();
    let student = log_softmax(student.div_scalar(temperature), 1); // [S, V]
    let student = student.gather(1, ids); // [S, K]
    let known = (logps.clone().exp() * (logps.clone() - student.clone())).sum(); // [1]
    if num_known == vocab_size {
        return known;
    }
    let rest = |logps: Tensor<2>| {
        let rest = logps.exp().sum_dim(1).neg().add_scalar(1.0); // [S, 1]
        rest.clamp_min(LEAST_REST)
    };
    let (teacher_rest, student_rest) = (rest(logps), rest(student));
    known + (teacher_rest.clone() * (teacher_rest.log() - student_rest.log())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOLERANCE: f64 = 1e-6;

    fn logits(values: [[f32; 3]; 1]) -> Tensor<2> {
        Tensor::from_floats(values, &Device::flex())
    }

    fn value(tensor: Tensor<1>) -> f64 {
        tensor.into_data().iter::<f64>().sum()
    }

    fn likeliest(ids: &[i32], logps: &[f32]) -> Likeliest {
        let device = Device::flex();
        let shape = [1, ids.len()];
        Likeliest {
            ids: Tensor::from_data(TensorData::new(ids.to_vec(), shape), &device),
            logps: Tensor::from_data(TensorData::new(logps.to_vec(), shape), &device),
        }
    }

    /// MiniMind's recipe in float64: teacher [2, 1, 0], student [1, 1, 1], T 1.5: KL 0.1332807753,
    /// T² KL 0.2998817445; the cross entropy of three equal logits is ln 3.
    #[test]
    fn the_loss_is_minimind_s() {
        let (teacher, student) = (logits([[2.0, 1.0, 0.0]]), logits([[1.0, 1.0, 1.0]]));
        let divergence = divergence(teacher, student.clone(), 1.5);
        assert!((value(divergence.clone()) - 0.133_280_775).abs() < TOLERANCE);
        let labels = Tensor::<1, Int>::from_ints([2], &Device::flex());
        let loss = |alpha| {
            let (student, labels) = (student.clone(), labels.clone());
            value(distill_loss(
                student,
                labels,
                divergence.clone(),
                alpha,
                1.5,
            ))
        };
        assert!((loss(0.0) - 0.299_881_744).abs() < TOLERANCE);
        assert!((loss(1.0) - 3.0f64.ln()).abs() < TOLERANCE);
        let expected = 0.5 * 0.299_881_744 + 0.5 * 3.0f64.ln();
        assert!((loss(0.5) - expected).abs() < TOLERANCE);
    }

    /// All three tokens known is the whole divergence; one known and two as one is by hand (at T 1,
    /// p = 0.6652 and 0.3348, q = 1/3 and 2/3).
    #[test]
    fn likeliest_tokens_bound_the_divergence() {
        let (teacher, student) = (logits([[2.0, 1.0, 0.0]]), logits([[1.0, 1.0, 1.0]]));
        let logps = log_softmax(teacher.clone(), 1).into_data();
        let logps: Vec<f32> = logps.iter::<f32>().collect();
        let whole = value(divergence(teacher, student.clone(), 1.0));
        let all = divergence_of_likeliest(likeliest(&[0, 1, 2], &logps), student.clone(), 1.0);
        assert!((value(all) - whole).abs() < TOLERANCE);
        let one = divergence_of_likeliest(likeliest(&[0], &logps[..1]), student, 1.0);
        let p = f64::from(logps[0]).exp();
        let expected = p * (p * 3.0).ln() + (1.0 - p) * ((1.0 - p) * 1.5).ln();
        assert!((value(one.clone()) - expected).abs() < TOLERANCE);
        assert!(value(one) < whole);
    }

    /// Against differences of the loss itself, for a student that is not at its best.
    #[test]
    fn gradients_are_those_of_the_loss() {
        let device = Device::flex().autodiff();
        let student = [[0.3, -0.2, 0.8]];
        let loss = |student: Tensor<2>| {
            let teacher = Tensor::from_floats([[2.0, 1.0, 0.0]], &device);
            let labels = Tensor::<1, Int>::from_ints([1], &device);
            let divergence = divergence(teacher, student.clone(), 1.5);
            distill_loss(student, labels, divergence, 0.3, 1.5)
        };
        let leaf = Tensor::<2>::from_floats(student, &device).require_grad();
        let gradient = leaf
            .grad(&loss(leaf.clone()).backward())
            .unwrap()
            .into_data();
        for (index, found) in gradient.iter::<f64>().enumerate() {
            let at = |step: f32| {
                let mut moved = student;
                moved[0][index] += step;
                value(loss(Tensor::from_floats(moved, &device)).inner())
            };
            let expected = (at(1e-2) - at(-1e-2)) / 2e-2;
            assert!(
                (found - expected).abs() < 1e-3,
                "{index}: {found} {expected}"
            );
        }
    }
}
