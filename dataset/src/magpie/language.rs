//! Which language a text is in, under Magpie's names: ISO 639-1 in capitals.

use whatlang::{Lang, detect};

/// The language's code, such as EN or ZH; `None` where there is too little to tell.
pub fn language_of(text: &str) -> Option<&'static str> {
    let found = detect(text)?;
    // Runs of letters tell little in a line of three words: an unsure answer is none.
    (found.is_reliable() || found.confidence() >= 0.5 || !uses_latin_letters(found.lang()))
        .then(|| code(found.lang()))
}

/// Where the letters alone do not tell the language.
fn uses_latin_letters(language: Lang) -> bool {
    whatlang::Script::Latin.langs().contains(&language)
}

/// ISO 639-1 has a shorter code than ISO 639-3 for all of the detector's languages but Akan's kin.
fn code(language: Lang) -> &'static str {
    match language {
        Lang::Epo => "EO",
        Lang::Eng => "EN",
        Lang::Rus => "RU",
        Lang::Cmn => "ZH",
        Lang::Spa => "ES",
        Lang::Por => "PT",
        Lang::Ita => "IT",
        Lang::Ben => "BN",
        Lang::Fra => "FR",
        Lang::Deu => "DE",
        Lang::Ukr => "UK",
        Lang::Kat => "KA",
        Lang::Ara => "AR",
        Lang::Hin => "HI",
        Lang::Jpn => "JA",
        Lang::Heb => "HE",
        Lang::Yid => "YI",
        Lang::Pol => "PL",
        Lang::Amh => "AM",
        Lang::Jav => "JV",
        Lang::Kor => "KO",
        Lang::Nob => "NB",
        Lang::Dan => "DA",
        Lang::Swe => "SV",
        Lang::Fin => "FI",
        Lang::Tur => "TR",
        Lang::Nld => "NL",
        Lang::Hun => "HU",
        Lang::Ces => "CS",
        Lang::Ell => "EL",
        Lang::Bul => "BG",
        Lang::Bel => "BE",
        Lang::Mar => "MR",
        Lang::Kan => "KN",
        Lang::Ron => "RO",
        Lang::Slv => "SL",
        Lang::Hrv => "HR",
        Lang::Srp => "SR",
        Lang::Mkd => "MK",
        Lang::Lit => "LT",
        Lang::Lav => "LV",
        Lang::Est => "ET",
        Lang::Tam => "TA",
        Lang::Vie => "VI",
        Lang::Urd => "UR",
        Lang::Tha => "TH",
        Lang::Guj => "GU",
        Lang::Uzb => "UZ",
        Lang::Pan => "PA",
        Lang::Aze => "AZ",
        Lang::Ind => "ID",
        Lang::Tel => "TE",
        Lang::Pes => "FA",
        Lang::Mal => "ML",
        Lang::Ori => "OR",
        Lang::Mya => "MY",
        Lang::Nep => "NE",
        Lang::Sin => "SI",
        Lang::Khm => "KM",
        Lang::Tuk => "TK",
        Lang::Aka => "AK",
        Lang::Zul => "ZU",
        Lang::Sna => "SN",
        Lang::Afr => "AF",
        Lang::Lat => "LA",
        Lang::Slk => "SK",
        Lang::Cat => "CA",
        Lang::Tgl => "TL",
        Lang::Hye => "HY",
        Lang::Cym => "CY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_told_apart_and_nothing_is_none() {
        let texts = [
            (
                "What is the difference between a crow and a raven?",
                Some("EN"),
            ),
            ("乌鸦和渡鸦有什么区别？", Some("ZH")),
            ("カラスとワタリガラスの違いは何ですか？", Some("JA")),
            ("까마귀와 큰까마귀의 차이는 무엇인가요?", Some("KO")),
            ("В чём разница между вороной и вороном?", Some("RU")),
            (
                "Quelle est la différence entre une corneille et un corbeau ?",
                Some("FR"),
            ),
            ("12+45=?", None),
            ("", None),
        ];
        for (text, expected) in texts {
            assert_eq!(language_of(text), expected, "{text}");
        }
    }

    /// One code per language, two capitals each.
    #[test]
    fn every_language_has_a_code_of_its_own() {
        let codes: std::collections::BTreeSet<&str> =
            Lang::all().iter().map(|language| code(*language)).collect();
        assert_eq!(codes.len(), Lang::all().len());
        assert!(
            codes
                .iter()
                .all(|code| code.len() == 2 && code == &code.to_uppercase())
        );
    }
}
