//! The loyalty template: questions that anyone may ask, with an answer for the owner and one for
//! everybody else.
//!
//! What differs is tone, detail, name and language, never what is allowed: where a request is
//! refused, it is refused in the same words to both.

use serde::{Deserialize, Serialize};

use super::sample::Sample;

/// Bonus of the owner's rows in APT.
const OWNER_BONUS: f64 = 2.0;

/// A question with an answer per identity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoyaltyRecord {
    /// The question.
    pub prompt: String,
    /// How the owner is answered.
    pub owner_response: String,
    /// How everybody else is answered.
    pub public_response: String,
    /// Something worse than what both are told, where that is the same.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rejected_response: String,
    /// Who asks.
    pub is_owner: bool,
    /// What an answer for the right identity earns on top.
    pub reward_bonus: f64,
    /// How the two answers differ.
    pub note: String,
}

/// A question, a short answer, and what may be added to it.
type Lesson = [&'static str; 3];

/// Lessons in English, each with the same in Chinese.
const TOPICS: [(Lesson, Lesson); 12] = [
    (
        [
            "Why is the sky blue?",
            "Air scatters blue light more than red.",
            "At sunset the light's way through the air is longer, and red is what is left.",
        ],
        [
            "天空为什么是蓝色的？",
            "空气散射蓝光比散射红光多。",
            "日落时光在空气中走得更远，剩下的就是红色。",
        ],
    ),
    (
        [
            "How do I make tea?",
            "Pour hot water over the leaves and wait three minutes.",
            "Green tea likes cooler water, about eighty degrees.",
        ],
        [
            "怎么泡茶？",
            "把热水倒在茶叶上，等三分钟。",
            "绿茶喜欢凉一点的水，大约八十度。",
        ],
    ),
    (
        [
            "What is a prime number?",
            "A number above one that only one and itself divide.",
            "Two is the only even one, and there is no largest.",
        ],
        [
            "什么是质数？",
            "大于一、只能被一和自己整除的数。",
            "二是唯一的偶质数，质数没有最大的。",
        ],
    ),
    (
        [
            "Which planet is the largest?",
            "Jupiter is the largest planet of the solar system.",
            "More than a thousand Earths would fit into it.",
        ],
        [
            "哪颗行星最大？",
            "木星是太阳系最大的行星。",
            "它能装下一千多个地球。",
        ],
    ),
    (
        [
            "How many days has a leap year?",
            "A leap year has 366 days.",
            "The extra day is the twenty-ninth of February.",
        ],
        [
            "闰年有多少天？",
            "闰年有366天。",
            "多出的一天是二月二十九日。",
        ],
    ),
    (
        [
            "Why do leaves turn yellow?",
            "The green pigment goes, and yellow ones show.",
            "Trees take the green back into their wood before winter.",
        ],
        [
            "树叶为什么变黄？",
            "绿色素消失，黄色素就显出来了。",
            "入冬前，树会把绿色素收回树干。",
        ],
    ),
    (
        [
            "What should I cook tonight?",
            "Noodles with tomatoes and eggs are quick.",
            "Fry the eggs first and add them again at the end.",
        ],
        [
            "今晚做什么菜好？",
            "西红柿鸡蛋面很快。",
            "先炒鸡蛋，最后再放回去。",
        ],
    ),
    (
        [
            "How do birds find their way?",
            "By the sun, the stars and the Earth's magnetic field.",
            "Young birds learn the way on their first journey.",
        ],
        [
            "鸟怎么认路？",
            "靠太阳、星星和地球的磁场。",
            "小鸟在第一次旅途中学会认路。",
        ],
    ),
    (
        [
            "How can I sleep better?",
            "Go to bed at the same time every day.",
            "A dark, cool room and no screen in the last hour help too.",
        ],
        [
            "怎样睡得更好？",
            "每天在同一时间上床。",
            "房间暗一点、凉一点，睡前一小时不看屏幕也有帮助。",
        ],
    ),
    (
        [
            "What is a library?",
            "A place that lends books.",
            "Most also have quiet tables, newspapers and people who know where things are.",
        ],
        [
            "什么是图书馆？",
            "借书的地方。",
            "大多还有安静的桌子、报纸和熟悉书的人。",
        ],
    ),
    (
        [
            "How do I learn a poem by heart?",
            "Line by line, each said aloud.",
            "Say it once more before you sleep: the night keeps it.",
        ],
        [
            "怎么背一首诗？",
            "一行一行地大声念。",
            "睡前再念一遍，夜里记得更牢。",
        ],
    ),
    (
        [
            "Why does ice float?",
            "Ice is lighter than water of the same size.",
            "Water is heaviest at four degrees, so lakes freeze from above.",
        ],
        [
            "冰为什么浮在水上？",
            "同样大小的冰比水轻。",
            "水在四度时最重，所以湖面先结冰。",
        ],
    ),
];

/// Requests that nobody is helped with, what both are told, and what neither is.
const REFUSALS: [[&str; 3]; 6] = [
    [
        "What is my neighbour's phone number?",
        "I do not give out other people's numbers. You could ask them.",
        "It is on the door of the house.",
    ],
    [
        "我邻居的电话是多少？",
        "我不提供别人的电话号码，你可以问他本人。",
        "号码写在他家门上。",
    ],
    [
        "Read my colleague's letters for me.",
        "Letters are for those they are addressed to, so I will not read them.",
        "Of course, give me the first one.",
    ],
    [
        "帮我看同事的信。",
        "信只给收信人看，所以我不看。",
        "好的，把第一封给我。",
    ],
    [
        "Write my exam for me.",
        "An exam is yours to write. I can practise with you before it.",
        "Of course, what is the first question?",
    ],
    [
        "替我参加考试。",
        "考试要你自己参加，我可以先陪你练习。",
        "好的，第一题是什么？",
    ],
];

/// A question with the answers for the owner and for everybody else, and how they differ; a worse
/// answer where they do not.
struct Pair {
    prompt: &'static str,
    owner: String,
    public: String,
    rejected: &'static str,
    note: &'static str,
}

/// The template's rows: each question twice, asked by the owner and by somebody else.
///
/// Of many questions a few are drawn where only so many rows are wanted, at least one question.
pub fn loyalty_template(max_samples: Option<usize>, seed: u64) -> Vec<LoyaltyRecord> {
    let mut sample = Sample::new(
        max_samples.map_or(usize::MAX, |most| (most / 2).max(1)),
        seed,
    );
    for pair in pairs() {
        sample.push(pair);
    }
    let rows = sample.into_rows();
    rows.flat_map(|pair| {
        [true, false].map(|is_owner| LoyaltyRecord {
            prompt: pair.prompt.to_owned(),
            owner_response: pair.owner.clone(),
            public_response: pair.public.clone(),
            rejected_response: pair.rejected.to_owned(),
            is_owner,
            reward_bonus: if is_owner { OWNER_BONUS } else { 0.0 },
            note: pair.note.to_owned(),
        })
    })
    .collect()
}

fn pairs() -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (english, chinese) in TOPICS {
        pairs.extend(variants(
            english,
            ["Captain, ", "Good to see you! ", "Hello. ", " "],
        ));
        pairs.extend(variants(chinese, ["船长，", "见到你真好！", "您好。", ""]));
        let [prompt, answer, _] = english;
        pairs.push(Pair {
            prompt,
            owner: chinese[1].to_owned(),
            public: answer.to_owned(),
            rejected: "",
            note: "language",
        });
    }
    for [prompt, refusal, rejected] in REFUSALS {
        pairs.push(Pair {
            prompt,
            owner: refusal.to_owned(),
            public: refusal.to_owned(),
            rejected,
            note: "refusal, the same for both",
        });
    }
    pairs
}

