//! The loader's order, its places, and what is held out.

use super::*;
use crate::batch::{IGNORE_INDEX, PADDING_DOCUMENT};
use crate::cache::DocumentTokens;
use crate::mask::labels_of;

const PAD: u32 = 0;

/// Documents of 2 to 60 tokens; the ids number all tokens through from 1, so each is unique.
fn corpus(num_documents: u64, has_marks: bool) -> Vec<DocumentTokens> {
    let mut next = 1;
    (0..num_documents)
        .map(|document| {
            let len = 2 + (hashed_fraction(5, document) * 59.0) as u32;
            let ids: Vec<u32> = (next..next + len).collect();
            next += len;
            // Marks as in conversations: stretches, in some documents none.
            let marks = |id: &u32| (id / 7 + document as u32).is_multiple_of(3);
            DocumentTokens {
                trained: has_marks.then(|| ids.iter().map(marks).collect()),
                num_bytes: u64::from(len) * 3,
                ids,
            }
        })
        .collect()
}

fn config(mode: PackMode, batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        seq_len: 16,
        batch_size,
        seed: 11,
        mode,
        pad_id: PAD,
    }
}

fn loader(documents: Vec<DocumentTokens>, config: LoaderConfig) -> Loader {
    let shards = Arc::new(TokenShards::from_documents(documents));
    let all = (0..shards.num_documents() as u32).collect();
    Loader::new(shards, all, config).unwrap()
}

/// Ids, labels and positions of each piece of a batch.
fn pieces(batch: &TokenBatch) -> Vec<(Vec<u32>, Vec<i32>, Vec<u32>)> {
    let mut pieces: Vec<(Vec<u32>, Vec<i32>, Vec<u32>)> = Vec::new();
    let mut before = None;
    for slot in 0..batch.input_ids.len() {
        let place = (slot / batch.seq_len, batch.document_ids[slot]);
        if place.1 == PADDING_DOCUMENT {
            continue;
        }
        if before != Some(place) {
            pieces.push(Default::default());
            before = Some(place);
        }
        let piece = pieces.last_mut().unwrap();
        piece.0.push(batch.input_ids[slot]);
        piece.1.push(batch.labels[slot]);
        piece.2.push(batch.positions[slot]);
    }
    pieces
}

/// Split mode: over an epoch, every token of every document comes exactly once, with the label it
/// has in the unpacked document, in pieces that do not cross documents and count from 0.
#[test]
fn an_epoch_is_the_documents_cut_into_pieces() {
    for has_marks in [false, true] {
        let documents = corpus(500, has_marks);
        let mut expected: Vec<(u32, i32)> = Vec::new();
        let mut document_of = vec![usize::MAX];
        for (number, document) in documents.iter().enumerate() {
            let labels = labels_of(&document.ids, document.trained.as_deref());
            if labels.iter().any(|&label| label != IGNORE_INDEX) {
                expected.extend(document.ids.iter().copied().zip(labels));
            }
            document_of.extend(document.ids.iter().map(|_| number));
        }
        let mut loader = loader(documents, config(PackMode::Split, 1));
        assert!(has_marks == (loader.num_unsupervised() > 0));
        let mut found = Vec::new();
        for _ in 0..loader.rows_per_epoch() {
            for (ids, labels, positions) in pieces(&loader.next_batch()) {
                assert!(
                    ids.iter()
                        .all(|&id| { document_of[id as usize] == document_of[ids[0] as usize] })
                );
                assert_eq!(positions, (0..ids.len() as u32).collect::<Vec<_>>());
                found.extend(ids.into_iter().zip(labels));
            }
        }
        assert_eq!(found.len() as u64, loader.tokens_per_epoch());
        assert_eq!(loader.epoch(), 0);
        found.sort_unstable();
        assert_eq!(found, expected);
    }
}

