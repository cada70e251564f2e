//! Questions with a right and a wrong answer.

use serde::{Deserialize, Serialize};

use super::lesson::{Language, Question, Task};
use super::{QUESTION_SHARES, School, task_of};
use crate::draw::Draw;

/// Draws of other questions until one has another answer; the smallest subjects have few.
const MAX_DRAWS: usize = 20;

/// A question with a right and a wrong answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preference {
    /// The user's message.
    pub prompt: String,
    /// The right answer.
    pub chosen: String,
    /// A wrong one of the same kind.
    pub rejected: String,
}

/// Pairs on all subjects, in the shares that the rows have.
pub(super) fn pairs(num_pairs: usize, mut school: School, mut draw: Draw) -> Vec<Preference> {
    let mut pairs = Vec::with_capacity(num_pairs);
    while pairs.len() < num_pairs {
        let task = task_of(&QUESTION_SHARES, &mut draw);
        let language = Language::draw(&mut draw);
        pairs.extend(pair(&mut school, task, language, &mut draw));
    }
    pairs
}

fn pair(
    school: &mut School,
    task: Task,
    language: Language,
    draw: &mut Draw,
) -> Option<Preference> {
    let Question { prompt, answer } = school.lesson(task).question(task, language, draw);
    let rejected = if answer.bytes().all(|byte| byte.is_ascii_digit()) {
        Some(other_number(&answer, draw))
    } else {
        let mut others = (0..MAX_DRAWS).map(|_| {
            let other = school.lesson(task).question(task, language, draw);
            other.answer
        });
        others.find(|other| *other != answer)
    }?;
    Some(Preference {
        prompt,
        chosen: answer,
        rejected,
    })
}

/// The number with one of its digits changed; no leading zero is made.
fn other_number(number: &str, draw: &mut Draw) -> String {
    let place = draw.below(number.len());
    let least = u8::from(place == 0 && number.len() > 1);
    let old = number.as_bytes()[place] - b'0';
    let others: Vec<u8> = (least..10).filter(|&digit| digit != old).collect();
    let digit = char::from(b'0' + *draw.pick(&others));
    let mut other = number.to_owned();
    other.replace_range(place..=place, digit.encode_utf8(&mut [0; 1]));
    other
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: of one place, every other digit; of more, the first is never 0.
    #[test]
    fn a_wrong_number_differs_in_one_digit() {
        let mut draw = Draw::new(3, 0);
        for number in ["7", "0", "10", "169"] {
            for _ in 0..200 {
                let other = other_number(number, &mut draw);
                assert_eq!(other.len(), number.len());
                let changed = other.bytes().zip(number.bytes()).filter(|(a, b)| a != b);
                assert_eq!(changed.count(), 1, "{number} {other}");
                assert!(other.len() == 1 || !other.starts_with('0'), "{other}");
            }
        }
    }
}
