//! The node: who it is and what its kernel and user land can do.

use super::super::{NodeFacts, Result};
use super::command::{Tool, installed};
use super::error::failed;
use super::floor::Verdict;
use super::{RealHost, sysfs};
use meshstor_crds::capability;
use std::collections::BTreeSet;
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
            rdma: self.rdma_addresses(),
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
            self.raid(capability::RAID1, "CONFIG_MD_RAID1"),
            self.raid(capability::RAID10, "CONFIG_MD_RAID10"),
            self.target(),
            self.initiator(),
            self.rdma(),
            self.bitmap(),
        ];
        all.extend(self.lockless());
        all.extend(self.md_features());
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

    /// The lockless bitmap has no file before there is an array; its functions have names.
    fn lockless(&self) -> [Capability; 2] {
        let look = || sysfs::table(self.config.proc.join("kallsyms")).is_some_and(|t| names_lockless(&t));
        let there = *self.lockless.get_or_init(look);
        let right = there && self.md_has("raid10_llbitmap_recovery");
        let remedy = match there {
            true => "a RAID10 leaves out data when it rebuilds, on this kernel; MeshStor's md patches mend it",
            false => LOCKLESS,
        };
        [
            says(capability::LLBITMAP, there, "/proc/kallsyms", LOCKLESS),
            says(capability::LLBITMAP_RAID10, right, FEATURES, remedy),
        ]
    }

    fn md_features(&self) -> [Capability; 2] {
        let patched = "the kernel does not have MeshStor's md patches";
        [(capability::LATENCY_BALANCE, "latency_balance"), (capability::TAKEOVER, "raid10_takeover_raid1")]
            .map(|(name, feature)| says(name, self.md_has(feature), FEATURES, patched))
    }

    /// Whether MD lists the feature: only one with MeshStor's patches has the list.
    fn md_has(&self, feature: &str) -> bool {
        let list = sysfs::table(self.config.sys.join("module/md_mod/parameters/features"));
        list.is_some_and(|list| list.lines().any(|line| line == feature))
    }

    fn rdma(&self) -> Capability {
        if sysfs::names(self.config.sys.join("class/infiniband")).is_empty() {
            return says(capability::RDMA, false, "", "no RDMA device");
        }
        self.load("nvmet_rdma", "nvmet-rdma");
        self.load("nvme_rdma", "nvme-rdma");
        let there = ["nvmet_rdma", "nvme_rdma"].iter().all(|m| self.config.sys.join("module").join(m).exists());
        let remedy = "CONFIG_NVME_RDMA and CONFIG_NVME_TARGET_RDMA are needed";
        says(capability::RDMA, there, "/sys/module/nvme_rdma, /sys/module/nvmet_rdma", remedy)
    }

    /// Addresses of interfaces with an RDMA device.
    fn rdma_addresses(&self) -> Vec<String> {
        if !self.rdma().1 {
            return vec![];
        }
        let with = self.rdma_interfaces();
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        all.into_iter().filter(|i| with.contains(&i.name)).map(|i| i.ip().to_string()).collect()
    }

    /// Network interfaces of an RDMA device: a card's has the device beside it, a software device names its parent.
    fn rdma_interfaces(&self) -> BTreeSet<String> {
        let devices = self.config.sys.join("class/infiniband");
        let parents = sysfs::names(&devices).into_iter().filter_map(|d| sysfs::read(devices.join(d).join("parent")));
        let net = self.config.sys.join("class/net");
        let card = |name: &String| !sysfs::names(net.join(name).join("device/infiniband")).is_empty();
        sysfs::names(&net).into_iter().filter(card).chain(parents).collect()
    }
}

/// Where MD with MeshStor's patches says what it can.
const FEATURES: &str = "/sys/module/md_mod/parameters/features";
const LOCKLESS: &str = "CONFIG_MD_LLBITMAP is needed, which Linux has from 6.18 on";

/// Whether a table of symbols has one of the lockless bitmap.
fn names_lockless(table: &str) -> bool {
    table.lines().filter_map(|line| line.split_whitespace().nth(2)).any(|name| name.starts_with("llbitmap_"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::real::RealConfig;

    #[test]
    fn the_lockless_bitmap_is_known_by_its_functions() {
        assert!(names_lockless("0000000000000000 t raid1_run\n0000000000000000 t llbitmap_start_write\t[md_mod]\n"));
        assert!(!names_lockless("0000000000000000 t bitmap_start_write\n0000000000000000 d my_llbitmap_\n\n"));
    }

    /// A card is found by what is beside its interface, a software device by the interface that it names.
    #[test]
    fn rdma_interfaces_are_those_of_a_device() {
        let sys = std::env::temp_dir().join(format!("meshstor-rdma-{}", std::process::id()));
        for dir in [
            "class/infiniband/rxe0",
            "class/infiniband/mlx5_0",
            "class/net/eth1/device/infiniband/mlx5_0",
            "class/net/eth2",
        ] {
            std::fs::create_dir_all(sys.join(dir)).unwrap();
        }
        std::fs::write(sys.join("class/infiniband/rxe0/parent"), "eth0\n").unwrap();
        let config = RealConfig { sys: sys.clone(), ..RealConfig::new(vec![], 1..=1) };
        let found = RealHost::new(config).rdma_interfaces();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["eth0", "eth1"]);
        std::fs::remove_dir_all(sys).unwrap();
    }
}
