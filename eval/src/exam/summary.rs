//! What the replies to an exam come to: scores with their uncertainty, and what explains them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::folder::Exam;
use super::method::{Method, methods_of};
use super::question::{LETTERS, SubjectInfo};
use super::sit::Reply;
use crate::stats::{Rate, argmax, expected_calibration_error};

/// Score of someone who does not read the questions.
pub const CHANCE: f64 = 0.25;
/// Bins of the calibration error, as in Guo et al.
const CALIBRATION_BINS: usize = 15;

/// A group of questions and how many of them are right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupScore {
    /// Name of the group.
    pub name: String,
    /// Over its questions.
    pub rate: Rate,
    /// Mean over its subjects, which C-Eval and CMMLU publish.
    pub mean_of_subjects: f64,
}

/// One way of choosing, over the whole exam.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MethodScore {
    /// How the option was chosen.
    pub method: Method,
    /// Over all questions.
    pub rate: Rate,
    /// Mean over the subjects.
    pub mean_of_subjects: f64,
    /// Fields of knowledge and other groups.
    pub groups: Vec<GroupScore>,
    /// How often A, B, C and D were chosen.
    pub chosen: [usize; 4],
    /// Questions without a choice: nothing that was written means a letter.
    pub num_without_choice: usize,
    /// Expected calibration error, where choices have probabilities.
    pub calibration_error: Option<f64>,
    /// What the score does and does not say.
    pub verdict: Vec<String>,
}

/// One subject under every method.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubjectScore {
    /// Name of its files.
    pub name: String,
    /// Name in prompts.
    pub title: String,
    /// Over its questions, in the order of the methods.
    pub rates: Vec<Rate>,
}

/// Whether a model answers the question or the place of its options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Permutation {
    /// The likeliest letter's score in each of the four orders.
    pub per_turn: Vec<Rate>,
    /// Questions to which the same option was chosen in all four orders.
    pub same_option: Rate,
    /// Questions to which the same letter was chosen in all four orders.
    pub same_letter: Rate,
}

/// An exam's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExamSummary {
    /// Name of the exam.
    pub exam: String,
    /// Its split.
    pub split: String,
    /// Questions asked.
    pub num_questions: usize,
    /// Questions whose answer is known.
    pub num_with_answer: usize,
    /// Questions of which the context had no room for the beginning.
    pub num_cut: usize,
    /// How often A, B, C and D are right.
    pub right_answers: [usize; 4],
    /// Scores of always answering A, B, C and D.
    pub constant_letter: [Rate; 4],
    /// One score per method that was used; the first is the exam's.
    pub methods: Vec<MethodScore>,
    /// Shown where the options were permuted.
    pub permutation: Option<Permutation>,
    /// By name.
    pub subjects: Vec<SubjectScore>,
    /// What the results depend on.
    pub settings: serde_json::Value,
}

impl ExamSummary {
    /// Adds up the replies to an exam.
    pub fn new(exam: &Exam, replies: &[Reply], settings: serde_json::Value) -> Self {
        let methods = methods_of(replies);
        let mut right_answers = [0; LETTERS.len()];
        for answer in replies.iter().filter_map(|reply| reply.answer) {
            right_answers[answer] += 1;
        }
        let num_with_answer = right_answers.iter().sum();
        let constant_letter = right_answers.map(|count| Rate::new(count, num_with_answer));
        let by_subject = by_subject(replies);
        let subjects = exam.subjects.iter().map(|subject| {
            let replies = by_subject.get(subject.info.name.as_str());
            let replies = replies.map_or(&[][..], Vec::as_slice);
            SubjectScore {
                name: subject.info.name.clone(),
                title: subject.info.title.clone(),
                rates: methods
                    .iter()
                    .map(|method| rate_of(*method, replies))
                    .collect(),
            }
        });
        let subjects: Vec<SubjectScore> = subjects.collect();
        let infos: Vec<&SubjectInfo> = exam.subjects.iter().map(|subject| &subject.info).collect();
        let methods = methods.iter().enumerate().map(|(index, &method)| {
            let rates: Vec<Rate> = subjects
                .iter()
                .map(|subject| subject.rates[index])
                .collect();
            method_score(method, replies, &infos, &rates, constant_letter)
        });
        Self {
            exam: exam.name.clone(),
            split: exam.split.name().to_owned(),
            num_questions: replies.len(),
            num_with_answer,
            num_cut: replies.iter().filter(|reply| reply.num_cut > 0).count(),
            right_answers,
            constant_letter,
            methods: methods.collect(),
            permutation: permutation(replies),
            subjects,
            settings,
        }
    }
}

fn by_subject(replies: &[Reply]) -> BTreeMap<&str, Vec<&Reply>> {
    let mut groups: BTreeMap<&str, Vec<&Reply>> = BTreeMap::new();
    for reply in replies {
        groups
            .entry(reply.subject.as_str())
            .or_default()
            .push(reply);
    }
    groups
}

fn rate_of(method: Method, replies: &[&Reply]) -> Rate {
    let answered = replies.iter().filter(|reply| reply.answer.is_some());
    let is_right = |reply: &&&Reply| {
        let choice = method.choose(reply);
        choice.is_some_and(|choice| choice.place == reply.answer)
    };
    let num_total = answered.clone().count();
    Rate::new(answered.filter(is_right).count(), num_total)
}

