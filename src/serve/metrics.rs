//! Counters in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What the server has done since it started.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    requests: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
    prompt_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    reused_tokens: AtomicU64,
    running: AtomicU64,
    waiting: AtomicU64,
    first_token_micros: AtomicU64,
    first_tokens: AtomicU64,
}

impl Metrics {
    /// A request for answers was taken.
    pub(super) fn count_request(&self, prompt_tokens: usize) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.prompt_tokens
            .fetch_add(prompt_tokens as u64, Ordering::Relaxed);
    }

    /// A request ended in an error, of the client's making or not.
    pub(super) fn count_error(&self, status: u16) {
        let counter = if status < 500 {
            &self.refused
        } else {
            &self.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A client got its first token.
    pub(super) fn count_first_token(&self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        self.first_token_micros.fetch_add(micros, Ordering::Relaxed);
        self.first_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// A model wrote a token.
    pub(super) fn count_token(&self) {
        self.generated_tokens.fetch_add(1, Ordering::Relaxed);
    }

    /// A job waits in the queue.
    pub(super) fn job_queued(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A job has left the queue.
    pub(super) fn job_taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn set_running(&self, rows: usize) {
        self.running.store(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn set_reused_tokens(&self, tokens: u64) {
        self.reused_tokens.store(tokens, Ordering::Relaxed);
    }

    /// The page that Prometheus reads.
    pub(super) fn render(&self) -> String {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed) as f64;
        let rows = [
            (
                "requests_total",
                "counter",
                "requests for answers",
                read(&self.requests),
            ),
            (
                "client_errors_total",
                "counter",
                "requests refused",
                read(&self.refused),
            ),
            (
                "server_errors_total",
                "counter",
                "requests that failed",
                read(&self.failed),
            ),
            (
                "prompt_tokens_total",
                "counter",
                "tokens of prompts",
                read(&self.prompt_tokens),
            ),
            (
                "generated_tokens_total",
                "counter",
                "tokens written",
                read(&self.generated_tokens),
            ),
            (
                "prefix_cache_tokens_total",
                "counter",
                "tokens of prompts that were not read again",
                read(&self.reused_tokens),
            ),
            (
                "first_token_seconds_sum",
                "counter",
                "seconds clients waited for first tokens",
                read(&self.first_token_micros) / 1e6,
            ),
            (
                "first_token_seconds_count",
                "counter",
                "first tokens",
                read(&self.first_tokens),
            ),
            (
                "requests_running",
                "gauge",
                "requests being answered",
                read(&self.running),
            ),
            (
                "requests_waiting",
                "gauge",
                "requests in the queue",
                read(&self.waiting),
            ),
        ];
        let mut page = String::new();
        for (name, kind, help, value) in rows {
            let _ = writeln!(page, "# HELP kindling_{name} {help}");
            let _ = writeln!(page, "# TYPE kindling_{name} {kind}");
            let _ = writeln!(page, "kindling_{name} {value}");
        }
        page
    }
}
