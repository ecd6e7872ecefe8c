//! Drives as files: a FUSE file system of one directory, served by a thread of this process.
//!
//! It is mounted in the lab's own mount namespace, which ends with the harness, however that ends: nothing stays mounted, and who
//! waits for an answer gets an error. Requests go around the page cache of the host (`FOPEN_DIRECT_IO`), so each comes here as the guest
//! sent it, and an `fsync` or our own `ioctl` is the guest's flush. A discard waits for writes that are held, for Linux locks the file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyOpen,
    ReplyWrite, WriteFlags,
};

use super::{Answer, Drive, Request};

/// `UBD_IOC_FLUSH` of `kernel/lab/drives`: a flush that does not wait for writes that are under way, as an `fsync` on FUSE does.
const FLUSH: u32 = 0x75bd;
/// Names and sizes never change.
const FOR_EVER: Duration = Duration::from_secs(86_400);

/// Drives that can be opened as files until this is dropped.
pub struct Mounted {
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// Mounts them in `dir`, which is made, as `disk0`, `disk1`, …
    pub fn new(dir: &Path, drives: Vec<Arc<Drive>>) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("meshstor-drives".to_owned()), MountOption::RW];
        let session = fuser::spawn_mount(Files { drives }, dir, &config)
            .with_context(|| format!("mount drives in {} (is /dev/fuse there?)", dir.display()))?;
        Ok(Self { dir: dir.to_owned(), session: Some(session) })
    }

    /// The file of a drive.
    pub fn path(&self, drive: usize) -> PathBuf {
        self.dir.join(format!("disk{drive}"))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whoever has a file open still, as a guest that was not killed, keeps it from going; the namespace's end does not ask.
        if let Some(Err(error)) = self.session.take().map(BackgroundSession::umount_and_join) {
            eprintln!("drives in {} are mounted still: {error}", self.dir.display());
        }
    }
}

struct Files {
    drives: Vec<Arc<Drive>>,
}

impl Files {
    fn drive(&self, ino: INodeNo) -> Option<&Arc<Drive>> {
        self.drives.get(usize::try_from(ino.0).ok()?.checked_sub(2)?)
    }

    fn attributes(&self, ino: INodeNo) -> Option<FileAttr> {
        let drive = self.drive(ino);
        if drive.is_none() && ino != INodeNo::ROOT {
            return None;
        }
        let size = drive.map_or(0, |drive| drive.bytes());
        let kind = if drive.is_some() { FileType::RegularFile } else { FileType::Directory };
        let never = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size / 512,
            atime: never,
            mtime: never,
            ctime: never,
            crtime: never,
            kind,
            perm: if drive.is_some() { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    /// Hands a request to its drive; `reply` is called when the drive has answered.
    fn submit(&self, ino: INodeNo, request: Request, reply: impl FnOnce(Result<Vec<u8>, Errno>) + Send + 'static) {
        match self.drive(ino) {
            Some(drive) => drive.submit(request, Box::new(move |answer: Answer| reply(answer.map_err(|_| Errno::EIO)))),
            None => reply(Err(Errno::EISDIR)),
        }
    }
}

fn done(reply: ReplyEmpty) -> impl FnOnce(Result<Vec<u8>, Errno>) + Send {
    move |answer| match answer {
        Ok(_) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &fuser::Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = || name.to_str()?.strip_prefix("disk")?.parse::<u64>().ok();
        let found = number().filter(|_| parent == INodeNo::ROOT).and_then(|n| self.attributes(INodeNo(n + 2)));
        match found {
            Some(found) => reply.entry(&FOR_EVER, &found, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &fuser::Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(ino) {
            Some(found) => reply.attr(&FOR_EVER, &found),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &fuser::Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);
    }

    fn read(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.submit(ino, Request::Read { at, length: size as usize }, move |answer| match answer {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error),
        });
    }

    fn write(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let size = u32::try_from(data.len()).unwrap_or(0);
        self.submit(ino, Request::Write { at, data: data.to_vec() }, move |answer| match answer {
            Ok(_) => reply.written(size),
            Err(error) => reply.error(error),
        });
    }

    /// A `close`: nothing that a drive would learn of.
    fn flush(&self, _: &fuser::Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &fuser::Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.submit(ino, Request::Flush, done(reply));
    }

    fn ioctl(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        command: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        if command != FLUSH {
            return reply.error(Errno::ENOTTY);
        }
        self.submit(ino, Request::Flush, move |answer| match answer {
            Ok(_) => reply.ioctl(0, &[]),
            Err(error) => reply.error(error),
        });
    }

    /// Discards and zeroing, both of which leave zeros.
    fn fallocate(
        &self,
        _: &fuser::Request,
        ino: INodeNo,
        _: FileHandle,
        at: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        self.submit(ino, Request::Zero { at, length }, done(reply));
    }
}
