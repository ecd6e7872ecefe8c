//! Exports through configfs: what is there, and making one.
//!
//! Each export has a subsystem, a port directory and a TCP port of its own, so that fencing it is nobody else's matter. The
//! port directory's number is the TCP port, and numbers of our range are ours: what a crash left half made is known by it.

use super::super::{ExportFacts, ExportSpec, LegRef, Result};
use super::error::{Doing, busy, conflict, failed};
use super::{RealHost, fabrics, nft, sysfs};
use meshstor_crds::Transport;
use meshstor_crds::naming::EXPORT_NQN_PREFIX;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// `create_dir` for what may be there from an earlier try.
fn directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

impl RealHost {
    pub(super) fn nvmet(&self, below: &str) -> PathBuf {
        self.config.configfs.join("nvmet").join(below)
    }

    pub(super) fn subsystem(&self, nqn: &str) -> PathBuf {
        self.nvmet("subsystems").join(nqn)
    }

    /// Subsystems of ours, half made ones too.
    pub(super) fn our_subsystems(&self) -> Vec<String> {
        let names = sysfs::names(self.nvmet("subsystems"));
        names.into_iter().filter(|n| n.starts_with(EXPORT_NQN_PREFIX)).collect()
    }

    /// Port directories that a subsystem is linked to: one for ours, none before the end of making it.
    pub(super) fn ports_of(&self, nqn: &str) -> Vec<String> {
        let ports = self.nvmet("ports");
        let linked = |p: &String| fs::symlink_metadata(ports.join(p).join("subsystems").join(nqn)).is_ok();
        sysfs::names(&ports).into_iter().filter(linked).collect()
    }

    pub(super) fn export_facts(&self, nqn: &str) -> ExportFacts {
        let dir = self.subsystem(nqn);
        let namespace = dir.join("namespaces/1");
        let port = self.ports_of(nqn).into_iter().next().map(|p| self.nvmet("ports").join(p));
        ExportFacts {
            nqn: nqn.to_owned(),
            host_nqn: sysfs::names(dir.join("allowed_hosts")).into_iter().next(),
            device: sysfs::read(namespace.join("device_path")).filter(|p| p.starts_with('/')).map(PathBuf::from),
            device_uuid: sysfs::read(namespace.join("device_uuid")).and_then(|u| Uuid::parse_str(&u).ok()),
            enabled: sysfs::read(namespace.join("enable")).as_deref() == Some("1"),
            listening: port
                .and_then(|p| Some((sysfs::read(p.join("addr_traddr"))?, sysfs::number(p.join("addr_trsvcid"))?))),
        }
    }

    /// Exports of a leg: by its device, or by the note that was made before the first directory of the export.
    pub(super) fn exports_of(&self, leg: Uuid, device: Option<&Path>) -> Vec<ExportFacts> {
        self.our_subsystems()
            .into_iter()
            .filter_map(|nqn| {
                let facts = self.export_facts(&nqn);
                let noted = sysfs::read(self.export_note(&nqn)).is_some_and(|n| n.starts_with(&leg.to_string()));
                (noted || (device.is_some() && facts.device.as_deref() == device)).then_some(facts)
            })
            .collect()
    }

    /// The host that an export names, from its note: leg, then host.
    pub(super) fn noted_host(&self, nqn: &str) -> Option<String> {
        let note = sysfs::read(self.export_note(nqn))?;
        let host = note.lines().nth(1)?;
        (!host.is_empty() && !host.contains('/')).then(|| host.to_owned())
    }

    pub(super) fn export_note(&self, nqn: &str) -> PathBuf {
        self.config.run.join("exports").join(nqn)
    }

    pub(super) fn open_export(&self, leg: &LegRef, spec: &ExportSpec) -> Result<ExportFacts> {
        let action = || format!("export leg {} as {}", leg.uuid, spec.nqn);
        if !spec.nqn.starts_with(EXPORT_NQN_PREFIX) || spec.nqn.contains('/') || spec.host_nqn.contains('/') {
            return Err(conflict(action(), "the NQN is not one of ours, or no NQN"));
        }
        let address: IpAddr = spec.address.parse().map_err(|e| failed(action(), e))?;
        let facts = self.leg_facts(leg)?;
        let device = facts.partition.ok_or_else(|| failed(action(), "it has no partition"))?.device;
        if let Some(md) = facts.held_by {
            return Err(busy(action(), format!("a member of {}", md.display())));
        }
        match spec.transport {
            Transport::Tcp => self.load("nvmet_tcp", "nvmet-tcp"),
            Transport::Rdma => self.load("nvmet_rdma", "nvmet-rdma"),
        }
        // Making exports is one at a time: they share the TCP ports and the directories of hosts.
        let _guard = self.lock_exports();
        let there = self.export_facts(&spec.nqn);
        if let Some((at, _)) = &there.listening {
            let same = there.enabled
                && there.device.as_deref() == Some(&device)
                && there.host_nqn.as_deref() == Some(&spec.host_nqn)
                && at == &spec.address;
            return if same { Ok(there) } else { Err(conflict(action(), "another export has this NQN")) };
        }
        if self.subsystem(&spec.nqn).exists() {
            self.close_export_locked(&spec.nqn)?;
        }
        self.sweep_ports()?;
        sysfs::replace(&self.export_note(&spec.nqn), &format!("{}\n{}\n", leg.uuid, spec.host_nqn)).doing(action)?;
        self.make_subsystem(spec, &device).doing(action)?;
        self.listen(spec, address)?;
        Ok(self.export_facts(&spec.nqn))
    }

