//! Why rows were dropped, counted.

use std::collections::BTreeMap;
use std::fmt;

/// Reasons that a message names; the rest is summed up.
const MAX_NAMED: usize = 8;

/// Reasons with their numbers and the first place of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reasons(BTreeMap<String, (usize, String)>);

impl Reasons {
    /// Counts one more row that was dropped.
    pub fn note(&mut self, reason: String, place: impl FnOnce() -> String) {
        let (count, _) = self.0.entry(reason).or_insert_with(|| (0, place()));
        *count += 1;
    }

    /// Rows that were dropped.
    pub fn total(&self) -> usize {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// Reasons with their numbers, the most frequent first.
    pub fn by_count(&self) -> Vec<(&str, usize)> {
        let reasons = self.0.iter();
        let mut reasons: Vec<_> = reasons
            .map(|(reason, (count, _))| (reason.as_str(), *count))
            .collect();
        reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        reasons
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = self.by_count();
        for (index, (reason, count)) in reasons.iter().take(MAX_NAMED).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let (_, place) = &self.0[*reason];
            write!(
                formatter,
                "{separator}{count} x {reason} (the first at {place})"
            )?;
        }
        if let Some(rest @ [_, ..]) = reasons.get(MAX_NAMED..) {
            let count: usize = rest.iter().map(|(_, count)| count).sum();
            write!(formatter, "; {count} x {} more reasons", rest.len())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Twelve reasons, one of them twice: eight are named, the frequent one first.
    #[test]
    fn the_most_frequent_reasons_are_named() {
        let mut reasons = Reasons::default();
        for number in 0..12 {
            reasons.note(format!("reason {number:02}"), || {
                format!("a.jsonl:{number}")
            });
        }
        reasons.note("reason 11".to_owned(), || {
            unreachable!("the place is known")
        });
        assert_eq!(reasons.total(), 13);
        let text = reasons.to_string();
        assert!(
            text.starts_with("2 x reason 11 (the first at a.jsonl:11); 1 x reason 00 (the first"),
            "{text}"
        );
        assert!(text.ends_with("; 4 x 4 more reasons"), "{text}");
        assert_eq!(Reasons::default().to_string(), "");
    }
}
