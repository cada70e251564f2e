//! How this process uses graphics cards.

use burn::tensor::Device;

/// Bytes of a graphics card's memory; `None` of other devices, and where its driver does not tell.
pub fn memory_of(device: &Device) -> Option<u64> {
    #[cfg(feature = "cube")]
    if let burn::backend::DispatchDevice::Cube(card) = device.clone().inner().as_dispatch() {
        return card.client().properties().memory.max_memory();
    }
    let _ = device;
    None
}

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