    /// Subsystem, namespace and allow-list; nothing can reach it before it is linked to a port.
    fn make_subsystem(&self, spec: &ExportSpec, device: &Path) -> io::Result<()> {
        let dir = self.subsystem(&spec.nqn);
        directory(&dir)?;
        sysfs::write(dir.join("attr_allow_any_host"), "0")?;
        if dir.join("attr_qid_max").exists() {
            sysfs::write(dir.join("attr_qid_max"), &spec.io_queues.max(1).to_string())?;
        }
        let host = self.nvmet("hosts").join(&spec.host_nqn);
        directory(&host)?;
        match symlink(&host, dir.join("allowed_hosts").join(&spec.host_nqn)) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            other => other?,
        }
        let namespace = dir.join("namespaces/1");
        directory(&namespace)?;
        sysfs::write(namespace.join("device_path"), &device.to_string_lossy())?;
        // Fresh each time: a host ignores a second namespace with an identity that it still has. The NGUID likewise.
        let uuid = Uuid::new_v4();
        sysfs::write(namespace.join("device_uuid"), &uuid.to_string())?;
        sysfs::write(namespace.join("device_nguid"), &uuid.to_string())?;
        sysfs::write(namespace.join("enable"), "1")
    }

    /// A port of its own and, last of all, the link to it.
    fn listen(&self, spec: &ExportSpec, address: IpAddr) -> Result<()> {
        let action = || format!("listen for {}", spec.nqn);
        let cut = nft::ports()?;
        let first = *self.config.ports.start();
        let count = u32::from(*self.config.ports.end()).saturating_sub(u32::from(first)) + 1;
        // Ports are taken in turn, for as long as possible not again: a fenced consumer still retries the old one, and
        // an answer from another subsystem there would be an error to it, which is no fence.
        let cursor = self.config.state.join("next-port");
        let start = sysfs::number::<u16>(&cursor).map(u32::from).unwrap_or_else(|| {
            u32::from(first) + u32::try_from(Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or(0)
        });
        for offset in 0..count {
            let port = u32::from(first) + (start.saturating_sub(u32::from(first)) + offset) % count;
            let Ok(port) = u16::try_from(port) else { continue };
            if cut.contains(&port) || self.port_is_taken(address, port) {
                continue;
            }
            let next = if port == *self.config.ports.end() { first } else { port + 1 };
            sysfs::replace(&cursor, &next.to_string()).doing(action)?;
            match self.make_port(spec, address, port) {
                // Somebody listens there after all.
                Err(e) if e.kind() == ErrorKind::AddrInUse => self.remove_port(port).doing(action)?,
                other => return other.doing(action),
            }
        }
        Err(failed(action(), "every TCP port of the range is in use"))
    }

    fn port_is_taken(&self, address: IpAddr, port: u16) -> bool {
        let ports = self.nvmet("ports");
        let ours = ports.join(port.to_string()).exists();
        let number = port.to_string();
        let theirs = sysfs::names(&ports)
            .iter()
            .any(|p| sysfs::read(ports.join(p).join("addr_trsvcid")).as_ref() == Some(&number));
        let listening = TcpListener::bind((address, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse);
        ours || theirs || listening
    }

    fn make_port(&self, spec: &ExportSpec, address: IpAddr, port: u16) -> io::Result<()> {
        let dir = self.nvmet("ports").join(port.to_string());
        directory(&dir)?;
        sysfs::write(dir.join("addr_trtype"), fabrics::transport(spec.transport))?;
        sysfs::write(dir.join("addr_adrfam"), if address.is_ipv6() { "ipv6" } else { "ipv4" })?;
        sysfs::write(dir.join("addr_traddr"), &spec.address)?;
        sysfs::write(dir.join("addr_trsvcid"), &port.to_string())?;
        sysfs::write(dir.join("addr_treq"), "not specified")?;
        symlink(self.subsystem(&spec.nqn), dir.join("subsystems").join(&spec.nqn))
    }
}
