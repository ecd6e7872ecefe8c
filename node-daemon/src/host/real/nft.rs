//! The drop of a leg's TCP port: a fenced consumer must see silence, never an error.
//!
//! One table of our own, `inet meshstor`, with one set of ports. Every change is one nftables transaction.

use super::super::Result;
use super::command::{Tool, installed};
use super::error::failed;
use std::collections::BTreeSet;

/// Whether packets can be dropped on this node.
pub(super) fn available() -> bool {
    installed("nft").is_some()
}

/// Drops every packet of a TCP port, of existing connections too, in both directions.
pub(super) fn cut(port: u16) -> Result<()> {
    // `add` of what exists is no error; rules would pile up, so the chains are emptied in the same transaction.
    let script = format!(
        "add table inet meshstor\n\
         add set inet meshstor cut {{ type inet_service; }}\n\
         add chain inet meshstor input {{ type filter hook input priority -300; }}\n\
         add chain inet meshstor output {{ type filter hook output priority -300; }}\n\
         flush chain inet meshstor input\n\
         flush chain inet meshstor output\n\
         add rule inet meshstor input tcp dport @cut drop\n\
         add rule inet meshstor output tcp sport @cut drop\n\
         add element inet meshstor cut {{ {port} }}\n"
    );
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Lets the port's packets through again.
pub(super) fn uncut(port: u16) -> Result<()> {
    if !available() || !ports()?.contains(&port) {
        return Ok(());
    }
    let script = format!("delete element inet meshstor cut {{ {port} }}\n");
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Ports whose packets are dropped now.
pub(super) fn ports() -> Result<BTreeSet<u16>> {
    if !available() {
        return Ok(BTreeSet::new());
    }
    let answer = Tool::new("nft").arg("list").arg("set").arg("inet").arg("meshstor").arg("cut").answer(None)?;
    match answer.code {
        Some(0) => Ok(parse(&answer.stdout)),
        _ if answer.stderr.contains("No such file or directory") => Ok(BTreeSet::new()),
        _ => Err(failed("list the ports that are cut", answer.stderr)),
    }
}

/// The elements in what `nft list set` prints. Pure.
fn parse(listing: &str) -> BTreeSet<u16> {
    let elements = listing.split_once("elements = {").and_then(|(_, rest)| rest.split_once('}'));
    elements.map(|(list, _)| list.split(',').filter_map(|p| p.trim().parse().ok()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_listed_port_is_found(ports in proptest::collection::btree_set(any::<u16>(), 0..30)) {
            let list = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",\n\t\t\t     ");
            let elements = if ports.is_empty() { String::new() } else { format!("\t\telements = {{ {list} }}\n") };
            let text = format!("table inet meshstor {{\n\tset cut {{\n\t\ttype inet_service\n{elements}\t}}\n}}\n");
            prop_assert_eq!(parse(&text), ports);
        }

        #[test]
        fn any_listing_is_read(text in ".{0,80}") {
            let _ = parse(&text);
        }
    }
}
