//! A volume on which tests and benchmarks lose a leg and measure its return: where it is, what its bitmap marks, what was copied.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::api::ours;
use crate::lab::Lab;
use crate::load::Load;
use crate::say;
use crate::volume::Volume;
use crate::wait::{secs, wait_for, when};

/// Where a member's data begins, in MiB.
pub const DATA: u64 = 4;

/// Kernel name of the partition of a leg that its node exports.
pub fn exported(lab: &Lab, node: &str, leg: &str) -> Result<String> {
    let replica = lab.control.api.get(&ours("meshreplicas", leg))?;
    let nqn = replica["status"]["export"]["nqn"].as_str().with_context(|| format!("{leg} is exported"))?;
    let path = format!("/sys/kernel/config/nvmet/subsystems/{nqn}/namespaces/1/device_path");
    Ok(lab.guest(node)?.shell(&format!("basename $(cat {path})"))?.trim().to_owned())
}

/// Bytes that were written to a block device of a node since it is there.
pub fn written(lab: &Lab, node: &str, device: &str) -> Result<u64> {
    let script = format!("awk '{{ print $7 }}' /sys/class/block/{device}/stat");
    Ok(lab.guest(node)?.shell(&script)?.trim().parse::<u64>()? * 512)
}

/// Bytes in regions that an array's bitmap, of either kind, marks on a member in sync.
pub fn marked(lab: &Lab, node: &str, array: &str) -> Result<u64> {
    let script = format!(
        "cd /sys/block/{array}/md
        if [ -e llbitmap ]; then cat llbitmap/metadata llbitmap/bits; exit; fi
        echo chunksize $(cat bitmap/chunksize)
        for d in dev-ubd* dev-nvme*; do
            if grep -q in_sync $d/state; then mdadm -X /dev/${{d#dev-}}; exit; fi
        done; exit 1"
    );
    let said = lab.guest(node)?.shell(&script)?;
    let number = |what: &str| {
        let line = said.lines().find_map(|line| line.trim_start().strip_prefix(what));
        let number = line.and_then(|rest| rest.trim_start().split(' ').next()).and_then(|n| n.parse::<u64>().ok());
        number.with_context(|| format!("{what:?} and a number in {said}"))
    };
    let chunks = if said.contains("need sync ") {
        let of = ["dirty ", "need sync ", "syncing "].map(number);
        of.into_iter().sum::<Result<u64>>()?
    } else {
        let line = said.lines().find(|l| l.trim_start().starts_with("Bitmap :")).context("mdadm -X tells of bits")?;
        let dirty = line.split(", ").nth(1).and_then(|rest| rest.split(' ').next());
        dirty.and_then(|n| n.parse().ok()).with_context(|| format!("{line} has a number"))?
    };
    Ok(chunks * number("chunksize ")?)
}

/// A raw volume of two copies that is attached, and whose bitmap marks nothing any more.
pub struct Bed {
    name: String,
    /// Where it is attached, on the node of one leg.
    pub consumer: String,
    /// Node of the remote leg.
    pub target: String,
    /// The remote leg.
    pub leg: String,
    /// Kernel name of its partition on the target.
    pub partition: String,
    /// Path of the array.
    pub device: String,
}

impl Bed {
    /// Makes one of so many MiB.
    pub fn new(lab: &Lab, name: &str, mib: u64) -> Result<Self> {
        let spec = json!({ "capacity": format!("{mib}Mi"), "replicaCount": 2, "filesystem": "none" });
        let volume = Volume::create(lab, name, &spec)?;
        let nodes = volume.leg_nodes()?;
        let [consumer, target] = nodes.as_slice() else { anyhow::bail!("two legs, but {nodes:?}") };
        let device = volume.attach(consumer, false)?;
        let leg = volume.leg_on(target)?;
        let partition = exported(lab, target, &leg)?;
        let (name, consumer, target) = (name.to_owned(), consumer.clone(), target.clone());
        let bed = Self { name, consumer, target, leg, partition, device };
        bed.wait_clear(lab)?;
        Ok(bed)
    }

    /// Waits until its bitmap marks nothing, which the kernel sees to some seconds after the last write.
    pub fn wait_clear(&self, lab: &Lab) -> Result<()> {
        wait_for("the array's bitmap to be clear", secs(60), || {
            let marked = self.marked(lab)?;
            Ok(when(marked == 0, format!("{marked} bytes are marked")))
        })
    }

    /// Its volume.
    pub fn volume<'a>(&self, lab: &'a Lab) -> Volume<'a> {
        Volume::named(lab, &self.name)
    }

    /// Kernel name of the array.
    pub fn array(&self) -> &str {
        self.device.trim_start_matches("/dev/")
    }

    /// Kernel name of the consumer's local (`ubd`) or remote (`nvme`) member.
    pub fn member(&self, lab: &Lab, kind: &str) -> Result<String> {
        let array = self.array();
        let script = format!("cd /sys/block/{array}/md && for d in dev-{kind}*; do echo ${{d#dev-}}; done");
        Ok(lab.guest(&self.consumer)?.shell(&script)?.trim().to_owned())
    }

    /// Bytes in regions that its bitmap marks.
    pub fn marked(&self, lab: &Lab) -> Result<u64> {
        marked(lab, &self.consumer, self.array())
    }

    /// Bytes that were written to the remote member through its present connection.
    pub fn written(&self, lab: &Lab) -> Result<u64> {
        written(lab, &self.consumer, &self.member(lab, "nvme")?)
    }

    /// Cuts the target's power, and waits until the leg is recorded away as one that may return by the bitmap.
    pub fn lose(&self, lab: &mut Lab) -> Result<()> {
        lab.guest_mut(&self.target)?.cut_power()?;
        let has = |list: &Value| list.as_array().is_some_and(|legs| legs.iter().any(|l| *l == *self.leg));
        let away = |at: &Value| {
            let term = &at["status"]["term"];
            !has(&term["inSync"]) && has(&term["bitmapUsable"])
        };
        self.volume(lab).wait_attachment("to have recorded the leg away, by the bitmap", secs(60), away).map(drop)
    }

    /// How often the consumer's daemon took the leg back by the bitmap, and by a full rebuild.
    pub fn returns(&self, lab: &Lab) -> Result<[usize; 2]> {
        let log = std::fs::read_to_string(lab.guest(&self.consumer)?.daemon_log())?;
        let words = [format!("take leg {} back by the bitmap", self.leg), format!("add leg {} for a full", self.leg)];
        Ok(words.map(|words| log.lines().filter(|line| line.contains(&words)).count()))
    }

    /// Detaches, and reads the remote leg alone, as it lies on its drive.
    pub fn verify_alone(&self, lab: &Lab, load: &Load) -> Result<()> {
        self.volume(lab).detach()?;
        let guest = lab.guest(&self.target)?;
        let set_up = format!("losetup --find --show --read-only --offset {} /dev/{}", DATA << 20, self.partition);
        let alone = guest.shell(&set_up)?.trim().to_owned();
        let verdict = load.verify(lab, &self.consumer, &self.target, &alone);
        guest.shell(&format!("losetup --detach {alone}"))?;
        say!("the leg alone: {}", verdict?);
        self.volume(lab).delete()
    }
}
