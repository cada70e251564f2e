//! Rewards of answers that are right, wrong, odd or broken.

use super::*;

fn answered<'a>(prompt: &'a [Message], expected: &'a str, text: &'a str) -> Answered<'a> {
    Answered {
        prompt,
        expected,
        other: "",
        prompt_ids: &[1, 2],
        completion_ids: &[3, 4, 5],
        text,
    }
}

fn rewards(text: &str) -> Rewards {
    let section: RewardsSection = toml::from_str(text).unwrap();
    section.validate().unwrap();
    Rewards::new(&section, &Device::flex()).unwrap()
}

fn judge(text: &str, answers: &[Answered<'_>]) -> Result<Judgement, RewardError> {
    rewards(text).judge(answers)
}

fn totals(kind: &str, cases: &[(&str, &str)]) -> Vec<f64> {
    let answers: Vec<Answered<'_>> = cases
        .iter()
        .map(|(expected, text)| answered(&[], expected, text))
        .collect();
    let text = format!("[[functions]]\n{kind}");
    judge(&text, &answers).unwrap().totals
}

/// By hand: the last number counts for "answer", the whole text for "exact_match"; thoughts are
/// neither, and thoughts without an end say nothing.
#[test]
fn right_answers_earn_one() {
    let cases = [
        ("82", "82"),
        ("82", "it is 82."),
        ("so #### 1,007", "1007"),
        ("82", "<think>80+2</think>\n82"),
        ("82", "<think>82"),
        ("82", "<think>82</think> 83"),
        ("a red kite", "a red kite"),
        ("<think>x</think>5", "5"),
    ];
    assert_eq!(
        totals("kind = \"answer\"", &cases),
        [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    );
    assert_eq!(
        totals("kind = \"exact_match\"", &cases),
        [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0]
    );
}

/// By hand: a stated letter, another, none; patterns see what is said and not what is thought.
#[test]
fn letters_and_patterns_earn_one() {
    let cases = [
        ("B", "The answer is B."),
        ("B", "C"),
        ("B", "I do not know"),
    ];
    assert_eq!(totals("kind = \"choice\"", &cases), [1.0, 0.0, 0.0]);
    let cases = [("", "7 apples"), ("", "<think>7</think>no"), ("", "no")];
    assert_eq!(
        totals("kind = \"regex\"\npattern = '\\d'", &cases),
        [1.0, 0.0, 0.0]
    );
}

/// Three tokens: within 1 and 3, not within 4 and 9; half of what is over 2 up to 4.
#[test]
fn lengths_are_in_tokens() {
    let of = |bounds: &str| totals(bounds, &[("", "text")])[0];
    assert_eq!(
        of("kind = \"length\"\nmin_tokens = 1\nmax_tokens = 3").to_bits(),
        1.0_f64.to_bits()
    );
    assert_eq!(
        of("kind = \"length\"\nmin_tokens = 4\nmax_tokens = 9").to_bits(),
        0.0_f64.to_bits()
    );
    assert_eq!(
        of("kind = \"overlong\"\nmin_tokens = 2\nmax_tokens = 4").to_bits(),
        (-0.5_f64).to_bits()
    );
}

/// By hand: 2 x 1 + 0.5 x 1 for the first answer, 2 x 0 + 0.5 x 1 for the second; what each
/// function gave is kept beside the sum.
#[test]
fn rewards_are_summed_by_weight() {
    let text = "[[functions]]\nkind = \"answer\"\nweight = 2.0\n\
                [[functions]]\nkind = \"think_format\"\nweight = 0.5";
    let answers = [
        answered(&[], "5", "<think>2+3</think>5"),
        answered(&[], "5", "<think>2+3</think>6"),
    ];
    let found = judge(text, &answers).unwrap();
    assert_eq!(found.totals, [2.5, 0.5]);
    let expected = [
        ("answer".to_owned(), vec![1.0, 0.0]),
        ("think_format".to_owned(), vec![1.0, 1.0]),
    ];
    assert_eq!(found.by_function, expected);
}

/// A function that says what it was told to.
struct Silent(Vec<f64>);
impl Reward for Silent {
    fn judge(&mut self, _answers: &[Answered<'_>]) -> Result<Vec<f64>, RewardError> {
        Ok(self.0.clone())
    }
}

/// A row without a letter cannot be judged by one, and that is an error rather than a 0.
#[test]
fn a_missing_reward_is_an_error() {
    let text = "[[functions]]\nkind = \"choice\"";
    let error = judge(text, &[answered(&[], "82", "B")]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "reward choice: the answer of the row is \"82\", expected a letter from A to D"
    );
    let of = |given: Vec<f64>| {
        let function = Box::new(Silent(given));
        let mut rewards = Rewards::default().with("model".to_owned(), 1.0, function);
        let answers = [answered(&[], "", ""), answered(&[], "", "")];
        rewards.judge(&answers).unwrap_err().to_string()
    };
    assert_eq!(
        of(vec![0.5]),
        "reward model: found 1 rewards, expected 2, one for each answer"
    );
    assert_eq!(
        of(vec![0.5, f64::NAN]),
        "reward model: found \"NaN\" for answer 2, expected a finite number"
    );
}

/// A shell reads the objects and writes numbers: the second answer is the longer one.
#[cfg(unix)]
#[test]
fn a_program_judges_line_by_line() {
    let command = |script: &str| {
        format!(
            "[[functions]]\nkind = \"command\"\ntimeout_secs = 2.0\n\
             command = [\"sh\", \"-c\", '''{script}''']"
        )
    };
    let prompt = [Message::new("user", "2+3=?")];
    let answers = [answered(&prompt, "5", "5"), answered(&prompt, "5", "five")];
    let count = "while read -r line; do echo ${#line}; done";
    let found = judge(&command(count), &answers).unwrap().totals;
    let line = r#"{"prompt":[{"role":"user","content":"2+3=?"}],"completion":"5","answer":"5"}"#;
    assert_eq!(found, [line.len() as f64, line.len() as f64 + 3.0]);

    let refusal = |script: &str| judge(&command(script), &answers).unwrap_err().to_string();
    assert_eq!(
        refusal("echo 1"),
        "reward command: found 1 rewards, expected 2, one for each answer"
    );
    assert_eq!(
        refusal("echo 1; echo good"),
        "reward command: found \"good\" for answer 2, expected a finite number"
    );
    assert_eq!(
        refusal("echo why >&2; exit 3"),
        "reward command: the program ended with exit status: 3: why"
    );
    for script in ["exec sleep 30", "exec >&-; exec sleep 30"] {
        assert_eq!(refusal(script), "reward command: no answer within 2 s");
    }
    let error = judge(
        "[[functions]]\nkind = \"command\"\ncommand = [\"./no such program\"]",
        &answers,
    );
    assert_eq!(
        error.unwrap_err().to_string(),
        "reward command: ./no such program cannot be run"
    );
}
