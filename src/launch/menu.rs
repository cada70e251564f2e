//! Questions with numbered answers, asked until one is chosen.

use std::io::{BufRead, Write};

use anyhow::{Context, Result, bail};

/// Who is asked.
pub(super) struct Dialogue<'a> {
    pub(super) input: &'a mut dyn BufRead,
    pub(super) output: &'a mut dyn Write,
}

impl Dialogue<'_> {
    /// Place in the list of the item that is chosen.
    pub(super) fn choose(&mut self, title: &str, items: &[&str]) -> Result<usize> {
        writeln!(self.output, "\n{title}")?;
        for (index, item) in items.iter().enumerate() {
            writeln!(self.output, "  {}  {item}", index + 1)?;
        }
        loop {
            write!(self.output, "[1-{}]: ", items.len())?;
            let answer = self.answer()?;
            match answer.parse::<usize>() {
                Ok(number) if (1..=items.len()).contains(&number) => return Ok(number - 1),
                _ => writeln!(
                    self.output,
                    "{answer:?} is none of them, expected a number from 1 to {}",
                    items.len()
                )?,
            }
        }
    }

    /// Whether the answer is yes; anything else is no.
    pub(super) fn confirm(&mut self, question: &str) -> Result<bool> {
        write!(self.output, "{question} [y/N]: ")?;
        let answer = self.answer()?.to_lowercase();
        Ok(["y", "yes", "是"].contains(&answer.as_str()))
    }

    fn answer(&mut self) -> Result<String> {
        self.output.flush().context("cannot ask")?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            bail!("the input ended, expected an answer");
        }
        Ok(line.trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<T>(
        input: &str,
        ask: impl FnOnce(&mut Dialogue<'_>) -> Result<T>,
    ) -> (Result<T>, String) {
        let mut output = Vec::new();
        let answer = ask(&mut Dialogue {
            input: &mut input.as_bytes(),
            output: &mut output,
        });
        (answer, String::from_utf8(output).unwrap())
    }

    /// APT took a wrong number for the first or second item; here it is asked again.
    #[test]
    fn wrong_answers_are_asked_again() {
        let (choice, shown) = asked("0\nx\n3\n2\n", |dialogue| {
            dialogue.choose("Which?", &["one", "two"])
        });
        assert_eq!(choice.unwrap(), 1);
        assert!(
            shown.starts_with("\nWhich?\n  1  one\n  2  two\n[1-2]: "),
            "{shown}"
        );
        assert_eq!(shown.matches("is none of them").count(), 3);
        assert!(shown.contains("\"x\" is none of them, expected a number from 1 to 2"));
    }

    /// Nothing is done without a clear yes, and nobody waits for a closed input.
    #[test]
    fn silence_is_no() {
        assert!(!asked("\n", |dialogue| dialogue.confirm("Run?")).0.unwrap());
        assert!(
            asked("Yes\n", |dialogue| dialogue.confirm("Run?"))
                .0
                .unwrap()
        );
        let (choice, _) = asked("", |dialogue| dialogue.confirm("Run?"));
        assert_eq!(
            choice.unwrap_err().to_string(),
            "the input ended, expected an answer"
        );
    }
}
