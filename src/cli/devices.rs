//! `--device`, `--dtype`, `--threads`.

use super::args::{ModelArgs, Precision};
use anyhow::{bail, Result};
use candle_core::{DType, Device, DeviceLocation};
use clap::ValueEnum;

/// The device that was asked for.
///
/// # Errors
/// When this build or this machine does not have it.
pub fn device(name: &str) -> Result<Device> {
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let Ok(ordinal) = number.parse::<usize>() else { bail!("--device {name}: `{number}` is not a device number") };
    match kind {
        "cpu" => Ok(Device::Cpu),
        "cuda" if cfg!(feature = "cuda") => Ok(Device::new_cuda(ordinal)?),
        "metal" if cfg!(feature = "metal") => Ok(Device::new_metal(ordinal)?),
        "cuda" | "metal" => bail!("--device {name}: this vitx was built without it; build with `--features {kind}`"),
        "auto" => Ok(automatic()),
        _ => bail!("--device {name}: expected auto, cpu, cuda, cuda:N or metal"),
    }
}

/// The first accelerator that this build supports and the machine has, else the CPU.
fn automatic() -> Device {
    let cuda = cfg!(feature = "cuda").then(|| Device::new_cuda(0).ok()).flatten();
    cuda.or_else(|| cfg!(feature = "metal").then(|| Device::new_metal(0).ok()).flatten()).unwrap_or(Device::Cpu)
}

/// Candle's name for `--dtype`.
pub fn dtype(precision: Precision) -> DType {
    match precision {
        Precision::F32 => DType::F32,
        Precision::F16 => DType::F16,
        Precision::Bf16 => DType::BF16,
    }
}

/// Devices whose numbers are the same.
pub fn class(device: &Device) -> &'static str {
    match device.location() {
        DeviceLocation::Cpu => "cpu",
        DeviceLocation::Cuda { .. } => "cuda",
        DeviceLocation::Metal { .. } => "metal",
    }
}

/// `--dtype` as it is typed.
pub fn name(precision: Precision) -> String {
    precision.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default()
}

/// Sets the number of compute threads; must run before the first tensor operation.
pub fn limit_threads(args: &ModelArgs) {
    if let Some(threads) = args.threads {
        // Read by rayon's global pool and by candle's matrix product when they start.
        std::env::set_var("RAYON_NUM_THREADS", threads.to_string());
    }
}
