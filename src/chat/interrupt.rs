//! Ctrl-C while an answer is written ends the answer; at any other time it ends the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const REQUESTED: u8 = 2;

/// Exit code of a process that SIGINT ended, as shells report it.
const EXIT_CODE: i32 = 130;

/// What the signal handler and the chat tell each other.
pub(super) struct Interrupt {
    state: Arc<AtomicU8>,
}

impl Interrupt {
    pub(super) fn new() -> Self {
        Self {
            state: Arc::new(AtomicU8::new(IDLE)),
        }
    }

    /// Takes the signal over, from whoever had it before.
    pub(super) fn install(&self) -> Result<()> {
        let state = Arc::clone(&self.state);
        ctrlc::set_handler(move || {
            let is_answering = state
                .compare_exchange(ANSWERING, REQUESTED, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok();
            if !is_answering {
                std::process::exit(EXIT_CODE);
            }
        })
        .context("the signal handler could not be installed")
    }

    pub(super) fn answer_begins(&self) {
        self.state.store(ANSWERING, Ordering::SeqCst);
    }

    pub(super) fn answer_ends(&self) {
        self.state.store(IDLE, Ordering::SeqCst);
    }

    /// Whether Ctrl-C was pressed since the answer began.
    pub(super) fn is_requested(&self) -> bool {
        self.state.load(Ordering::SeqCst) == REQUESTED
    }
}
