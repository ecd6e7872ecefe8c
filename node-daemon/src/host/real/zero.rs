//! Making a device read as zeros.

use super::super::Result;
use super::direct::{Access, Direct, MIB};
use super::error::Doing;
use rustix::fs::{FallocateFlags, fallocate};
use std::ops::Range;
use std::path::Path;

/// Zeroing goes in steps of this, so that progress moves and a signal is not far off.
const STEP: u64 = 64 * MIB;

/// Makes so much of a device read as zeros, durably, with whatever the drive offers for it; the kernel writes zeros where it offers
/// nothing. Nobody else may have claimed the device.
pub(super) fn zero_device(device: &Path, ranges: &[Range<u64>], progress: &dyn Fn(u8)) -> Result<()> {
    let action = || format!("zero {}", device.display());
    let open = Direct::open(device, Access::Exclusive).doing(action)?;
    let size: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let mut done = 0;
    for range in ranges {
        let mut at = range.start;
        while at < range.end {
            let step = STEP.min(range.end - at);
            fallocate(open.file(), FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE, at, step).doing(action)?;
            (at, done) = (at + step, done + step);
            progress(u8::try_from(done * 100 / size).unwrap_or(100));
        }
    }
    open.sync().doing(action)
}
