//! What is predicted of a pair, where it stands in a batch, and the order of the batches.

use std::fs;
use std::sync::Arc;

use super::*;
use crate::batch::{IGNORE_INDEX, TokenBatch};
use crate::mask::sees;
use crate::rows::RowFormat;
use crate::tokenizer::fixture::tokenizer_of;
use crate::tokenizer_train::SpecialTokens;

/// Pairs of a file of one line each, in the layout of its rows.
fn pairs_of(tokenizer: &Tokenizer, rows: &[serde_json::Value]) -> Vec<PairTokens> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    let lines: Vec<String> = rows.iter().map(ToString::to_string).collect();
    fs::write(&path, lines.join("\n")).unwrap();
    let encoder = PairEncoder {
        tokenizer,
        template: tokenizer.chat_template().unwrap(),
        thinking: Thinking::Keep,
    };
    let files = [path.display().to_string()];
    encoder
        .encode_files(&files, RowFormat::Auto, 0.0)
        .unwrap()
        .0
}

/// A pair of given lengths: prompts of 100s, answers that count up.
fn pair(prompt_len: usize, chosen: usize, rejected: usize) -> PairTokens {
    let answered = |first: u32, len: usize| AnsweredTokens {
        ids: std::iter::repeat_n(100, prompt_len)
            .chain(first..first + len as u32)
            .collect(),
        prompt_len,
    };
    PairTokens::new(answered(1, chosen), answered(50, rejected))
}

/// HH-RLHF's rows repeat a whole dialogue: all of it is prompt, but for the last turn, which alone
/// has labels. The texts are by hand.
#[test]
fn only_the_last_turn_of_a_shared_dialogue_is_predicted() {
    let row = serde_json::json!({
        "chosen": "\n\nHuman: the cat\n\nAssistant: hat\n\nHuman: and\n\nAssistant: the hat",
        "rejected": "\n\nHuman: the cat\n\nAssistant: hat\n\nHuman: and\n\nAssistant: cat",
    });
    for (special_tokens, end) in [
        (SpecialTokens::V1, "</s>"),
        (SpecialTokens::V3, "<|im_end|>"),
    ] {
        let tokenizer = tokenizer_of(special_tokens);
        let pairs = pairs_of(&tokenizer, std::slice::from_ref(&row));
        let [chosen, rejected] = pairs[0].answers();
        for (answered, text) in [(chosen, "the hat"), (rejected, "cat")] {
            let labels = answered.labels();
            let predicted: Vec<u32> = labels
                .iter()
                .filter(|&&label| label != IGNORE_INDEX)
                .map(|&label| label as u32)
                .collect();
            assert_eq!(tokenizer.decode(&predicted, false), format!("{text}{end}"));
            assert_eq!(predicted.len(), answered.num_answered());
            assert_eq!(labels.len(), answered.input_ids().len());
        }
        let prompt = |answered: &AnsweredTokens| answered.ids[..answered.prompt_len].to_vec();
        assert_eq!(prompt(chosen), prompt(rejected));
        let text = tokenizer.decode(&prompt(chosen), false);
        assert!(text.contains("hat") && text.contains("and"), "{text}");
    }
}

/// A row with one answer is refused with its line.
#[test]
fn a_row_without_a_pair_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kto.jsonl");
    fs::write(
        &path,
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "label": true}"#,
    )
    .unwrap();
    let tokenizer = tokenizer_of(SpecialTokens::V1);
    let encoder = PairEncoder {
        tokenizer: &tokenizer,
        template: tokenizer.chat_template().unwrap(),
        thinking: Thinking::Keep,
    };
    let files = [path.display().to_string()];
    let error = encoder.encode_files(&files, RowFormat::Auto, 0.5);
    assert_eq!(
        error.unwrap_err().to_string(),
        format!(
            "{}:1: not a valid row (1 of 1 rows are not, expected at most a share of 0.5): found \
             no pair of answers, expected a chosen and a rejected one",
            path.display()
        )
    );
}

/// Ids of the slots of a row that a slot of the batch sees.
fn seen_from(tokens: &TokenBatch, slot: usize) -> Vec<u32> {
    let row = slot / tokens.seq_len * tokens.seq_len;
    let gaps = tokens.gaps.get(row..).unwrap_or_default();
    (row..row + tokens.seq_len)
        .filter(|&key| sees(&tokens.positions[row..], gaps, slot - row, key - row))
        .map(|key| tokens.input_ids[key])
        .collect()
}

/// Every slot of an answer predicts its token from what comes before it in the dialogue, whatever
/// lies beside it; nothing else is predicted.
fn assert_predicts(batch: &PairBatch, pairs: &[PairTokens], numbers: &[u32]) {
    let mut num_predicted = 0;
    for (slots, &number) in batch.pairs.iter().zip(numbers) {
        assert_eq!(slots.pair, number);
        let answers = pairs[number as usize].answers();
        for (slots, answered) in [&slots.chosen, &slots.rejected].into_iter().zip(answers) {
            assert_eq!(slots.len(), answered.num_answered());
            for (slot, place) in slots.clone().zip(answered.prompt_len..) {
                assert_eq!(batch.tokens.labels[slot], answered.ids[place] as i32);
                assert_eq!(seen_from(&batch.tokens, slot), answered.ids[..place]);
                assert_eq!(batch.tokens.positions[slot] as usize + 1, place);
            }
            num_predicted += slots.len();
        }
    }
    assert_eq!(batch.tokens.num_supervised(), num_predicted);
}

