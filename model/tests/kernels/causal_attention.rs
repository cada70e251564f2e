//! Causal grouped-query attention over packed documents.

use burn::prelude::*;
use burn::tensor::DType;
use model::Positions;
use model::kernels::{causal_attention, causal_attention::reference};

#[cfg(feature = "cube")]
use crate::card::{assert_deterministic_on_card, assert_equals_reference_on_card};
use crate::check::{
    Noise, Operation, assert_close, assert_deterministic, assert_equals_finite_differences,
    assert_equals_reference, untracked,
};

/// Weighted means of numbers up to 1, and gradients of the same size.
const TOLERANCE: f64 = 5e-6;

/// Sizes of one case and its positions.
#[derive(Clone, Debug)]
struct Case {
    batch: usize,
    len: usize,
    slots: usize,
    num_heads: usize,
    num_kv_heads: usize,
    head_dim: usize,
    positions: Vec<i32>,
    /// Two numbers per query, or none at all.
    gaps: Vec<i32>,
}

impl Case {
    /// `sizes` are batch, queries, slots, query heads, key heads, head size.
    fn new(sizes: [usize; 6], noise: &mut Noise) -> Self {
        let [batch, len, slots, num_heads, num_kv_heads, head_dim] = sizes;
        // Documents are packed over all the slots; the queries are the last of them.
        let all = noise.positions(batch, slots);
        let rows = all.chunks_exact(slots);
        let positions = rows.flat_map(|row| row[slots - len..].to_vec()).collect();
        Self {
            batch,
            len,
            slots,
            num_heads,
            num_kv_heads,
            head_dim,
            positions,
            gaps: Vec::new(),
        }
    }

    /// Rows of one piece: a beginning of `shared` tokens, a continuation of `first` behind it, and a
    /// second one, which does not see the first, to the end of the row.
    fn forked(mut self, shared: usize, first: usize) -> Self {
        let gap_of = |slot: usize| slot.checked_sub(shared + first).map(|since| (since, first));
        let before = self.slots - self.len;
        for index in 0..self.batch * self.len {
            let slot = before + index % self.len;
            let gap = gap_of(slot);
            let place = gap.map_or(slot, |(since, _)| shared + since);
            self.positions[index] = place as i32;
            let (since, len) = gap.unwrap_or_default();
            self.gaps.extend([since as i32, len as i32]);
        }
        self
    }

    fn inputs(&self, noise: &mut Noise) -> [Vec<f64>; 3] {
        let keys = self.batch * self.slots * self.num_kv_heads * self.head_dim;
        let queries = self.batch * self.len * self.num_heads * self.head_dim;
        [
            noise.values(queries),
            noise.values(keys),
            noise.values(keys),
        ]
    }

    fn run(
        &self,
        inputs: &[Tensor<1>],
        body: impl Fn(Tensor<4>, Tensor<4>, Tensor<4>, Positions) -> Tensor<4>,
    ) -> Tensor<1> {
        let device = inputs[0].device();
        let places = TensorData::new(self.positions.clone(), [self.batch, self.len]);
        let gaps = (!self.gaps.is_empty()).then(|| {
            let gaps = TensorData::new(self.gaps.clone(), [self.batch, self.len, 2]);
            Tensor::from_data(gaps, &device)
        });
        let positions = Positions {
            places: Tensor::from_data(places, &device),
            gaps,
        };
        let keys = [self.batch, self.slots, self.num_kv_heads, self.head_dim];
        let q = inputs[0]
            .clone()
            .reshape([self.batch, self.len, self.num_heads, self.head_dim]);
        let k = inputs[1].clone().reshape(keys);
        let v = inputs[2].clone().reshape(keys);
        body(q, k, v, positions).reshape([-1])
    }
}

fn with_case(case: &Case, check: impl Fn(Operation<'_>, Operation<'_>)) {
    let fused = |inputs: &[Tensor<1>]| case.run(inputs, causal_attention);
    let composed = |inputs: &[Tensor<1>]| case.run(inputs, reference::causal_attention);
    check(&fused, &composed);
}

fn assert_case(case: &Case, noise: &mut Noise) {
    let inputs = case.inputs(noise);
    with_case(case, |fused, composed| {
        assert_equals_reference(fused, composed, &inputs, TOLERANCE, &format!("{case:?}"));
    });
}

/// The composed body in f64 is the expected value; the sizes cross the tiles of 64.
#[test]
fn causal_attention_equals_its_reference_for_every_head_size() {
    let mut noise = Noise::new(41);
    for head_dim in [16, 24, 32, 48, 64, 96] {
        assert_case(
            &Case::new([2, 70, 70, 4, 2, head_dim], &mut noise),
            &mut noise,
        );
    }
}

