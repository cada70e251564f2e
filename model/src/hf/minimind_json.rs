//! The `config.json` of MiniMind's own class, as the fields of the class of `transformers` that
//! computes the same.

use serde_json::{Map, Value, json};

use crate::config::FieldError;

/// Its value of `model_type`.
pub(super) const MODEL_TYPE: &str = "minimind";

/// Says in the words of Llama, Qwen3 or Qwen3-MoE what a MiniMind config says.
///
/// MiniMind2 and MiniMind-3 share a name: only the former's config has `n_routed_experts`, only the
/// latter's model has query and key norms.
pub(super) fn in_transformers_words(fields: &mut Map<String, Value>) -> Result<(), FieldError> {
    let is_minimind2 = fields.contains_key("n_routed_experts");
    let has_experts = fields.remove("use_moe") == Some(json!(true));
    if is_minimind2 && has_experts {
        let expected = "false in a MiniMind2 folder; kindling convert reads its .pth";
        return Err(FieldError::new("use_moe", true, expected));
    }
    let model_type = match (is_minimind2, has_experts) {
        (true, _) => "llama",
        (false, false) => "qwen3",
        (false, true) => "qwen3_moe",
    };
    fields.insert("model_type".to_owned(), model_type.into());
    let number = |field: &str| fields.get(field).and_then(Value::as_u64);
    let hidden_size = number("hidden_size").unwrap_or_default();
    let heads = number("num_attention_heads").unwrap_or_default().max(1);
    let width = if is_minimind2 {
        hidden_size * 8 / 3
    } else {
        (hidden_size as f64 * std::f64::consts::PI).ceil() as u64
    };
    for (field, default) in [
        ("head_dim", json!(hidden_size / heads)),
        ("intermediate_size", json!(width.next_multiple_of(64))),
        ("tie_word_embeddings", json!(true)),
    ] {
        let value = fields.entry(field).or_insert(Value::Null);
        if value.is_null() {
            *value = default;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Widths from MiniMind's own rules: 1408 is 8/3 and 1664 is pi times 512, in whole 64s.
    #[test]
    fn a_minimind_config_is_that_of_the_class_that_computes_the_same() {
        let model = json!({"model_type": "minimind", "hidden_size": 512, "num_attention_heads": 8,
            "intermediate_size": null, "use_moe": false});
        let words = |more: Value| {
            let mut fields = model.as_object().unwrap().clone();
            fields.extend(more.as_object().unwrap().clone());
            in_transformers_words(&mut fields).map(|()| fields)
        };
        let third = words(json!({})).unwrap();
        assert_eq!(third["model_type"], "qwen3");
        assert_eq!(
            (&third["head_dim"], &third["intermediate_size"]),
            (&json!(64), &json!(1664))
        );
        assert_eq!(
            words(json!({"use_moe": true})).unwrap()["model_type"],
            "qwen3_moe"
        );
        let second = words(json!({"n_routed_experts": 4})).unwrap();
        assert_eq!(second["model_type"], "llama");
        assert_eq!(second["intermediate_size"], 1408);
        let error = words(json!({"n_routed_experts": 4, "use_moe": true})).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`use_moe` is true, expected false in a MiniMind2 folder; kindling convert reads its \
             .pth"
        );
    }
}
