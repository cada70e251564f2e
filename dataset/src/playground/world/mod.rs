//! The people of a small invented world: who lives where, does what, and owns what.
//!
//! The seed decides the facts once; every text agrees with them in both languages. Held out are
//! questions: a fact that the exam asks for is told in documents and in answers to "Who is ..?", but
//! no row asks for it.

mod words;

use super::arithmetic::join;
use super::lesson::{Deck, HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use crate::draw::Draw;

pub(super) use words::PEOPLE;
use words::{
    COLORS, HOME_SENTENCES, INTRODUCTION, JOB_SENTENCES, JOBS, NEIGHBOURS, OBJECTS,
    OWNER_SENTENCES, PLACES, SCENES,
};

/// How many people the world has: few enough that a tiny model gets to know them in minutes.
const NUM_PEOPLE: usize = 12;

/// What can be asked about a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Owner,
    Possession,
    Color,
    Home,
    Job,
}

const RELATIONS: [Relation; 5] = [
    Relation::Owner,
    Relation::Possession,
    Relation::Color,
    Relation::Home,
    Relation::Job,
];

/// Share of questions that ask for everything about a person, in percent.
const INTRODUCTION_SHARE: usize = 40;

/// What is true of a person.
#[derive(Debug, Clone, Copy)]
struct Person {
    name: Word,
    object: Word,
    color: Word,
    place: Word,
    job: Word,
}

impl Person {
    fn write(&self, pattern: Word, language: Language, more: &[(&str, &str)]) -> String {
        let color = say(self.color, language);
        let article = if color.starts_with('o') { "an" } else { "a" };
        let values = [
            ("name", say(self.name, language)),
            ("object", say(self.object, language)),
            ("color", color),
            ("a", article),
            ("place", say(self.place, language)),
            ("job", say(self.job, language)),
        ];
        fill(say(pattern, language), &[&values, more].concat())
    }
}

/// One thing that can be asked about everybody.
pub(super) struct Topic {
    /// What it is called.
    pub(super) name: &'static str,
    /// A question for each person, with its answer.
    pub(super) questions: Vec<Question>,
    /// What such a question may be answered with, right or wrong; some may be there twice.
    pub(super) answers: Vec<String>,
}

/// The teacher who knows everybody.
#[derive(Debug, Clone)]
pub(super) struct World {
    people: Vec<Person>,
    asked: Deck<(usize, Relation)>,
    held_out: Deck<(usize, Relation)>,
    told: Deck<usize>,
    introduced: Deck<usize>,
}

impl World {
    pub(super) fn new(seed: u64, held_out: HeldOut) -> Self {
        let mut draw = Draw::new(seed, 4);
        let (mut objects, mut places, mut jobs) = (OBJECTS, PLACES, JOBS);
        draw.shuffle(&mut objects);
        draw.shuffle(&mut places);
        draw.shuffle(&mut jobs);
        // Two people to each place, one to each job.
        let people: Vec<Person> = PEOPLE
            .into_iter()
            .take(NUM_PEOPLE)
            .enumerate()
            .map(|(index, name)| Person {
                name,
                object: objects[index],
                color: *draw.pick(&COLORS),
                place: places[index / 2],
                job: jobs[index],
            })
            .collect();
        let questions = (0..people.len())
            .flat_map(|person| RELATIONS.map(|relation| (person, relation)))
            .collect();
        let key = |(person, relation): &(usize, Relation)| format!("{person} {relation:?}");
        let (asked, held_out) = held_out.part("world", questions, key);
        Self {
            told: Deck::new((0..people.len()).collect()),
            introduced: Deck::new((0..people.len()).collect()),
            asked: Deck::new(asked),
            held_out: Deck::new(held_out),
            people,
        }
    }