/// One head, equal heads, two and four query heads per key head.
#[test]
fn causal_attention_equals_its_reference_for_every_grouping() {
    let mut noise = Noise::new(42);
    for (num_heads, num_kv_heads) in [(1, 1), (3, 3), (4, 2), (8, 2)] {
        assert_case(
            &Case::new([1, 37, 37, num_heads, num_kv_heads, 8], &mut noise),
            &mut noise,
        );
    }
}

/// Lengths around the tile, the row block and the vector; a head size no vector divides.
#[test]
fn causal_attention_equals_its_reference_on_odd_lengths() {
    let mut noise = Noise::new(43);
    for len in [1, 2, 5, 9, 17, 63, 64, 65, 131, 200] {
        assert_case(&Case::new([2, len, len, 2, 1, 10], &mut noise), &mut noise);
    }
}

/// The queries are the last slots of a cache, one or many at a time.
#[test]
fn queries_see_the_slots_before_them_in_a_cache() {
    let mut noise = Noise::new(44);
    for (len, slots) in [(1, 40), (1, 200), (3, 66), (8, 9), (20, 150), (70, 71)] {
        let mut case = Case::new([2, len, slots, 4, 2, 16], &mut noise);
        assert_case(&case, &mut noise);
        // One document as long as the cache, and with left padding in the second row.
        for (index, position) in case.positions.iter_mut().enumerate() {
            let slot = slots - len + index % len;
            *position = if index < len {
                slot
            } else {
                slot - (slots - len).min(7)
            } as i32;
        }
        assert_case(&case, &mut noise);
    }
}

/// A second continuation of a prompt, with gaps that begin and end within tiles, cover whole ones,
/// and have no token before or behind them; a few queries at a time, too.
#[test]
fn a_second_continuation_does_not_see_the_first() {
    let mut noise = Noise::new(51);
    for (len, shared, first) in [
        (9, 3, 2),
        (70, 0, 30),
        (100, 20, 20),
        (200, 40, 100),
        (260, 64, 64),
        (150, 149, 1),
    ] {
        let case = Case::new([2, len, len, 4, 2, 16], &mut noise).forked(shared, first);
        assert_case(&case, &mut noise);
    }
    assert_case(
        &Case::new([2, 3, 90, 4, 2, 16], &mut noise).forked(50, 30),
        &mut noise,
    );
}

/// The second continuation reads what it would read alone.
#[test]
fn a_fork_equals_its_continuations_apart() {
    let mut noise = Noise::new(52);
    let (shared, first, second) = (70, 40, 50);
    let len = shared + first + second;
    let fork = Case::new([1, len, len, 2, 1, 16], &mut noise).forked(shared, first);
    let inputs = fork.inputs(&mut noise);
    let mut alone = Case::new([1, shared + second, shared + second, 2, 1, 16], &mut noise);
    alone.positions = (0..(shared + second) as i32).collect();
    let without_first = |values: &Vec<f64>, width: usize| {
        [
            &values[..shared * width],
            &values[(shared + first) * width..],
        ]
        .concat()
    };
    let apart = [
        without_first(&inputs[0], 32),
        without_first(&inputs[1], 16),
        without_first(&inputs[2], 16),
    ];
    with_case(&fork, |fused, _| {
        let found = untracked(fused, &inputs, DType::F32);
        with_case(&alone, |fused, _| {
            let expected = untracked(fused, &apart, DType::F32);
            let found = without_first(&found, 32);
            assert_close(&found, &expected, TOLERANCE, "second continuation");
        });
    });
}

/// A document of one token attends to itself alone: its output is its value, bit for bit.
#[test]
fn a_document_of_one_token_is_its_own_value() {
    let mut noise = Noise::new(45);
    for len in [1, 30, 100] {
        let mut case = Case::new([1, len, len, 2, 2, 16], &mut noise);
        case.positions.fill(0);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, _| {
            let out = untracked(fused, &inputs, DType::F32);
            assert_close(&out, &inputs[2], 0.0, "values");
        });
        assert_case(&case, &mut noise);
    }
}

/// Central differences of the composed body in f64 are the expected value.
#[test]
fn causal_attention_gradients_equal_finite_differences() {
    let mut noise = Noise::new(46);
    for sizes in [[1, 5, 5, 2, 1, 4], [2, 3, 6, 2, 2, 3], [1, 9, 9, 4, 1, 2]] {
        let case = Case::new(sizes, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, composed| {
            assert_equals_finite_differences(fused, composed, &inputs, 1e-5, &format!("{case:?}"));
        });
    }
    let case = Case::new([1, 12, 12, 2, 1, 3], &mut noise).forked(3, 4);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, composed| {
        assert_equals_finite_differences(fused, composed, &inputs, 1e-5, &format!("{case:?}"));
    });
}

