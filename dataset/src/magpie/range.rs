//! Ranges of settings.

use super::error::MagpieError;

/// Whether a field's value is what is expected.
#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers and texts alike are handed over"
)]
pub(super) fn check(
    field: &'static str,
    found: impl ToString,
    holds: bool,
    expected: &'static str,
) -> Result<(), MagpieError> {
    if holds {
        return Ok(());
    }
    Err(MagpieError::Field {
        field,
        found: found.to_string(),
        expected,
    })
}

/// Checks a temperature, a share of probability and a length, of these names.
pub(super) fn check_sampling(
    [temperature_field, top_p_field, max_tokens_field]: [&'static str; 3],
    temperature: f64,
    top_p: f64,
    max_tokens: usize,
) -> Result<(), MagpieError> {
    let is_warm = temperature.is_finite() && temperature >= 0.0;
    check(
        temperature_field,
        temperature,
        is_warm,
        "0 (the likeliest token) or more",
    )?;
    let is_share = top_p > 0.0 && top_p <= 1.0;
    check(top_p_field, top_p, is_share, "above 0 and at most 1 (all)")?;
    check(max_tokens_field, max_tokens, max_tokens > 0, "at least 1")
}
