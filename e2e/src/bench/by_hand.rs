//! The reference: the same volume made by shell scripts, in the same guests and with the same settings.

use std::time::Instant;

use anyhow::{Context as _, Result};
use meshstor_crds::Connection;

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
/// The guests' second drive.
const DRIVE: &str = "ubdb";
/// Mount point.
pub const AT: &str = "/tmp/by-hand";
/// What the operator adds to the capacity for MD's metadata, MiB.
const HEADROOM_MIB: u32 = 8;

/// A volume of two copies by hand, one of them on its consumer.
pub struct ByHand<'a> {
    consumer: &'a Guest,
    target: &'a Guest,
    host_nqn: String,
}

impl<'a> ByHand<'a> {
    /// Makes nothing yet.
    pub fn new(lab: &'a Lab, [consumer, target]: &[String; 2]) -> Result<Self> {
        let consumer = lab.guest(consumer)?;
        let host_nqn = consumer.shell("cat /etc/nvme/hostnqn")?.trim().to_owned();
        Ok(Self { consumer, target: lab.guest(target)?, host_nqn })
    }

    /// Makes and mounts it; gives the seconds that it took. The legs are made at the same time, as MeshStor makes them.
    pub fn make(&self, mib: u32) -> Result<f64> {
        let began = Instant::now();
        let leg = |guest: &Guest| -> Result<String> {
            let size = (mib + HEADROOM_MIB).to_string();
            Ok(script(guest, LEG, &[DRIVE, &size])?.trim().to_owned())
        };
        let connection = Connection::default();
        let [queues, depth, alive] =
            [connection.io_queues, connection.queue_size, connection.keep_alive_seconds].map(|n| n.to_string());
        let address = self.target.machine.ip.to_string();
        let local = std::thread::scope(|scope| -> Result<String> {
            let local = scope.spawn(|| leg(self.consumer));
            let remote = leg(self.target)?;
            script(self.target, EXPORT, &[&remote, NQN, &self.host_nqn, &address, PORT, &queues])?;
            local.join().ok().context("the thread of the local leg ends")?
        })?;
        script(self.consumer, ATTACH, &[&local, NQN, &address, PORT, &queues, &depth, &alive, &mib.to_string(), AT])?;
        Ok(began.elapsed().as_secs_f64())
    }

    /// Leaves nothing of it.
    pub fn remove(&self) -> Result<()> {
        script(self.consumer, DETACH, &[NQN, AT])?;
        for guest in [self.consumer, self.target] {
            script(guest, REMOVE, &[DRIVE, NQN, &self.host_nqn, PORT])?;
        }
        Ok(())
    }
}

/// Runs a script with arguments that need no quoting.
fn script(guest: &Guest, text: &str, arguments: &[&str]) -> Result<String> {
    guest.shell(&format!("set -- {}\n{text}", arguments.join(" ")))
}