/// A token of one document changes nothing in another, and nothing before itself.
#[test]
fn a_token_reaches_only_later_tokens_of_its_document() {
    let mut noise = Noise::new(47);
    let len = 150;
    let mut case = Case::new([1, len, len, 2, 1, 16], &mut noise);
    // Documents of 70, 50 and 30 tokens.
    case.positions = (0..70).chain(0..50).chain(0..30).collect();
    let inputs = case.inputs(&mut noise);
    let changed_slot = 75;
    let mut changed = inputs.clone();
    for operand in &mut changed[1..] {
        for value in &mut operand[changed_slot * 16..(changed_slot + 1) * 16] {
            *value += 1.0;
        }
    }
    with_case(&case, |fused, _| {
        let before = untracked(fused, &inputs, DType::F32);
        let after = untracked(fused, &changed, DType::F32);
        let rows = before.chunks_exact(32).zip(after.chunks_exact(32));
        for (slot, (before, after)) in rows.enumerate() {
            let reached = (changed_slot..120).contains(&slot);
            assert_eq!(before != after, reached, "slot {slot}");
        }
    });
}

/// Scores of several hundred must not overflow the softmax, forward or backward.
#[test]
fn large_scores_stay_finite() {
    let mut noise = Noise::new(48);
    let case = Case::new([1, 90, 90, 2, 2, 16], &mut noise);
    let [q, k, v] = case.inputs(&mut noise);
    let inputs = [q.iter().map(|value| value * 300.0).collect(), k, v];
    with_case(&case, |fused, composed| {
        let found = untracked(fused, &inputs, DType::F32);
        let expected = untracked(composed, &inputs, DType::F64);
        assert_close(&found, &expected, 2e-4, "large scores");
    });
}

/// A slice of a longer cache is read where it lies: its rows are not next to each other.
#[test]
fn a_slice_of_a_cache_equals_its_copy() {
    let device = Device::flex();
    let mut noise = Noise::new(49);
    let mut tensor = |shape: [usize; 4]| -> Tensor<4> {
        let values = noise.values(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &device)
    };
    let (q, k, v) = (
        tensor([2, 1, 4, 8]),
        tensor([2, 30, 2, 8]),
        tensor([2, 30, 2, 8]),
    );
    let positions = Tensor::<2, Int>::from_data([[19], [12]], &device);
    let slice = |cache: &Tensor<4>| cache.clone().narrow(1, 0, 20);
    let copy = |cache: &Tensor<4>| Tensor::from_data(slice(cache).into_data(), &device);
    let found = causal_attention(q.clone(), slice(&k), slice(&v), positions.clone());
    let expected = causal_attention(q, copy(&k), copy(&v), positions);
    found.into_data().assert_eq(&expected.into_data(), true);
}

/// Gradients of keys are sums over queries, of which no two threads share any.
#[test]
fn causal_attention_gives_the_same_bits_on_any_number_of_threads() {
    let mut noise = Noise::new(50);
    let case = Case::new([3, 130, 130, 4, 2, 32], &mut noise);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| assert_deterministic(fused, &inputs));
}

/// The composed body in f64 on the CPU is the expected value: head sizes for each edge of a tile,
/// groups of heads, lengths around the edges, and a cache before the queries.
#[cfg(feature = "cube")]
#[test]
fn causal_attention_equals_its_reference_on_a_graphics_card() {
    let mut noise = Noise::new(55);
    for sizes in [
        [1, 1, 1, 1, 1, 1],
        [2, 70, 70, 4, 2, 64],
        [1, 37, 37, 3, 3, 10],
        [2, 33, 33, 8, 2, 96],
        [1, 40, 40, 2, 1, 200],
        [2, 131, 131, 2, 1, 16],
        [2, 1, 40, 4, 2, 16],
        [1, 20, 150, 4, 4, 24],
    ] {
        let case = Case::new(sizes, &mut noise);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, composed| {
            let what = format!("{sizes:?}");
            assert_equals_reference_on_card(fused, composed, &inputs, TOLERANCE, &what);
        });
    }
}

/// The composed body in f64 on the CPU is the expected value: gaps within, at and over tiles.
#[cfg(feature = "cube")]
#[test]
fn a_second_continuation_does_not_see_the_first_on_a_graphics_card() {
    let mut noise = Noise::new(54);
    for (len, shared, first) in [(9, 3, 2), (70, 0, 30), (100, 20, 20), (130, 32, 64)] {
        let case = Case::new([2, len, len, 4, 2, 16], &mut noise).forked(shared, first);
        let inputs = case.inputs(&mut noise);
        with_case(&case, |fused, composed| {
            let what = format!("{len} slots, {first} hidden behind {shared}");
            assert_equals_reference_on_card(fused, composed, &inputs, TOLERANCE, &what);
        });
    }
}

/// Every sum belongs to one unit.
#[cfg(feature = "cube")]
#[test]
fn causal_attention_gives_the_same_bits_on_a_graphics_card_each_time() {
    let mut noise = Noise::new(56);
    let case = Case::new([2, 80, 80, 4, 2, 16], &mut noise);
    let inputs = case.inputs(&mut noise);
    with_case(&case, |fused, _| {
        assert_deterministic_on_card(fused, &inputs);
    });
}
