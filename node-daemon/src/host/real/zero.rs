//! Making a device read as zeros.

use super::super::Result;
use super::direct::{Access, Direct, MIB};
use super::error::Doing;
use rustix::fs::{FallocateFlags, fallocate};
use std::path::Path;

/// Zeroing goes in steps of this, so that progress moves and a signal is not far off.
const STEP: u64 = 64 * MIB;

/// Makes a device read as zeros, durably, with whatever the drive offers for it; the kernel writes zeros where it offers
/// nothing. Nobody else may have claimed the device.
pub(super) fn zero_device(device: &Path, size: u64, progress: &dyn Fn(u8)) -> Result<()> {
    let action = || format!("zero {}", device.display());
    let open = Direct::open(device, Access::Exclusive).doing(action)?;
    let mut at = 0;
    while at < size {
        let step = STEP.min(size - at);
        fallocate(open.file(), FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, step).doing(action)?;
        at += step;
        progress(u8::try_from(at * 100 / size).unwrap_or(100));
    }
    open.sync().doing(action)
}