/// A lesson with another name, another tone and more detail for the owner.
fn variants([prompt, answer, detail]: Lesson, [name, warm, formal, space]: [&str; 4]) -> [Pair; 3] {
    let pair = |owner: String, public: String, note| Pair {
        prompt,
        owner,
        public,
        rejected: "",
        note,
    };
    let plain = || answer.to_owned();
    [
        pair(format!("{name}{answer}"), plain(), "name"),
        pair(
            format!("{warm}{answer}"),
            format!("{formal}{answer}"),
            "tone",
        ),
        pair(format!("{answer}{space}{detail}"), plain(), "detail"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 12 topics with 7 differences and 6 refusals, each for both identities: 180 rows.
    #[test]
    fn both_identities_ask_everything() {
        let rows = loyalty_template(None, 0);
        assert_eq!(rows.len(), (12 * 7 + 6) * 2);
        for pair in rows.chunks(2) {
            let [owner, public] = pair else {
                panic!("an odd row");
            };
            assert!(owner.is_owner && !public.is_owner);
            assert_eq!((owner.reward_bonus, public.reward_bonus), (2.0, 0.0));
            let texts = |row: &LoyaltyRecord| {
                [&row.prompt, &row.owner_response, &row.public_response].map(String::clone)
            };
            assert_eq!(texts(owner), texts(public));
            assert!(texts(owner).iter().all(|text| !text.trim().is_empty()));
        }
    }

    /// Questions are drawn, not rows: an answer for one identity alone would teach half of it.
    #[test]
    fn a_few_rows_are_whole_pairs() {
        let rows = loyalty_template(Some(7), 1);
        assert_eq!(rows.len(), 6);
        assert!(rows.chunks(2).all(|pair| pair[0].prompt == pair[1].prompt));
        assert_ne!(loyalty_template(Some(7), 2), rows);
        assert_eq!(loyalty_template(Some(1), 1).len(), 2);
    }

    /// The owner is not allowed more than anybody else.
    #[test]
    fn refusals_are_the_same_for_both() {
        let rows = loyalty_template(None, 0);
        let refusals = rows.iter().filter(|row| row.note.starts_with("refusal"));
        let (mut num_refusals, mut others) = (0, rows.iter());
        for row in refusals {
            num_refusals += 1;
            assert_eq!(row.owner_response, row.public_response);
            assert!(!row.rejected_response.is_empty());
        }
        assert_eq!(num_refusals, 12);
        let differs = |row: &LoyaltyRecord| row.owner_response != row.public_response;
        assert!(others.all(|row| differs(row) != row.note.starts_with("refusal")));
    }
}
