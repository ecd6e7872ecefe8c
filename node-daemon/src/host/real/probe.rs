//! Whether this kernel writes MD bitmaps past their end: tried, once a boot, on devices of our own in memory.
//!
//! A RAID1 of two small files is made, one of them behind a device-mapper table in which the page after the bitmap is an error
//! (`floor.rs`). A sound kernel never goes there. A kernel with the fault sends that page too, the error target refuses it before
//! anything looks at the bytes, and MD fails that member: no memory that is not the bitmap's is read or written, no drive and no
//! network takes part. What is left behind by a daemon that dies on the way is taken away by the next.

use super::super::{HostError, Result};
use super::command::{Tool, installed};
use super::direct::{Access, Direct};
use super::error::{Doing, busy, failed};
use super::floor::{self, Probed, Verdict};
use super::{RealHost, mdstate, sysfs};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of the two members in the device mapper; `config/udev` knows their prefix.
const MEMBERS: [&str; 2] = ["meshstor-probe-trap", "meshstor-probe-plain"];
/// Not that of volumes: the array is nobody's.
const HOMEHOST: &str = "meshstor-probe";
/// Numbers of arrays that neither volumes nor a node's own arrays usually have.
const NUMBERS: std::ops::Range<u32> = 900..1000;
/// How long the kernel may take for one step.
const PATIENCE: Duration = Duration::from_secs(5);

impl RealHost {
    /// Whether arrays may be started on this kernel. The first call of a boot probes, and takes a second.
    ///
    /// # Errors
    /// Release or boot ID cannot be read: nothing is known, and nothing is kept.
    pub(super) fn floor(&self) -> Result<&Verdict> {
        let release = sysfs::need(self.config.proc.join("sys/kernel/osrelease"))?;
        let boot = self.boot_id()?;
        Ok(self.floor.get_or_init(|| {
            let verdict = floor::verdict(&release, &self.probed(&boot));
            tracing::info!(?verdict, "kernel floor");
            verdict
        }))
    }

    /// An array that this kernel would damage its node with is not started (I8).
    pub(super) fn check_floor(&self, action: impl Fn() -> String) -> Result<()> {
        match self.floor()? {
            Verdict::Safe(_) => Ok(()),
            Verdict::Unsafe(why) => Err(HostError::Conflict { action: action(), cause: why.clone() }),
        }
    }

    fn probed(&self, boot: &str) -> Probed {
        let file = self.config.run.join("bitmap-probe");
        // A note that cannot be read is none: then it is tried again.
        if let Some(noted) = sysfs::read(&file).ok().flatten().and_then(|note| floor::noted(boot, &note)) {
            return noted;
        }
        let probed = self.probe().unwrap_or_else(|error| Probed::Not(error.to_string()));
        if let Some(note) = floor::note(boot, &probed)
            && let Err(error) = sysfs::replace(&file, &note)
        {
            tracing::warn!(%error, "note what was probed");
        }
        probed
    }

    fn probe(&self) -> Result<Probed> {
        if let Some(tool) = ["dmsetup", "losetup", "mdadm"].into_iter().find(|tool| installed(tool).is_none()) {
            return Ok(Probed::Not(format!("{tool} is not installed")));
        }
        // A rule that assembles whatever it sees would take the members as soon as the probe lets go of them.
        if self.assembly().guarded != Some(true) {
            return Ok(Probed::Not("rules of this node would assemble the probe's array".to_owned()));
        }
        for (module, name) in [("loop", "loop"), ("dm_mod", "dm-mod"), ("raid1", "raid1")] {
            self.load(module, name);
        }
        self.clear_probe()?;
        let probed = self.probe_array();
        let cleared = self.clear_probe();
        let probed = probed?;
        cleared.map(|()| probed)
    }

    fn probe_array(&self) -> Result<Probed> {
        let page = u64::try_from(rustix::param::page_size()).unwrap_or(4096);
        let tables: [fn(&str, u64) -> String; 2] = [floor::trap, |disk, _| floor::plain(disk)];
        let mut members = vec![];
        for (name, table) in MEMBERS.into_iter().zip(tables) {
            members.push(self.probe_member(name, |disk| table(disk, page))?);
        }
        let [trap, plain] = members.as_slice() else { return Ok(Probed::Not("no members".to_owned())) };
        let optimal = sysfs::number::<u64>(self.queue(trap).join("optimal_io_size"))?;
        if optimal != Some(2 * page) {
            return Ok(Probed::Not(format!("the probe's optimal I/O size is {optimal:?}, not {}", 2 * page)));
        }
        let array = self.free_array()?;
        Tool::new("mdadm")
            .arg("--create")
            .arg(&array)
            .args(["--run", "--quiet", "--metadata=1.2", "--bitmap=internal", "--assume-clean", "--level=1"])
            .args(["--data-offset=1M", "--size=2048", "--raid-devices=2", "--name=floor"])
            .arg(format!("--homehost={HOMEHOST}"))
            .args([trap, plain].map(|m| m.to_str().unwrap_or_default()))
            .run()?;
        self.judge(&array, trap)
    }

