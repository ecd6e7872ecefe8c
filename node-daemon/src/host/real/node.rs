//! The node: who it is and what its kernel and user land can do.

use super::super::{NodeFacts, Result};
use super::command::{Tool, installed};
use super::error::failed;
use super::floor::{self, Verdict};
use super::{RealHost, lock, sysfs};
use meshstor_crds::capability;
use std::collections::BTreeSet;
use std::path::Path;
use uuid::{Uuid, uuid};

/// Namespace of host NQNs of nodes that have none of their own.
const HOST_NAMESPACE: Uuid = uuid!("a3f1c5de-8a76-4b3f-9a52-6f2d0c6a1b07");

/// Host NQNs that say no more than a UUID begin so (NVM Express Base Specification, 4.7).
const UUID_NQN: &str = "nqn.2014-08.org.nvmexpress:uuid:";

type Capability = (String, bool, String);

impl RealHost {
    /// Facts of the node. Not only an observation: a drive that is wholly blank gets a partition table and a ledger, for
    /// only then does it have an identity and free space to report; a damaged copy of a table of ours is mended; udev gets the
    /// rule that keeps it from our legs; and once a boot the kernel's bitmaps are tried out.
    pub(super) fn node_facts(&self) -> Result<NodeFacts> {
        let kernel = self.config.proc.join("sys/kernel");
        // The guard first: the probe relies on it.
        let assembly = self.assembly();
        let kernel_fault = match self.floor()? {
            Verdict::Safe(_) => None,
            Verdict::Unsafe(why) => Some(why.clone()),
        };
        let drives = self.prepare_drives()?;
        Ok(NodeFacts {
            boot_id: self.boot_id()?,
            host_nqn: self.nvme_identity()?.0,
            kernel_release: sysfs::need(kernel.join("osrelease"))?,
            capabilities: self.capabilities()?,
            rdma: self.rdma_addresses()?,
            assembly,
            kernel_fault,
            drives: drives.iter().map(|d| self.drive_facts(d)).collect(),
        })
    }

    /// What tells this boot from another: half of it would be another boot, which proves that the arrays of this one are gone.
    pub(super) fn boot_id(&self) -> Result<String> {
        let whole = |t: &str| Uuid::parse_str(t).is_ok_and(|u| u.hyphenated().to_string() == t).then(|| t.to_owned());
        sysfs::needed(self.config.proc.join("sys/kernel/random/boot_id"), "boot ID", whole)
    }

    /// Host NQN and host ID: those of the node's files, else made from the node's name, which no other node of the cluster has. The
    /// machine ID would not do: in a container it is the image's, and nodes made from one image have one too.
    ///
    /// # Errors
    /// A file is there and says something else, or there is neither file nor name.
    pub(super) fn nvme_identity(&self) -> Result<(String, String)> {
        let (nqn_file, id_file) = (self.config.nvme.join("hostnqn"), self.config.nvme.join("hostid"));
        let (nqn, id) = (identity_in(&nqn_file, "host NQN", nqn)?, identity_in(&id_file, "host ID", host_id)?);
        let made = |id: String| (format!("{UUID_NQN}{id}"), id);
        Ok(match (nqn, id) {
            (Some(nqn), Some(id)) => (nqn, id),
            // The kernel refuses two NQNs with one ID, so the ID follows from the NQN, for nvme-cli as for us.
            (Some(nqn), None) => {
                let own = nqn.strip_prefix(UUID_NQN).and_then(host_id);
                let id = own.unwrap_or_else(|| Uuid::new_v5(&HOST_NAMESPACE, nqn.as_bytes()).to_string());
                (nqn, id)
            }
            (None, Some(id)) => made(id),
            (None, None) if self.config.node.is_empty() => {
                let why = format!("{} is not there, and the node has no name to make one from", nqn_file.display());
                return Err(failed("find the NVMe host NQN", why));
            }
            (None, None) => made(Uuid::new_v5(&HOST_NAMESPACE, self.config.node.as_bytes()).to_string()),
        })
    }

