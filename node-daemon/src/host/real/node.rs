//! The node: who it is and what its kernel and user land can do.

use super::super::{NodeFacts, Result};
use super::command::{Tool, installed};
use super::error::failed;
use super::floor::Verdict;
use super::{RealHost, sysfs};
use uuid::{Uuid, uuid};

/// Namespace of host NQNs of nodes that have none of their own.
const HOST_NAMESPACE: Uuid = uuid!("a3f1c5de-8a76-4b3f-9a52-6f2d0c6a1b07");

type Capability = (String, bool, String);

impl RealHost {
    /// Facts of the node. Not only an observation: a drive that is wholly blank gets a partition table and a ledger, for
    /// only then does it have an identity and free space to report; a damaged copy of a table of ours is mended; udev gets the
    /// rule that keeps it from our legs; and once a boot the kernel's bitmaps are tried out.
    pub(super) fn node_facts(&self) -> Result<NodeFacts> {
        let kernel = self.config.proc.join("sys/kernel");
        let boot = kernel.join("random/boot_id");
        // The guard first: the probe relies on it.
        let assembly = self.assembly();
        let kernel_fault = match self.floor() {
            Verdict::Safe(_) => None,
            Verdict::Unsafe(why) => Some(why.clone()),
        };
        let drives = self.prepare_drives()?;
        Ok(NodeFacts {
            boot_id: sysfs::read(&boot).ok_or_else(|| failed("read the boot ID", boot.display()))?,
            host_nqn: self.nvme_identity().0,
            kernel_release: sysfs::read(kernel.join("osrelease")).unwrap_or_default(),
            capabilities: self.capabilities(),
            assembly,
            kernel_fault,
            drives: drives.iter().map(|d| self.drive_facts(d)).collect(),
        })
    }

    /// Host NQN and host ID: the node's own, else made from its machine ID, so that they outlive the daemon.
    pub(super) fn nvme_identity(&self) -> (String, String) {
        let dir = &self.config.nvme;
        let machine = || sysfs::read(&self.config.machine_id).unwrap_or_default();
        let id = sysfs::read(dir.join("hostid"))
            .unwrap_or_else(|| Uuid::new_v5(&HOST_NAMESPACE, machine().as_bytes()).to_string());
        let nqn = sysfs::read(dir.join("hostnqn")).unwrap_or_else(|| format!("nqn.2014-08.org.nvmexpress:uuid:{id}"));
        (nqn, id)
    }

    /// Loads a module that is not there, where there are modules. Whether it is there afterwards is the next step's
    /// business to find out.
    pub(super) fn load(&self, module: &str, name: &str) {
        if !self.config.sys.join("module").join(module).exists() && installed("modprobe").is_some() {
            let _ = Tool::new("modprobe").arg(name).answer(None);
        }
    }

    fn capabilities(&self) -> Vec<Capability> {
        let mut all = vec![
            self.raid("raid1", "CONFIG_MD_RAID1"),
            self.raid("raid10", "CONFIG_MD_RAID10"),
            self.target(),
            self.initiator(),
            self.latency(),
            self.bitmap(),
        ];
        all.extend(["mdadm", "nft", "mkfs.xfs", "mkfs.ext4"].map(program));
        all
    }

    fn raid(&self, level: &'static str, option: &str) -> Capability {
        self.load(level, level);
        let word = format!("[{level}]");
        let known = sysfs::table(self.config.proc.join("mdstat")).is_some_and(|t| t.contains(&word));
        says(level, known, "/proc/mdstat", &format!("the module {level} ({option}) is needed"))
    }

    fn target(&self) -> Capability {
        self.load("nvmet_tcp", "nvmet-tcp");
        let core = self.nvmet("subsystems").is_dir();
        let tcp = self.config.sys.join("module/nvmet_tcp").exists();
        match (core, tcp) {
            (true, true) => says("nvmet-tcp", true, "configfs, /sys/module/nvmet_tcp", ""),
            (false, _) => says(
                "nvmet-tcp",
                false,
                "",
                "configfs must be mounted, and the module nvmet (CONFIG_NVME_TARGET) is needed",
            ),
            (true, false) => says("nvmet-tcp", false, "", "the module nvmet-tcp (CONFIG_NVME_TARGET_TCP) is needed"),
        }
    }

    fn initiator(&self) -> Capability {
        self.load("nvme_tcp", "nvme-tcp");
        let there = self.config.dev.join("nvme-fabrics").exists() && self.config.sys.join("module/nvme_tcp").exists();
        says(
            "nvme-tcp",
            there,
            "/dev/nvme-fabrics, /sys/module/nvme_tcp",
            "the module nvme-tcp (CONFIG_NVME_TCP) is needed",
        )
    }

    /// Whether the kernel keeps to the end of a bitmap.
    fn bitmap(&self) -> Capability {
        match self.floor() {
            Verdict::Safe(how) => says("md-bitmap-bounds", true, how, ""),
            Verdict::Unsafe(why) => says("md-bitmap-bounds", false, "", why),
        }
    }

    /// A member's attribute, so it takes an array to see it.
    fn latency(&self) -> Capability {
        let arrays = self.all_arrays();
        let seen = arrays.iter().flat_map(|a| &a.members).any(|m| m.latency_ewma_ns.is_some());
        let remedy = match arrays.is_empty() {
            true => "not known until an array of ours runs here",
            false => "the kernel does not have MeshStor's read-balance patch",
        };
        says("md-latency-ewma", seen, "md/dev-*/latency_ewma_ns", remedy)
    }
}

fn program(name: &str) -> Capability {
    match installed(name) {
        Some(path) => (name.to_owned(), true, path.display().to_string()),
        None => (name.to_owned(), false, "not installed on the node or in the daemon's image".to_owned()),
    }
}

fn says(name: &str, supported: bool, how: &str, remedy: &str) -> Capability {
    (name.to_owned(), supported, if supported { how } else { remedy }.to_owned())
}
