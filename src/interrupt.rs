//! Ctrl-C and SIGTERM as a request: a command saves where it is and ends; a second one ends at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use dataset::say;

/// Exit code of a run that was interrupted, as shells report SIGINT: it is neither done nor failed.
pub const INTERRUPTED: u8 = 130;

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag that turns true at the first Ctrl-C or SIGTERM, the same one for every caller.
///
/// # Errors
///
/// A handler that cannot be installed.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    if let Some(stop) = STOP.get() {
        return Ok(stop.clone());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::SeqCst) {
            std::process::exit(INTERRUPTED.into());
        }
        say!("stopping: saving first (once more to stop at once)");
    })
    .context("the signal handler could not be installed")?;
    Ok(STOP.get_or_init(|| stop).clone())
}
