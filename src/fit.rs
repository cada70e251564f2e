//! `train.micro_batch_size = "auto"`: as many of a step's sequences at once as the memory holds.
//!
//! Sizes are compared with the plan's estimate, not tried: what a device does when its memory is full
//! differs from driver to driver, and the processor's memory is everybody's.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use burn::tensor::Device;
use dataset::say;
use model::kernels::cards::memory_of;
use serde::de::DeserializeOwned;
use sysinfo::CGroupLimits;
use toml::Value;
use train::memory::Bytes;
use train::plan::TrainPlan;
use train::run::TrainError;

use crate::config::{load_config, value_of};

const SIZE: &str = "train.micro_batch_size";
const PASSES: &str = "train.grad_accumulation_steps";
/// Parts of the memory, of ten, that a plan may fill: it is up to a twelfth low.
const TENTHS: u64 = 9;

/// Where a config's run is to take place.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// Asked for the devices if a size is to be chosen; all of them work on micro-batches of that size.
    pub(crate) devices: &'a dyn Fn() -> Result<Vec<Device>>,
    /// Folder of a run that goes on: it has chosen.
    pub(crate) resumed: Option<&'a Path>,
    /// Whether nothing will run, so that any size will do.
    pub(crate) is_rehearsed: bool,
}

/// Reads a stage's config; where it leaves the size of micro-batches to the machine, chooses it.
///
/// A step stays what the config says: `grad_accumulation_steps` sequences, which are joined into the
/// largest micro-batches of equal size that fit.
///
/// # Errors
///
/// A wrong config, memory of unknown size, or less of it than one sequence needs.
pub(crate) fn load_fitting<C: DeserializeOwned>(
    path: &Path,
    overrides: &[String],
    place: Place<'_>,
    plan: impl Fn(&C) -> Result<TrainPlan, TrainError>,
) -> Result<C> {
    let size = value_of(path, overrides, SIZE)?;
    if size.is_none_or(|size| size.as_str() != Some("auto")) {
        return load_config(path, overrides);
    }
    let num_rows = match value_of(path, overrides, PASSES)? {
        None => 1,
        Some(rows) => count(&rows).with_context(|| {
            format!("{PASSES}: found {rows}, expected the number of sequences of a step")
        })?,
    };
    let of_size = |size: usize, more: &[String]| -> Result<C> {
        let passes = num_rows / size;
        let chosen = [format!("{SIZE}={size}"), format!("{PASSES}={passes}")];
        load_config(path, &[overrides, &chosen, more].concat())
    };
    let begun = place
        .resumed
        .map(|run| size_of(run, num_rows))
        .transpose()?;
    if let Some(size) = begun.flatten() {
        return of_size(size, &[]);
    }
    if place.is_rehearsed {
        return of_size(1, &[]);
    }
    let devices = (place.devices)()?;
    let memory = memory(&devices)?;
    let size = largest(num_rows, devices.len(), memory, |size| {
        // What is found in the data is said when the run begins.
        let config = of_size(size, &["report.quiet=true".to_owned()])?;
        Ok(plan(&config)?.memory.total())
    })?;
    let (passes, memory) = (num_rows / size, Bytes(memory));
    say!("{SIZE} = {size}, {PASSES} = {passes}: what fits into {memory}");
    of_size(size, &[])
}

/// A whole number above 0.
fn count(value: &Value) -> Option<usize> {
    let number = usize::try_from(value.as_integer()?).ok()?;
    (number > 0).then_some(number)
}

