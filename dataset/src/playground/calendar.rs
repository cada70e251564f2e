//! Weekdays and months: what comes after and before, and some steps on.
//!
//! Held out are runs of two and more from a given start. Single steps are never held out, since
//! they are what the order consists of. An answer names the whole run: with the names in between, a
//! run is single steps and a count, which a tiny model learns; without, it would be a sum around
//! the week, which it does not.

use super::arithmetic::join;
use super::lesson::{Deck, HeldOut, Language, Lesson, Question, Task, Word, fill, say};
use crate::draw::Draw;

const WEEKDAYS: [Word; 7] = [
    ["Monday", "星期一"],
    ["Tuesday", "星期二"],
    ["Wednesday", "星期三"],
    ["Thursday", "星期四"],
    ["Friday", "星期五"],
    ["Saturday", "星期六"],
    ["Sunday", "星期日"],
];

const MONTHS: [Word; 12] = [
    ["January", "一月"],
    ["February", "二月"],
    ["March", "三月"],
    ["April", "四月"],
    ["May", "五月"],
    ["June", "六月"],
    ["July", "七月"],
    ["August", "八月"],
    ["September", "九月"],
    ["October", "十月"],
    ["November", "十一月"],
    ["December", "十二月"],
];

/// Longest run of days or months.
const MAX_STEPS: usize = 6;

/// How one unit of the calendar is spoken of.
struct Wording {
    next: Word,
    previous: Word,
    later: Word,
    earlier: Word,
    next_is: Word,
    previous_is: Word,
    later_is: Word,
    earlier_is: Word,
}

const DAY_WORDING: Wording = Wording {
    next: ["Which day comes after {s}?", "{s}的后一天是星期几?"],
    previous: ["Which day comes before {s}?", "{s}的前一天是星期几?"],
    later: ["Name the {n} days after {s}.", "说出{s}之后的{n}天。"],
    earlier: ["Name the {n} days before {s}.", "从{s}往前数{n}天。"],
    next_is: ["The day after {s} is {r}.", "{s}的后一天是{r}。"],
    previous_is: ["The day before {s} is {r}.", "{s}的前一天是{r}。"],
    later_is: ["The {n} days after {s}: {r}.", "{s}之后的{n}天:{r}。"],
    earlier_is: ["The {n} days before {s}: {r}.", "{s}往前数{n}天:{r}。"],
};

const MONTH_WORDING: Wording = Wording {
    next: ["Which month comes after {s}?", "{s}的下个月是几月?"],
    previous: ["Which month comes before {s}?", "{s}的上个月是几月?"],
    later: ["Name the {n} months after {s}.", "说出{s}之后的{n}个月。"],
    earlier: ["Name the {n} months before {s}.", "从{s}往前数{n}个月。"],
    next_is: ["The month after {s} is {r}.", "{s}的下个月是{r}。"],
    previous_is: ["The month before {s} is {r}.", "{s}的上个月是{r}。"],
    later_is: ["The {n} months after {s}: {r}.", "{s}之后的{n}个月:{r}。"],
    earlier_is: ["The {n} months before {s}: {r}.", "{s}往前数{n}个月:{r}。"],
};

const WEEKDAY_CLOSINGS: [Word; 3] = [
    ["Then the week begins again.", "然后一周又开始了。"],
    ["A week has 7 days.", "一周有7天。"],
    ["On Sunday the village rests.", "星期日村里休息。"],
];

const MONTH_CLOSINGS: [Word; 4] = [
    ["A year has 12 months.", "一年有12个月。"],
    ["In January it snows.", "一月下雪。"],
    ["In July the lake is warm.", "七月湖水暖和。"],
    ["The apples are ripe in October.", "十月苹果熟了。"],
];

/// A start and a number of steps on (or back) from it.
#[derive(Debug, Clone, Copy)]
struct Step {
    start: usize,
    is_later: bool,
    steps: usize,
}

/// One unit of the calendar: days or months.
#[derive(Debug, Clone)]
struct Unit {
    names: &'static [Word],
    taught: Deck<Step>,
    held_out: Deck<Step>,
    single: Deck<Step>,
}

