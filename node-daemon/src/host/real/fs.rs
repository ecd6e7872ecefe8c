//! Filesystems: what a device holds, making, mounting, unmounting.

use super::super::{Content, Result};
use super::command::{Answer, Tool};
use super::direct::{Access, Direct};
use super::error::{Doing, conflict, failed};
use super::zero::zero_device;
use super::{RealHost, mounts, sysfs};
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};

/// What `blkid -p -o export` found; `Blank` means no signature, whatever else there is.
///
/// Exit status 2 is "nothing"; on a partition it is 0 even then, with the partition's own entry as the answer.
pub(super) fn signature(answer: &Answer) -> Content {
    let field = |name: &str| answer.stdout.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    match (answer.code, field("USAGE"), field("TYPE"), field("PTTYPE")) {
        (Some(2), ..) => Content::Blank,
        (Some(0), Some("filesystem"), Some(kind), _) => Content::Filesystem(kind.to_owned()),
        (Some(0), _, Some(kind), _) => Content::Other(kind.to_owned()),
        (Some(0), _, None, Some(table)) => Content::Other(format!("a {table} partition table")),
        (Some(0), Some(usage), ..) => Content::Other(usage.to_owned()),
        (Some(0), ..) => Content::Blank,
        (Some(8), ..) => Content::Other("more than one signature".to_owned()),
        _ => Content::Other(format!("something that blkid fails on: {}", answer.stderr)),
    }
}

impl RealHost {
    /// Mount points of a block device, by its directory in sysfs.
    pub(super) fn mounts_of(&self, block: &Path) -> Vec<PathBuf> {
        let table = sysfs::table(self.config.proc.join("self/mountinfo"));
        match (sysfs::read(block.join("dev")), table) {
            (Some(device), Some(table)) => mounts::points(&table, &device),
            _ => vec![],
        }
    }

    pub(super) fn content_on(&self, device: &Path) -> Result<Content> {
        let action = || format!("read {}", device.display());
        let answer = Tool::new("blkid").arg("-p").arg("-o").arg("export").arg(device).answer(None)?;
        match signature(&answer) {
            Content::Blank => {}
            found => return Ok(found),
        }
        // "Nothing found" is also what blkid says of a device that it cannot open: reading the ends tells them apart.
        let open = Direct::open(device, Access::Read).doing(action)?;
        match open.ends_are_zero(self.size_of(device)?).doing(action)? {
            true => Ok(Content::Blank),
            false => Ok(Content::Other("no known signature, but not zeros".to_owned())),
        }
    }

    pub(super) fn make_filesystem(&self, device: &Path, filesystem: &str) -> Result<()> {
        let action = || format!("make {filesystem} on {}", device.display());
        match self.content_on(device)? {
            Content::Blank => {}
            Content::Filesystem(there) if there == filesystem => return Ok(()),
            Content::Filesystem(what) | Content::Other(what) => {
                return Err(conflict(action(), format!("it holds {what}")));
            }
        }
        // The device reads as zeros already: no discard, which a rebuild would have to carry to every leg.
        let tool = match filesystem {
            "xfs" => Tool::new("mkfs.xfs").arg("-q").arg("-K"),
            "ext4" => Tool::new("mkfs.ext4").arg("-q").arg("-E").arg("nodiscard"),
            other => return Err(failed(action(), format!("{other} is not supported"))),
        };
        tool.arg(device).run()?;
        Direct::open(device, Access::Write).and_then(|d| d.sync()).doing(action)
    }

    pub(super) fn mount_at(&self, device: &Path, filesystem: &str, at: &Path) -> Result<()> {
        let action = || format!("mount {} at {}", device.display(), at.display());
        let block = self.block_of(device).ok_or_else(|| failed(action(), "there is no such block device"))?;
        if self.mounts_of(&block).iter().any(|m| m == at) {
            return Ok(());
        }
        std::fs::create_dir_all(at).doing(action)?;
        let table = sysfs::table(self.config.proc.join("self/mountinfo")).unwrap_or_default();
        if let Some(other) = mounts::device_at(&table, at) {
            return Err(conflict(action(), format!("device {other} is mounted there")));
        }
        rustix::mount::mount(device, at, filesystem, MountFlags::empty(), None).doing(action)
    }

    pub(super) fn unmount_at(&self, at: &Path) -> Result<()> {
        match rustix::mount::unmount(at, UnmountFlags::NOFOLLOW) {
            // Not a mount point, or not there at all.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
            other => other.doing(|| format!("unmount {}", at.display())),
        }
    }

    pub(super) fn wipe_device(&self, device: &Path) -> Result<()> {
        zero_device(device, self.size_of(device)?, &|_| ())
    }

    /// The directory of a device node in `/sys/class/block`.
    pub(super) fn block_of(&self, device: &Path) -> Option<PathBuf> {
        let block = self.config.sys.join("class/block").join(device.file_name()?);
        block.exists().then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(code: i32, stdout: &str) -> Answer {
        Answer { code: Some(code), stdout: stdout.to_owned(), stderr: String::new() }
    }

    #[test]
    fn a_filesystem_and_what_is_none() {
        let other = |what: &str| Content::Other(what.to_owned());
        let xfs = signature(&answer(0, "DEVNAME=/dev/md100\nTYPE=xfs\nUSAGE=filesystem\n"));
        assert_eq!(xfs, Content::Filesystem("xfs".to_owned()));
        assert_eq!(signature(&answer(0, "TYPE=linux_raid_member\nUSAGE=raid\n")), other("linux_raid_member"));
        assert_eq!(signature(&answer(0, "PTTYPE=dos\n")), other("a dos partition table"));
        assert_eq!(signature(&answer(2, "")), Content::Blank);
        assert_eq!(
            signature(&answer(0, "DEVNAME=/dev/ubda2\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_TYPE=aa59\n")),
            Content::Blank
        );
        // What blkid cannot make up its mind about is never blank.
        assert!([8, 4].iter().all(|code| signature(&answer(*code, "")) != Content::Blank));
    }

    proptest! {
        #[test]
        fn any_answer_is_read(code in 0i32..9, text in ".{0,80}") {
            let _ = signature(&answer(code, &text));
        }
    }
}