fn method_score(
    method: Method,
    replies: &[Reply],
    infos: &[&SubjectInfo],
    rates: &[Rate],
    constant_letter: [Rate; 4],
) -> MethodScore {
    let mut chosen = [0; LETTERS.len()];
    let mut num_without_choice = 0;
    let mut predictions = Vec::new();
    for reply in replies {
        let choice = method.choose(reply);
        match choice.and_then(|choice| choice.place) {
            Some(place) => chosen[place] += 1,
            None => num_without_choice += 1,
        }
        let confidence = choice.and_then(|choice| choice.confidence);
        if let (Some(answer), Some(confidence)) = (reply.answer, confidence) {
            let is_right = choice.is_some_and(|choice| choice.place == Some(answer));
            predictions.push((confidence, is_right));
        }
    }
    let all: Vec<usize> = (0..rates.len()).collect();
    let whole = group_score("all", &all, rates);
    let mut groups = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for info in infos {
        let category = info.category.map(|category| category.to_string());
        for name in category.into_iter().chain(info.group.map(str::to_owned)) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    for name in names {
        let belongs = |&index: &usize| {
            let info = infos[index];
            info.category
                .is_some_and(|category| category.to_string() == name)
                || info.group == Some(name.as_str())
        };
        let members: Vec<usize> = all.iter().copied().filter(belongs).collect();
        groups.push(group_score(&name, &members, rates));
    }
    MethodScore {
        method,
        rate: whole.rate,
        mean_of_subjects: whole.mean_of_subjects,
        groups,
        chosen,
        num_without_choice,
        calibration_error: expected_calibration_error(&predictions, CALIBRATION_BINS),
        verdict: verdict(whole.rate, chosen, num_without_choice, constant_letter),
    }
}

fn group_score(name: &str, members: &[usize], rates: &[Rate]) -> GroupScore {
    let rates: Vec<Rate> = members.iter().map(|&index| rates[index]).collect();
    let sum = |count: fn(&Rate) -> usize| rates.iter().map(count).sum::<usize>();
    let shares: f64 = rates.iter().map(|rate| rate.share).sum();
    GroupScore {
        name: name.to_owned(),
        rate: Rate::new(sum(|rate| rate.num_right), sum(|rate| rate.num_total)),
        mean_of_subjects: shares / rates.len().max(1) as f64,
    }
}

/// A share as a card writes it.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", 100.0 * share)
}

/// A rate with its interval as a card writes it.
pub(crate) fn with_interval(rate: Rate) -> String {
    format!(
        "{} ({} to {})",
        percent(rate.share),
        percent(rate.low),
        percent(rate.high)
    )
}

/// What a score does and does not say, in plain sentences.
pub fn verdict(
    rate: Rate,
    chosen: [usize; 4],
    num_without_choice: usize,
    constant_letter: [Rate; 4],
) -> Vec<String> {
    if rate.num_total == 0 {
        return Vec::new();
    }
    let mut sentences = Vec::new();
    let share = percent(rate.share);
    sentences.push(if rate.may_be(CHANCE) {
        format!("{share} is not distinguishable from chance (25 %).")
    } else if rate.share > CHANCE {
        format!("{share} is above chance (25 %).")
    } else {
        format!("{share} is below chance (25 %).")
    });
    let best = argmax(&constant_letter.map(|rate| rate.share));
    let (letter, constant) = (LETTERS[best], constant_letter[best]);
    let always = format!(
        "always answering {letter}, which scores {}",
        percent(constant.share)
    );
    if rate.share <= constant.share {
        sentences.push(format!("It is no better than {always}."));
    } else if rate.may_be(constant.share) {
        sentences.push(format!("It is not distinguishable from {always}."));
    }
    let num_choices = chosen.iter().sum::<usize>() + num_without_choice;
    let favourite = argmax(&chosen.map(|count| count as f64));
    let favourite_share = chosen[favourite] as f64 / num_choices.max(1) as f64;
    if favourite_share > 0.5 {
        let letter = LETTERS[favourite];
        let share = percent(favourite_share);
        sentences.push(format!("{share} of its answers are {letter}."));
    }
    if num_without_choice > 0 {
        let share = percent(num_without_choice as f64 / num_choices as f64);
        sentences.push(format!(
            "{share} of its answers name no letter and count as wrong."
        ));
    }
    sentences
}

fn permutation(replies: &[Reply]) -> Option<Permutation> {
    if replies.is_empty() || replies.iter().any(|reply| reply.letters.len() < 4) {
        return None;
    }
    let letter = |reply: &Reply, turn: usize| argmax(&reply.letters[turn]);
    let option = |reply: &Reply, turn: usize| (letter(reply, turn) + turn) % 4;
    let answered: Vec<&Reply> = replies
        .iter()
        .filter(|reply| reply.answer.is_some())
        .collect();
    let per_turn = (0..4).map(|turn| {
        let right = answered
            .iter()
            .filter(|reply| Some(option(reply, turn)) == reply.answer);
        Rate::new(right.count(), answered.len())
    });
    let share_of = |is_same: &dyn Fn(&Reply) -> bool| {
        let same = replies.iter().filter(|reply| is_same(reply));
        Rate::new(same.count(), replies.len())
    };
    Some(Permutation {
        per_turn: per_turn.collect(),
        same_option: share_of(&|reply| (1..4).all(|turn| option(reply, turn) == option(reply, 0))),
        same_letter: share_of(&|reply| (1..4).all(|turn| letter(reply, turn) == letter(reply, 0))),
    })
}