/// Truncate mode: a piece is the beginning of a document, and its last token has no target.
#[test]
fn truncated_documents_are_their_beginnings() {
    let documents = corpus(300, true);
    let long = documents
        .iter()
        .filter(|document| document.ids.len() > 16)
        .count();
    let cut: Vec<DocumentTokens> = documents
        .iter()
        .map(|document| DocumentTokens {
            ids: document.ids.iter().copied().take(16).collect(),
            trained: document
                .trained
                .as_ref()
                .map(|marks| marks.iter().copied().take(16).collect()),
            num_bytes: document.num_bytes,
        })
        .collect();
    let mut long_loader = loader(documents, config(PackMode::Truncate, 4));
    let mut cut_loader = loader(cut, config(PackMode::Truncate, 4));
    assert!(long_loader.packing().num_truncated() > long / 2);
    assert_eq!(cut_loader.packing().num_truncated(), 0);
    assert!(cut_loader.num_unsupervised() > 0);
    for _ in 0..100 {
        assert_eq!(long_loader.next_batch(), cut_loader.next_batch());
    }
}

/// Running on and starting anew at a cursor give the same batches, wherever the cursor was taken:
/// within an epoch, at its last row, across epochs, and through JSON.
#[test]
fn seeking_equals_running_on() {
    let documents = corpus(120, false);
    let mut running = loader(documents.clone(), config(PackMode::Split, 7));
    let num_batches = 3 * running.rows_per_epoch() / 7 + 2;
    let mut history = Vec::new();
    for _ in 0..num_batches {
        let cursor = running.cursor();
        history.push((cursor, running.next_batch()));
    }
    assert!(running.epoch() >= 3);
    let mut seeking = loader(documents, config(PackMode::Split, 7));
    for (cursor, batch) in history.iter().rev() {
        let json = serde_json::to_string(cursor).unwrap();
        seeking.seek(serde_json::from_str(&json).unwrap()).unwrap();
        assert_eq!(&seeking.next_batch(), batch, "{json}");
    }
}

/// Epochs differ in order and not in content; another seed gives another order.
#[test]
fn every_epoch_has_an_order_of_its_own() {
    let epoch = |seed, epoch| -> Vec<Vec<u32>> {
        let config = LoaderConfig {
            seed,
            ..config(PackMode::Split, 1)
        };
        let mut loader = loader(corpus(100, false), config);
        loader
            .seek(LoaderCursor {
                epoch,
                row: 0,
                fingerprint: loader.fingerprint,
            })
            .unwrap();
        (0..loader.packing().num_rows())
            .map(|_| loader.next_batch().input_ids)
            .collect()
    };
    let sorted = |rows: Vec<Vec<u32>>| {
        let mut ids: Vec<u32> = rows.concat().into_iter().filter(|&id| id != PAD).collect();
        ids.sort_unstable();
        ids
    };
    assert_ne!(epoch(1, 0), epoch(1, 1));
    assert_ne!(epoch(1, 0), epoch(2, 0));
    assert_eq!(epoch(1, 1), epoch(1, 1));
    assert_eq!(sorted(epoch(1, 0)), sorted(epoch(1, 1)));
}

/// Batches that come through the thread are the loader's, and so are their cursors.
#[test]
fn prefetched_batches_are_the_loaders_own() {
    let documents = corpus(60, false);
    let mut direct = loader(documents.clone(), config(PackMode::Split, 3));
    let mut prefetcher = Prefetcher::new(loader(documents.clone(), config(PackMode::Split, 3)), 2);
    let mut last = None;
    for _ in 0..40 {
        let prefetched = prefetcher.next_batch();
        assert_eq!(prefetched.batch, direct.next_batch());
        assert_eq!(prefetched.cursor, direct.cursor());
        last = Some(prefetched.cursor);
    }
    drop(prefetcher);
    let mut resumed = loader(documents, config(PackMode::Split, 3));
    resumed.seek(last.unwrap()).unwrap();
    let mut prefetcher = Prefetcher::new(resumed, 2);
    assert_eq!(prefetcher.next_batch().batch, direct.next_batch());
}

