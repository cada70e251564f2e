//! `/v1/embeddings`: the mean of a text's hidden states.

use std::sync::mpsc::channel;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::app::App;
use super::chat::parse;
use super::completions::{Prompts, check_number};
use super::error::ApiError;
use super::http::{Client, Reply};
use super::worker::{EmbedJob, Job};

#[derive(Debug, Deserialize)]
struct EmbeddingRequest {
    #[serde(default)]
    model: Option<String>,
    input: Prompts,
    /// `float` or `base64` of little-endian f32, which OpenAI's own client asks for.
    #[serde(default)]
    encoding_format: Option<String>,
}

/// Embeds texts.
///
/// # Errors
///
/// A request that is wrong or takes too long, a full queue, or a client that is gone.
pub(super) fn embed(app: &App, body: &[u8], client: &Client) -> Result<Reply, ApiError> {
    let request: EmbeddingRequest = parse(body)?;
    let index = app.model(request.model.as_deref())?;
    let model = &app.models[index];
    let as_base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("found `{other}`, expected float or base64");
            return Err(ApiError::field("encoding_format", message));
        }
    };
    let texts = request
        .input
        .into_ids(|text| model.tokenizer.encode_ordinary(text));
    check_number("input", texts.len())?;
    for input_ids in &texts {
        model.check_prompt("input", input_ids)?;
    }
    let mut patience = app.patience();
    let num_tokens: usize = texts.iter().map(Vec::len).sum();
    let mut data = Vec::new();
    for (number, input_ids) in texts.into_iter().enumerate() {
        let (reply, embedding) = channel();
        app.send(Job::Embed(EmbedJob {
            model: index,
            input_ids,
            reply,
        }))?;
        let embedding = patience.receive(&embedding, client)?;
        let embedding: Value = if as_base64 {
            let bytes: Vec<u8> = embedding.iter().flat_map(|x| x.to_le_bytes()).collect();
            STANDARD.encode(bytes).into()
        } else {
            embedding.into()
        };
        data.push(json!({"object": "embedding", "index": number, "embedding": embedding}));
    }
    Ok(Reply::Json(json!({
        "object": "list",
        "data": data,
        "model": model.name,
        "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
    })))
}
