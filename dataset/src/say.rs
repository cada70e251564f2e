//! Progress and remarks, on standard error.

/// Writes a line to standard error.
///
/// Unlike `eprintln!` it does not panic when nobody reads there any more: a run of hours outlives the
/// terminal or the `tee` that showed it.
#[macro_export]
macro_rules! say {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}
