//! CMMLU's subjects. Source: Li et al. 2023, arXiv:2306.09212, whose repository has the titles and
//! categories; the counts were taken from the published files.

use super::question::Category::{self, Humanities, Other, SocialScience, Stem};
use super::question::SubjectInfo;

/// One subject as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CmmluSubject {
    /// Name of its files.
    pub name: &'static str,
    /// Name in Chinese, as prompts have it.
    pub title: &'static str,
    /// Field of knowledge.
    pub category: Category,
    /// Whether one has to know China for it.
    pub is_china_specific: bool,
    /// Questions of the test split.
    pub num_test: usize,
}

impl CmmluSubject {
    /// Name and groups.
    pub fn info(&self) -> SubjectInfo {
        SubjectInfo {
            name: self.name.to_owned(),
            title: self.title.to_owned(),
            category: Some(self.category),
            group: self.is_china_specific.then_some("China specific"),
        }
    }
}

const fn row(
    name: &'static str,
    title: &'static str,
    category: Category,
    is_china_specific: bool,
    num_test: usize,
) -> CmmluSubject {
    CmmluSubject {
        name,
        title,
        category,
        is_china_specific,
        num_test,
    }
}

/// All 67, by name.
pub const SUBJECTS: [CmmluSubject; 67] = [
    row("agronomy", "农学", Other, false, 169),
    row("anatomy", "解剖学", Stem, false, 148),
    row("ancient_chinese", "古汉语", SocialScience, true, 164),
    row("arts", "艺术学", Humanities, false, 160),
    row("astronomy", "天文学", Stem, false, 165),
    row("business_ethics", "商业伦理", SocialScience, false, 209),
    row(
        "chinese_civil_service_exam",
        "中国公务员考试",
        SocialScience,
        true,
        160,
    ),
    row("chinese_driving_rule", "中国驾驶规则", Other, true, 131),
    row(
        "chinese_food_culture",
        "中国饮食文化",
        SocialScience,
        true,
        136,
    ),
    row(
        "chinese_foreign_policy",
        "中国外交政策",
        SocialScience,
        true,
        107,
    ),
    row("chinese_history", "中国历史", Humanities, true, 323),
    row("chinese_literature", "中国文学", Humanities, true, 204),
    row(
        "chinese_teacher_qualification",
        "中国教师资格",
        SocialScience,
        true,
        179,
    ),
    row("clinical_knowledge", "临床知识", Other, false, 237),
    row("college_actuarial_science", "大学精算学", Stem, false, 106),
    row("college_education", "大学教育学", SocialScience, false, 107),
    row(
        "college_engineering_hydrology",
        "大学工程水文学",
        Stem,
        false,
        106,
    ),
    row("college_law", "大学法律", Humanities, false, 108),
    row("college_mathematics", "大学数学", Stem, false, 105),
    row(
        "college_medical_statistics",
        "大学医学统计",
        Stem,
        false,
        106,
    ),
    row("college_medicine", "大学医学", Other, false, 273),
    row("computer_science", "计算机科学", Stem, false, 204),
    row("computer_security", "计算机安全", Other, false, 171),
    row("conceptual_physics", "概念物理学", Stem, false, 147),
    row(
        "construction_project_management",
        "建设工程管理",
        Other,
        true,
        139,
    ),
    row("economics", "经济学", SocialScience, false, 159),
    row("education", "教育学", SocialScience, false, 163),
    row("electrical_engineering", "电气工程", Stem, false, 172),
    row("elementary_chinese", "小学语文", SocialScience, true, 252),
    row("elementary_commonsense", "小学常识", Other, true, 198),
    row(
        "elementary_information_and_technology",
        "小学信息技术",
        Other,
        false,
        238,
    ),
    row("elementary_mathematics", "初等数学", Stem, false, 230),
    row("ethnology", "民族学", SocialScience, true, 135),
    row("food_science", "食品科学", Other, false, 143),
    row("genetics", "遗传学", Stem, false, 176),
    row("global_facts", "全球事实", Humanities, false, 149),
    row("high_school_biology", "高中生物", Stem, false, 169),
    row("high_school_chemistry", "高中化学", Stem, false, 132),
    row(
        "high_school_geography",
        "高中地理",
        SocialScience,
        false,
        118,
    ),
    row("high_school_mathematics", "高中数学", Stem, false, 164),
    row("high_school_physics", "高中物理学", Stem, false, 110),
    row("high_school_politics", "高中政治", SocialScience, true, 143),
    row("human_sexuality", "人类性行为", Other, false, 126),
    row("international_law", "国际法学", Humanities, false, 185),
    row("journalism", "新闻学", SocialScience, false, 172),
    row("jurisprudence", "法理学", Humanities, false, 411),
    row("legal_and_moral_basis", "法律与道德基础", Other, false, 214),
    row("logical", "逻辑学", Humanities, false, 123),
    row("machine_learning", "机器学习", Stem, false, 122),
    row("management", "管理学", SocialScience, false, 210),
    row("marketing", "市场营销", SocialScience, false, 180),
    row("marxist_theory", "马克思主义理论", Humanities, false, 189),
    row("modern_chinese", "现代汉语", SocialScience, true, 116),
    row("nutrition", "营养学", Other, false, 145),
    row("philosophy", "哲学", Humanities, false, 105),
    row(
        "professional_accounting",
        "专业会计",
        SocialScience,
        false,
        175,
    ),
    row("professional_law", "专业法学", Humanities, false, 211),
    row("professional_medicine", "专业医学", Other, false, 376),
    row(
        "professional_psychology",
        "专业心理学",
        SocialScience,
        false,
        232,
    ),
    row("public_relations", "公共关系", SocialScience, false, 174),
    row("security_study", "安全研究", SocialScience, false, 135),
    row("sociology", "社会学", SocialScience, false, 226),
    row("sports_science", "体育学", Other, false, 165),
    row("traditional_chinese_medicine", "中医中药", Other, true, 185),
    row("virology", "病毒学", Stem, false, 169),
    row("world_history", "世界历史", Humanities, false, 161),
    row("world_religions", "世界宗教", Humanities, false, 160),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts of the paper's table: 67 subjects, 11,582 questions in test.
    #[test]
    fn the_counts_are_those_of_the_paper() {
        let num_test: usize = SUBJECTS.iter().map(|subject| subject.num_test).sum();
        assert_eq!(num_test, 11_582);
        let in_category = |category| {
            let subjects = SUBJECTS.iter();
            subjects
                .filter(|subject| subject.category == category)
                .count()
        };
        let counts = [Stem, SocialScience, Humanities, Other].map(in_category);
        assert_eq!(counts, [17, 22, 13, 15]);
        let china = SUBJECTS.iter().filter(|subject| subject.is_china_specific);
        assert_eq!(china.count(), 15);
        assert!(SUBJECTS.is_sorted_by_key(|subject| subject.name));
    }
}
