//! Taking a device away from everybody, so that the writes that it holds may end without anybody seeing how.
//!
//! The order is: its mounts are detached in every namespace, so that nobody new comes in; whoever has a file of it is sent
//! `SIGKILL`; and it is looked whether that waits for everybody. A process that sleeps in such a write sees nothing any more: it
//! dies before it returns. What of the kernel itself uses the device cannot be killed: then nothing is touched.
//!
//! Who cannot be looked at may use the device: that nobody is left is only said where everybody was looked at.

use super::super::Result;
use super::command::Tool;
use super::error::Doing;
use super::{RealHost, mounts, proc, sysfs};
use rustix::fs::{FileType, Stat, major, makedev, minor, stat};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// First argument of this program when it is to detach a mount: `… detach-mount <pid> <path>`, in the namespace of that process.
pub const DETACH: &str = "detach-mount";
/// The same, after it has let go of every file that it inherited.
const DETACH_BARE: &str = "detach-mount-bare";
/// How long detaching and dying may take before it is said who is left; both take no time where they succeed.
const PATIENCE: Duration = Duration::from_secs(3);

/// A block device by its number.
#[derive(Clone, Copy)]
struct Device(u64);

impl Device {
    fn has(self, stat: &Stat) -> bool {
        stat.st_dev == self.0
            || (FileType::from_raw_mode(stat.st_mode) == FileType::BlockDevice && stat.st_rdev == self.0)
    }
}

/// A mount of the device in one mount namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mounted {
    /// A process of the namespace; none for that of this process.
    inside: Option<i32>,
    at: PathBuf,
}

/// What the program does when it was started to detach a mount; nothing otherwise.
///
/// It is a process of its own, for it may get to be the last user of the file system and then sleep until the held writes end. It lets
/// go of the daemon's lock first, which all tools inherit: a daemon that is started again must not wait for it.
pub fn detach_if_asked(args: &[String]) -> Option<std::process::ExitCode> {
    let (mode, pid, at) = match args {
        [_, mode, pid, at] => (mode.as_str(), pid, at),
        _ => return None,
    };
    let done = match mode {
        DETACH => {
            close_fds::set_fds_cloexec(3, &[]);
            Err(Command::new("/proc/self/exe").args([DETACH_BARE, pid, at]).exec())
        }
        DETACH_BARE => detach(pid, Path::new(at)),
        _ => return None,
    };
    Some(match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, at, "detach a mount");
            std::process::ExitCode::FAILURE
        }
    })
}

