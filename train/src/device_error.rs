//! What a device says when it cannot go on.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use burn::tensor::ExecutionError;

/// A device gave no result.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// A graphics card has less memory than it was asked for.
    #[error("the device has no memory left: {reason}")]
    OutOfMemory {
        /// What it said, in one line.
        reason: String,
    },
    /// The device failed, or the connection to it broke.
    #[error("a device failed: {reason}; go on from the newest checkpoint with --resume")]
    Failed {
        /// What it said last, in one line.
        reason: String,
    },
}

impl From<ExecutionError> for DeviceError {
    fn from(error: ExecutionError) -> Self {
        Self::new(&error.to_string())
    }
}

impl DeviceError {
    /// The error that Burn or CubeCL put into words.
    fn new(text: &str) -> Self {
        // Headings say that something happened, a backtrace where: what happened stands between.
        let is_heading = |line: &str| {
            let is_mark = line.starts_with("===") || line.starts_with("Operation:");
            line.is_empty() || is_mark || line.ends_with(':') || line.ends_with("execution")
        };
        let mut lines = text.lines().map(str::trim).filter(|line| !is_heading(line));
        let reason = lines.next().unwrap_or("no reason is given").to_owned();
        // A full card, a buffer larger than any that it makes, a launch that found no room.
        let is_memory = [
            "out of device memory",
            "can't allocate buffer",
            "out-of-memory",
        ]
        .iter()
        .any(|phrase| text.contains(phrase));
        if is_memory {
            Self::OutOfMemory { reason }
        } else {
            Self::Failed { reason }
        }
    }

    /// What `work` returns, or the error of a device that failed in it: most of Burn's operations return
    /// no error, so that whatever is asked of the device next panics, on this thread and on Burn's own.
    /// Meanwhile panics are not printed: the error says where in the source its own was.
    pub(crate) fn catch<R>(work: impl FnOnce() -> R) -> Result<R, Self> {
        // By their texts, since a panic of a pool's thread goes on in the thread that waits for it.
        let places = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&places);
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if let (Some(place), Ok(mut noted)) = (panic.location(), noted.lock()) {
                noted.insert(text_of(panic.payload()).to_owned(), place.to_string());
            }
        }));
        let result = panic::catch_unwind(AssertUnwindSafe(work));
        panic::set_hook(hook);
        result.map_err(|panic| {
            let text = text_of(&*panic);
            let mut error = Self::new(text);
            let (Self::OutOfMemory { reason } | Self::Failed { reason }) = &mut error;
            if let Some(place) = places
                .lock()
                .ok()
                .and_then(|mut places| places.remove(text))
            {
                reason.extend([" (", &place, ")"]);
            }
            error
        })
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use model::workers::on_worker;

    use super::*;

    /// Texts as CubeCL 0.11 and Burn 0.22 write them.
    #[test]
    fn a_full_card_is_told_from_a_lost_one() {
        let full = "An error happened during execution\nCaused by:\n  out of device memory allocating \
                    1024 bytes\n0: backtrace";
        let DeviceError::OutOfMemory { reason } = DeviceError::new(full) else {
            panic!("{full}");
        };
        assert_eq!(reason, "out of device memory allocating 1024 bytes");
        let lost = "An error happened during execution\nCaused by:\n  Failed to read tensor: \
                    RecvError(())";
        let refused =
            "=== Tensor Operation Error ===\n  Operation: 'Cat'\n  Reason:\n    1. No tensors.";
        let DeviceError::Failed { reason } = DeviceError::new(refused) else {
            panic!("{refused}");
        };
        assert_eq!(reason, "1. No tensors.");
        assert_eq!(
            DeviceError::new(lost).to_string(),
            "a device failed: Failed to read tensor: RecvError(()); go on from the newest checkpoint \
             with --resume"
        );
    }

    #[test]
    fn a_panic_is_an_error_with_its_text() {
        let line = line!() + 1;
        let work = || panic!("Service call failed: {}", 7);
        let place = format!("Service call failed: 7 ({}:{line}:", file!());
        for caught in [
            DeviceError::catch(work),
            DeviceError::catch(|| on_worker(work)),
        ] {
            let Err::<(), _>(DeviceError::Failed { reason }) = caught else {
                panic!("{caught:?}");
            };
            assert!(reason.starts_with(&place), "{reason}");
        }
        assert_eq!(DeviceError::catch(|| 5), Ok(5));
    }
}
