//! The consumer's side of NVMe/TCP: `/dev/nvme-fabrics` and sysfs.

use super::super::{ConnectSpec, ConnectionFacts, ControllerState, Result};
use super::direct::{Access, Direct};
use super::error::{Doing, busy, failed, unless_gone};
use super::{RealHost, sysfs};
use crate::ids::Nqn;
use meshstor_crds::Transport;
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a listener may take to let in a connection that is not used.
const DOOR: Duration = Duration::from_secs(1);
/// How long the namespace's device may take after the controller is live.
const DEVICE: Duration = Duration::from_secs(5);

/// What `state` of a controller means: the words of `nvme_sysfs_show_state`. Pure.
pub(super) fn controller_state(text: &str) -> Option<ControllerState> {
    match text {
        "live" => Some(ControllerState::Live),
        "new" | "resetting" | "connecting" => Some(ControllerState::Connecting),
        "deleting" | "deleting (no IO)" | "dead" => Some(ControllerState::Deleting),
        _ => None,
    }
}

/// Whether this may be the name of a subsystem of NVMe over fabrics; one that begins as ours do is one of ours. Pure.
fn is_nqn(text: &str) -> bool {
    let ours = !text.starts_with(EXPORT_NQN_PREFIX) || Nqn::parse(text).is_some();
    ours && text.starts_with("nqn.") && text.len() <= 223 && text.bytes().all(|b| b.is_ascii_graphic())
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

/// The option string. `ctrl_loss_tmo=-1` and no fast-fail: a lost leg holds writes until somebody has recorded it away. `reconnect_delay`
/// in seconds, from `connecting` to the first try: by then a lost leg is recorded away, one look (1 s) and the hold time (1 s) after
/// the other. To delete a controller while it tries to connect to nobody takes as long as that try, up to 3 s (`nvme_tcp_stop_ctrl` waits
/// for `connect_work`, which sends a SYN twice), and the held writes wait with it.
pub(super) fn options(spec: &ConnectSpec, host_nqn: &str, host_id: &str) -> String {
    format!(
        "nqn={},transport={},traddr={},trsvcid={},hostnqn={host_nqn},hostid={host_id},nr_io_queues={},queue_size={},\
         keep_alive_tmo={},ctrl_loss_tmo=-1,reconnect_delay=2",
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
    ///
    /// # Errors
    /// One of them cannot be read, or it cannot be told whose a controller is.
    pub(super) fn connections_with(&self, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<ConnectionFacts>> {
        let class = self.config.sys.join("class/nvme");
        sysfs::need_names(self.config.sys.join("class"))?;
        let wanted = |nqn: &str| nqn.starts_with(EXPORT_NQN_PREFIX) && wanted(nqn);
        let mut found = vec![];
        for controller in sysfs::names(&class)? {
            let dir = class.join(&controller);
            if let Some(nqn) = self.nqn_of(&controller, &dir, &wanted)? {
                found.extend(self.connection(controller, &dir, nqn)?);
            }
        }
        Ok(found)
    }

    /// The NQN of a controller, if it is wanted. Where the controller does not say it, its subsystem does.
    fn nqn_of(&self, name: &str, dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Option<String>> {
        let file = dir.join("subsysnqn");
        let said = sysfs::read(&file);
        if let Ok(Some(nqn)) = &said
            && is_nqn(nqn)
        {
            return Ok(Some(nqn.clone()).filter(|nqn| wanted(nqn)));
        }
        // A drive in this machine may be called anything.
        let local = sysfs::read(dir.join("transport")).is_ok_and(|t| t.as_deref() == Some("pcie"));
        if local || !sysfs::exists(dir)? {
            return Ok(None);
        }
        for subsystem in self.subsystems_of(name)? {
            let other = sysfs::need(subsystem.join("subsysnqn"))?;
            if !wanted(&other) && (is_nqn(&other) || said.as_ref().is_ok_and(|s| s.as_deref() == Some(&other))) {
                return Ok(None);
            }
        }
        said.and_then(|said| Err(sysfs::bad(&file, format!("{said:?} is no NQN"))))
    }

    /// None when the controller is gone.
    fn connection(&self, controller: String, dir: &Path, nqn: String) -> Result<Option<ConnectionFacts>> {
        let file = dir.join("state");
        match sysfs::parsed(&file, "state of a controller", controller_state)? {
            None if sysfs::exists(dir)? => Err(sysfs::bad(&file, "it is not there")),
            None => Ok(None),
            Some(state) => {
                let device = self.namespace_of(&controller, dir)?;
                Ok(Some(ConnectionFacts { nqn, controller, state, device }))
            }
        }
    }

    /// A subsystem has a link to each of its controllers.
    fn subsystems_of(&self, controller: &str) -> Result<Vec<PathBuf>> {
        let class = self.config.sys.join("class/nvme-subsystem");
        let mut found = vec![];
        for subsystem in sysfs::names(&class)? {
            let dir = class.join(subsystem);
            if sysfs::exists(dir.join(controller))? {
                found.push(dir);
            }
        }
        Ok(found)
    }

    /// With multipath the device is the subsystem's head, without it the controller's own. The kernel may name it
    /// anything (`nvme0n2` after a namespace came back), so it is found by where it hangs.
    fn namespace_of(&self, name: &str, controller: &Path) -> Result<Option<PathBuf>> {
        for dir in self.subsystems_of(name)?.into_iter().chain([controller.to_owned()]) {
            for name in sysfs::names(&dir)?.into_iter().filter(|n| is_namespace(n)) {
                let block = self.config.sys.join("class/block").join(&name);
                let hidden = sysfs::flag(block.join("hidden"))?.unwrap_or(false);
                let size = sysfs::sectors(block.join("size"))?.unwrap_or(0);
                let Some(node) = sysfs::device_node(&self.config.dev, &block)? else { continue };
                if size > 0 && !hidden && sysfs::is_node_of(&node, &block)? {
                    return Ok(Some(node));
                }
            }
        }
        Ok(None)
    }

    pub(super) fn connect_to(&self, spec: &ConnectSpec) -> Result<()> {
        let action = || format!("connect {} at {}:{}", spec.nqn, spec.address, spec.port);
        let found = || self.connections_with(&|nqn| nqn == spec.nqn).map(|all| all.into_iter().next());
        match found()? {
            Some(c) if c.state == ControllerState::Deleting => {
                return Err(failed(action(), format!("{} still goes away", c.controller)));
            }
            Some(_) => {}
            None => {
                let (nqn, id) = self.nvme_identity()?;
                self.new_controller(&options(spec, &nqn, &id)).doing(action)?;
                self.shut_the_door(spec)?;
            }
        }
        // The kernel shows a device and its node a moment before it can be opened (ENXIO).
        let device = || {
            let node = found().ok()??.device?;
            Direct::open(&node, Access::Read).ok()
        };
        if sysfs::wait_for(DEVICE, device).is_some() {
            return Ok(());
        }
        self.disconnect_from(&spec.nqn)?;
        Err(failed(action(), "connected, but the namespace did not appear"))
    }

    /// A kernel with few CPUs makes fewer queues than the door of the export lets in: what is left of it is used up, so that the controller
    /// cannot connect a second time (rule 9).
    fn shut_the_door(&self, spec: &ConnectSpec) -> Result<()> {
        let action = || format!("count the queues of {}", spec.nqn);
        let found = self.connections_with(&|nqn| nqn == spec.nqn)?.into_iter().next();
        let controller = found.ok_or_else(|| failed(action(), "the controller is gone"))?.controller;
        let file = self.config.sys.join("class/nvme").join(controller).join("queue_count");
        let queues = sysfs::need_number::<u16>(file)?;
        let Ok(address) = spec.address.parse::<IpAddr>() else { return Ok(()) };
        for _ in queues..spec.io_queues.max(1).saturating_add(1) {
            // Refused or not answered is shut.
            let _ = TcpStream::connect_timeout(&SocketAddr::new(address, spec.port), DOOR);
        }
        Ok(())
    }

    /// The write returns when the controller is live or the attempt has failed, and then leaves none behind.
    fn new_controller(&self, options: &str) -> std::io::Result<()> {
        let mut fabrics =
            std::fs::OpenOptions::new().read(true).write(true).open(self.config.dev.join("nvme-fabrics"))?;
        match fabrics.write_all(options.as_bytes()) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists || e.raw_os_error() == Some(114) => Ok(()),
            Err(e) => Err(e),
            Ok(()) => fabrics.read(&mut [0u8; 256]).map(|_| ()),
        }
    }

    /// As [`RealHost::disconnect_from`], but not where somebody uses the device: then MD, or whoever it is, would see errors.
    pub(super) fn release_connection(&self, nqn: &str) -> Result<()> {
        for connection in self.connections_with(&|found| found == nqn)? {
            let users = connection.device.as_deref().map(|d| self.users_of(d)).transpose()?.unwrap_or_default();
            if let Some(user) = users.first() {
                return Err(busy(format!("disconnect {nqn} ({})", connection.controller), user));
            }
        }
        self.disconnect_from(nqn)
    }

    pub(super) fn disconnect_from(&self, nqn: &str) -> Result<()> {
        for c in self.connections_with(&|found| found == nqn)? {
            let file = self.config.sys.join("class/nvme").join(&c.controller).join("delete_controller");
            let gone = unless_gone(sysfs::write(&file, "1"));
            // The file can vanish under the write: the controller went by itself.
            match gone {
                Err(_) if !file.exists() => {}
                other => other.doing(|| format!("disconnect {nqn} ({})", c.controller))?,
            }
        }
        // What cannot be read is not gone.
        let gone = || self.connections_with(&|found| found == nqn).is_ok_and(|left| left.is_empty()).then_some(());
        sysfs::wait_for(DEVICE, gone)
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
        /// I7: a word that is not the kernel's is no state at all.
        #[test]
        fn only_live_is_live(text in "[a-zI-O() ]{0,20}", at in 0usize..4, byte in any::<char>()) {
            prop_assert_eq!(controller_state(&text) == Some(ControllerState::Live), text == "live");
            let mut bent: Vec<char> = "live".chars().collect();
            bent[at] = byte;
            let bent: String = bent.into_iter().collect();
            prop_assert_eq!(controller_state(&bent).is_some(), bent == "live");
            prop_assert!(controller_state(&"live"[..at]).is_none());
            let _ = (is_namespace(&text), is_nqn(&text));
        }
    }
}