/// The largest part of a step's sequences that fits, each device having equally many of them.
fn largest(
    num_rows: usize,
    num_devices: usize,
    memory: u64,
    estimate: impl Fn(usize) -> Result<u64>,
) -> Result<usize> {
    let is_shared = |size: &usize| num_rows.is_multiple_of(size * num_devices);
    ensure!(
        is_shared(&1),
        "{PASSES}: found {num_rows}, expected a multiple of {num_devices}: the devices share them \
         equally"
    );
    // An estimate reads the data, and grows with the size: half of what is left, each time.
    let sizes: Vec<usize> = (1..=num_rows).filter(is_shared).collect();
    let (mut fits, mut too_large, mut needed) = (0, sizes.len(), 0);
    while fits < too_large {
        let middle = usize::midpoint(fits, too_large);
        needed = estimate(sizes[middle])?;
        if needed <= memory / 10 * TENTHS {
            fits = middle + 1;
        } else {
            too_large = middle;
        }
    }
    ensure!(
        fits > 0,
        "{SIZE}: found \"auto\", but one sequence at a time needs {} and the device has {}: lower \
         data.seq_len, set train.activation_checkpointing = true, or take a smaller model",
        Bytes(needed),
        Bytes(memory)
    );
    Ok(sizes[fits - 1])
}

/// The size that a run was begun with, if its step has as many sequences.
fn size_of(run: &Path, num_rows: usize) -> Result<Option<usize>> {
    let path = run.join("config.toml");
    if !path.exists() {
        return Ok(None);
    }
    let number = |key| anyhow::Ok(value_of(&path, &[], key)?.as_ref().and_then(count));
    let (size, passes) = (number(SIZE)?, number(PASSES)?);
    Ok(size.filter(|size| passes.is_some_and(|passes| passes * size == num_rows)))
}

/// Bytes that may be used on the device that has the fewest.
fn memory(devices: &[Device]) -> Result<u64> {
    let of = |device: &Device| match memory_of(device) {
        None if *device == Device::flex() => available(),
        bytes => bytes,
    };
    let sizes: Option<Vec<u64>> = devices.iter().map(of).collect();
    let least = sizes.and_then(|sizes| sizes.into_iter().min());
    least.with_context(|| {
        format!("{SIZE}: found \"auto\", expected a number: the device does not tell its memory")
    })
}

/// Bytes of this machine that nobody uses, or that this process may still use.
fn available() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let bytes = usable(system.available_memory(), system.cgroup_limits());
    Some(bytes).filter(|&bytes| bytes > 0)
}

/// The least of what the machine has and what this process's group may still take. Not the group's
/// `free_memory`: files in the page cache count as used there, and make room when asked.
fn usable(available: u64, limits: Option<CGroupLimits>) -> u64 {
    let left = limits.map(|limits| limits.total_memory.saturating_sub(limits.rss));
    left.map_or(available, |left| left.min(available))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: a gibibyte each and one for the weights, nine tenths of the memory to be used.
    fn size(num_rows: usize, num_devices: usize, gibibytes: u64) -> Result<usize> {
        largest(num_rows, num_devices, gibibytes << 30, |size| {
            Ok((size as u64 + 1) << 30)
        })
    }

    #[test]
    fn the_largest_equal_parts_that_fit_are_taken() {
        assert_eq!(size(12, 1, 100).unwrap(), 12);
        assert_eq!(size(12, 1, 10).unwrap(), 6);
        assert_eq!(size(12, 4, 100).unwrap(), 3);
        assert_eq!(size(7, 1, 7).unwrap(), 1);
    }

    #[test]
    fn what_does_not_fit_or_cannot_be_shared_is_said() {
        let error = size(8, 1, 2).unwrap_err().to_string();
        let expected = "one sequence at a time needs 2.00 GiB and the device has 2.00 GiB";
        assert!(error.contains(expected), "{error}");
        let error = size(8, 3, 2).unwrap_err().to_string();
        assert!(
            error.contains("found 8, expected a multiple of 3"),
            "{error}"
        );
    }

    /// By hand: of eight bytes that a group may take its processes have two, and files the rest.
    #[test]
    fn files_in_the_page_cache_leave_memory_to_use() {
        let limits = CGroupLimits {
            total_memory: 8,
            free_memory: 0,
            free_swap: 0,
            rss: 2,
        };
        assert_eq!(usable(20, Some(limits.clone())), 6);
        assert_eq!(usable(5, Some(limits)), 5);
        assert_eq!(usable(20, None), 20);
    }

    #[test]
    fn this_machine_tells_its_memory() {
        assert!(memory(&[Device::flex()]).unwrap() > 1 << 20);
    }
}