    /// Everything that can be asked about everybody, by what is asked.
    pub(super) fn topics(&self, language: Language) -> [Topic; 5] {
        RELATIONS.map(|relation| {
            let people = 0..self.people.len();
            let questions = people.map(|person| self.ask((person, relation), language));
            let questions: Vec<Question> = questions.collect();
            let answers = questions.iter().map(|question| question.answer.clone());
            let (name, answers) = match relation {
                Relation::Owner => ("owner", answers.collect()),
                Relation::Possession => ("possession", answers.collect()),
                // Few colours may be somebody's; the others are wrong as well.
                Relation::Color => (
                    "color",
                    COLORS.map(|color| say(color, language).to_owned()).into(),
                ),
                Relation::Home => ("home", answers.collect()),
                Relation::Job => ("job", answers.collect()),
            };
            Topic {
                name,
                questions,
                answers,
            }
        })
    }

    fn ask(&self, (person, relation): (usize, Relation), language: Language) -> Question {
        let [prompt, answer]: [Word; 2] = match relation {
            Relation::Owner => [
                ["Who owns the {object}?", "{object}是谁的?"],
                ["{name}", "{name}"],
            ],
            Relation::Possession => [
                ["What does {name} own?", "{name}有什么?"],
                ["{a} {color} {object}", "{color}的{object}"],
            ],
            Relation::Color => [
                [
                    "What color is the {object} of {name}?",
                    "{name}的{object}是什么颜色?",
                ],
                ["{color}", "{color}"],
            ],
            Relation::Home => [
                ["Where does {name} live?", "{name}住在哪里?"],
                ["{place}", "{place}"],
            ],
            Relation::Job => [
                ["What is the job of {name}?", "{name}是做什么的?"],
                ["{job}", "{job}"],
            ],
        };
        let person = &self.people[person];
        Question {
            prompt: person.write(prompt, language, &[]),
            answer: person.write(answer, language, &[]),
        }
    }

    /// What is known about a person, in a drawn order.
    fn portrait(&mut self, language: Language, draw: &mut Draw) -> String {
        let person = self.people[self.told.draw(draw)];
        let mut patterns = [
            *draw.pick(&OWNER_SENTENCES),
            *draw.pick(&HOME_SENTENCES),
            *draw.pick(&JOB_SENTENCES),
        ];
        draw.shuffle(&mut patterns);
        let sentences = patterns.map(|pattern| person.write(pattern, language, &[]));
        join(&sentences, language)
    }

    fn scene(&mut self, language: Language, draw: &mut Draw) -> String {
        let index = self.told.draw(draw);
        let other = (index + 1 + draw.below(self.people.len() - 1)) % self.people.len();
        let name2 = say(self.people[other].name, language);
        let scene = *draw.pick(&SCENES);
        self.people[index].write(scene, language, &[("name2", name2)])
    }

    fn neighbours(&self, language: Language, draw: &mut Draw) -> String {
        let first = 2 * draw.below(self.people.len() / 2);
        let mut pair = [self.people[first], self.people[first + 1]];
        draw.shuffle(&mut pair);
        let more = [
            ("name2", say(pair[1].name, language)),
            ("object2", say(pair[1].object, language)),
        ];
        pair[0].write(NEIGHBOURS, language, &more)
    }
}

impl Lesson for World {
    fn question(&mut self, _task: Task, language: Language, draw: &mut Draw) -> Question {
        if draw.chance(INTRODUCTION_SHARE) {
            let person = self.people[self.introduced.draw(draw)];
            let [prompt, answer] = INTRODUCTION.map(|pattern| person.write(pattern, language, &[]));
            return Question { prompt, answer };
        }
        let question = self.asked.draw(draw);
        self.ask(question, language)
    }

    fn exam_question(&mut self, _task: Task, language: Language, draw: &mut Draw) -> Question {
        let question = self.held_out.draw(draw);
        self.ask(question, language)
    }

    fn passage(&mut self, language: Language, draw: &mut Draw) -> String {
        match draw.below(100) {
            0..60 => self.portrait(language, draw),
            60..90 => self.scene(language, draw),
            _ => self.neighbours(language, draw),
        }
    }
}
