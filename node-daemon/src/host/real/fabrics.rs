//! The consumer's side of NVMe/TCP: `/dev/nvme-fabrics` and sysfs.

use super::super::{ConnectSpec, ConnectionFacts, ControllerState, Result};
use super::direct::{Access, Direct};
use super::error::{Doing, failed, unless_gone};
use super::{RealHost, sysfs};
use meshstor_crds::Transport;
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the namespace's device may take after the controller is live.
const DEVICE: Duration = Duration::from_secs(5);

/// What `state` of a controller means. Pure.
pub(super) fn controller_state(text: &str) -> ControllerState {
    match text.trim() {
        "live" => ControllerState::Live,
        t if t.starts_with("deleting") || t == "dead" => ControllerState::Deleting,
        _ => ControllerState::Connecting,
    }
}

/// The namespace's block device among the names in a directory: a head (`nvme3n1`), never a path of one (`nvme3c0n1`).
pub(super) fn is_namespace(name: &str) -> bool {
    let Some((controller, namespace)) = name.strip_prefix("nvme").and_then(|n| n.split_once('n')) else {
        return false;
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    digits(controller) && digits(namespace)
}

/// The kernel's word for a fabric, on both sides.
pub(super) fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Rdma => "rdma",
    }
}

/// The option string. `ctrl_loss_tmo=-1` and no fast-fail: a lost leg holds writes until somebody has recorded it away.
pub(super) fn options(spec: &ConnectSpec, host_nqn: &str, host_id: &str) -> String {
    format!(
        "nqn={},transport={},traddr={},trsvcid={},hostnqn={host_nqn},hostid={host_id},nr_io_queues={},queue_size={},\
         keep_alive_tmo={},ctrl_loss_tmo=-1,reconnect_delay=1",
        spec.nqn,
        transport(spec.transport),
        spec.address,
        spec.port,
        spec.io_queues,
        spec.queue_size,
        spec.keep_alive
    )
}

impl RealHost {
    /// Connections of ours whose NQN is `wanted`.
    pub(super) fn connections_with(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<ConnectionFacts> {
        let class = self.config.sys.join("class/nvme");
        let of = |controller: String| {
            let dir = class.join(&controller);
            let ours = |nqn: &String| nqn.starts_with(EXPORT_NQN_PREFIX) && wanted(nqn);
            let nqn = sysfs::read(dir.join("subsysnqn")).filter(ours)?;
            Some(ConnectionFacts {
                state: controller_state(&sysfs::read(dir.join("state"))?),
                device: self.namespace_of(&controller, &dir),
                controller,
                nqn,
            })
        };
        sysfs::names(&class).into_iter().filter_map(of).collect()
    }

    /// With multipath the device is the subsystem's head, without it the controller's own. The kernel may name it
    /// anything (`nvme0n2` after a namespace came back), so it is found by where it hangs.
    fn namespace_of(&self, name: &str, controller: &Path) -> Option<PathBuf> {
        let class = self.config.sys.join("class/nvme-subsystem");
        // A subsystem has a link to each of its controllers.
        let subsystems = sysfs::names(&class).into_iter().map(|s| class.join(s)).filter(|s| s.join(name).exists());
        subsystems.chain([controller.to_owned()]).find_map(|dir| {
            sysfs::names(&dir).into_iter().filter(|n| is_namespace(n)).find_map(|name| {
                let block = self.config.sys.join("class/block").join(&name);
                let hidden = sysfs::read(block.join("hidden")).as_deref() == Some("1");
                let size: u64 = sysfs::number(block.join("size"))?;
                let node = sysfs::device_node(&self.config.dev, &block)?;
                (size > 0 && !hidden && sysfs::is_node_of(&node, &block)).then_some(node)
            })
        })
    }

    pub(super) fn connect_to(&self, spec: &ConnectSpec) -> Result<()> {
        let action = || format!("connect {} at {}:{}", spec.nqn, spec.address, spec.port);
        let found = || self.connections_with(&|nqn| nqn == spec.nqn).into_iter().next();
        match found() {
            Some(c) if c.state == ControllerState::Deleting => {
                return Err(failed(action(), format!("{} still goes away", c.controller)));
            }
            Some(_) => {}
            None => self.new_controller(spec).doing(action)?,
        }
        // The kernel shows a device and its node a moment before it can be opened (ENXIO).
        let device = || {
            let node = found()?.device?;
            Direct::open(&node, Access::Read).ok()
        };
        if sysfs::wait_for(DEVICE, device).is_some() {
            return Ok(());
        }
        self.disconnect_from(&spec.nqn)?;
        Err(failed(action(), "connected, but the namespace did not appear"))
    }

    /// The write returns when the controller is live or the attempt has failed, and then leaves none behind.
    fn new_controller(&self, spec: &ConnectSpec) -> std::io::Result<()> {
        let (nqn, id) = self.nvme_identity();
        let mut fabrics =
            std::fs::OpenOptions::new().read(true).write(true).open(self.config.dev.join("nvme-fabrics"))?;
        match fabrics.write_all(options(spec, &nqn, &id).as_bytes()) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists || e.raw_os_error() == Some(114) => Ok(()),
            Err(e) => Err(e),
            Ok(()) => fabrics.read(&mut [0u8; 256]).map(|_| ()),
        }
    }

    pub(super) fn disconnect_from(&self, nqn: &str) -> Result<()> {
        for c in self.connections_with(&|found| found == nqn) {
            let file = self.config.sys.join("class/nvme").join(&c.controller).join("delete_controller");
            let gone = unless_gone(sysfs::write(&file, "1"));
            // The file can vanish under the write: the controller went by itself.
            match gone {
                Err(_) if !file.exists() => {}
                other => other.doing(|| format!("disconnect {nqn} ({})", c.controller))?,
            }
        }
        let still = || self.connections_with(&|found| found == nqn).is_empty().then_some(());
        sysfs::wait_for(DEVICE, still)
            .ok_or_else(|| failed(format!("disconnect {nqn}"), "the controller is still there"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn heads_and_their_paths() {
        assert!(is_namespace("nvme0n1") && is_namespace("nvme12n3"));
        for other in ["nvme0c0n1", "nvme0n1p1", "nvme0", "hwmon", "nvme0n", "ng0n1"] {
            assert!(!is_namespace(other), "{other}");
        }
    }

    #[test]
    fn a_lost_leg_is_never_failed_by_a_timer() {
        // I1: no fast-fail, no end to reconnecting.
        for (fabric, word) in [(Transport::Tcp, "transport=tcp,"), (Transport::Rdma, "transport=rdma,")] {
            let spec = ConnectSpec {
                nqn: "n".into(),
                transport: fabric,
                address: "a".into(),
                port: 1,
                io_queues: 1,
                queue_size: 64,
                keep_alive: 2,
            };
            let text = options(&spec, "h", "i");
            assert!(text.contains("ctrl_loss_tmo=-1") && !text.contains("fast_io_fail") && text.contains(word));
        }
    }

    proptest! {
        #[test]
        fn only_live_is_live(text in "[a-z() ]{0,20}") {
            prop_assert_eq!(controller_state(&text) == ControllerState::Live, text.trim() == "live");
            let _ = is_namespace(&text);
        }
    }
}
