//! Server-sent events: an answer's chunks as they come, then `[DONE]`.

use std::fmt::Write as _;

use eval::answers::AnswerEvent;
use model::generate::FinishReason;
use serde_json::Value;

use super::app::{App, Session};
use super::http::{Client, Closed};

/// What makes chunks of what happens to answers.
pub(super) trait Chunks {
    /// The chunks before anything has happened.
    fn opening(&mut self) -> Vec<Value>;
    /// The chunks of an event.
    fn of_event(&mut self, app: &App, choice: usize, event: AnswerEvent) -> Vec<Value>;
    /// The chunks at the end.
    fn closing(&mut self) -> Vec<Value>;
}

/// Why an answer ended, as the API calls it.
pub(super) fn finish_name(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "length",
        FinishReason::Stop | FinishReason::Interrupted => "stop",
    }
}

/// Streams until every answer has ended.
///
/// # Errors
///
/// A client that is gone.
pub(super) fn write_events(
    app: &App,
    client: &mut Client,
    mut session: Session,
    chunks: &mut impl Chunks,
) -> Result<(), Closed> {
    client.begin_events()?;
    client.write_events(&lines(&chunks.opening()))?;
    loop {
        match session.next(client) {
            Ok(Some((choice, event))) => {
                let chunks = chunks.of_event(app, choice, event);
                if !chunks.is_empty() {
                    client.write_events(&lines(&chunks))?;
                }
            }
            Ok(None) => {
                let mut text = lines(&chunks.closing());
                text.push_str("data: [DONE]\n\n");
                client.write_events(&text)?;
                break;
            }
            Err(error) => {
                // The status is out already.
                app.metrics.count_error(error.status());
                client.write_events(&lines(&[error.to_json()]))?;
                break;
            }
        }
    }
    client.end_events()
}

fn lines(chunks: &[Value]) -> String {
    chunks.iter().fold(String::new(), |mut lines, chunk| {
        let _ = write!(lines, "data: {chunk}\n\n");
        lines
    })
}
