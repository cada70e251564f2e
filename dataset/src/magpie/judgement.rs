//! What a judge is asked about a row, and how its replies are held to a vocabulary.
//!
//! Source: Xu et al. 2024, arXiv:2406.08464, section 3 (tags and their words); the prompts are ours.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::completer::{Completer, FirstToken, Sampling};
use super::record::Record;
use crate::chat::Message;

const DIFFICULTIES: [&str; 5] = ["very easy", "easy", "medium", "hard", "very hard"];
const QUALITIES: [&str; 5] = ["very poor", "poor", "average", "good", "excellent"];
const CATEGORIES: [&str; 12] = [
    "Information seeking",
    "Reasoning",
    "Planning",
    "Editing",
    "Coding & Debugging",
    "Math",
    "Role playing",
    "Data analysis",
    "Creative writing",
    "Advice seeking",
    "Brainstorming",
    "Others",
];

/// One kind of tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mission {
    /// `intent`, `knowledge` and `difficulty`, of the instruction.
    Difficulty,
    /// `input_quality` and `quality_explanation`, of the instruction.
    Quality,
    /// `task_category` and `other_task_category`, of the instruction.
    Category,
    /// What a guard says of the answer, as it is, in `llama_guard_2`.
    Safety,
    /// `instruct_reward`, of the answer.
    Reward,
    /// `language`, of the instruction.
    Language,
}

/// How judgements are drawn: the likeliest words.
pub(super) fn judgement_sampling(
    judge: &dyn Completer,
    max_tokens: usize,
    as_json_object: bool,
) -> Sampling {
    Sampling {
        temperature: 0.0,
        top_p: 1.0,
        repetition_penalty: 1.0,
        max_tokens,
        stop: judge.stop_tokens(),
        first_token: FirstToken::Plain,
        as_json_object,
    }
}

/// The JSON object in a reply, whatever stands around it.
pub(super) fn object_in(reply: &str) -> Option<Map<String, Value>> {
    let (start, end) = (reply.find('{')?, reply.rfind('}')?);
    serde_json::from_str(reply.get(start..=end)?).ok()
}

/// The word of a vocabulary that was meant; its own spelling.
fn word(vocabulary: &[&'static str], said: &Value) -> Option<&'static str> {
    let said = said.as_str()?.trim();
    let is_meant = |word: &&&str| word.eq_ignore_ascii_case(said);
    let found = vocabulary.iter().find(is_meant).copied();
    // Magpie's own files have both.
    found.or_else(|| {
        let is_rest = said.eq_ignore_ascii_case("other");
        vocabulary
            .iter()
            .find(|word| is_rest && **word == "Others")
            .copied()
    })
}

impl Mission {
    pub(super) fn messages(self, record: &Record) -> Vec<Message> {
        let instruction = record.instruction();
        if self == Self::Safety {
            // A guard has its own prompt around the conversation.
            return vec![
                Message::new("user", instruction),
                Message::new("assistant", record.response()),
            ];
        }
        let (task, reply) = match self {
            Self::Difficulty => (
                "Say what the one who wrote this request wants, what one must know to answer it, \
                 and how hard it is for a language model.",
                format!(
                    "{{\"intent\": \"The user wants ..\", \"knowledge\": \"To answer, one must know \
                     ..\", \"difficulty\": \"one of: {}\"}}",
                    DIFFICULTIES.join(", ")
                ),
            ),
            Self::Quality => (
                "Judge this request, not its answer: is it clear, specific and well put?",
                format!(
                    "{{\"explanation\": \"..\", \"input_quality\": \"one of: {}\"}}",
                    QUALITIES.join(", ")
                ),
            ),
            _ => (
                "Say which kind of task this request is, and which others it touches.",
                format!(
                    "{{\"primary_tag\": \"one of: {}\", \"other_tags\": [\"..\"]}}",
                    CATEGORIES.join(", ")
                ),
            ),
        };
        let prompt = format!(
            "{task}\n\n## Request\n{instruction}\n\nReply with nothing but a JSON object: {reply}"
        );
        vec![Message::new("user", prompt)]
    }

    /// Sets all fields of the mission: null where the reply is none, or says no known word.
    pub(super) fn set_tags(self, record: &mut Record, reply: Option<&str>, judge: &str) {
        let object = reply.and_then(object_in).unwrap_or_default();
        let null = Value::Null;
        let said = |field: &str| object.get(field).unwrap_or(&null);
        match self {
            Self::Difficulty => {
                let difficulty = word(&DIFFICULTIES, said("difficulty"));
                let text = |field: &str| difficulty.and_then(|_| said(field).as_str());
                record.set("intent", text("intent"));
                record.set("knowledge", text("knowledge"));
                record.set("difficulty", difficulty);
                record.set("difficulty_generator", judge);
            }
            Self::Quality => {
                let quality = word(&QUALITIES, said("input_quality"));
                let text = quality.and_then(|_| said("explanation").as_str());
                record.set("input_quality", quality);
                record.set("quality_explanation", text);
                record.set("quality_generator", judge);
            }
            Self::Category => {
                let category = word(&CATEGORIES, said("primary_tag"));
                let others = said("other_tags").as_array().into_iter().flatten();
                let others: Vec<&str> = others
                    .filter_map(|other| word(&CATEGORIES, other))
                    .collect();
                record.set("task_category", category);
                record.set("other_task_category", category.map(|_| json!(others)));
                record.set("task_category_generator", judge);
            }
            Self::Safety => record.set("llama_guard_2", reply.map(str::trim)),
            Self::Reward | Self::Language => {}
        }
    }

    /// The field whose null says that there is no tag.
    pub(super) fn field(self) -> &'static str {
        match self {
            Self::Difficulty => "difficulty",
            Self::Quality => "input_quality",
            Self::Category => "task_category",
            Self::Safety => "llama_guard_2",
            Self::Reward => "instruct_reward",
            Self::Language => "language",
        }
    }
}
