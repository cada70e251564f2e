//! Ways to read an option out of a model's reply.

use dataset::answer::extract_letter;
use serde::{Deserialize, Serialize};

use super::sit::Reply;
use crate::stats::{argmax, softmax};

/// How an option is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The likeliest letter where the answer begins.
    Letters,
    /// The likeliest option after every option stood under every letter.
    LettersPermuted,
    /// The option whose text is likeliest.
    Options,
    /// The option whose text is likeliest per character.
    OptionsPerChar,
    /// The letter that the model wrote.
    Written,
}

/// A choice: the option's place, and how sure the model is, where it says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// From A to D; `None` where nothing was chosen.
    pub place: Option<usize>,
    /// Probability among the four.
    pub confidence: Option<f64>,
}

impl Method {
    /// The option that a reply chooses by this method; `None` where the reply has nothing for it.
    pub fn choose(self, reply: &Reply) -> Option<Choice> {
        let of_probabilities = |probabilities: Vec<f64>| {
            let place = argmax(&probabilities);
            Choice {
                place: Some(place),
                confidence: Some(probabilities[place]),
            }
        };
        match self {
            Self::Letters => {
                let logps = reply.letters.first()?;
                Some(of_probabilities(softmax(logps)))
            }
            Self::LettersPermuted => {
                let turns = reply.letters.get(..4)?;
                let mut means = vec![0.0; 4];
                for (turn, logps) in turns.iter().enumerate() {
                    for (letter, probability) in softmax(logps).into_iter().enumerate() {
                        means[(letter + turn) % 4] += probability / 4.0;
                    }
                }
                Some(of_probabilities(means))
            }
            Self::Options => Some(of_probabilities(softmax(&reply.options?))),
            Self::OptionsPerChar => {
                let logps = reply.options?;
                let mean = |place: usize| logps[place] / reply.num_chars[place].max(1) as f64;
                let means: [f64; 4] = std::array::from_fn(mean);
                Some(Choice {
                    place: Some(argmax(&means)),
                    confidence: None,
                })
            }
            Self::Written => Some(Choice {
                place: extract_letter(reply.written.as_ref()?),
                confidence: None,
            }),
        }
    }

    /// What a table calls it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Letters => "letter probability",
            Self::LettersPermuted => "letter probability, four orders",
            Self::Options => "option text, total",
            Self::OptionsPerChar => "option text, per character",
            Self::Written => "written answer",
        }
    }
}

/// Methods that all replies have something for.
pub fn methods_of(replies: &[Reply]) -> Vec<Method> {
    let all = [
        Method::Letters,
        Method::LettersPermuted,
        Method::Options,
        Method::OptionsPerChar,
        Method::Written,
    ];
    let is_used = |method: &Method| {
        let mut replies = replies.iter();
        replies.all(|reply| method.choose(reply).is_some())
    };
    all.into_iter().filter(is_used).collect()
}
