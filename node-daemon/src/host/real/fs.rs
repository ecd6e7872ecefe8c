//! Filesystems: what a device holds, making, mounting, unmounting.

use super::super::{Content, Part, Result};
use super::command::{Answer, Tool};
use super::direct::{Access, Direct};
use super::error::{Doing, conflict, failed};
use super::zero::zero_device;
use super::{RealHost, mounts, sysfs};
use rustix::mount::{MountFlags, UnmountFlags};
use std::path::{Path, PathBuf};

/// What `blkid -p -o export` found; `Blank` means no signature, whatever else there is.
///
/// Exit status 2 is "nothing"; on a partition it is 0 even then, with the partition's own entry as the answer. An answer that is
/// not wholly understood is never `Blank`.
pub(super) fn signature(answer: &Answer) -> Content {
    let other = |what: String| Content::Other(what);
    let whole = answer.stdout.is_empty() || answer.stdout.ends_with('\n');
    if !whole {
        return other(format!("what blkid did not say to its end: {:?}", answer.stdout));
    }
    let field = |name: &str| answer.stdout.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
    match (answer.code, field("USAGE"), field("TYPE"), field("PTTYPE")) {
        (Some(2), ..) if answer.stdout.is_empty() => Content::Blank,
        (Some(0), Some("filesystem"), Some(kind), _) if !kind.is_empty() => Content::Filesystem(kind.to_owned()),
        (Some(0), _, Some(kind), _) => other(kind.to_owned()),
        (Some(0), _, None, Some(table)) => other(format!("a {table} partition table")),
        (Some(0), Some(usage), ..) => other(usage.to_owned()),
        (Some(0), ..) if says_only_where(&answer.stdout) => Content::Blank,
        (Some(8), ..) => other("more than one signature".to_owned()),
        _ => other(format!("something that blkid fails on: {}{}", answer.stdout, answer.stderr)),
    }
}

/// The device's name and its entry in the partition table.
fn says_only_where(stdout: &str) -> bool {
    let known = |line: &str| line.starts_with("DEVNAME=") || (line.starts_with("PART_ENTRY_") && line.contains('='));
    stdout.lines().any(|line| line.starts_with("PART_ENTRY_"))
        && stdout.lines().all(|line| line.is_empty() || known(line))
}

impl RealHost {
    /// Mount points of a block device, by its directory in sysfs; none of one that is gone.
    pub(super) fn mounts_of(&self, block: &Path) -> Result<Vec<PathBuf>> {
        match sysfs::device_number(block)? {
            Some(device) => Ok(mounts::points(&self.mounts()?, device).cloned().collect()),
            None if sysfs::exists(block)? => Err(sysfs::bad(block.join("dev"), "it is not there")),
            None => Ok(vec![]),
        }
    }

    /// The table of mounts. Not only text: a mount point is named by whoever made it.
    fn mounts(&self) -> Result<Vec<mounts::Mount>> {
        let path = self.config.proc.join("self/mountinfo");
        let table = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        mounts::table(&table).map_err(|why| sysfs::bad(path, why))
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
        let block = self.block_of(device)?.ok_or_else(|| failed(action(), "there is no such block device"))?;
        if self.mounts_of(&block)?.iter().any(|m| m == at) {
            return Ok(());
        }
        std::fs::create_dir_all(at).doing(action)?;
        if let Some((major, minor)) = mounts::device_at(&self.mounts()?, at) {
            return Err(conflict(action(), format!("device {major}:{minor} is mounted there")));
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
        zero_device(device, &Part::Whole.ranges(self.size_of(device)?), &|_| ())
    }

    /// The directory of a device node in `/sys/class/block`.
    pub(super) fn block_of(&self, device: &Path) -> Result<Option<PathBuf>> {
        let block = self.config.sys.join("class/block").join(device.file_name().unwrap_or_default());
        Ok(sysfs::exists(&block)?.then_some(block))
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
        assert!([8, 4, 0].iter().all(|code| signature(&answer(*code, "")) != Content::Blank));
        assert_ne!(signature(&answer(2, "TYPE=xfs\n")), Content::Blank);
    }

    proptest! {
        #[test]
        fn any_answer_is_read(code in 0i32..9, text in "(?s).{0,80}") {
            let _ = signature(&answer(code, &text));
        }

        /// I1: what holds something is never blank because its answer was cut short or bent.
        #[test]
        fn a_bent_answer_is_never_blank(at in any::<prop::sample::Index>(), byte in 0u8..128) {
            let full = "DEVNAME=/dev/ubda2\nTYPE=xfs\nUSAGE=filesystem\nPART_ENTRY_SCHEME=gpt\nPART_ENTRY_NUMBER=2\n";
            let at = at.index(full.len());
            let mut bent = full.as_bytes().to_vec();
            bent[at] = byte;
            for text in [&full[..at], std::str::from_utf8(&bent).unwrap()] {
                prop_assert_ne!(signature(&answer(0, text)), Content::Blank, "{:?}", text);
                prop_assert!(text.is_empty() || signature(&answer(2, text)) != Content::Blank);
            }
        }
    }
}