    /// A write makes MD write superblocks and bitmap of both members before it is acknowledged.
    fn judge(&self, array: &Path, trap: &Path) -> Result<Probed> {
        let action = || "probe the bitmap".to_owned();
        sysfs::wait_for(PATIENCE, || array.exists().then_some(())).ok_or_else(|| failed(action(), "no device node"))?;
        let write = Direct::open(array, Access::Write).doing(action)?;
        write.write(0, &[0; 4096]).and_then(|()| write.sync()).doing(action)?;
        drop(write);
        let name = trap.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let fails = |text: &str| mdstate::flags(text).map(|flags| flags.contains(&"faulty"));
        if sysfs::needed(self.member_file(array, &name, "state"), "state of a member", fails)? {
            return Ok(Probed::Beyond);
        }
        let bitmap = Direct::open(trap, Access::Read).and_then(|d| d.read(floor::BITMAP_AT, 4096)).doing(action)?;
        Ok(match floor::written_by_kernel(&bitmap) {
            true => Probed::Within,
            false => Probed::Not("the kernel did not write the probe's bitmap".to_owned()),
        })
    }

    /// A device of the device mapper over a file in memory.
    fn probe_member(&self, name: &str, table: impl Fn(&str) -> String) -> Result<PathBuf> {
        let file = self.config.run.join(name);
        File::create(&file).and_then(|f| f.set_len(floor::DEVICE)).doing(|| format!("make {}", file.display()))?;
        let disk = Tool::new("losetup").args(["--find", "--show"]).arg(&file).run()?;
        // Nobody waits for udev, which may not be there or, from within a container, not be heard.
        let create = Tool::new("dmsetup").args(["create", "--noudevsync", "--noudevrules"]).arg(name);
        create.run_with(Some(&table(disk.trim())))?;
        let device = self.mapped(name)?.ok_or_else(|| failed(format!("find {name}"), "the kernel does not have it"))?;
        sysfs::wait_for(PATIENCE, || device.exists().then_some(device.clone()))
            .ok_or_else(|| failed(format!("find {name}"), "no device node"))
    }

    fn queue(&self, device: &Path) -> PathBuf {
        self.config.sys.join("block").join(device.file_name().unwrap_or_default()).join("queue")
    }

    /// The device of that name in the device mapper.
    fn mapped(&self, name: &str) -> Result<Option<PathBuf>> {
        let block = self.config.sys.join("block");
        for dm in sysfs::need_names(&block)?.into_iter().filter(|n| n.starts_with("dm-")) {
            if sysfs::read(block.join(&dm).join("dm/name"))?.as_deref() == Some(name) {
                return Ok(Some(self.config.dev.join(dm)));
            }
        }
        Ok(None)
    }

    fn free_array(&self) -> Result<PathBuf> {
        let free = |name: &String| !self.config.sys.join("block").join(name).exists();
        let name = NUMBERS.map(|n| format!("md{n}")).find(free);
        name.map(|n| self.config.dev.join(n)).ok_or_else(|| failed("choose a number for the probe", "none is free"))
    }

    /// Takes away whatever there is of a probe: array, members, loop devices, files.
    fn clear_probe(&self) -> Result<()> {
        for name in MEMBERS {
            // Somebody may look at it still, as udev does at each change, or have taken it for an array of his.
            sysfs::wait_for(PATIENCE, || self.unmap(name).ok())
                .ok_or_else(|| busy(format!("remove {name}"), "somebody holds it"))?;
            let file = self.config.run.join(name);
            if !file.exists() {
                continue;
            }
            let disks =
                Tool::new("losetup").args(["--noheadings", "--output=NAME", "--associated"]).arg(&file).run()?;
            for disk in disks.lines() {
                Tool::new("losetup").arg("--detach").arg(disk.trim()).run()?;
            }
            std::fs::remove_file(&file).doing(|| format!("remove {}", file.display()))?;
        }
        Ok(())
    }

    /// Stops the array that holds the device of that name, and removes the device.
    fn unmap(&self, name: &str) -> Result<()> {
        let Some(device) = self.mapped(name)? else { return Ok(()) };
        let block = self.config.sys.join("block").join(device.file_name().unwrap_or_default());
        for array in sysfs::names(block.join("holders"))? {
            self.stop(&self.config.dev.join(array))?;
        }
        Tool::new("dmsetup").args(["remove", "--noudevsync", "--noudevrules"]).arg(name).run().map(|_| ())
    }
}
