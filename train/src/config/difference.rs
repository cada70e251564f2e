//! Which fields of a saved config and of the config of a resumed run differ, and which of them
//! matter.
//!
//! A resumed run continues the saved one bit for bit, so whatever changes its numbers must be the
//! same. How often it is saved, scored, sampled and reported may change. The length may change
//! only where nothing is stretched over it: under a constant learning rate whose warm-up is a number
//! of steps.

use std::fmt;

use serde_json::Value;

/// Sections and fields that do not change what is learned.
const MAY_CHANGE: [&str; 12] = [
    "validation.",
    "samples.",
    "exam.",
    "checkpoint.",
    "guard.",
    "report.",
    "data.cache_dir",
    "distill.cache_dir",
    "dpo.cache_dir",
    "train.activation_checkpointing",
    "train.dump_curve_inputs",
    "tokenizer.path",
];

/// A field that differs between the saved and the asked config.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldDifference {
    /// Dotted name of the field.
    pub field: String,
    /// Value in the checkpoint.
    pub saved: String,
    /// Value of the run that wants to continue.
    pub asked: String,
}

impl fmt::Display for FieldDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: the checkpoint has {}, asked is {}",
            self.field, self.saved, self.asked
        )
    }
}

/// The fields in which two configs differ so that one run cannot continue the other.
pub fn differences_that_matter(saved: &Value, asked: &Value) -> Vec<FieldDifference> {
    let mut found = Vec::new();
    collect("", saved, asked, &mut found);
    let may_be_longer = !stretches(asked);
    found.retain(|difference| {
        let field = difference.field.as_str();
        let may_change = MAY_CHANGE
            .iter()
            .any(|allowed| match allowed.strip_suffix('.') {
                Some(section) => field == section || field.starts_with(allowed),
                None => field == *allowed,
            });
        !(may_change || (may_be_longer && field == "train.length"))
    });
    found
}

/// Whether something in a run is a share of its length.
fn stretches(config: &Value) -> bool {
    let schedule = |field: &str| config.pointer(&format!("/schedule/{field}"));
    let number = |field| schedule(field).and_then(Value::as_f64).unwrap_or(0.0);
    let is_constant = schedule("kind") == Some(&Value::from("constant"));
    let has_fixed_warmup = number("warmup_steps") > 0.0 || number("warmup_ratio") == 0.0;
    // Reasoning goes away over the run.
    !is_constant || !has_fixed_warmup || config.get("storm").is_some()
}

fn collect(path: &str, saved: &Value, asked: &Value, found: &mut Vec<FieldDifference>) {
    if let (Value::Object(saved), Value::Object(asked)) = (saved, asked) {
        let new_keys = asked.keys().filter(|key| !saved.contains_key(*key));
        for key in saved.keys().chain(new_keys) {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let value_of = |side: &serde_json::Map<String, Value>| {
                side.get(key).cloned().unwrap_or(Value::Null)
            };
            collect(&path, &value_of(saved), &value_of(asked), found);
        }
    } else if saved != asked {
        found.push(FieldDifference {
            field: path.to_owned(),
            saved: saved.to_string(),
            asked: asked.to_string(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The text carries the field and both values.
    #[test]
    fn a_changed_learning_rate_is_named_with_both_values() {
        let saved = json!({"optimizer": {"lr": 0.001, "eps": 1e-8}, "report": {"plot": true}});
        let asked = json!({"optimizer": {"lr": 0.002, "eps": 1e-8}, "report": {"plot": false}});
        let found = differences_that_matter(&saved, &asked);
        assert_eq!(found.len(), 1);
        assert_eq!(
            found[0].to_string(),
            "optimizer.lr: the checkpoint has 0.001, asked is 0.002"
        );
    }

    /// Cadences may change: they do not reach the weights.
    #[test]
    fn cadences_do_not_matter() {
        let saved = json!({"checkpoint": {"every_steps": 5}, "samples": {"prompts": ["a"]}});
        let asked = json!({"checkpoint": {"every_steps": 7}, "samples": {"prompts": []}});
        assert_eq!(differences_that_matter(&saved, &asked), []);
    }

    /// A longer run bends a cosine and stretches a warm-up that is a share of it, so its length matters;
    /// a constant rate goes on as before.
    #[test]
    fn the_length_may_change_only_where_nothing_is_stretched_over_it() {
        for (kind, warmup, expected) in [
            ("cosine", json!({"warmup_steps": 5}), 1),
            ("constant", json!({"warmup_ratio": 0.02}), 1),
            (
                "constant",
                json!({"warmup_ratio": 0.02, "warmup_steps": 5}),
                0,
            ),
            ("constant", json!({"warmup_ratio": 0.0}), 0),
        ] {
            let of_length = |length: &str| {
                let mut schedule = warmup.clone();
                schedule["kind"] = kind.into();
                json!({"train": {"length": length}, "schedule": schedule})
            };
            let (saved, mut asked) = (of_length("10 steps"), of_length("20 steps"));
            let found = differences_that_matter(&saved, &asked);
            assert_eq!(found.len(), expected, "{kind}, {warmup}");
            asked["storm"] = json!({});
            let found = differences_that_matter(&saved, &asked);
            assert_eq!(found[0].field, "train.length");
        }
    }

    /// A field that only one side knows is a difference.
    #[test]
    fn a_field_on_one_side_only_is_a_difference() {
        let found = differences_that_matter(&json!({"train": {}}), &json!({"train": {"seed": 1}}));
        assert_eq!(
            found[0].to_string(),
            "train.seed: the checkpoint has null, asked is 1"
        );
    }
}
