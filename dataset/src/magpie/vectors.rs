//! Texts as vectors: hashed runs of characters, weighted by how rare they are.
//!
//! Source: Weinberger et al. 2009, arXiv:0902.2206 (hashing with signs); Salton and Buckley 1988,
//! doi:10.1016/0306-4573(88)90021-0 (weights).

use rayon::prelude::*;

/// Numbers per vector. Two unlike texts are told apart by the sum of many small differences, which
/// 256 numbers keep to about 0.06.
pub(super) const WIDTH: usize = 256;

/// Lengths of the runs.
const RUNS: [usize; 3] = [3, 4, 5];

/// One unit vector of [`WIDTH`] numbers per text, one after the other; a text without characters has
/// zeros.
///
/// Small and large letters and kinds of white space count alike.
pub(super) fn text_vectors(texts: &[&str]) -> Vec<f32> {
    let runs: Vec<Vec<(u64, f32)>> = texts.par_iter().map(|text| counted_runs(text)).collect();
    let mut num_texts = std::collections::HashMap::<u64, u32>::new();
    for run in runs.iter().flatten() {
        *num_texts.entry(run.0).or_insert(0) += 1;
    }
    let all = texts.len() as f32;
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
    let words: Vec<String> = text.split_whitespace().map(str::to_lowercase).collect();
    let spaced: Vec<char> = format!(" {} ", words.join(" ")).chars().collect();
    let mut hashes: Vec<u64> = Vec::new();
    for len in RUNS {
        // A text shorter than the run is a run of its own.
        let runs = spaced.windows(len.min(spaced.len()).max(1));
        hashes.extend(runs.filter(|_| !words.is_empty()).map(fnv_1a));
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

    /// The same words are the same vector; sums of other numbers and other sentences are not near.
    #[test]
    fn only_near_copies_are_near() {
        let texts = [
            "What is the capital of France?",
            "what  is the capital\nof France?",
            "What is the capital of France? ",
            "What is 12+45?",
            "What is 12+46?",
            "Why does the moon shine at night?",
            "",
        ];
        let vectors = text_vectors(&texts);
        assert_eq!(squared_distance(&vectors, 0, 1).abs().to_bits(), 0);
        assert_eq!(squared_distance(&vectors, 0, 2).abs().to_bits(), 0);
        assert!(squared_distance(&vectors, 3, 4) > 0.1);
        assert!(squared_distance(&vectors, 0, 5) > 1.0);
        assert!(vectors[6 * WIDTH..].iter().all(|x| *x == 0.0));
        let norm: f32 = vectors[..WIDTH].iter().map(|x| x * x).sum();
        assert!((norm - 1.0).abs() < 1e-5);
    }
}
