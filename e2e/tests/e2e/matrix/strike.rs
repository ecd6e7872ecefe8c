//! Faults: how each is done to a node, shown to be there, and undone.

use std::time::SystemTime;

use anyhow::{Result, ensure};
use fastrand::Rng;
use meshstor_e2e::api::ours;
use meshstor_e2e::chaos::Fault;
use meshstor_e2e::lab::Lab;
use meshstor_e2e::partition::{self, Cut, Way};
use serde_json::json;

/// A fault of one node.
pub(super) struct Strike {
    pub(super) node: String,
    fault: Fault,
    way: Way,
    boot: String,
}

impl Strike {
    /// What it will be; nothing happens yet.
    pub(super) fn prepare(lab: &Lab, node: &str, fault: Fault, rng: &mut Rng) -> Result<Self> {
        let way = match fault {
            Fault::OneWay if rng.bool() => Way::In,
            Fault::OneWay => Way::Out,
            _ => Way::Both,
        };
        Ok(Self { node: node.to_owned(), fault, way, boot: boot(lab, node)? })
    }

    /// Does it. Gives the last moment when it was surely not there, and the first when it surely was.
    pub(super) fn fire(&self, lab: &mut Lab) -> Result<(SystemTime, SystemTime)> {
        let before = SystemTime::now();
        match self.fault {
            Fault::Kill | Fault::Reboot => lab.guest_mut(&self.node)?.cut_power()?,
            Fault::Hang => lab.guest(&self.node)?.freeze()?,
            Fault::Control | Fault::Data | Fault::Both | Fault::OneWay => {
                partition::cut(lab.guest(&self.node)?, self.what(), self.way)?;
            }
        }
        let after = SystemTime::now();
        match self.fault {
            Fault::Kill | Fault::Hang | Fault::Data => {}
            Fault::Reboot => lab.guest_mut(&self.node)?.power_on()?,
            Fault::Control | Fault::Both | Fault::OneWay => {
                // Something that the node is to be told, so that there is something to drop.
                let told = json!({ "metadata": { "annotations": { "chaos": format!("{before:?}") } } });
                lab.control.api.merge(&ours("meshnodes", &self.node), &told)?;
            }
        }
        Ok((before, after))
    }

    fn what(&self) -> Cut {
        match self.fault {
            Fault::Control => Cut::Control,
            Fault::Data => Cut::Data,
            _ => Cut::Both,
        }
    }

    /// Undoes it, after a proof that it is there, which it gives.
    pub(super) fn heal(&self, lab: &mut Lab) -> Result<String> {
        let node = &self.node;
        match self.fault {
            Fault::Kill => {
                ensure!(!lab.guest(node)?.is_on(), "{node} is on: the fault is not there");
                lab.power_on(node)?;
                self.another_boot(lab, "was off")
            }
            Fault::Reboot => {
                lab.guest_mut(node)?.wait_until_up()?;
                lab.start_daemon(node)?;
                self.another_boot(lab, "lost its power")
            }
            Fault::Hang => {
                let guest = lab.guest(node)?;
                ensure!(guest.is_frozen()?, "something of {node} runs: the fault is not there");
                guest.thaw()?;
                ensure!(boot(lab, node)? == self.boot, "{node} has booted");
                Ok(format!("{node} was stopped, and is the same boot"))
            }
            Fault::Control | Fault::Data | Fault::Both | Fault::OneWay => {
                let guest = lab.guest(node)?;
                let dropped = partition::dropped(guest)?;
                ensure!(dropped > 0, "{node} dropped no packet: the fault did not fire");
                partition::heal(guest)?;
                let way = match self.way {
                    Way::In => " that came",
                    Way::Out => " that left",
                    Way::Both => "",
                };
                Ok(format!("{node} dropped {dropped} packets{way}"))
            }
        }
    }

    fn another_boot(&self, lab: &Lab, what: &str) -> Result<String> {
        let now = boot(lab, &self.node)?;
        ensure!(now != self.boot, "{} did not reboot", self.node);
        Ok(format!("{} {what}: boot {} after {}", self.node, &now[..8], &self.boot[..8]))
    }
}

fn boot(lab: &Lab, node: &str) -> Result<String> {
    Ok(lab.guest(node)?.shell("cat /proc/sys/kernel/random/boot_id")?.trim().to_owned())
}
