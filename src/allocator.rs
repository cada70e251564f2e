//! jemalloc as the allocator of every binary, with the options that training on the CPU needs.
//!
//! A training step allocates and frees the same large buffers again and again. Where the allocator
//! gives them back to the system in between, their pages are mapped and zeroed anew each time: a
//! third of a step. So freed pages are kept (no decay) and large buffers sit in huge pages.

use std::ffi::c_char;

/// Serves every allocation of every binary and test that links this crate.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Options that jemalloc reads at its first allocation, before `main`.
#[expect(
    unsafe_code,
    reason = "jemalloc finds its options by this symbol's name"
)]
// SAFETY: the name is jemalloc's own and nothing else defines it; the value is what jemalloc
// declares, a pointer to a string that ends in NUL and lives as long as the program.
#[used]
#[unsafe(export_name = "_rjem_malloc_conf")]
static MALLOC_CONF: Option<&'static c_char> =
    Some(unsafe { &*c"dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always".as_ptr() });
