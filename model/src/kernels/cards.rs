//! How this process uses graphics cards.

/// Brings the work of all threads into one order; to be called before a card is first used.
///
/// Otherwise Burn keeps a stream of work per thread, and what one thread has made another never writes
/// over: a batch whose tokens are made on any of the kernels' threads would copy its cache each time.
pub fn share_one_stream() {
    #[cfg(feature = "cube")]
    {
        use cubecl::config::streaming::StreamPolicy;
        use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};

        let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
        config.streaming.policy = StreamPolicy::Single;
        // Whoever has asked a card already has decided.
        let _ = CubeClRuntimeConfig::try_set(config);
    }
}