impl Unit {
    fn new(subject: &str, names: &'static [Word], held_out: HeldOut) -> Self {
        let steps = |range: std::ops::RangeInclusive<usize>| -> Vec<Step> {
            (0..names.len())
                .flat_map(|start| {
                    range.clone().flat_map(move |steps| {
                        [true, false].map(|is_later| Step {
                            start,
                            is_later,
                            steps,
                        })
                    })
                })
                .collect()
        };
        let key = |step: &Step| format!("{} {} {}", step.start, step.is_later, step.steps);
        let (taught, held_out) = held_out.part(subject, steps(2..=MAX_STEPS), key);
        Self {
            names,
            taught: Deck::new(taught),
            held_out: Deck::new(held_out),
            single: Deck::new(steps(1..=1)),
        }
    }

    fn draw(&mut self, draw: &mut Draw) -> Step {
        if draw.chance(25) {
            self.single.draw(draw)
        } else {
            self.taught.draw(draw)
        }
    }

    /// The names of a run, in the order in which it passes them.
    fn run(&self, step: Step, language: Language) -> String {
        let len = self.names.len();
        let passed = (1..=step.steps).map(|steps| {
            let steps = if step.is_later {
                steps
            } else {
                len - steps % len
            };
            say(self.names[(step.start + steps) % len], language)
        });
        passed.collect::<Vec<_>>().join(say([", ", "、"], language))
    }

    fn write(&self, step: Step, pattern: Word, language: Language) -> String {
        let values = [
            ("s", say(self.names[step.start], language)),
            ("n", &*step.steps.to_string()),
            ("r", &*self.run(step, language)),
        ];
        fill(say(pattern, language), &values)
    }

    fn ask(&self, step: Step, wording: &Wording, language: Language) -> Question {
        let pattern = match (step.steps, step.is_later) {
            (1, true) => wording.next,
            (1, false) => wording.previous,
            (_, true) => wording.later,
            (_, false) => wording.earlier,
        };
        Question {
            prompt: self.write(step, pattern, language),
            answer: self.run(step, language),
        }
    }

    fn state(&self, step: Step, wording: &Wording, language: Language) -> String {
        let pattern = match (step.steps, step.is_later) {
            (1, true) => wording.next_is,
            (1, false) => wording.previous_is,
            (_, true) => wording.later_is,
            (_, false) => wording.earlier_is,
        };
        self.write(step, pattern, language)
    }

    /// All names in order from a drawn one.
    fn round(&self, language: Language, draw: &mut Draw) -> String {
        let start = draw.below(self.names.len());
        let names: Vec<&str> = (start..start + self.names.len())
            .map(|index| say(self.names[index % self.names.len()], language))
            .collect();
        names.join(say([", ", "、"], language)) + say([".", "。"], language)
    }
}

/// The teacher of the calendar.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    days: Unit,
    months: Unit,
}

impl Calendar {
    pub(super) fn new(held_out: HeldOut) -> Self {
        Self {
            days: Unit::new("weekday", &WEEKDAYS, held_out),
            months: Unit::new("month", &MONTHS, held_out),
        }
    }

    fn unit(&mut self, task: Task) -> (&mut Unit, &'static Wording) {
        match task {
            Task::Weekday => (&mut self.days, &DAY_WORDING),
            _ => (&mut self.months, &MONTH_WORDING),
        }
    }
}

impl Lesson for Calendar {
    fn question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        let (unit, wording) = self.unit(task);
        let step = unit.draw(draw);
        unit.ask(step, wording, language)
    }

    fn exam_question(&mut self, task: Task, language: Language, draw: &mut Draw) -> Question {
        let (unit, wording) = self.unit(task);
        let step = unit.held_out.draw(draw);
        unit.ask(step, wording, language)
    }

    fn passage(&mut self, language: Language, draw: &mut Draw) -> String {
        let task = *draw.pick(&[Task::Weekday, Task::Month]);
        let (unit, wording) = self.unit(task);
        if draw.chance(20) {
            let closing = match task {
                Task::Weekday => *draw.pick(&WEEKDAY_CLOSINGS),
                _ => *draw.pick(&MONTH_CLOSINGS),
            };
            let round = unit.round(language, draw);
            return join(&[round, say(closing, language).to_owned()], language);
        }
        let sentences: Vec<String> = (0..4)
            .map(|_| {
                let step = unit.draw(draw);
                unit.state(step, wording, language)
            })
            .collect();
        join(&sentences, language)
    }
}
