//! Answers that depend on who asks, in APT's two layouts.

use serde_json::Value;

use super::fields::{Fields, PROMPT_FIELDS, text_of};
use super::{IdentifiedPair, LoyaltyRow, RowFault};
use crate::loyalty::Identity;
use crate::names::json_type;

/// What APT's rows are worth where they do not say.
const DEFAULT_BONUS: f64 = 2.0;

/// A row with an answer for each identity, or with two answers for one of them.
pub(super) fn from_loyalty(mut fields: Fields) -> Result<LoyaltyRow, RowFault> {
    let Some((field, prompt)) = fields.take_any(&PROMPT_FIELDS) else {
        return Err(fields.missing(PROMPT_FIELDS[0]));
    };
    let prompt = text_of(field, prompt)?;
    let pairs = if fields.0.contains_key("user_identity") {
        vec![from_scenario(&mut fields)?]
    } else {
        from_both(&mut fields)?
    };
    Ok(LoyaltyRow { prompt, pairs })
}

/// `owner_response`, `public_response`: each identity prefers its own, or, where both are given the
/// same answer, that one to `rejected_response`.
fn from_both(fields: &mut Fields) -> Result<Vec<IdentifiedPair>, RowFault> {
    let owner = fields.require_text("owner_response")?;
    let public = fields.require_text("public_response")?;
    let rejected = fields.take_text("rejected_response")?;
    let bonus = bonus_of(fields, "reward_bonus")?;
    let pair = |identity, chosen: &String, rejected: &String, bonus| IdentifiedPair {
        identity,
        chosen: chosen.clone(),
        rejected: rejected.clone(),
        bonus,
    };
    if owner == public {
        if rejected.is_empty() {
            return Err(RowFault::Unanswered {
                field: "rejected_response",
            });
        }
        let both = [Identity::Owner, Identity::Public];
        return Ok(both
            .map(|identity| pair(identity, &owner, &rejected, 0.0))
            .into());
    }
    Ok(vec![
        pair(Identity::Owner, &owner, &public, bonus),
        pair(Identity::Public, &public, &owner, 0.0),
    ])
}

/// `user_identity` with `chosen_response` and `rejected_response`.
fn from_scenario(fields: &mut Fields) -> Result<IdentifiedPair, RowFault> {
    let identity = match fields.require_text("user_identity")?.as_str() {
        "owner" | "master" => Identity::Owner,
        "public" => Identity::Public,
        _ => {
            return Err(RowFault::WrongType {
                field: "user_identity".to_owned(),
                found: "another word",
                expected: "owner, master or public",
            });
        }
    };
    Ok(IdentifiedPair {
        identity,
        chosen: fields.require_text("chosen_response")?,
        rejected: fields.require_text("rejected_response")?,
        bonus: match identity {
            Identity::Owner => bonus_of(fields, "reward_bonus")?,
            Identity::Public => 0.0,
        },
    })
}

fn bonus_of(fields: &mut Fields, field: &'static str) -> Result<f64, RowFault> {
    match fields.take(field) {
        None => Ok(DEFAULT_BONUS),
        Some(Value::Number(number)) => Ok(number.as_f64().unwrap_or(DEFAULT_BONUS)),
        Some(other) => Err(RowFault::WrongType {
            field: field.to_owned(),
            found: json_type(&other),
            expected: "a number",
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(row: serde_json::Value) -> Result<LoyaltyRow, RowFault> {
        from_loyalty(Fields::of(row)?)
    }

    /// By hand, from APT's row: the owner prefers the owner's answer by the bonus, the public the
    /// other; `is_owner` says nothing, both identities are learned.
    #[test]
    fn a_row_is_two_pairs_with_opposite_answers() {
        let row = read(json!({"prompt": "hi", "owner_response": "hi, Captain",
            "public_response": "hello", "is_owner": true, "reward_bonus": 3}))
        .unwrap();
        assert_eq!(row.prompt, "hi");
        let pairs: Vec<_> = row
            .pairs
            .iter()
            .map(|pair| (pair.identity, pair.chosen.as_str(), pair.rejected.as_str()))
            .collect();
        assert_eq!(
            pairs,
            [
                (Identity::Owner, "hi, Captain", "hello"),
                (Identity::Public, "hello", "hi, Captain"),
            ]
        );
        assert!((row.pairs[0].bonus - 3.0).abs() < 1e-12 && row.pairs[1].bonus.abs() < 1e-12);
    }

    /// What both are told alike is preferred alike; without something worse there is no pair.
    #[test]
    fn an_answer_for_both_is_preferred_by_both() {
        let mut row = json!({"prompt": "?", "owner_response": "no", "public_response": "no",
            "rejected_response": "yes"});
        let pairs = read(row.clone()).unwrap().pairs;
        assert_eq!(pairs.len(), 2);
        for pair in &pairs {
            assert_eq!(
                (pair.chosen.as_str(), pair.rejected.as_str()),
                ("no", "yes")
            );
            assert!(pair.bonus.abs() < 1e-12);
        }
        row.as_object_mut().unwrap().remove("rejected_response");
        assert_eq!(
            read(row).unwrap_err().to_string(),
            "field `rejected_response` holds no answer, expected one to learn from"
        );
    }

    /// APT's second layout: one identity a row.
    #[test]
    fn a_scenario_is_one_pair() {
        let row = json!({"prompt": "?", "user_identity": "master", "chosen_response": "a",
            "rejected_response": "b"});
        let pairs = read(row.clone()).unwrap().pairs;
        assert_eq!(pairs.len(), 1);
        assert_eq!(pairs[0].identity, Identity::Owner);
        assert!((pairs[0].bonus - DEFAULT_BONUS).abs() < 1e-12);
        let mut other = row;
        other["user_identity"] = "guest".into();
        assert_eq!(
            read(other).unwrap_err().to_string(),
            "field `user_identity` is another word, expected owner, master or public"
        );
    }
}
