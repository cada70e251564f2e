//! C-Eval's subjects, and what its files hold: a copy with other questions gives other scores.
//!
//! Source: Huang et al. 2023, arXiv:2305.08322. Titles, categories and the hard subjects are those
//! of its repository; the counts were taken from the published files.

use super::question::Category::{self, Humanities, Other, SocialScience, Stem};
use super::question::{LETTERS, SubjectInfo};

/// Solved questions of each subject's dev split.
pub const NUM_DEV: usize = 5;

/// One subject as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CevalSubject {
    /// Name of its files.
    pub name: &'static str,
    /// Name in Chinese, as prompts have it.
    pub title: &'static str,
    /// Field of knowledge.
    pub category: Category,
    /// How often A, B, C and D are right in the val split.
    pub val_answers: [usize; 4],
    /// Questions of the test split, whose answers are not published.
    pub num_test: usize,
}

impl CevalSubject {
    /// Whether it is one of the eight that C-Eval's authors call hard.
    pub fn is_hard(&self) -> bool {
        HARD.contains(&self.name)
    }

    /// Questions of the val split.
    pub fn num_val(&self) -> usize {
        self.val_answers.iter().sum()
    }

    /// Name and groups.
    pub fn info(&self) -> SubjectInfo {
        SubjectInfo {
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            category: Some(self.category),
            group: self.is_hard().then_some("hard"),
        }
    }
}

/// How often each letter is right, written for a message.
pub fn describe_answers(answers: [usize; 4]) -> String {
    let counts = LETTERS.iter().zip(answers);
    let counts: Vec<String> = counts
        .map(|(letter, count)| format!("{letter} {count}"))
        .collect();
    counts.join(", ")
}

const HARD: [&str; 8] = [
    "advanced_mathematics",
    "college_chemistry",
    "college_physics",
    "discrete_mathematics",
    "high_school_chemistry",
    "high_school_mathematics",
    "high_school_physics",
    "probability_and_statistics",
];

const fn row(
    name: &'static str,
    title: &'static str,
    category: Category,
    val_answers: [usize; 4],
    num_test: usize,
) -> CevalSubject {
    CevalSubject {
        name,
        title,
        category,
        val_answers,
        num_test,
    }
}

