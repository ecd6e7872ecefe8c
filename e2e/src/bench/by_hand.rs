//! The reference: the same volume made by shell scripts, in the same guests and with the same settings.

use std::time::Instant;

use anyhow::{Context as _, Result};
use meshstor_crds::Connection;

use crate::api::ours;
use crate::guest::Guest;
use crate::lab::Lab;

const LEG: &str = include_str!("leg.sh");
const EXPORT: &str = include_str!("export.sh");
const ATTACH: &str = include_str!("attach.sh");
const DETACH: &str = include_str!("detach.sh");
const REMOVE: &str = include_str!("remove.sh");

const NQN: &str = "nqn.2000-01.org.example:by-hand";
/// Outside the range of MeshStor's exports.
const PORT: &str = "4420";
/// Mount point.
pub const AT: &str = "/tmp/by-hand";
/// What the operator adds to the capacity for MD's metadata, MiB.
const HEADROOM_MIB: u32 = 8;

/// A volume of two copies by hand, one of them on its consumer.
pub struct ByHand<'a> {
    consumer: Place<'a>,
    target: Place<'a>,
    host_nqn: String,
}

impl<'a> ByHand<'a> {
    /// Beside the two legs of a volume of MeshStor: on the same drives, the first one's node the consumer. Makes nothing yet.
    pub fn beside(lab: &'a Lab, volume: &str) -> Result<Self> {
        let [consumer, target] = [Place::of(lab, volume, 0)?, Place::of(lab, volume, 1)?];
        let host_nqn = consumer.guest.shell("cat /etc/nvme/hostnqn")?.trim().to_owned();
        Ok(Self { consumer, target, host_nqn })
    }

    /// Makes and mounts it; gives the seconds that it took. The legs are made at the same time, as MeshStor makes them.
    pub fn make(&self, mib: u32) -> Result<f64> {
        let began = Instant::now();
        let leg = |place: &Place<'_>| -> Result<String> {
            let size = (mib + HEADROOM_MIB).to_string();
            Ok(script(place.guest, LEG, &[&place.drive, &size])?.trim().to_owned())
        };
        let connection = Connection::default();
        let [queues, depth, alive] =
            [connection.io_queues, connection.queue_size, connection.keep_alive_seconds].map(|n| n.to_string());
        let address = self.target.guest.machine.ip.to_string();
        let local = std::thread::scope(|scope| -> Result<String> {
            let local = scope.spawn(|| leg(&self.consumer));
            let remote = leg(&self.target)?;
            script(self.target.guest, EXPORT, &[&remote, NQN, &self.host_nqn, &address, PORT, &queues])?;
            local.join().ok().context("the thread of the local leg ends")?
        })?;
        script(
            self.consumer.guest,
            ATTACH,
            &[&local, NQN, &address, PORT, &queues, &depth, &alive, &mib.to_string(), AT],
        )?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Leaves nothing of it.
    pub fn remove(&self) -> Result<()> {
        script(self.consumer.guest, DETACH, &[NQN, AT])?;
        for place in [&self.consumer, &self.target] {
            script(place.guest, REMOVE, &[&place.drive, NQN, &self.host_nqn, PORT])?;
        }
        Ok(())
    }
}

/// A drive of a guest.
struct Place<'a> {
    guest: &'a Guest,
    /// Its kernel name.
    drive: String,
}

impl<'a> Place<'a> {
    /// Where a volume's leg is.
    fn of(lab: &'a Lab, volume: &str, slot: u32) -> Result<Self> {
        let api = &lab.control.api;
        let spec = api.get(&ours("meshreplicas", &format!("{volume}-{slot}")))?["spec"].clone();
        let node = spec["node"].as_str().context("a leg has a node")?;
        let seen = api.get(&ours("meshnodes", node))?;
        let drives = seen["status"]["drives"].as_array().cloned().unwrap_or_default();
        let drive = drives.iter().find(|drive| drive["id"] == spec["drive"]);
        let path = drive.and_then(|drive| drive["path"].as_str()).context("a leg's drive is on its node")?;
        Ok(Self { guest: lab.guest(node)?, drive: path.trim_start_matches("/dev/").to_owned() })
    }
}

/// Runs a script with arguments that need no quoting.
fn script(guest: &Guest, text: &str, arguments: &[&str]) -> Result<String> {
    guest.shell(&format!("set -- {}\n{text}", arguments.join(" ")))
}
