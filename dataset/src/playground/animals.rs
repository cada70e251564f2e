//! Stories from the forest: animals have things and give them away, and someone asks who has what.
//!
//! Unlike the people's belongings these change from story to story, so the answer has to be read,
//! not remembered. Held out is a tenth of the pairs of belongings with which a story can begin; they
//! follow each other in no story to learn from.

use super::arithmetic::join;
use super::lesson::{HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use crate::draw::Draw;

const ANIMALS: [Word; 12] = [
    ["fox", "狐狸"],
    ["owl", "猫头鹰"],
    ["hare", "兔子"],
    ["bear", "熊"],
    ["mouse", "老鼠"],
    ["duck", "鸭子"],
    ["frog", "青蛙"],
    ["cat", "猫"],
    ["dog", "狗"],
    ["goat", "山羊"],
    ["crow", "乌鸦"],
    ["hen", "母鸡"],
];

const THINGS: [Word; 12] = [
    ["pear", "梨"],
    ["nut", "坚果"],
    ["plum", "李子"],
    ["carrot", "胡萝卜"],
    ["berry", "浆果"],
    ["fig", "无花果"],
    ["peach", "桃子"],
    ["leaf", "叶子"],
    ["stone", "石头"],
    ["feather", "羽毛"],
    ["rose", "玫瑰"],
    ["shell", "贝壳"],
];

const OPENINGS: [Word; 8] = [
    [
        "One morning the animals meet in the forest.",
        "一天早上,动物们在森林里见面。",
    ],
    ["The sun shines on the pond.", "太阳照着池塘。"],
    ["It is a cold day.", "今天很冷。"],
    ["The wind blows through the trees.", "风吹过树林。"],
    ["There is a feast by the river.", "河边有一场聚会。"],
    ["Snow lies on the ground.", "地上有雪。"],
    ["At night the moon is bright.", "晚上月亮很亮。"],
    ["Listen to this story.", "听一个故事。"],
];

const HAS: Word = ["The {x} has a {t}.", "{x}有{t}。"];
const GIVES: Word = ["The {x} gives the {t} to the {y}.", "{x}把{t}给了{y}。"];
const NOW_HAS: [Word; 2] = [
    ["Now the {x} has the {t}.", "现在{x}有{t}。"],
    ["So the {t} is with the {x}.", "所以{t}在{x}那里。"],
];
const WHO: Word = ["Who has the {t}?", "谁有{t}?"];
const WHAT: Word = ["What does the {x} have?", "{x}有什么?"];

/// Who has what at first, and who gives it to whom.
#[derive(Debug, Clone)]
struct Story {
    /// Animals with the thing each has at first.
    owners: Vec<(Word, Word)>,
    /// Giver and taker, as places in `owners`.
    gift: Option<(usize, usize)>,
}

impl Story {
    fn draw(draw: &mut Draw) -> Self {
        let (mut animals, mut things) = (ANIMALS, THINGS);
        draw.shuffle(&mut animals);
        draw.shuffle(&mut things);
        let num_owners = 2 + draw.below(2);
        let giver = draw.below(num_owners);
        let taker = (giver + 1 + draw.below(num_owners - 1)) % num_owners;
        Self {
            owners: animals.into_iter().zip(things).take(num_owners).collect(),
            gift: draw.chance(60).then_some((giver, taker)),
        }
    }

    fn sentences(&self, language: Language) -> Vec<String> {
        let write = |pattern, x, y, t| {
            let values = [
                ("x", say(x, language)),
                ("y", say(y, language)),
                ("t", say(t, language)),
            ];
            fill(say(pattern, language), &values)
        };
        let has = |&(animal, thing): &(Word, Word)| write(HAS, animal, animal, thing);
        let mut sentences: Vec<String> = self.owners.iter().map(has).collect();
        if let Some((giver, taker)) = self.gift {
            let (animal, thing) = self.owners[giver];
            sentences.push(write(GIVES, animal, self.owners[taker].0, thing));
        }
        sentences
    }

    /// Who has the owner's thing at the end.
    fn last_owner(&self, owner: usize) -> Word {
        match self.gift {
            Some((giver, taker)) if giver == owner => self.owners[taker].0,
            _ => self.owners[owner].0,
        }
    }

    /// Whether this owner neither gives nor takes, and so has one thing all the time.
    fn keeps(&self, owner: usize) -> bool {
        self.gift
            .is_none_or(|(giver, taker)| giver != owner && taker != owner)
    }

    fn ask(&self, language: Language, draw: &mut Draw) -> Question {
        // Half of the questions are about the gift, if there is one.
        let owner = match self.gift {
            Some((giver, _)) if draw.chance(50) => giver,
            _ => draw.below(self.owners.len()),
        };
        let (animal, thing) = self.owners[owner];
        let (pattern, answer) = if self.keeps(owner) && draw.chance(40) {
            (WHAT, thing)
        } else {
            (WHO, self.last_owner(owner))
        };
        let values = [("x", say(animal, language)), ("t", say(thing, language))];
        let mut sentences = self.sentences(language);
        sentences.push(fill(say(pattern, language), &values));
        Question {
            prompt: join(&sentences, language),
            answer: say(answer, language).to_owned(),
        }
    }
}

/// The teller of forest stories.
#[derive(Debug, Clone)]
pub(super) struct Animals {
    held_out: HeldOut,
}

impl Animals {
    pub(super) fn new(held_out: HeldOut) -> Self {
        Self { held_out }
    }

    fn is_held_out(&self, owners: &[(Word, Word)]) -> bool {
        let names: Vec<&str> = owners
            .iter()
            .flat_map(|&(animal, thing)| [animal, thing].map(|word| say(word, Language::English)))
            .collect();
        self.held_out.holds("story", &names.join(" "))
    }

    fn taught(&self, draw: &mut Draw) -> Story {
        loop {
            let story = Story::draw(draw);
            if !story.owners.windows(2).any(|pair| self.is_held_out(pair)) {
                return story;
            }
        }
    }

    fn examined(&self, draw: &mut Draw) -> Story {
        loop {
            let story = Story::draw(draw);
            if self.is_held_out(&story.owners[..2]) {
                return story;
            }
        }
    }
}

impl Lesson for Animals {
    fn question(&mut self, _task: Task, language: Language, draw: &mut Draw) -> Question {
        self.taught(draw).ask(language, draw)
    }

    fn exam_question(&mut self, _task: Task, language: Language, draw: &mut Draw) -> Question {
        self.examined(draw).ask(language, draw)
    }

    fn passage(&mut self, language: Language, draw: &mut Draw) -> String {
        let story = self.taught(draw);
        let mut sentences = vec![say(*draw.pick(&OPENINGS), language).to_owned()];
        sentences.extend(story.sentences(language));
        let mut order: Vec<usize> = (0..story.owners.len()).collect();
        draw.shuffle(&mut order);
        for owner in order {
            let values = [
                ("x", say(story.last_owner(owner), language)),
                ("t", say(story.owners[owner].1, language)),
            ];
            let pattern = say(*draw.pick(&NOW_HAS), language);
            sentences.push(fill(pattern, &values));
        }
        join(&sentences, language)
    }
}
