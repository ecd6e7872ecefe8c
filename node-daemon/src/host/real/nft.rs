//! The drop of a leg's TCP port: a fenced consumer must see silence, never an error.
//!
//! One table of our own a port, `inet meshstor-cut-<port>`: it is made in one nftables transaction and goes in one, so ports that
//! are cut at the same time share nothing, and nothing is left when none is cut.

use super::super::Result;
use super::command::{Tool, installed};
use super::error::failed;
use super::sysfs::digits;
use std::collections::BTreeSet;

/// Our tables' names, in front of the port.
const PREFIX: &str = "meshstor-cut-";

/// Whether packets can be dropped on this node.
pub(super) fn available() -> bool {
    installed("nft").is_some()
}

/// Drops every packet of a TCP port, of existing connections too, in both directions.
pub(super) fn cut(port: u16) -> Result<()> {
    // `add` of what exists is no error; rules would pile up, so the chains are emptied in the same transaction.
    let script = format!(
        "add table inet {PREFIX}{port}\n\
         add chain inet {PREFIX}{port} input {{ type filter hook input priority -300; }}\n\
         add chain inet {PREFIX}{port} output {{ type filter hook output priority -300; }}\n\
         flush chain inet {PREFIX}{port} input\n\
         flush chain inet {PREFIX}{port} output\n\
         add rule inet {PREFIX}{port} input tcp dport {port} drop\n\
         add rule inet {PREFIX}{port} output tcp sport {port} drop\n"
    );
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Lets the port's packets through again.
pub(super) fn uncut(port: u16) -> Result<()> {
    if !available() || !ports()?.contains(&port) {
        return Ok(());
    }
    let script = format!("delete table inet {PREFIX}{port}\n");
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Ports whose packets are dropped now.
pub(super) fn ports() -> Result<BTreeSet<u16>> {
    if !available() {
        return Ok(BTreeSet::new());
    }
    let listing = Tool::new("nft").arg("list").arg("tables").arg("inet").run()?;
    parse(&listing).ok_or_else(|| failed("list the packet filters", format!("{listing:?} is no list of tables")))
}

/// Our ports in what `nft list tables` prints; none where it prints anything else, or not to its end. Pure.
fn parse(listing: &str) -> Option<BTreeSet<u16>> {
    if !(listing.is_empty() || listing.ends_with('\n')) {
        return None;
    }
    let mut ports = BTreeSet::new();
    for line in listing.lines().filter(|line| !line.trim().is_empty()) {
        let name = line.trim().strip_prefix("table inet ")?;
        // A table with a port that is none was made by hand.
        ports.extend(name.strip_prefix(PREFIX).and_then(digits::<u16>));
    }
    Some(ports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_listed_port_is_found(ports in proptest::collection::btree_set(any::<u16>(), 0..30)) {
            let ours = ports.iter().map(|port| format!("table inet {PREFIX}{port}\n")).collect::<String>();
            let text = format!("table inet filter\n{ours}table inet meshstor-cut-x\n");
            prop_assert_eq!(parse(&text), Some(ports));
            prop_assert_eq!(parse(&format!("{text}table inet meshstor-cut-4")), None);
            prop_assert_eq!(parse(&format!("{text}tab")), None);
        }

        #[test]
        fn any_listing_is_read(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
