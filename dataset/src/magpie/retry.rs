//! Attempts until one succeeds: exponential waits with jitter, or as long as the server says.
//!
//! Source: Brooker 2015, "Exponential Backoff And Jitter" (AWS Architecture Blog), equal jitter.

use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

use super::completer::Fault;
use super::http::EndpointError;
use crate::source::hashed_fraction;

/// Longest wait of our own choice.
const LONGEST: Duration = Duration::from_mins(1);

/// What an attempt came to.
pub(super) enum Outcome<T> {
    /// What was asked for.
    Done(T),
    /// This request will never be answered.
    Refused(Fault),
    /// It may be answered later: why it was not, and how long the server asks to wait.
    Again(String, Option<Duration>),
    /// No request will be answered.
    Broken(Box<dyn Error + Send + Sync>),
}

/// How often and after which waits something is tried again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) max_retries: u32,
    /// Seed of the jitter.
    pub(super) seed: u64,
}

impl Backoff {
    /// Tries until it is done, refused, broken or given up.
    pub(super) fn run<T>(
        &self,
        mut attempt: impl FnMut() -> Outcome<T>,
    ) -> Result<Result<T, Fault>, Box<dyn Error + Send + Sync>> {
        let mut retries = 0;
        loop {
            let (last, wait) = match attempt() {
                Outcome::Done(value) => return Ok(Ok(value)),
                Outcome::Refused(fault) => return Ok(Err(fault)),
                Outcome::Broken(error) => return Err(error),
                Outcome::Again(reason, wait) => (reason, wait),
            };
            if retries == self.max_retries {
                let attempts = retries + 1;
                return Err(Box::new(EndpointError::GivenUp { attempts, last }));
            }
            sleep(wait.unwrap_or_else(|| self.wait(retries)));
            retries += 1;
        }
    }

    /// The wait before a further attempt, from 0.
    fn wait(&self, retry: u32) -> Duration {
        let doubled = self.first.as_secs_f64() * 2_f64.powi(retry.min(30) as i32);
        let whole = doubled.min(LONGEST.as_secs_f64());
        let jitter = hashed_fraction(self.seed, retry.into());
        Duration::from_secs_f64(whole * (0.5 + 0.5 * jitter))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: between half and all of 1, 2, 4 .. seconds, at most 60; two requests wait unlike.
    #[test]
    fn waits_double_up_to_a_minute_with_jitter() {
        let backoff = |seed| Backoff {
            first: Duration::from_secs(1),
            max_retries: 9,
            seed,
        };
        for (retry, most) in [
            (0, 1.0),
            (1, 2.0),
            (2, 4.0),
            (5, 32.0),
            (6, 60.0),
            (40, 60.0),
        ] {
            let wait = backoff(1).wait(retry).as_secs_f64();
            assert!((most / 2.0..=most).contains(&wait), "{retry}: {wait}");
        }
        assert_ne!(backoff(1).wait(3), backoff(2).wait(3));
    }

    #[test]
    fn attempts_end_with_the_last_reason() {
        let backoff = Backoff {
            first: Duration::ZERO,
            max_retries: 2,
            seed: 0,
        };
        let mut attempts = 0;
        let error = backoff.run(|| {
            attempts += 1;
            Outcome::<()>::Again("status 503".to_owned(), None)
        });
        assert_eq!(attempts, 3);
        let message = error.unwrap_err().to_string();
        assert_eq!(message, "given up after 3 attempts: status 503");
    }
}