    /// Loads a module that is not there, where there are modules. Whether it is there afterwards is the next step's
    /// business to find out.
    pub(super) fn load(&self, module: &str, name: &str) {
        if !self.config.sys.join("module").join(module).exists() && installed("modprobe").is_some() {
            let _ = Tool::new("modprobe").arg(name).answer(None);
        }
    }

    fn capabilities(&self) -> Result<Vec<Capability>> {
        let mut all = vec![
            self.raid(capability::RAID1, "CONFIG_MD_RAID1"),
            self.raid(capability::RAID10, "CONFIG_MD_RAID10"),
            self.target(),
            self.initiator(),
            self.rdma()?,
            self.bitmap()?,
        ];
        all.extend(self.lockless());
        all.push(self.bitmap_raid10());
        all.extend(self.md_features());
        all.extend(["mdadm", "nft", "mkfs.xfs", "mkfs.ext4"].map(program));
        Ok(all)
    }

    fn raid(&self, level: &'static str, option: &str) -> Capability {
        self.load(level, level);
        let seen = lock(&self.levels).contains(level);
        let known = seen || self.has_level(level);
        if known {
            lock(&self.levels).insert(level);
        }
        says(level, known, "/proc/mdstat or /proc/kallsyms", &format!("the module {level} ({option}) is needed"))
    }

    /// Where there is an array `mdstat` is not read: it waits for the array's bitmap, and with it for a leg that does not answer.
    fn has_level(&self, level: &str) -> bool {
        let arrays =
            sysfs::names(self.config.sys.join("block")).is_ok_and(|all| all.iter().any(|n| n.starts_with("md")));
        let (file, word) = match arrays {
            false => ("mdstat", format!("[{level}]")),
            // The function that starts such an array.
            true => ("kallsyms", format!(" {level}_run")),
        };
        sysfs::table(self.config.proc.join(file)).is_some_and(|t| t.contains(&word))
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
    fn bitmap(&self) -> Result<Capability> {
        Ok(match self.floor()? {
            Verdict::Safe(how) => says("md-bitmap-bounds", true, how, ""),
            Verdict::Unsafe(why) => says("md-bitmap-bounds", false, "", why),
        })
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

    /// Seen wrong on 6.12, right on 7.3; what lies between was not looked at.
    fn bitmap_raid10(&self) -> Capability {
        let release = sysfs::read(self.config.proc.join("sys/kernel/osrelease")).ok().flatten().unwrap_or_default();
        let remedy = "this kernel's RAID10 forgets what a leg lacks that is away while another is rebuilt: its legs come back by a \
                      full rebuild; Linux 7.3 and MeshStor's md patches mend it";
        match (floor::at_least(&release, (7, 3)), self.md_has("raid10_degraded_bitmap")) {
            (_, true) => says(capability::BITMAP_RAID10, true, FEATURES, ""),
            (newer, false) => says(capability::BITMAP_RAID10, newer, "the kernel's release", remedy),
        }
    }

    fn md_features(&self) -> [Capability; 3] {
        let patched = "the kernel does not have MeshStor's md patches";
        [
            (capability::LATENCY_BALANCE, "latency_balance"),
            (capability::TAKEOVER, "raid10_takeover_raid1"),
            (capability::FAILURE_GATE, "failure_gate"),
        ]
        .map(|(name, feature)| says(name, self.md_has(feature), FEATURES, patched))
    }

    /// Whether MD lists the feature: only one with MeshStor's patches has the list.
    fn md_has(&self, feature: &str) -> bool {
        let list = sysfs::table(self.config.sys.join("module/md_mod/parameters/features"));
        list.is_some_and(|list| list.lines().any(|line| line == feature))
    }

    fn rdma(&self) -> Result<Capability> {
        if sysfs::names(self.config.sys.join("class/infiniband"))?.is_empty() {
            return Ok(says(capability::RDMA, false, "", "no RDMA device"));
        }
        self.load("nvmet_rdma", "nvmet-rdma");
        self.load("nvme_rdma", "nvme-rdma");
        let there = ["nvmet_rdma", "nvme_rdma"].iter().all(|m| self.config.sys.join("module").join(m).exists());
        let remedy = "CONFIG_NVME_RDMA and CONFIG_NVME_TARGET_RDMA are needed";
        Ok(says(capability::RDMA, there, "/sys/module/nvme_rdma, /sys/module/nvmet_rdma", remedy))
    }

    /// Addresses of interfaces with an RDMA device.
    fn rdma_addresses(&self) -> Result<Vec<String>> {
        if !self.rdma()?.1 {
            return Ok(vec![]);
        }
        let with = self.rdma_interfaces()?;
        let all = if_addrs::get_if_addrs().unwrap_or_default();
        Ok(all.into_iter().filter(|i| with.contains(&i.name)).map(|i| i.ip().to_string()).collect())
    }

    /// Network interfaces of an RDMA device: a card's has the device beside it, a software device names its parent.
    fn rdma_interfaces(&self) -> Result<BTreeSet<String>> {
        let devices = self.config.sys.join("class/infiniband");
        let net = self.config.sys.join("class/net");
        let mut found = BTreeSet::new();
        for device in sysfs::names(&devices)? {
            found.extend(sysfs::label(devices.join(device).join("parent"))?);
        }
        for name in sysfs::names(&net)? {
            if !sysfs::names(net.join(&name).join("device/infiniband"))?.is_empty() {
                found.insert(name);
            }
        }
        Ok(found)
    }
}

/// What an administrator's file says, with a newline or without. One that is there and says nothing is an error: connected under
/// a name of ours, the node would be another to whoever allowed it by its own.
fn identity_in(file: &Path, what: &str, whole: impl Fn(&str) -> Option<String>) -> Result<Option<String>> {
    match sysfs::label(file)? {
        Some(text) => whole(&text).map(Some).ok_or_else(|| sysfs::bad(file, format!("{text:?} is no {what}"))),
        None if sysfs::exists(file)? => Err(sysfs::bad(file, format!("it is empty, and no {what}"))),
        None => Ok(None),
    }
}

/// A host NQN that can be an option of a connection and a directory of nvmet.
fn nqn(text: &str) -> Option<String> {
    let plain = |b: u8| b.is_ascii_graphic() && !matches!(b, b',' | b'/');
    let whole = text.starts_with("nqn.") && (12..=223).contains(&text.len()) && text.bytes().all(plain);
    whole.then(|| text.to_owned())
}

/// A host ID as the kernel takes it. All zeros is nobody's.
fn host_id(text: &str) -> Option<String> {
    let id = Uuid::parse_str(text).ok().filter(|id| !id.is_nil())?;
    (text.len() == 36).then(|| id.hyphenated().to_string())
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
        let found = RealHost::new(config).rdma_interfaces().unwrap();
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["eth0", "eth1"]);
        std::fs::remove_dir_all(sys).unwrap();
    }

