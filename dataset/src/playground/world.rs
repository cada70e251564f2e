//! The people of a small invented world: who lives where, does what, and owns what.
//!
//! The seed decides the facts once; every text agrees with them in both languages. Held out are
//! questions: a fact that the exam asks for is told in documents and in answers to "Who is ..?", but
//! no row asks for it.

use super::arithmetic::join;
use super::lesson::{Deck, HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use crate::draw::Draw;

/// How many people the world has: few enough that a tiny model gets to know them in minutes.
const NUM_PEOPLE: usize = 12;

/// Names for the people of the world and of the stories.
pub(super) const PEOPLE: [Word; 24] = [
    ["Mia", "米娅"],
    ["Leo", "里奥"],
    ["Ada", "艾达"],
    ["Tom", "汤姆"],
    ["Ivy", "艾薇"],
    ["Max", "马克"],
    ["Zoe", "佐伊"],
    ["Ben", "阿本"],
    ["Eva", "伊娃"],
    ["Sam", "山姆"],
    ["Amy", "艾米"],
    ["Dan", "丹尼"],
    ["Lin", "小林"],
    ["Kai", "阿凯"],
    ["Nia", "妮娅"],
    ["Gus", "古斯"],
    ["Ida", "伊达"],
    ["Rex", "雷克"],
    ["Una", "尤娜"],
    ["Abe", "阿贝"],
    ["Fay", "菲菲"],
    ["Hal", "哈尔"],
    ["Joy", "小乔"],
    ["Ned", "内德"],
];

const OBJECTS: [Word; 24] = [
    ["kite", "风筝"],
    ["drum", "鼓"],
    ["lamp", "灯"],
    ["boat", "小船"],
    ["clock", "钟"],
    ["harp", "竖琴"],
    ["cart", "小车"],
    ["sled", "雪橇"],
    ["bell", "铃铛"],
    ["flute", "笛子"],
    ["book", "书"],
    ["scarf", "围巾"],
    ["tent", "帐篷"],
    ["basket", "篮子"],
    ["ladder", "梯子"],
    ["mirror", "镜子"],
    ["teapot", "茶壶"],
    ["umbrella", "雨伞"],
    ["bicycle", "自行车"],
    ["violin", "小提琴"],
    ["camera", "相机"],
    ["compass", "指南针"],
    ["telescope", "望远镜"],
    ["blanket", "毯子"],
];

const PLACES: [Word; 12] = [
    ["Fern Hill", "蕨山"],
    ["Clay Harbor", "陶港"],
    ["Mill Lane", "磨坊巷"],
    ["Moon Lake", "月湖"],
    ["Pine Wood", "松林"],
    ["Salt Bay", "盐湾"],
    ["Star Bridge", "星桥"],
    ["Wind Farm", "风庄"],
    ["Old Tower", "老塔"],
    ["Rose Garden", "玫瑰园"],
    ["Stone Well", "石井"],
    ["Snow Valley", "雪谷"],
];

const COLORS: [Word; 8] = [
    ["red", "红色"],
    ["blue", "蓝色"],
    ["green", "绿色"],
    ["yellow", "黄色"],
    ["white", "白色"],
    ["black", "黑色"],
    ["purple", "紫色"],
    ["orange", "橙色"],
];

const JOBS: [Word; 12] = [
    ["baker", "面包师"],
    ["doctor", "医生"],
    ["teacher", "老师"],
    ["painter", "画家"],
    ["farmer", "农夫"],
    ["sailor", "水手"],
    ["singer", "歌手"],
    ["gardener", "园丁"],
    ["potter", "陶工"],
    ["tailor", "裁缝"],
    ["fisher", "渔夫"],
    ["miller", "磨坊主"],
];

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

/// Ways to tell what a person owns, where it lives, and what it does.
const OWNER_SENTENCES: [Word; 4] = [
    [
        "{name} owns {a} {color} {object}.",
        "{name}有一个{color}的{object}。",
    ],
    [
        "The {color} {object} belongs to {name}.",
        "{color}的{object}是{name}的。",
    ],
    [
        "The {object} of {name} is {color}.",
        "{name}的{object}是{color}的。",
    ],
    [
        "{name} is proud of the {color} {object}.",
        "{name}很喜欢自己{color}的{object}。",
    ],
];

const HOME_SENTENCES: [Word; 3] = [
    ["{name} lives in {place}.", "{name}住在{place}。"],
    ["The home of {name} is in {place}.", "{name}的家在{place}。"],
    [
        "In {place} you can meet {name}.",
        "在{place}可以见到{name}。",
    ],
];

const JOB_SENTENCES: [Word; 3] = [
    ["{name} is a {job}.", "{name}是{job}。"],
    ["{name} works as a {job}.", "{name}的工作是{job}。"],
    [
        "Everybody knows {name} the {job}.",
        "大家都认识{job}{name}。",
    ],
];

/// Little scenes between two people, in which all facts are true.
const SCENES: [Word; 5] = [
    [
        "{name2} walks to {place} to see {name}, the {job}. {name} shows the {color} {object}. \
         \"It is lovely,\" says {name2}.",
        "{name2}走到{place}去看{job}{name}。{name}拿出{color}的{object}。“真好看”,{name2}说。",
    ],
    [
        "It rains in {place}. {name} stays at home with the {color} {object} and waits for {name2}.",
        "{place}下雨了。{name}在家里看着{color}的{object},等着{name2}。",
    ],
    [
        "\"Whose {object} is this?\" asks {name2}. \"It is {color}, so it belongs to {name} in \
         {place}.\"",
        "“这是谁的{object}?”{name2}问。“是{color}的,那就是{place}的{name}的。”",
    ],
    [
        "{name} the {job} and {name2} are friends. They carry the {color} {object} through {place} \
         and laugh.",
        "{job}{name}和{name2}是朋友。他们拿着{color}的{object}走过{place},笑了。",
    ],
    [
        "Early in {place}, {name} takes the {color} {object} to the market. {name2} helps the {job}.",
        "清早在{place},{name}带着{color}的{object}去集市。{name2}来帮{job}的忙。",
    ],
];

/// Everything about a person at once.
const INTRODUCTION: [Word; 2] = [
    ["Who is {name}?", "{name}是谁?"],
    [
        "{name} is a {job}, lives in {place} and owns {a} {color} {object}.",
        "{name}是{job},住在{place},有{color}的{object}。",
    ],
];
/// Share of questions that ask for everything, in percent.
const INTRODUCTION_SHARE: usize = 40;

const NEIGHBOURS: Word = [
    "{name} and {name2} live in {place}. {name} has the {object}, {name2} has the {object2}.",
    "{name}和{name2}住在{place}。{name}有{object},{name2}有{object2}。",
];

/// What is true of a person, as places in the lists above.
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
