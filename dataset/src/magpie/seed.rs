//! Seeds of single requests: the same for a row whatever batch, process or order it is asked in.

use sha2::{Digest, Sha256};

/// What a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The instruction of a turn, from 1.
    Instruction(u64),
    /// The response of a turn, from 1.
    Response(u64),
    /// One of several responses, from 0.
    Candidate(u64),
    /// A judgement, by the place of its question in a list.
    Judgement(u64),
}

/// Streams of draws among whole rows, one for each thing that is decided, so that no setting changes
/// the draws of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    /// The order of rows that the filter kept.
    Kept = 0xf117,
    /// Which rows of a domain are merged, and their order.
    Merged = 0x3e96,
    /// Which pairs are held out.
    HeldOut = 0x9a12,
}

/// The seed of a row's request for a purpose: 63 bits, which every endpoint's integers hold.
pub fn request_seed(seed: u64, purpose: Purpose, row: u64) -> u64 {
    let (kind, number) = match purpose {
        Purpose::Instruction(turn) => (1, turn),
        Purpose::Response(turn) => (2, turn),
        Purpose::Candidate(number) => (3, number),
        Purpose::Judgement(number) => (4, number),
    };
    let mut hash = Sha256::new();
    for number in [seed, kind, number, row] {
        hash.update(number.to_le_bytes());
    }
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(bytes) >> 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of any part gives another stream.
    #[test]
    fn every_request_has_a_seed_of_its_own() {
        let mut seeds = std::collections::BTreeSet::new();
        for seed in 0..4 {
            for row in 0..4 {
                for number in 0..4 {
                    for purpose in [
                        Purpose::Instruction(number),
                        Purpose::Response(number),
                        Purpose::Candidate(number),
                        Purpose::Judgement(number),
                    ] {
                        assert!(seeds.insert(request_seed(seed, purpose, row)));
                    }
                }
            }
        }
        assert!(seeds.last() < Some(&(1 << 63)));
    }
}
