//! Sums of three numbers, worked out one after the other: questions of two steps.
//!
//! Held out are triples of numbers in any order.

use std::collections::BTreeSet;

use super::lesson::HeldOut;
use crate::chat::Message;
use crate::draw::Draw;

/// Numbers are below this, so that the whole sum has two digits.
const END: usize = 34;

/// A sum of three numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Chain([u32; 3]);

/// Sums of three numbers to learn from, and others to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chains {
    /// Sums that training may show, some of them perhaps more than once.
    pub taught: Vec<Chain>,
    /// Sums of numbers that are in no taught one together, each once.
    pub held_out: Vec<Chain>,
}

impl Chain {
    /// The question.
    pub fn prompt(self) -> String {
        let [a, b, c] = self.0;
        format!("{a}+{b}+{c}=?")
    }

    /// The way to the answer: `12+7=19, 19+30=49`.
    pub fn reasoning(self) -> String {
        let [a, b, c] = self.0;
        let first = a + b;
        format!("{a}+{b}={first}, {first}+{c}={}", first + c)
    }

    /// The answer.
    pub fn answer(self) -> String {
        self.0.iter().sum::<u32>().to_string()
    }

    /// Question and answer, with the way between them in a block of thoughts.
    pub fn conversation(self) -> Vec<Message> {
        let (reasoning, answer) = (self.reasoning(), self.answer());
        let said = format!("<think>\n{reasoning}\n</think>\n{answer}");
        vec![
            Message::new("user", self.prompt()),
            Message::new("assistant", said),
        ]
    }
}

impl Chains {
    /// Sums of the playground with this seed.
    pub fn generate(seed: u64, num_taught: usize, num_held_out: usize) -> Self {
        let split = HeldOut::new(seed);
        let mut draw = Draw::new(seed, 17);
        let mut chains = Self {
            taught: Vec::with_capacity(num_taught),
            held_out: Vec::with_capacity(num_held_out),
        };
        let mut asked = BTreeSet::new();
        while chains.taught.len() < num_taught || asked.len() < num_held_out {
            let numbers: [u32; 3] = std::array::from_fn(|_| draw.below(END) as u32);
            let mut sorted = numbers;
            sorted.sort_unstable();
            if !split.holds("chain", &format!("{sorted:?}")) {
                if chains.taught.len() < num_taught {
                    chains.taught.push(Chain(numbers));
                }
            } else if asked.len() < num_held_out && asked.insert(sorted) {
                chains.held_out.push(Chain(numbers));
            }
        }
        chains
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand.
    #[test]
    fn a_chain_is_worked_out_step_by_step() {
        let chain = Chain([12, 7, 30]);
        assert_eq!(chain.prompt(), "12+7+30=?");
        assert_eq!(chain.reasoning(), "12+7=19, 19+30=49");
        let said = &chain.conversation()[1].content;
        assert_eq!(said, "<think>\n12+7=19, 19+30=49\n</think>\n49");
    }

    /// No triple is on both sides in any order.
    #[test]
    fn what_is_held_out_is_never_taught() {
        let chains = Chains::generate(7, 3000, 200);
        let sorted = |chain: &Chain| {
            let mut numbers = chain.0;
            numbers.sort_unstable();
            numbers
        };
        let taught: BTreeSet<_> = chains.taught.iter().map(sorted).collect();
        let held_out: BTreeSet<_> = chains.held_out.iter().map(sorted).collect();
        assert_eq!((chains.taught.len(), held_out.len()), (3000, 200));
        assert!(taught.is_disjoint(&held_out));
    }
}