    /// I2: two nodes are never one host to a target, although both run the same image.
    #[test]
    fn a_host_nqn_is_of_one_node() {
        let dir = std::env::temp_dir().join(format!("meshstor-nqn-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let identity = |node: &str| {
            let config = RealConfig { node: node.to_owned(), nvme: dir.clone(), ..RealConfig::new(vec![], 1..=1) };
            RealHost::new(config).nvme_identity()
        };
        let (one, two) = (identity("one").unwrap(), identity("two").unwrap());
        assert!(one.0 != two.0 && one.1 != two.1);
        assert_eq!(identity("one").unwrap(), one, "it outlives the daemon");
        assert!(identity("").unwrap_err().to_string().contains("hostnqn"));

        let own = "7f3a1f0e-5f5e-4c1e-9d0b-0c6f6f2f9a11";
        std::fs::write(dir.join("hostnqn"), format!("{UUID_NQN}{own}\n")).unwrap();
        assert_eq!(identity("one").unwrap(), (format!("{UUID_NQN}{own}"), own.to_owned()));
        for bad in ["", "\n", "nqn.2014-08.org.nvmexpress:uuid:a,b\n", "nqn.2014-08.x/../y\n", "my host\n"] {
            std::fs::write(dir.join("hostnqn"), bad).unwrap();
            assert!(identity("one").is_err(), "{bad:?}");
        }
        std::fs::remove_file(dir.join("hostnqn")).unwrap();
        std::fs::write(dir.join("hostid"), &own[..35]).unwrap();
        assert!(identity("one").is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
