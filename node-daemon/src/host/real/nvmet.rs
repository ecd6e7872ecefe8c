//! Exports through configfs: what is there, and making one.
//!
//! Each export has a subsystem, a port directory and a TCP port of its own, so that fencing it is nobody else's matter. The
//! port directory's number is the TCP port, and numbers of our range are ours: what a crash left half made is known by it.

use super::super::{ExportFacts, ExportSpec, HostError, LegRef, Result};
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

/// The device of a namespace: none before it has one, for which the kernel writes `(null)`.
fn device_path(text: &str) -> Option<Option<PathBuf>> {
    match text {
        "(null)" => Some(None),
        path if path.starts_with('/') => Some(Some(PathBuf::from(path))),
        _ => None,
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
    ///
    /// # Errors
    /// Also where nvmet is in the kernel and its configfs is not seen: exports may be open there.
    pub(super) fn our_subsystems(&self) -> Result<Vec<String>> {
        let dir = self.nvmet("subsystems");
        if !sysfs::exists(&dir)? {
            for module in ["nvmet", "nvmet_tcp", "nvmet_rdma", "nvmet_fc", "nvme_loop"] {
                if sysfs::exists(self.config.sys.join("module").join(module))? {
                    return Err(sysfs::bad(
                        dir,
                        format!("{module} is in the kernel, but configfs is not mounted there"),
                    ));
                }
            }
            return Ok(vec![]);
        }
        Ok(sysfs::names(dir)?.into_iter().filter(|n| n.starts_with(EXPORT_NQN_PREFIX)).collect())
    }

    /// Port directories that a subsystem is linked to: one for ours, none before the end of making it.
    pub(super) fn ports_of(&self, nqn: &str) -> Result<Vec<String>> {
        let ports = self.nvmet("ports");
        let mut linked = vec![];
        for port in sysfs::names(&ports)? {
            let link = ports.join(&port).join("subsystems").join(nqn);
            match fs::symlink_metadata(&link) {
                Ok(_) => linked.push(port),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(sysfs::bad(link, e)),
            }
        }
        Ok(linked)
    }

    /// None when the export is gone.
    pub(super) fn export_facts(&self, nqn: &str) -> Result<Option<ExportFacts>> {
        let dir = self.subsystem(nqn);
        if !sysfs::exists(&dir)? {
            return Ok(None);
        }
        let namespace = dir.join("namespaces/1");
        let device = sysfs::parsed(namespace.join("device_path"), "device", device_path)?.flatten();
        let device_uuid = sysfs::parsed(namespace.join("device_uuid"), "UUID", |t| Uuid::parse_str(t).ok())?;
        let enabled = sysfs::flag(namespace.join("enable"))?;
        let whole = device_uuid.is_some() && enabled.is_some();
        if sysfs::exists(&namespace)? && !(whole && sysfs::exists(namespace.join("device_path"))?) {
            return Err(sysfs::bad(namespace, "one of its attributes is not there"));
        }
        let port = self.ports_of(nqn)?.into_iter().next();
        Ok(Some(ExportFacts {
            nqn: nqn.to_owned(),
            host_nqn: self.allowed(&dir)?,
            device,
            device_uuid,
            enabled: enabled.unwrap_or(false),
            listening: port.map(|p| self.listener(&self.nvmet("ports").join(p))).transpose()?,
        }))
    }

    /// Whom an export lets in: the one host; what is no NQN where it lets in more than one.
    fn allowed(&self, subsystem: &Path) -> Result<Option<String>> {
        let hosts = sysfs::need_names(subsystem.join("allowed_hosts"))?;
        let anybody = sysfs::flag(subsystem.join("attr_allow_any_host"))?;
        let anybody = anybody.ok_or_else(|| sysfs::bad(subsystem, "attr_allow_any_host is not there"))?;
        Ok(match (anybody, hosts.as_slice()) {
            (true, _) => Some("any host".to_owned()),
            (false, []) => None,
            (false, hosts) => Some(hosts.join(" and ")),
        })
    }

    fn listener(&self, port: &Path) -> Result<(String, u16)> {
        let address = |t: &str| t.parse::<IpAddr>().is_ok().then(|| t.to_owned());
        let number = sysfs::need_number(port.join("addr_trsvcid"))?;
        Ok((sysfs::needed(port.join("addr_traddr"), "address", address)?, number))
    }

    /// Exports of a leg: by its device, or by the note that was made before the first directory of the export. The note says
    /// whose an export is whose device cannot be read.
    pub(super) fn exports_of(&self, leg: Uuid, device: Option<&Path>) -> Result<Vec<ExportFacts>> {
        let mut exports = vec![];
        for nqn in self.our_subsystems()? {
            let noted = self.export_noted(&nqn);
            let another = matches!(&noted, Ok(Some((noted, _))) if *noted != leg);
            let facts = match self.export_facts(&nqn) {
                Ok(Some(facts)) => facts,
                Ok(None) => continue,
                // Half made ones have a note before they have anything else.
                Err(_) if another => continue,
                Err(error) => return Err(error),
            };
            let by_device = device.is_some() && facts.device.as_deref() == device;
            match noted {
                Ok(Some((noted, _))) if noted == leg => exports.push(facts),
                _ if by_device => exports.push(facts),
                Err(error) if facts.device.is_none() => return Err(error),
                _ => {}
            }
        }
        Ok(exports)
    }

    /// Leg and host of an export, from its note.
    fn export_noted(&self, nqn: &str) -> Result<Option<(Uuid, String)>> {
        let note = |text: &str| {
            let (leg, host) = text.split_once('\n')?;
            let whole = !host.is_empty() && !host.contains(['/', '\n']);
            Some((Uuid::parse_str(leg).ok()?, whole.then(|| host.to_owned())?))
        };
        sysfs::parsed(self.export_note(nqn), "note of an export", note)
    }

    /// The host that an export names, from its note.
    pub(super) fn noted_host(&self, nqn: &str) -> Option<String> {
        self.export_noted(nqn).ok().flatten().map(|(_, host)| host)
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
        match self.export_facts(&spec.nqn)? {
            Some(there) if there.listening.is_some() => {
                let same = there.enabled
                    && there.device.as_deref() == Some(&device)
                    && there.host_nqn.as_deref() == Some(&spec.host_nqn)
                    && there.listening.as_ref().is_some_and(|(at, _)| at == &spec.address);
                return if same { Ok(there) } else { Err(conflict(action(), "another export has this NQN")) };
            }
            Some(_) => self.close_export_locked(&spec.nqn)?,
            None => {}
        }
        self.sweep_ports()?;
        sysfs::replace(&self.export_note(&spec.nqn), &format!("{}\n{}\n", leg.uuid, spec.host_nqn)).doing(action)?;
        self.make_subsystem(spec, &device, Uuid::new_v4()).doing(action)?;
        self.listen(spec, address)?;
        self.export_facts(&spec.nqn)?.ok_or_else(|| failed(action(), "it is gone again"))
    }

    /// Closes an export with its barrier and opens it again as it was, so that its consumer may come back once (rule 9).
    ///
    /// Subsystem and namespace are others than before, of the same names: what an old connection still brings finds neither. A crash in
    /// between leaves nothing: the grant is spent.
    pub(super) fn open_again(&self, leg: &LegRef, spec: &ExportSpec) -> Result<()> {
        let action = || format!("open {} again", spec.nqn);
        let was = self.export_facts(&spec.nqn)?.ok_or_else(|| failed(action(), "it is not there"))?;
        let (Some((at, port)), Some(uuid), Some(device)) = (was.listening, was.device_uuid, was.device) else {
            return Err(conflict(action(), "it is only half there"));
        };
        if at != spec.address || was.host_nqn.as_deref() != Some(&spec.host_nqn) {
            return Err(conflict(action(), "it is not what the grant says"));
        }
        let address: IpAddr = at.parse().map_err(|e| failed(action(), e))?;
        // Whoever is let in just now would be cut off between two commands, and wait a minute for an answer.
        nft::shut(port)?;
        let connected = self.has_connection(port);
        if !matches!(connected, Ok(false)) {
            nft::unshut(port)?;
            return connected.and_then(|_| Err(busy(action(), "somebody is connected")));
        }
        self.cut_and_drain(&spec.nqn)?;
        let _guard = self.lock_exports();
        self.sweep_ports()?;
        self.remove_subsystem(&spec.nqn)?;
        sysfs::replace(&self.export_note(&spec.nqn), &format!("{}\n{}\n", leg.uuid, spec.host_nqn)).doing(action)?;
        self.make_subsystem(spec, &device, uuid).doing(action)?;
        self.make_port(spec, address, port)
    }

    /// Whether somebody came in through the door of an export and nobody is inside. What has no door shuts nobody out.
    pub(super) fn has_left(&self, export: &ExportFacts) -> Result<bool> {
        let Some((_, port)) = export.listening else { return Ok(false) };
        Ok(nft::was_used(port)? && !self.has_connection(port)?)
    }

    /// Whether anybody has a connection to a port.
    pub(super) fn has_connection(&self, port: u16) -> Result<bool> {
        for table in ["net/tcp", "net/tcp6"] {
            let path = self.config.proc.join(table);
            let text = sysfs::whole_table(&path)?.unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            if established(&text, port).ok_or_else(|| sysfs::bad(&path, "it is no table of sockets"))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Subsystem, namespace and allow-list; nothing can reach it before it is linked to a port. The namespace's identity is fresh with each
    /// grant: a host ignores a second namespace with one that it still has.
    fn make_subsystem(&self, spec: &ExportSpec, device: &Path, uuid: Uuid) -> io::Result<()> {
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
        // A cursor that was lost costs nothing.
        let start = sysfs::number::<u16>(&cursor).ok().flatten().map(u32::from).unwrap_or_else(|| {
            u32::from(first) + u32::try_from(Uuid::new_v4().as_u128() % u128::from(count)).unwrap_or(0)
        });
        for offset in 0..count {
            let port = u32::from(first) + (start.saturating_sub(u32::from(first)) + offset) % count;
            let Ok(port) = u16::try_from(port) else { continue };
            if cut.contains(&port) || self.port_is_taken(address, port)? {
                continue;
            }
            let next = if port == *self.config.ports.end() { first } else { port + 1 };
            sysfs::replace(&cursor, &format!("{next}\n")).doing(action)?;
            match self.make_port(spec, address, port) {
                // Somebody listens there after all.
                Err(HostError::Busy { .. }) => {
                    self.remove_port(port).doing(action)?;
                    nft::clear(port)?;
                }
                other => return other,
            }
        }
        Err(failed(action(), "every TCP port of the range is in use"))
    }

    fn port_is_taken(&self, address: IpAddr, port: u16) -> Result<bool> {
        let ports = self.nvmet("ports");
        let number = port.to_string();
        for other in sysfs::names(&ports)? {
            // Somebody's listener that is no number is not at ours.
            if other == number || sysfs::read(ports.join(other).join("addr_trsvcid"))?.as_ref() == Some(&number) {
                return Ok(true);
            }
        }
        Ok(TcpListener::bind((address, port)).is_err_and(|e| e.kind() == ErrorKind::AddrInUse))
    }

    /// The directory of a port, the door before it, and the link that opens it.
    fn make_port(&self, spec: &ExportSpec, address: IpAddr, port: u16) -> Result<()> {
        let action = || format!("listen at {address}:{port}");
        self.prepare_port(spec, address, port).doing(action)?;
        if spec.transport == Transport::Tcp && nft::available() {
            // One for the admin queue.
            nft::door(port, spec.io_queues.max(1) + 1)?;
        }
        let link = self.nvmet("ports").join(port.to_string()).join("subsystems").join(&spec.nqn);
        symlink(self.subsystem(&spec.nqn), link).map_err(|e| match e.kind() {
            ErrorKind::AddrInUse => busy(action(), e),
            _ => failed(action(), e),
        })
    }

    fn prepare_port(&self, spec: &ExportSpec, address: IpAddr, port: u16) -> io::Result<()> {
        let dir = self.nvmet("ports").join(port.to_string());
        directory(&dir)?;
        sysfs::write(dir.join("addr_trtype"), fabrics::transport(spec.transport))?;
        sysfs::write(dir.join("addr_adrfam"), if address.is_ipv6() { "ipv6" } else { "ipv4" })?;
        sysfs::write(dir.join("addr_traddr"), &spec.address)?;
        sysfs::write(dir.join("addr_trsvcid"), &port.to_string())?;
        sysfs::write(dir.join("addr_treq"), "not specified")
    }
}

/// Whether `/proc/net/tcp` has a connection to a local port that is up or about to be; none where it is no such table. Pure.
fn established(table: &str, port: u16) -> Option<bool> {
    /// Of `include/net/tcp_states.h`: ESTABLISHED, SYN_RECV, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING, NEW_SYN_RECV.
    const OPEN: [u8; 8] = [0x01, 0x03, 0x04, 0x05, 0x08, 0x09, 0x0B, 0x0C];
    let mut lines = table.lines();
    if table.is_empty() {
        return Some(false);
    }
    lines.next().filter(|head| head.contains("local_address"))?;
    let mut found = false;
    for line in lines {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let number = u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok()?;
        found |= number == port && OPEN.contains(&u8::from_str_radix(state, 16).ok()?);
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn socket(port: u16, state: &str) -> String {
        format!(
            "   0: 0B4D000A:{port:04X} 0C4D000A:9C40 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 20 4 30 10 -1\n"
        )
    }

    /// Rule 9: a port that somebody has a connection to is not taken for a quiet one.
    #[test]
    fn a_connection_is_one_of_that_port_that_is_up() {
        for (state, up) in [("01", true), ("03", true), ("08", true), ("0A", false), ("06", false), ("07", false)] {
            assert_eq!(established(&format!("{HEAD}{}", socket(42001, state)), 42001), Some(up), "{state}");
        }
        assert_eq!(established(&format!("{HEAD}{}", socket(42001, "01")), 42002), Some(false));
        assert_eq!(established("", 42001), Some(false), "a kernel without IPv6");
        assert_eq!(established("something else\n", 42001), None);
        assert_eq!(established(&format!("{HEAD}   0: 0B4D000A:A411"), 42001), None, "cut short");
    }

    proptest! {
        #[test]
        fn any_table_is_read(text in "(?s).{0,120}") {
            let _ = (established(&text, 1), established(&format!("{HEAD}{text}"), 1));
        }
    }
}