/// Both answers stand behind one prompt, but for its last token, which has a label of each.
#[test]
fn answers_behind_one_prompt_see_it_and_not_each_other() {
    let pairs = [pair(3, 2, 5), pair(1, 4, 1), pair(6, 1, 1)];
    let batch = PairBatch::predicting(&pairs, &[2, 0, 1], 0);
    // By hand: 5 + 1 + 1, 2 + 2 + 5 and 0 + 4 + 1 slots in three rows, where six answers with
    // their prompts would have 28 in five rows of 7.
    assert_eq!((batch.tokens.batch_size, batch.tokens.seq_len), (3, 9));
    assert_eq!((batch.tokens.num_tokens(), batch.num_tokens), (21, 28));
    assert_predicts(&batch, &pairs, &[2, 0, 1]);
}

/// Where no prompt is worth it, long rows would only be padded.
#[test]
fn answers_lie_apart_where_that_takes_fewer_slots() {
    let pairs = [pair(1, 10, 10), pair(1, 1, 1)];
    let batch = PairBatch::predicting(&pairs, &[0, 1], 0);
    // By hand: two rows of 10 and one that is almost empty, and not two of 20.
    assert_eq!((batch.tokens.batch_size, batch.tokens.seq_len), (3, 10));
    assert_eq!((batch.tokens.num_tokens(), batch.num_tokens), (22, 22));
    assert!(batch.tokens.gaps.is_empty());
    assert_predicts(&batch, &pairs, &[0, 1]);
}

/// A model that reads a pair is asked at each answer's last token, and reads that one too; all that
/// the answers begin with is shared.
#[test]
fn whole_answers_are_judged_at_their_ends() {
    let pairs = [pair(3, 2, 5), pair(1, 4, 1)];
    let batch = PairBatch::reading(&pairs, &[0, 1], 0);
    assert_eq!(batch.num_tokens, 5 + 8 + 5 + 2);
    assert_eq!(batch.tokens.num_tokens(), 3 + 2 + 5 + 1 + 4 + 1);
    for (slots, pair) in batch.pairs.iter().zip(&pairs) {
        let answers = pair.answers();
        for (slots, answered) in [&slots.chosen, &slots.rejected].into_iter().zip(answers) {
            assert_eq!(slots.len(), 1);
            assert_eq!(seen_from(&batch.tokens, slots.start), answered.ids);
            let position = batch.tokens.positions[slots.start] as usize;
            assert_eq!(position + 1, answered.ids.len());
        }
    }
}

/// Answers lose their ends; a pair whose answers are then the same, or gone, is none.
#[test]
fn long_pairs_are_cut_while_they_differ() {
    let cut = pair(3, 2, 5).cut(4).unwrap();
    assert_eq!(cut.chosen.ids, [100, 100, 100, 1, 2]);
    assert_eq!(cut.rejected.ids, [100, 100, 100, 50, 51]);
    assert_eq!(pair(5, 2, 2).cut(4), None);
    let mut same = pair(3, 3, 3);
    same.rejected.ids = vec![100, 100, 100, 1, 2, 9];
    assert!(same.clone().cut(5).is_some());
    assert_eq!(same.cut(4), None);
}

/// Two answers to a question that is asked again are on one side of the split.
#[test]
fn a_prompt_is_not_both_learned_and_held_out() {
    let mut pairs = Vec::new();
    for prompt in 0..40 {
        for answer in 0..3 {
            let mut pair = pair(2, 1 + answer, 2);
            pair.chosen.ids[0] = prompt;
            pair.rejected.ids[0] = prompt;
            pairs.push(PairTokens::new(pair.chosen, pair.rejected));
        }
    }
    let (train, held_out) = split_pairs(&pairs, 0.25, 3);
    assert_eq!(train.len() + held_out.len(), 120);
    assert!(held_out.len() >= 6, "{held_out:?}");
    let groups = |numbers: &[u32]| -> std::collections::BTreeSet<u64> {
        let pairs = numbers.iter().map(|&number| &pairs[number as usize]);
        pairs.map(|pair| pair.group).collect()
    };
    assert!(groups(&train).is_disjoint(&groups(&held_out)));
}

/// An epoch has each pair once, in an order of its own, and batches run on over its end; from any
/// cursor they come as they came before.
#[test]
fn batches_go_on_from_a_cursor() {
    let pairs: Arc<Vec<PairTokens>> = Arc::new((1..=7).map(|n| pair(n, 1, 2)).collect());
    let loader = |numbers: Vec<u32>| PairLoader::new(Arc::clone(&pairs), numbers, 3, 5);
    let mut whole = loader((0..7).collect()).unwrap();
    assert_eq!(whole.num_tokens(), (1..=7).map(|n| 2 * n + 1).sum::<u64>());
    let mut cursors = vec![whole.cursor()];
    let mut batches = Vec::new();
    for _ in 0..7 {
        batches.push(whole.next_numbers());
        cursors.push(whole.cursor());
    }
    let numbers: Vec<u32> = batches.concat();
    for epoch in numbers.chunks(7) {
        let mut sorted = epoch.to_vec();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..7).collect::<Vec<u32>>());
    }
    assert_ne!(numbers[..7], numbers[7..14]);
    assert!((whole.epochs() - 3.0).abs() < 1e-12);
    for (start, cursor) in cursors[..7].iter().enumerate() {
        let mut resumed = loader((0..7).collect()).unwrap();
        resumed.seek(*cursor).unwrap();
        for batch in &batches[start..] {
            assert_eq!(&resumed.next_numbers(), batch);
        }
    }
    let mut other = loader((0..6).collect()).unwrap();
    assert!(other.seek(cursors[1]).is_err());
    assert!(loader(Vec::new()).is_err());
}
