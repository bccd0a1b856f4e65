//! Which instructions the kernels use, chosen once a process.

use crate::error::{Error, Result};
use pulp::{Arch, WithSimd};
use std::sync::OnceLock;

/// What a user may set `VITX_KERNELS` to.
const NAMES: &str = "off (candle's own operations) or avx2 (no wider instructions than those)";

/// Whether kernels run at all on this machine, and with which instructions.
fn chosen() -> Option<Arch> {
    static CHOSEN: OnceLock<Option<Arch>> = OnceLock::new();
    *CHOSEN.get_or_init(|| choose(std::env::var("VITX_KERNELS").ok().as_deref()).unwrap_or(None))
}

fn choose(asked: Option<&str>) -> Result<Option<Arch>> {
    match asked {
        None | Some("") => Ok(Some(Arch::new()).filter(|arch| !matches!(arch, Arch::Scalar))),
        Some("off") => Ok(None),
        #[cfg(target_arch = "x86_64")]
        Some("avx2") => match pulp::x86::V3::try_new() {
            Some(narrow) => Ok(Some(Arch::V3(narrow))),
            None => Err(Error::Usage("VITX_KERNELS=avx2: this processor has no AVX2".into())),
        },
        Some(other) => Err(Error::Usage(format!("VITX_KERNELS={other}: it can be {NAMES}"))),
    }
}

/// The instructions that f32 passes on the CPU use: `avx512`, `avx2`, `neon`, or `portable` (candle's own operations). Numbers
/// may differ in the last bits from one to another.
///
/// # Errors
/// [`Error::Usage`] for a `VITX_KERNELS` that is none.
pub fn instructions() -> Result<&'static str> {
    choose(std::env::var("VITX_KERNELS").ok().as_deref())?;
    Ok(match chosen() {
        #[cfg(target_arch = "x86_64")]
        Some(Arch::V4(_)) => "avx512",
        #[cfg(target_arch = "x86_64")]
        Some(Arch::V3(_)) => "avx2",
        #[cfg(target_arch = "aarch64")]
        Some(_) => "neon",
        _ => "portable",
    })
}

/// Whether kernels run.
pub(super) fn on() -> bool {
    #[cfg(test)]
    if COMPOSED.get() {
        return false;
    }
    chosen().is_some()
}

/// Runs `work` with the widest instructions; plain loops in it are vectorised by the compiler as far as it is inlined.
#[inline]
pub(super) fn dispatch<W: WithSimd>(work: W) -> W::Output {
    chosen().unwrap_or(Arch::Scalar).dispatch(work)
}

#[cfg(test)]
std::thread_local!(static COMPOSED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) });

/// What `work` gives on the composed path.
#[cfg(test)]
pub(super) fn composed<T>(work: impl FnOnce() -> T) -> T {
    COMPOSED.set(true);
    let result = work();
    COMPOSED.set(false);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_choice_is_refused() {
        assert!(choose(Some("fast")).is_err_and(|e| e.to_string().contains("avx2")));
        assert!(choose(Some("off")).is_ok_and(|arch| arch.is_none()));
    }
}