/// All 52, by name.
pub const SUBJECTS: [CevalSubject; 52] = [
    row("accountant", "注册会计师", Other, [11, 8, 14, 16], 443),
    row("advanced_mathematics", "高等数学", Stem, [6, 8, 2, 3], 173),
    row("art_studies", "艺术学", Humanities, [15, 6, 6, 6], 298),
    row("basic_medicine", "基础医学", Other, [1, 6, 4, 8], 175),
    row(
        "business_administration",
        "工商管理",
        SocialScience,
        [8, 11, 9, 5],
        301,
    ),
    row(
        "chinese_language_and_literature",
        "中国语言文学",
        Humanities,
        [5, 5, 6, 7],
        209,
    ),
    row("civil_servant", "公务员", Other, [12, 6, 16, 13], 429),
    row("clinical_medicine", "临床医学", Other, [5, 5, 6, 6], 200),
    row("college_chemistry", "大学化学", Stem, [4, 7, 6, 7], 224),
    row(
        "college_economics",
        "大学经济学",
        SocialScience,
        [16, 15, 13, 11],
        497,
    ),
    row("college_physics", "大学物理", Stem, [4, 4, 8, 3], 176),
    row("college_programming", "大学编程", Stem, [9, 13, 7, 8], 342),
    row(
        "computer_architecture",
        "计算机组成",
        Stem,
        [6, 8, 3, 4],
        193,
    ),
    row("computer_network", "计算机网络", Stem, [2, 3, 9, 5], 171),
    row("discrete_mathematics", "离散数学", Stem, [6, 2, 2, 6], 153),
    row(
        "education_science",
        "教育学",
        SocialScience,
        [7, 11, 3, 8],
        270,
    ),
    row(
        "electrical_engineer",
        "注册电气工程师",
        Stem,
        [8, 11, 8, 10],
        339,
    ),
    row(
        "environmental_impact_assessment_engineer",
        "环境影响评价工程师",
        Other,
        [5, 10, 9, 7],
        281,
    ),
    row("fire_engineer", "注册消防工程师", Other, [8, 11, 6, 6], 282),
    row("high_school_biology", "高中生物", Stem, [7, 5, 4, 3], 175),
    row("high_school_chemistry", "高中化学", Stem, [4, 6, 3, 6], 172),
    row(
        "high_school_chinese",
        "高中语文",
        Humanities,
        [4, 3, 6, 6],
        178,
    ),
    row(
        "high_school_geography",
        "高中地理",
        SocialScience,
        [4, 6, 4, 5],
        178,
    ),
    row(
        "high_school_history",
        "高中历史",
        Humanities,
        [6, 6, 7, 1],
        182,
    ),
    row(
        "high_school_mathematics",
        "高中数学",
        Stem,
        [4, 3, 4, 7],
        166,
    ),
    row("high_school_physics", "高中物理", Stem, [4, 6, 5, 4], 175),
    row(
        "high_school_politics",
        "高中政治",
        SocialScience,
        [4, 3, 11, 1],
        176,
    ),
    row(
        "ideological_and_moral_cultivation",
        "思想道德修养与法律基础",
        Humanities,
        [5, 6, 4, 4],
        172,
    ),
    row("law", "法学", Humanities, [5, 3, 7, 9], 221),
    row(
        "legal_professional",
        "法律职业资格",
        Humanities,
        [1, 5, 9, 8],
        215,
    ),
    row("logic", "逻辑学", Humanities, [4, 5, 5, 8], 204),
    row(
        "mao_zedong_thought",
        "毛泽东思想和中国特色社会主义理论体系概论",
        SocialScience,
        [8, 5, 6, 5],
        219,
    ),
    row(
        "marxism",
        "马克思主义基本原理",
        SocialScience,
        [5, 4, 6, 4],
        179,
    ),
    row("metrology_engineer", "注册计量师", Stem, [3, 6, 7, 8], 219),
    row("middle_school_biology", "初中生物", Stem, [4, 6, 6, 5], 192),
    row(
        "middle_school_chemistry",
        "初中化学",
        Stem,
        [3, 5, 5, 7],
        185,
    ),
    row(
        "middle_school_geography",
        "初中地理",
        SocialScience,
        [1, 2, 4, 5],
        108,
    ),
    row(
        "middle_school_history",
        "初中历史",
        Humanities,
        [4, 6, 3, 9],
        207,
    ),
    row(
        "middle_school_mathematics",
        "初中数学",
        Stem,
        [3, 6, 3, 7],
        177,
    ),
    row("middle_school_physics", "初中物理", Stem, [4, 2, 9, 4], 178),
    row(
        "middle_school_politics",
        "初中政治",
        SocialScience,
        [6, 5, 6, 4],
        193,
    ),
    row(
        "modern_chinese_history",
        "近代史纲要",
        Humanities,
        [4, 1, 7, 11],
        212,
    ),
    row("operating_system", "操作系统", Stem, [3, 6, 2, 8], 179),
    row("physician", "医师资格", Other, [13, 11, 11, 14], 443),
    row("plant_protection", "植物保护", Other, [7, 8, 4, 3], 199),
    row(
        "probability_and_statistics",
        "概率统计",
        Stem,
        [2, 3, 8, 5],
        166,
    ),
    row(
        "professional_tour_guide",
        "导游资格",
        Humanities,
        [10, 4, 9, 6],
        266,
    ),
    row("sports_science", "体育学", Other, [2, 2, 10, 5], 180),
    row("tax_accountant", "税务师", Other, [10, 14, 9, 16], 443),
    row(
        "teacher_qualification",
        "教师资格",
        SocialScience,
        [13, 12, 9, 10],
        399,
    ),
    row(
        "urban_and_rural_planner",
        "注册城乡规划师",
        Other,
        [10, 16, 7, 13],
        418,
    ),
    row("veterinary_medicine", "兽医学", Stem, [5, 7, 7, 4], 210),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The paper's table 1: 1,346 questions in val, 12,342 in test; the letters were counted in the
    /// files that MiniMind scored, where always answering C or D gives its published scores.
    #[test]
    fn the_counts_are_those_of_the_paper() {
        let mut letters = [0; 4];
        for subject in &SUBJECTS {
            for (sum, count) in letters.iter_mut().zip(subject.val_answers) {
                *sum += count;
            }
        }
        assert_eq!(letters, [310, 338, 344, 354]);
        assert_eq!(
            SUBJECTS.iter().map(CevalSubject::num_val).sum::<usize>(),
            1346
        );
        let num_test: usize = SUBJECTS.iter().map(|subject| subject.num_test).sum();
        assert_eq!(num_test, 12_342);
        let in_category = |category| {
            let subjects = SUBJECTS.iter();
            subjects
                .filter(|subject| subject.category == category)
                .count()
        };
        let counts = [Stem, SocialScience, Humanities, Other].map(in_category);
        assert_eq!(counts, [20, 10, 11, 11]);
        assert_eq!(
            SUBJECTS.iter().filter(|subject| subject.is_hard()).count(),
            8
        );
        assert!(SUBJECTS.is_sorted_by_key(|subject| subject.name));
    }
}
