//! Closing an export so that nothing of it can land any more. The order is the safety: see `SAFETY.md`, "Cutting a
//! consumer off".

use super::super::Result;
use super::error::{Doing, conflict, unless_gone};
use super::{RealHost, nft, sysfs};
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use std::collections::BTreeSet;
use std::fs;
use std::io;

impl RealHost {
    /// Works from any half-made and any half-closed state. An NQN that is not there is closed.
    pub(super) fn close_export(&self, nqn: &str) -> Result<()> {
        if !nqn.starts_with(EXPORT_NQN_PREFIX) || nqn.contains('/') {
            return Err(conflict(format!("revoke {nqn}"), "the NQN is not one of ours"));
        }
        self.our_subsystems()?;
        self.cut_and_drain(nqn)?;
        // Directories are shared with the making of exports; the part that can block for long is over.
        let _guard = self.lock_exports();
        self.sweep_ports()?;
        self.remove_subsystem(nqn)
    }

    /// As [`RealHost::close_export`] for a caller that holds the lock.
    pub(super) fn close_export_locked(&self, nqn: &str) -> Result<()> {
        self.cut_and_drain(nqn)?;
        self.sweep_ports()?;
        self.remove_subsystem(nqn)
    }

    /// Silence, then unlink, then the barrier. Without the exports' lock: over a stuck drive the barrier blocks.
    pub(super) fn cut_and_drain(&self, nqn: &str) -> Result<()> {
        let action = || format!("revoke {nqn}");
        let dir = self.subsystem(nqn);
        let mut ports: Vec<(String, Option<u16>)> = vec![];
        let mut tcp = true;
        for port in self.ports_of(nqn)? {
            let at = self.nvmet("ports").join(&port);
            // None of each: it went away since it was listed.
            tcp &= sysfs::read(at.join("addr_trtype"))?.is_none_or(|kind| kind == "tcp");
            ports.push((port, sysfs::number(at.join("addr_trsvcid"))?));
        }
        let _cutting = ports.iter().filter_map(|(_, p)| *p).map(|p| self.cutting(p)).collect::<Vec<_>>();
        // 1. Its packets, of existing connections too: the consumer sees silence and holds its writes. No packet filter
        // sees RDMA.
        let silent = nft::available() && tcp;
        if silent {
            for port in ports.iter().filter_map(|(_, port)| *port) {
                nft::cut(port)?;
            }
        }
        let hosts = sysfs::names(dir.join("allowed_hosts"))?;
        let unlink_hosts = || -> io::Result<()> {
            for host in &hosts {
                unless_gone(fs::remove_file(dir.join("allowed_hosts").join(host)))?;
            }
            Ok(())
        };
        // 2. The allow-list, 3. the listener. Without silence the listener goes first, for a refused connection is
        // retried for ever and a host that is not allowed is not. A host that is connecting just then waits inside the
        // target for the end of the unlinking, which by the source of nvmet-rdma also breaks its queue pair: it gets no
        // answer that it would take for an error.
        if silent {
            unlink_hosts().doing(action)?;
        }
        for (port, _) in &ports {
            unless_gone(fs::remove_file(self.nvmet("ports").join(port).join("subsystems").join(nqn))).doing(action)?;
        }
        if !silent {
            unlink_hosts().doing(action)?;
        }
        // 4. The barrier: returns when the I/O that is inside the target is done.
        for namespace in sysfs::names(dir.join("namespaces"))? {
            unless_gone(sysfs::write(dir.join("namespaces").join(namespace).join("enable"), "0")).doing(action)?;
        }
        // 5. The port, then its packets again: nobody listens now, so a retry is refused and tried again.
        for (port, number) in ports {
            unless_gone(fs::remove_dir(self.nvmet("ports").join(port))).doing(action)?;
            if let Some(number) = number {
                nft::clear(number)?;
            }
        }
        Ok(())
    }

    /// The subsystem's directory goes last of what the kernel holds: while it is there, whoever comes after a crash sees that
    /// there is something left to close.
    pub(super) fn remove_subsystem(&self, nqn: &str) -> Result<()> {
        let action = || format!("remove subsystem {nqn}");
        let dir = self.subsystem(nqn);
        for namespace in sysfs::names(dir.join("namespaces"))? {
            unless_gone(fs::remove_dir(dir.join("namespaces").join(namespace))).doing(action)?;
        }
        // Only the host that this export named, and only if it is in no other list: the kernel refuses it otherwise.
        if let Some(host) = self.noted_host(nqn) {
            let _ = fs::remove_dir(self.nvmet("hosts").join(host));
        }
        unless_gone(fs::remove_dir(&dir)).doing(action)?;
        unless_gone(fs::remove_file(self.export_note(nqn))).doing(action)
    }

    /// Removes what a crash left: port directories of our range without a subsystem, and packet filters of ports without
    /// a directory. The caller holds the exports' lock; what another thread is cutting right now is left to it.
    pub(super) fn sweep_ports(&self) -> Result<()> {
        let cutting = self.being_cut();
        let ports = self.nvmet("ports");
        let ours = |p: &u16| self.config.ports.contains(p) && !cutting.contains(p);
        for port in sysfs::names(&ports)?.iter().filter_map(|p| p.parse().ok()).filter(ours) {
            if sysfs::names(ports.join(port.to_string()).join("subsystems"))?.is_empty() {
                self.remove_port(port).doing(|| format!("remove the unused port {port}"))?;
            }
        }
        let there: BTreeSet<String> = sysfs::names(&ports)?.into_iter().collect();
        for port in nft::ports()?.into_iter().filter(ours) {
            if !there.contains(&port.to_string()) {
                nft::clear(port)?;
            }
        }
        Ok(())
    }

    pub(super) fn remove_port(&self, port: u16) -> io::Result<()> {
        unless_gone(fs::remove_dir(self.nvmet("ports").join(port.to_string())))
    }
}
