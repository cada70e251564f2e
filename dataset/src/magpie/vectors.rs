//! Texts as vectors: hashed runs of characters, weighted by how rare they are.
//!
//! Source: Weinberger et al. 2009, arXiv:0902.2206 (hashing with signs); Salton and Buckley 1988,
//! doi:10.1016/0306-4573(88)90021-0 (weights).

use std::collections::HashMap;

use rayon::prelude::*;

/// Numbers per vector. Two unlike texts are told apart by the sum of many small differences, which
/// 256 numbers keep to about 0.06.
pub(super) const WIDTH: usize = 256;

/// Lengths of the runs.
const RUNS: [usize; 3] = [3, 4, 5];

/// A text with small letters and single spaces, by which texts are compared.
pub(super) fn plain_text(text: &str) -> String {
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

/// One unit vector of [`WIDTH`] numbers per plain text, one after the other; a text without
/// characters has zeros. `sizes` says how often each text is there, which decides what is rare.
pub(super) fn text_vectors(texts: &[String], sizes: &[usize]) -> Vec<f32> {
    let runs: Vec<Vec<(u64, f32)>> = texts.par_iter().map(|text| counted_runs(text)).collect();
    let mut num_texts = HashMap::<u64, usize>::new();
    for (runs, size) in runs.iter().zip(sizes) {
        for (hash, _) in runs {
            *num_texts.entry(*hash).or_insert(0) += size;
        }
    }
    let all = sizes.iter().sum::<usize>() as f32;
    let mut vectors = vec![0.0; texts.len() * WIDTH];
    vectors
        .par_chunks_exact_mut(WIDTH)
        .zip(&runs)
        .for_each(|(vector, runs)| {
            for (hash, count) in runs {
                let rarity = (all / num_texts[hash] as f32).ln() + 1.0;
                let sign = if hash >> 63 == 0 { 1.0 } else { -1.0 };
                vector[(*hash % WIDTH as u64) as usize] += sign * (1.0 + count.ln()) * rarity;
            }
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
            if norm > 0.0 {
                for x in vector {
                    *x /= norm;
                }
            }
        });
    vectors
}

/// Hashes of a text's runs in ascending order, so that sums have one order, with their counts.
fn counted_runs(text: &str) -> Vec<(u64, f32)> {
    let spaced: Vec<char> = format!(" {text} ").chars().collect();
    let mut hashes: Vec<u64> = Vec::new();
    for len in RUNS {
        // A text shorter than the run is a run of its own.
        let runs = spaced.windows(len.min(spaced.len()).max(1));
        hashes.extend(runs.filter(|_| !text.is_empty()).map(fnv_1a));
    }
    hashes.sort_unstable();
    let mut counted: Vec<(u64, f32)> = Vec::new();
    for hash in hashes {
        match counted.last_mut() {
            Some((last, count)) if *last == hash => *count += 1.0,
            _ => counted.push((hash, 1.0)),
        }
    }
    counted
}

/// FNV-1a over the characters' numbers: the same on every machine and with every version of a crate.
fn fnv_1a(run: &[char]) -> u64 {
    let bytes = run
        .iter()
        .flat_map(|&character| u32::from(character).to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squared_distance(vectors: &[f32], a: usize, b: usize) -> f32 {
        let row = |index: usize| &vectors[index * WIDTH..][..WIDTH];
        let squares = row(a).iter().zip(row(b)).map(|(x, y)| (x - y) * (x - y));
        squares.sum()
    }

    /// The same words are the same text; sums of other numbers and other sentences are not near.
    #[test]
    fn only_near_copies_are_near() {
        let france = "what is the capital of france?";
        assert_eq!(plain_text(" What  is the capital\nof France? "), france);
        assert_eq!(plain_text(" \n"), "");
        let texts = [
            france,
            "what is the capital of france",
            "what is 12+45?",
            "what is 12+46?",
            "why does the moon shine at night?",
            "",
        ];
        let vectors = text_vectors(&texts.map(str::to_owned), &[3, 1, 1, 1, 1, 1]);
        assert!(squared_distance(&vectors, 0, 1) > 0.0);
        assert!(squared_distance(&vectors, 0, 1) < squared_distance(&vectors, 2, 3));
        assert!(squared_distance(&vectors, 2, 3) > 0.1);
        assert!(squared_distance(&vectors, 0, 4) > 1.0);
        assert!(vectors[5 * WIDTH..].iter().all(|x| *x == 0.0));
        let norm: f32 = vectors[..WIDTH].iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
    }
}
