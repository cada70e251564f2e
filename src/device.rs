//! The device a command runs on: the only file that knows which backends are compiled in.

use anyhow::{Context, Result, bail, ensure};
use burn::tensor::Device;
use model::kernels::cards::share_one_stream;

/// The device that `--device` names: `auto`, `cpu`, `cuda:N`, `wgpu:N` or `remote:HOST:PORT`.
///
/// `auto` takes the first CUDA device, else the first graphics card, else the CPU, of those this
/// binary was built for and the machine has; a software driver is no graphics card.
///
/// # Errors
///
/// A name of another form, a backend that is not compiled in, or a device that is not there; the
/// message lists the devices that are.
pub fn pick_device(spec: &str) -> Result<Device> {
    match spec.strip_prefix("remote:") {
        Some(address) => Ok(remote_devices("--device", address)?.remove(0)),
        None => local_device("--device", spec),
    }
}

/// A device of this machine, named behind `flag`.
fn local_device(flag: &str, spec: &str) -> Result<Device> {
    let (kind, index) = match spec.split_once(':') {
        Some((kind, index)) => {
            let index: usize = index.parse().with_context(|| {
                format!("{flag} {spec}: `{index}` is not a device number, expected e.g. {kind}:0")
            })?;
            (kind, index)
        }
        None => (spec, 0),
    };
    match kind {
        "auto" => Ok(auto()),
        "cpu" if index == 0 => Ok(Device::flex()),
        "cuda" | "wgpu" | "cpu" => {
            let devices = enumerate(kind);
            let found = devices.into_iter().nth(index);
            found.with_context(|| unavailable(flag, spec))
        }
        _ => bail!("{flag} {spec}: expected auto, cpu, cuda:N, wgpu:N or remote:HOST:PORT"),
    }
}

/// The devices that `--devices` names, each once; `remote:HOST:PORT` names all of that worker's.
///
/// # Errors
///
/// What [`pick_device`] says of one of them, or a device that is named twice.
pub fn pick_devices(specs: &[String]) -> Result<Vec<Device>> {
    let mut devices = Vec::new();
    for spec in specs {
        let found = match spec.strip_prefix("remote:") {
            Some(address) => remote_devices("--devices", address)?,
            None => vec![local_device("--devices", spec)?],
        };
        for device in found {
            ensure!(
                !devices.contains(&device),
                "--devices: {spec} is named twice, expected every device once"
            );
            devices.push(device);
        }
    }
    Ok(devices)
}

/// The devices of the worker that listens at `HOST:PORT`.
#[cfg(feature = "remote")]
fn remote_devices(flag: &str, address: &str) -> Result<Vec<Device>> {
    use burn::remote::RemoteHost;

    let is_address = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    ensure!(
        is_address,
        "{flag} remote:{address}: expected remote:HOST:PORT, e.g. remote:127.0.0.1:3000"
    );
    let mut host = RemoteHost::websocket(&format!("ws://{address}"));
    if let Some(token) = crate::worker::token()? {
        host = host.with_credential(token.as_str());
    }
    let devices = host
        .devices()
        .with_context(|| format!("{flag} remote:{address}: no worker to be used"))?;
    Ok(devices.into_vec())
}

#[cfg(not(feature = "remote"))]
fn remote_devices(flag: &str, address: &str) -> Result<Vec<Device>> {
    bail!(
        "{flag} remote:{address}: this binary is built without remote devices (cargo build \
         --release --features remote)"
    )
}

/// Every device this binary can use on this machine, by the names `--device` takes.
pub fn available_devices() -> Vec<String> {
    let mut names = vec!["cpu".to_owned()];
    for kind in ["cuda", "wgpu"] {
        names.extend((0..enumerate(kind).len()).map(|index| format!("{kind}:{index}")));
    }
    names
}

fn auto() -> Device {
    let accelerators = ["cuda", "wgpu"].into_iter().flat_map(enumerate);
    accelerators
        .into_iter()
        .find(|device| !is_software(device))
        .unwrap_or_else(Device::flex)
}

/// Whether a device draws on the processor: it runs everything, and slower than the CPU's kernels.
#[cfg(feature = "wgpu")]
fn is_software(device: &Device) -> bool {
    use burn::backend::{CubeDevice, DispatchDevice, WgpuDeviceKind};
    let DispatchDevice::Cube(CubeDevice::Wgpu(device)) = device.as_dispatch() else {
        return false;
    };
    device.kind == WgpuDeviceKind::Cpu
}

#[cfg(not(feature = "wgpu"))]
fn is_software(_: &Device) -> bool {
    false
}

fn unavailable(flag: &str, spec: &str) -> String {
    let kind = spec.split(':').next().unwrap_or(spec);
    let built = match kind {
        "cuda" if !cfg!(feature = "cuda") => {
            "; this binary is built without CUDA (cargo build --release --features cuda)"
        }
        "wgpu" if !cfg!(feature = "wgpu") => {
            "; this binary is built without wgpu (cargo build --release --features vulkan, metal or wgpu)"
        }
        _ => "",
    };
    format!(
        "{flag} {spec}: no such device; available: {}{built}",
        available_devices().join(", ")
    )
}

/// The devices of one kind, in the order of their numbers.
fn enumerate(kind: &str) -> Vec<Device> {
    share_one_stream();
    match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
        #[cfg(feature = "metal")]
        "wgpu" => Device::enumerate(burn::tensor::DeviceType::Metal).into_vec(),
        #[cfg(all(feature = "vulkan", not(feature = "metal")))]
        "wgpu" => Device::enumerate(burn::tensor::DeviceType::Vulkan).into_vec(),
        #[cfg(all(feature = "wgpu", not(feature = "vulkan"), not(feature = "metal")))]
        "wgpu" => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        assert!(pick_device("cpu").is_ok());
        assert!(available_devices().contains(&"cpu".to_owned()));
    }

    #[test]
    fn an_absent_device_is_an_error_that_lists_those_present() {
        let error = pick_device("cuda:97").unwrap_err().to_string();
        assert!(
            error.starts_with("--device cuda:97: no such device; available: cpu"),
            "{error}"
        );
        let error = pick_device("cpu:1").unwrap_err().to_string();
        assert!(
            error.starts_with("--device cpu:1: no such device"),
            "{error}"
        );
    }

    #[test]
    fn a_misspelt_device_is_an_error_that_says_the_forms() {
        let error = pick_device("gpu").unwrap_err().to_string();
        let forms = "auto, cpu, cuda:N, wgpu:N or remote:HOST:PORT";
        assert_eq!(error, format!("--device gpu: expected {forms}"));
        let error = pick_device("cuda:one").unwrap_err().to_string();
        assert!(error.contains("`one` is not a device number"), "{error}");
    }
}
