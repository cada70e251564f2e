//! Which address does what.

use std::sync::Weak;

use dataset::loyalty::Identity;
use serde_json::{Value, json};

use super::app::{App, ModelFace};
use super::error::ApiError;
use super::http::{Client, Closed, Reply, Request};
use super::{chat, completions, embeddings};

/// The chat page: no script from elsewhere, and none but its own.
const PAGE: &str = include_str!("page.html");

/// What the page may do: talk to this server and nothing else.
const PAGE_HEADERS: &str = "Content-Security-Policy: default-src 'none'; \
    script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n";

/// Answers one request of a connection.
///
/// # Errors
///
/// A client that is gone.
pub(super) fn answer(
    app: &App,
    client: &mut Client,
    request: Result<Request, ApiError>,
) -> Result<(), Closed> {
    let reply = request.and_then(|request| dispatch(app, &request, client));
    match reply {
        Ok(Reply::Written(written)) => written,
        Ok(Reply::Json(value)) => client.write(200, "application/json", "", &value.to_string()),
        Ok(Reply::Text(content_type, text)) => client.write(200, content_type, PAGE_HEADERS, &text),
        Err(error) => {
            app.metrics.count_error(error.status());
            let retry = match error.status() {
                429 => "Retry-After: 1\r\n",
                _ => "",
            };
            let body = error.to_json().to_string();
            client.write(error.status(), "application/json", retry, &body)
        }
    }
}

fn dispatch(app: &App, request: &Request, client: &mut Client) -> Result<Reply, ApiError> {
    let is_open = matches!(request.path.as_str(), "/" | "/health");
    if !is_open && !has_key(app, request) {
        return Err(ApiError::unauthorized());
    }
    let body = request.body.as_slice();
    match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/") => Ok(Reply::Text("text/html; charset=utf-8", PAGE.to_owned())),
        ("GET", "/health") => health(&app.model_thread),
        ("GET", "/metrics") => {
            let page = app.metrics.render();
            Ok(Reply::Text("text/plain; version=0.0.4", page))
        }
        ("GET", "/v1/models") => {
            let models: Vec<Value> = app.models.iter().map(|model| shown(app, model)).collect();
            Ok(Reply::Json(json!({"object": "list", "data": models})))
        }
        ("POST", "/v1/chat/completions") => {
            chat::complete(app, body, who_asks(app, request), client)
        }
        ("POST", "/v1/completions") => {
            completions::complete(app, body, who_asks(app, request), client)
        }
        ("POST", "/v1/embeddings") => embeddings::embed(app, body, client),
        (
            _,
            "/"
            | "/health"
            | "/metrics"
            | "/v1/models"
            | "/v1/chat/completions"
            | "/v1/completions"
            | "/v1/embeddings",
        ) => Err(ApiError::method()),
        ("GET", path) if path.starts_with("/v1/models/") => {
            let index = app.model(path.strip_prefix("/v1/models/"))?;
            Ok(Reply::Json(shown(app, &app.models[index])))
        }
        (_, path) => Err(ApiError::no_route(path)),
    }
}

/// Whether anything can be answered: a server whose model thread has died only looks alive.
fn health(model_thread: &Weak<()>) -> Result<Reply, ApiError> {
    match model_thread.strong_count() {
        0 => Err(ApiError::dead()),
        _ => Ok(Reply::Json(json!({"status": "ok"}))),
    }
}

fn shown(app: &App, model: &ModelFace) -> Value {
    json!({
        "id": model.name,
        "object": "model",
        "created": app.started,
        "owned_by": "kindling",
        "max_model_len": model.context,
    })
}

/// Whether the request has the key, where one is asked for.
fn has_key(app: &App, request: &Request) -> bool {
    let Some(key) = &app.key else {
        return true;
    };
    sends(request, key) || who_asks(app, request) == Identity::Owner
}

/// The owner if the request has the owner's key.
fn who_asks(app: &App, request: &Request) -> Identity {
    match &app.owner_key {
        Some(key) if sends(request, key) => Identity::Owner,
        _ => Identity::Public,
    }
}

fn sends(request: &Request, key: &str) -> bool {
    let sent = request.authorization.as_deref();
    let sent = sent.and_then(|value| value.strip_prefix("Bearer "));
    sent.is_some_and(|sent| is_same(sent.as_bytes(), key.as_bytes()))
}

/// Compares without telling by its time where the first difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// The token that the thread holds is dropped by a panic too.
    #[test]
    fn a_server_whose_model_thread_has_died_is_not_well() {
        let token = Arc::new(());
        let model_thread = Arc::downgrade(&token);
        assert!(matches!(health(&model_thread), Ok(Reply::Json(json)) if json["status"] == "ok"));
        let died = thread::spawn(move || {
            assert!(Arc::strong_count(&token) > 1, "as a bug in a model would");
        });
        assert!(died.join().is_err());
        let error = health(&model_thread).err().unwrap();
        assert_eq!(error.status(), 503);
        assert_eq!(
            error.to_json()["error"]["message"],
            "the model thread has died, the server must be started anew"
        );
    }
}