fn detach(pid: &str, at: &Path) -> std::io::Result<()> {
    if pid != "self" {
        let namespace = std::fs::File::open(Path::new("/proc").join(pid).join("ns/mnt"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
    }
    Ok(unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

impl RealHost {
    /// See the module. Answers with who is left; nobody is, when the device may be released.
    pub(super) fn evict_from(&self, array: &Path) -> Result<Vec<String>> {
        let action = || format!("take {} away from its users", array.display());
        let Some(block) = self.block_of(array)? else { return Ok(vec![]) };
        let Some(number) = sysfs::device_number(&block)? else {
            return Err(sysfs::bad(block.join("dev"), "it is not there"));
        };
        let device = Device(makedev(number.0, number.1));
        let kernel = self.kernel_users(&block, device, number)?;
        if !kernel.is_empty() {
            return Ok(kernel);
        }
        self.detach_all(number, action)?;
        let mut left = Ok(vec![]);
        let dead = sysfs::wait_for(PATIENCE, || {
            left = self.kill_users(device);
            left.as_ref().is_ok_and(Vec::is_empty).then_some(())
        });
        let mut left = left?;
        if dead.is_some() {
            // Whoever came in by a mount that was still there is seen now.
            left = self.mounted(number)?.iter().map(|m| format!("a mount at {}", m.at.display())).collect();
            left.extend(self.kill_users(device)?);
        }
        Ok(left)
    }

    /// Who uses a block device, without a change to any of them.
    pub(super) fn users_of(&self, device: &Path) -> Result<Vec<String>> {
        let Some(block) = self.block_of(device)? else { return Ok(vec![]) };
        let mut users = self.users_of_block(&block)?;
        // What is found of a partition table on it is used with it.
        let whole = device.file_name().unwrap_or_default().to_string_lossy();
        for name in sysfs::names(&block)?.into_iter().filter(|name| name.starts_with(&*whole)) {
            if sysfs::exists(block.join(&name).join("partition"))? {
                users.extend(self.users_of_block(&block.join(name))?);
            }
        }
        Ok(users)
    }

    fn users_of_block(&self, block: &Path) -> Result<Vec<String>> {
        let Some(number) = sysfs::device_number(block)? else {
            return match sysfs::exists(block)? {
                true => Err(sysfs::bad(block.join("dev"), "it is not there")),
                false => Ok(vec![]),
            };
        };
        let device = Device(makedev(number.0, number.1));
        let mut users = self.kernel_users(block, device, number)?;
        users.extend(self.mounted(number)?.iter().map(|m| format!("a mount at {}", m.at.display())));
        for pid in self.processes()? {
            let dir = self.config.proc.join(pid.to_string());
            match self.uses(&dir, device) {
                Ok(false) => {}
                Ok(true) => {
                    let stat = sysfs::table(dir.join("stat")).unwrap_or_default();
                    users.push(format!("process {pid} ({})", proc::name(&stat)));
                }
                Err(error) => users.push(format!("process {pid}, perhaps ({error})")),
            }
        }
        Ok(users)
    }

    /// What of the kernel uses the device: stacked block devices, loop devices, swap, stacked file systems, the NFS server.
    fn kernel_users(&self, block: &Path, device: Device, number: (u32, u32)) -> Result<Vec<String>> {
        let mut users: Vec<String> =
            sysfs::need_names(block.join("holders"))?.into_iter().map(|name| format!("block device {name}")).collect();
        // One whose file cannot be looked at may be here.
        let here = |path: &str| {
            let path = mounts::unescape(path.as_bytes());
            let found = stat(self.config.root.join(path.strip_prefix("/").unwrap_or(&path)));
            found.map_or_else(|e| e != rustix::io::Errno::NOENT, |s| device.has(&s))
        };
        let swaps = self.text(self.config.proc.join("swaps"))?;
        users.extend(proc::swaps(&swaps).into_iter().filter(|path| here(path)).map(|path| format!("swap {path}")));
        users.extend(self.loops_on(number)?);
        let points: BTreeSet<PathBuf> = self.mounted(number)?.into_iter().map(|m| m.at).collect();
        for table in self.tables()?.values() {
            let on_it = |options: &str| {
                let paths = options.split([',', ':', '=']);
                paths.into_iter().any(|path| points.iter().any(|p| Path::new(path).starts_with(p)))
            };
            let text = String::from_utf8_lossy(&table.bytes);
            let stacked = proc::stacked(&text).into_iter().filter(|(_, options)| on_it(options));
            users.extend(stacked.map(|(at, _)| format!("a stacked file system at {at}")));
        }
        let exports = self.text(self.config.proc.join("fs/nfsd/exports"))?;
        let exported =
            exports.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split_ascii_whitespace().next());
        users.extend(exported.filter(|path| here(path)).map(|path| format!("the NFS server, by {path}")));
        Ok(users)
    }

    /// A table, empty where the kernel has no such thing.
    fn text(&self, path: PathBuf) -> Result<String> {
        Ok(String::from_utf8_lossy(&sysfs::whole_table(path)?.unwrap_or_default()).into_owned())
    }

    /// Loop devices over files of the device.
    fn loops_on(&self, number: (u32, u32)) -> Result<Vec<String>> {
        let class = self.config.sys.join("class/block");
        let mut any = false;
        for name in sysfs::need_names(&class)?.into_iter().filter(|name| name.starts_with("loop")) {
            any |= sysfs::exists(class.join(name).join("loop"))?;
        }
        if !any {
            return Ok(vec![]);
        }
        let list =
            Tool::new("losetup").args(["--list", "--noheadings", "--raw", "--output", "NAME,BACK-MAJ:MIN"]).run();
        let unknown = || Ok(vec!["a loop device, for losetup does not say of what".to_owned()]);
        let Ok(list) = list else { return unknown() };
        let Some(list) = proc::loops(&list) else { return unknown() };
        Ok(list
            .into_iter()
            .filter(|(_, back)| *back == number)
            .map(|(name, _)| format!("loop device {name}"))
            .collect())
    }

    /// One `mountinfo` of each mount namespace, by the namespace.
    fn tables(&self) -> Result<BTreeMap<PathBuf, Table>> {
        let own = self.config.proc.join("self");
        let missing = || sysfs::bad(own.join("mountinfo"), "it is not there");
        let (ns, bytes) = self.namespace(&own, &|_| true)?.ok_or_else(missing)?;
        let mut tables = BTreeMap::from([(ns, Table { inside: None, bytes })]);
        for pid in self.processes()? {
            let dir = self.config.proc.join(pid.to_string());
            let new = |ns: &PathBuf| !tables.contains_key(ns);
            if let Some((ns, bytes)) = self.namespace(&dir, &new)? {
                tables.insert(ns, Table { inside: Some(pid), bytes });
            }
        }
        Ok(tables)
    }

    /// Mount namespace of a process, and what is mounted there; none of one that is dead, or whose namespace is not wanted.
    fn namespace(&self, dir: &Path, wanted: &dyn Fn(&PathBuf) -> bool) -> Result<Option<(PathBuf, Vec<u8>)>> {
        let link = dir.join("ns/mnt");
        let ns = match std::fs::read_link(&link) {
            Ok(ns) => ns,
            Err(error) if sysfs::is_gone(&error) => return Ok(None),
            Err(error) => return Err(sysfs::bad(link, error)),
        };
        if !wanted(&ns) {
            return Ok(None);
        }
        let file = dir.join("mountinfo");
        match std::fs::read(&file) {
            Ok(bytes) => Ok(Some((ns, bytes))),
            // EINVAL: it has let go of its namespace since (`mounts_open_common`).
            Err(error) if sysfs::is_gone(&error) || error.kind() == ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(sysfs::bad(file, error)),
        }
    }

    /// Every mount of the device, in all namespaces, the last mounted first.
    fn mounted(&self, number: (u32, u32)) -> Result<Vec<Mounted>> {
        let mut all = vec![];
        for table in self.tables()?.into_values() {
            // Who has another root directory may see no mount at all.
            if table.inside.is_some() && table.bytes.is_empty() {
                continue;
            }
            let mounts = mounts::table(&table.bytes).map_err(|why| sysfs::bad("mountinfo", why))?;
            let points = mounts::points(&mounts, number).rev();
            all.extend(points.map(|at| Mounted { inside: table.inside, at: at.clone() }));
        }
        Ok(all)
    }

    fn detach_all(&self, number: (u32, u32), action: impl Fn() -> String) -> Result<()> {
        // One that goes takes its copies in other namespaces with it: it is looked again after each.
        let mut tried: Vec<Mounted> = vec![];
        while let Some(next) = self.mounted(number)?.into_iter().find(|m| !tried.contains(m)) {
            let inside = next.inside.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
            let mut child = Command::new("/proc/self/exe")
                .args([DETACH, &inside])
                .arg(&next.at)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .spawn()
                .doing(&action)?;
            let is_gone = || self.mounted(number).is_ok_and(|left| !left.contains(&next)).then_some(());
            let gone = sysfs::wait_for(PATIENCE, is_gone);
            if gone.is_none() {
                tracing::warn!(at = %next.at.display(), "a mount could not be detached");
            }
            // It may sleep until the held writes end.
            std::thread::spawn(move || child.wait());
            tried.push(next);
        }
        Ok(())
    }

    fn processes(&self) -> Result<Vec<i32>> {
        Ok(sysfs::need_names(&self.config.proc)?.iter().filter_map(|name| sysfs::digits(name)).collect())
    }

    /// Sends `SIGKILL` to every process that has a file of the device; names those for which none waits.
    fn kill_users(&self, device: Device) -> Result<Vec<String>> {
        let mut left = vec![];
        for pid in self.processes()? {
            let dir = self.config.proc.join(pid.to_string());
            // What is found is of the process of this descriptor, or of one before it that had the number.
            let handle = match Pid::from_raw(pid).map(|p| pidfd_open(p, PidfdFlags::empty())) {
                Some(Ok(handle)) => Some(handle),
                None | Some(Err(rustix::io::Errno::SRCH)) => continue,
                Some(Err(_)) => None,
            };
            match self.uses(&dir, device) {
                Ok(true) => {}
                Ok(false) => continue,
                // It may be anybody: it is not killed, and not passed over.
                Err(error) => {
                    left.push(format!("process {pid}, perhaps ({error})"));
                    continue;
                }
            }
            let ours = u32::try_from(pid) == Ok(std::process::id()) || pid == 1;
            let sent = !ours && handle.is_some_and(|handle| pidfd_send_signal(&handle, Signal::KILL).is_ok());
            if !sent || !all_doomed(&dir) {
                let stat = sysfs::table(dir.join("stat")).unwrap_or_default();
                left.push(format!("process {pid} ({})", proc::name(&stat)));
            }
        }
        Ok(left)
    }

    /// Whether any task of a process has a file of the device: open, mapped, as its program or its directory.
    fn uses(&self, dir: &Path, device: Device) -> Result<bool> {
        for task in sysfs::names(dir.join("task"))? {
            let task = dir.join("task").join(task);
            if ["cwd", "root", "exe"].iter().any(|link| is_on(&task.join(link), device) == Some(true)) {
                return Ok(true);
            }
            for fd in sysfs::names(task.join("fd"))? {
                // A file system that was shut down answers no `stat`.
                if is_on(&task.join("fd").join(&fd), device).unwrap_or_else(|| !elsewhere(&task, &fd, device)) {
                    return Ok(true);
                }
            }
        }
        let file = dir.join("maps");
        let maps = self.text(file.clone())?;
        proc::maps(&maps, major(device.0), minor(device.0))
            .ok_or_else(|| sysfs::bad(file, "it is not what the kernel writes"))
    }
}

/// A `mountinfo`, and a process in whose namespace it was read; none for this one.
struct Table {
    inside: Option<i32>,
    bytes: Vec<u8>,
}

/// Whether what a link of procfs leads to is on the device; none where that is not told.
fn is_on(link: &Path, device: Device) -> Option<bool> {
    match stat(link) {
        Ok(found) => Some(device.has(&found)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH) => Some(false),
        Err(_) => None,
    }
}

/// Whether an open file is known to be on another device, by its mount.
fn elsewhere(task: &Path, fd: &str, device: Device) -> bool {
    let info = sysfs::table(task.join("fdinfo").join(fd)).unwrap_or_default();
    let table = sysfs::table(task.join("mountinfo")).unwrap_or_default();
    let found = proc::mount_id(&info).and_then(|id| proc::device_of_mount(&table, id));
    found.is_some_and(|dev| dev != format!("{}:{}", major(device.0), minor(device.0)))
}

/// Whether no task of a process returns to user space any more; one that is gone does not.
fn all_doomed(dir: &Path) -> bool {
    let tasks = dir.join("task");
    // Who cannot be looked at is not dead.
    let Ok(names) = sysfs::names(&tasks) else { return false };
    names.iter().all(|task| {
        let read = |name: &str| sysfs::table(tasks.join(task).join(name));
        match (read("stat"), read("status")) {
            (Some(stat), Some(status)) => proc::is_doomed(&stat, &status),
            _ => matches!(sysfs::exists(tasks.join(task)), Ok(false)),
        }
    })
}
