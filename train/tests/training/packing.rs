//! Packed conversations learn what each would alone.

use dataset::batch::{IGNORE_INDEX, TokenBatch};
use dataset::mask::labels_of;
use dataset::preferences::{AnsweredTokens, PairBatch, PairTokens};
use model::CausalLm;
use train::loss::to_device;
use train::stage::gradients_of_tokens;

use crate::device;
use crate::synthetic::model_config;

/// The tolerance of a model in f32: sums over rows come in another order.
const TOLERANCE: f64 = 1e-5;

/// Three conversations whose answers begin at tokens 2, 4 and 1.
fn conversations() -> Vec<(Vec<u32>, Vec<i32>)> {
    let texts: [(&[u32], usize); 3] = [
        (&[3, 4, 5, 6, 7], 2),
        (&[9, 8, 7, 6, 5, 4, 3, 2], 4),
        (&[11, 12, 13], 1),
    ];
    texts
        .into_iter()
        .map(|(ids, answer)| {
            let trained: Vec<bool> = (0..ids.len()).map(|place| place >= answer).collect();
            (ids.to_vec(), labels_of(ids, Some(&trained)))
        })
        .collect()
}

fn batch(rows: &[&[(Vec<u32>, Vec<i32>)]], seq_len: usize) -> TokenBatch {
    let mut batch = TokenBatch::with_capacity(rows.len(), seq_len);
    for row in rows {
        let pieces = row
            .iter()
            .map(|(ids, labels)| (ids.as_slice(), labels.as_slice()));
        batch.push_row(pieces, 0);
    }
    batch
}

/// Loss and some of the gradients.
fn learned(model: &CausalLm, batch: &TokenBatch, recomputes: bool) -> (f64, Vec<f64>) {
    let summed = gradients_of_tokens(model, to_device(batch, &device()), recomputes);
    let mut gradients = Vec::new();
    for param in [
        &model.embed_tokens.weight,
        &model.layers[0].self_attn.q_proj.weight,
        &model.layers[1].mlp.dense().unwrap().down_proj.weight,
    ] {
        let gradient = summed.grads.get::<2>(param.id).unwrap();
        gradients.extend(gradient.into_data().iter::<f64>());
    }
    (summed.loss.into_data().iter::<f64>().sum(), gradients)
}

fn assert_learns_the_same(found: &(f64, Vec<f64>), expected: &(f64, Vec<f64>)) {
    let (loss, expected_loss) = (found.0, expected.0);
    assert!(
        (loss - expected_loss).abs() < TOLERANCE,
        "{loss} {expected_loss}"
    );
    let differences = found.1.iter().zip(&expected.1);
    let largest = differences.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(largest < TOLERANCE, "{largest}");
}

/// Loss and gradients of one packed row are those of a row per conversation, summed; how many slots
/// padding takes makes no difference, and neither does recomputing layers.
#[test]
fn packed_and_unpacked_give_the_same_loss_and_gradients() {
    let model = CausalLm::new(&model_config(), 3, &device());
    let conversations = conversations();
    let alone: Vec<&[(Vec<u32>, Vec<i32>)]> = conversations.chunks(1).collect();

    let packed = batch(&[&conversations], 16);
    assert_eq!((packed.num_tokens(), packed.num_supervised()), (16, 9));
    let expected = learned(&model, &packed, false);
    for (seq_len, recomputes) in [(8, false), (20, false), (8, true)] {
        let found = learned(&model, &batch(&alone, seq_len), recomputes);
        assert_learns_the_same(&found, &expected);
    }
    assert_eq!(packed.labels.last(), Some(&IGNORE_INDEX));
}

/// Two answers behind one prompt are learned as each with a prompt of its own.
#[test]
fn shared_and_repeated_prompts_give_the_same_loss_and_gradients() {
    let model = CausalLm::new(&model_config(), 3, &device());
    let answered = |prompt: &[u32], answer: &[u32]| AnsweredTokens {
        ids: [prompt, answer].concat(),
        prompt_len: prompt.len(),
    };
    let (long, short) = ([3, 4, 5, 6, 7, 8, 9], [12, 13]);
    let pairs = [
        PairTokens::new(answered(&long, &[1, 2, 3]), answered(&long, &[1, 5])),
        PairTokens::new(answered(&short, &[8]), answered(&short, &[7, 9, 10, 11])),
    ];
    let shared = PairBatch::predicting(&pairs, &[0, 1], 0).tokens;
    assert!(!shared.gaps.is_empty());
    let apart: Vec<(Vec<u32>, Vec<i32>)> = pairs
        .iter()
        .flat_map(PairTokens::answers)
        .map(|answered| (answered.input_ids().to_vec(), answered.labels()))
        .collect();
    let rows: Vec<&[(Vec<u32>, Vec<i32>)]> = apart.chunks(1).collect();
    let expected = learned(&model, &batch(&rows, 9), false);
    for recomputes in [false, true] {
        assert_learns_the_same(&learned(&model, &shared, recomputes), &expected);
    }
}
