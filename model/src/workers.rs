//! Where the kernels' work begins.

/// Runs work on one of the threads among which the kernels share theirs.
///
/// A kernel that is called from there begins at once and lets the others take a part of it. Called
/// from any other thread it wakes one of them and waits, which for the small products of a token
/// costs more than the products. The work holds its thread until it is done: what waits for others
/// that need these threads may hold one only where there are more.
pub fn on_worker<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From outside as from inside.
    #[test]
    fn work_is_done_on_a_worker() {
        let on = || rayon::current_thread_index().is_some();
        assert!(!on());
        assert!(on_worker(on));
        assert!(on_worker(|| on_worker(on)));
    }
}
