//! The fused kernels for graphics cards, on the first one that is here: a software driver will do.

use std::io::Write;
use std::sync::Once;

use burn::backend::DispatchDevice;
use burn::prelude::*;
use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::config::autotune::AutotuneLevel;
use burn_cubecl::cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
use burn_cubecl::cubecl::device::WgpuDeviceKind;

use crate::check::{Operation, assert_close, assert_outcomes_on, outcome, outcome_on};

/// The first graphics card; says so where there is none, past the test harness.
///
/// CubeCL 0.11.3 compiles shared memory to invalid SPIR-V where a driver lacks
/// `VK_KHR_workgroup_memory_explicit_layout`, and Mesa's software driver crashes on it. It is used
/// through WGSL (`--features wgpu`), or where `KINDLING_SOFTWARE_VULKAN` is set.
pub(crate) fn card() -> Option<Device> {
    static MEASURED_LITTLE: Once = Once::new();
    MEASURED_LITTLE.call_once(measure_little);
    let Some(device) = CubeDevice::enumerate_all().into_iter().next() else {
        return skip("no graphics card is here, not even a software driver");
    };
    let is_software =
        matches!(&device, CubeDevice::Wgpu(device) if device.kind == WgpuDeviceKind::Cpu);
    let is_asked_for = std::env::var_os("KINDLING_SOFTWARE_VULKAN").is_some();
    if is_software && device.client().name().contains("spirv") && !is_asked_for {
        return skip("only a software driver is here, which crashes on CubeCL's SPIR-V");
    }
    Some(Device::new(DispatchDevice::Cube(device)))
}

/// Burn measures every product of every shape in many kernels: on a processor, for minutes.
fn measure_little() {
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    config.autotune.level = AutotuneLevel::Minimal;
    config.autotune.bench.min_samples = 1;
    config.autotune.bench.max_samples = 1;
    assert!(CubeClRuntimeConfig::try_set(config), "no card is used yet");
}

fn skip(reason: &str) -> Option<Device> {
    writeln!(std::io::stderr(), "SKIPPED: {reason}").expect("stderr is open");
    None
}

/// The fused kernel on a graphics card gives what the composed body gives in f64 on the CPU.
pub(crate) fn assert_equals_reference_on_card(
    fused: Operation<'_>,
    reference: Operation<'_>,
    inputs: &[Vec<f64>],
    tolerance: f64,
    what: &str,
) {
    let Some(device) = card() else { return };
    let expected = outcome(reference, inputs, DType::F64);
    assert_outcomes_on(
        &device,
        fused,
        inputs,
        &expected,
        |found, expected, part| {
            assert_close(found, expected, tolerance, &format!("{what}: {part}"));
        },
    );
}

/// The same bits every time.
pub(crate) fn assert_deterministic_on_card(fused: Operation<'_>, inputs: &[Vec<f64>]) {
    let Some(device) = card() else { return };
    let device = device.autodiff();
    let run = || outcome_on(fused, inputs, DType::F32, &device);
    let expected = run();
    for _ in 0..3 {
        assert!(run() == expected, "other bits from the same numbers");
    }
}