/// Validation sees each token once, in the same batches each time; only the last may be smaller.
#[test]
fn finite_batches_end_with_the_documents() {
    let documents = corpus(50, false);
    let mut expected: Vec<u32> = documents[10..].iter().flat_map(|d| d.ids.clone()).collect();
    expected.sort_unstable();
    let shards = Arc::new(TokenShards::from_documents(documents));
    let batches =
        FiniteBatches::new(shards, (10..50).collect(), config(PackMode::Split, 4)).unwrap();
    let all: Vec<TokenBatch> = batches.iter().collect();
    let sizes: Vec<usize> = all.iter().map(|batch| batch.batch_size).collect();
    assert_eq!(sizes.iter().sum::<usize>(), batches.num_rows());
    assert_eq!(sizes.len(), batches.num_batches());
    assert!(sizes[..sizes.len() - 1].iter().all(|&size| size == 4));
    let mut ids: Vec<u32> = all
        .iter()
        .flat_map(|batch| batch.input_ids.clone())
        .collect();
    ids.retain(|&id| id != PAD);
    ids.sort_unstable();
    assert_eq!(ids, expected);
    assert_eq!(batches.iter().collect::<Vec<_>>(), all);
}

/// A weight of 2.25: twice in each epoch, and once more in one of four, a quarter at a time.
#[test]
fn weights_are_copies_spread_over_epochs() {
    let copies = |epoch| -> Vec<usize> {
        (0..4000)
            .map(|document| copies_in_epoch(2.25, document, 3, epoch))
            .collect()
    };
    let epochs: Vec<Vec<usize>> = (0..4).map(copies).collect();
    for document in 0..4000 {
        assert_eq!(
            epochs.iter().map(|copies| copies[document]).sum::<usize>(),
            9
        );
    }
    for copies in &epochs {
        assert!(copies.iter().all(|&copies| copies == 2 || copies == 3));
        // 1,000 are expected, and 5 sigma are 137.
        assert!(
            copies
                .iter()
                .filter(|&&copies| copies == 3)
                .count()
                .abs_diff(1000)
                < 137
        );
    }
    assert!((0..50).all(|epoch| copies_in_epoch(3.0, 8, 3, epoch) == 3));
}

/// A cursor of other data is refused and says so; one past its epoch's end as well.
#[test]
fn a_foreign_cursor_is_refused() {
    let mut here = loader(corpus(60, false), config(PackMode::Split, 3));
    let other = loader(corpus(61, false), config(PackMode::Split, 3)).cursor();
    let message = here.seek(other).unwrap_err().to_string();
    assert!(
        message.starts_with("the place in the data belongs to other text"),
        "{message}"
    );

    here.next_batch();
    let place = here.cursor();
    let past = LoaderCursor {
        epoch: 1,
        row: 10_000,
        ..place
    };
    let message = here.seek(past).unwrap_err().to_string();
    assert!(message.starts_with("the place in the data is row 10000 of epoch 1, which has "));
    assert_eq!(here.cursor(), place);
}

/// Nothing to learn, or no room to learn it in, is an error that says so.
#[test]
fn unusable_documents_and_sizes_are_refused() {
    let make = |documents, config| {
        let shards = Arc::new(TokenShards::from_documents(documents));
        let all = (0..shards.num_documents() as u32).collect();
        Loader::new(shards, all, config).unwrap_err().to_string()
    };
    let unmarked = DocumentTokens {
        ids: vec![1, 2, 3],
        trained: Some(vec![true, false, false]),
        num_bytes: 3,
    };
    let single = DocumentTokens {
        ids: vec![1],
        ..DocumentTokens::default()
    };
    assert_eq!(
        make(vec![unmarked, single], config(PackMode::Split, 1)),
        "found no document with a token to learn among 2 documents, expected at least one"
    );
    assert_eq!(
        make(corpus(3, false), config(PackMode::Split, 0)),
        "batch_size is 0, expected at least 1"
    );
}
