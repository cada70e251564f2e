//! What a client is told when its request cannot be answered, in OpenAI's shape.

use serde_json::json;

/// An error of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ApiError {
    status: u16,
    message: String,
    /// Field at fault.
    param: Option<String>,
    code: Option<&'static str>,
}

impl ApiError {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// The request is wrong.
    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    /// A field of the request is wrong.
    pub(super) fn field(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::bad(message)
        }
    }

    /// The prompt is longer than the model's context.
    pub(super) fn too_long(param: &str, num_tokens: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {num_tokens} tokens, expected fewer than the model's context of {context}"
        );
        Self {
            code: Some("context_length_exceeded"),
            ..Self::field(param, message)
        }
    }

    /// There is no such model.
    pub(super) fn no_model(name: &str, names: &[String]) -> Self {
        let names = names.join(", ");
        Self {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..Self::new(
                404,
                format!("the model `{name}` does not exist, expected one of {names}"),
            )
        }
    }

    /// No such address.
    pub(super) fn no_route(path: &str) -> Self {
        Self::new(404, format!("no such address: {path}"))
    }

    /// The address takes another method.
    pub(super) fn method() -> Self {
        Self::new(405, "this address takes another method")
    }

    /// The body is larger than is read.
    pub(super) fn too_large() -> Self {
        Self::new(413, "the body is too large")
    }

    /// HTTP itself is not as it should be.
    pub(super) fn http(status: u16, message: &str) -> Self {
        Self::new(status, message)
    }

    /// The key is missing or wrong.
    pub(super) fn unauthorized() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(401, "the API key is missing or wrong")
        }
    }

    /// Too many requests wait already.
    pub(super) fn busy() -> Self {
        Self {
            code: Some("queue_full"),
            ..Self::new(429, "too many requests wait already, try again later")
        }
    }

    /// The answer took too long.
    pub(super) fn timeout() -> Self {
        Self::new(504, "the answer took too long")
    }

    /// Nobody waits for the answer any more; 499 is nginx's number for it.
    pub(super) fn gone() -> Self {
        Self::new(499, "the client is gone")
    }

    /// The model thread is gone.
    pub(super) fn stopping() -> Self {
        Self::new(503, "the server is stopping")
    }

    /// The model thread has ended by itself.
    pub(super) fn dead() -> Self {
        Self::new(
            503,
            "the model thread has died, the server must be started anew",
        )
    }

    /// The model cannot go on.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, message)
    }

    /// The error as JSON, as a body or as an event of a stream.
    pub(super) fn to_json(&self) -> serde_json::Value {
        let kind = match self.status {
            401 => "authentication_error",
            429 => "rate_limit_error",
            500.. => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }

    /// HTTP's status.
    pub(super) fn status(&self) -> u16 {
        self.status
    }
}
