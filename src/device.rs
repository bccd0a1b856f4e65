//! Where tensors live, by the name that is typed.

use crate::error::{Error, Result};
use candle_core::{Device, DeviceLocation};

/// `auto`, `cpu`, `cuda`, `cuda:N` or `metal`.
///
/// # Errors
/// [`Error::Usage`] when this build does not have it; candle's own when the machine does not.
pub fn named(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let refused = |why: String| Err(Error::Usage(format!("--device {name}: {why}")));
    let Ok(ordinal) = number.parse::<usize>() else { return refused(format!("`{number}` is not a device number")) };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" if cfg!(feature = "cuda") => Ok(Device::new_cuda(ordinal)?),
        "metal" if cfg!(feature = "metal") => Ok(Device::new_metal(ordinal)?),
        "cuda" | "metal" => refused(format!("this vitx was built without it; build with `--features {kind}`")),
        "auto" => Ok(automatic()),
        _ => refused("expected auto, cpu, cuda, cuda:N or metal".into()),
    }
}

/// The first accelerator that this build supports and the machine has, else the CPU.
fn automatic() -> Device {
    let cuda = cfg!(feature = "cuda").then(|| Device::new_cuda(0).ok()).flatten();
    cuda.or_else(|| cfg!(feature = "metal").then(|| Device::new_metal(0).ok()).flatten()).unwrap_or(Device::Cpu)
}

/// Devices whose numbers are the same.
pub fn class(device: &Device) -> &'static str {
    match device.location() {
        DeviceLocation::Cpu => "cpu",
        DeviceLocation::Cuda { .. } => "cuda",
        DeviceLocation::Metal { .. } => "metal",
    }
}

/// Bytes of memory that this process may still take, as far as the system says: what is available, or what is left of its
/// group's limit.
pub fn free_memory() -> Option<usize> {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<usize>().ok();
    let all = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = all.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.saturating_mul(1024);
    let group = "/sys/fs/cgroup/memory";
    let left = number(&format!("{group}.max"))
        .zip(number(&format!("{group}.current")))
        .map(|(most, now)| most.saturating_sub(now));
    let free = left.map_or(available, |left| left.min(available));
    Some(address_space().map_or(free, |left| left.min(free)))
}

/// What is left of the address space that the program may have (`ulimit -v`); none where it may have all of it.
fn address_space() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let most = line.split_whitespace().next()?.parse::<usize>().ok()?;
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let taken = line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.saturating_mul(1024);
    Some(most.saturating_sub(taken))
}
