//! The drop of a leg's TCP port (a fenced consumer must see silence, never an error), and the door before it: so many connections as the
//! consumer makes once are let in, and none after them (rule 9).
//!
//! Tables of our own a port, `inet meshstor-cut-<port>`, `inet meshstor-door-<port>` and `inet meshstor-shut-<port>`: each is made in one nftables transaction and
//! goes in one, so ports share nothing, and nothing is left of one that is closed.

use super::super::Result;
use super::command::{Tool, installed};
use super::error::failed;
use super::sysfs::digits;
use std::collections::BTreeSet;

/// Our tables' names, in front of the port.
const CUT: &str = "meshstor-cut-";
/// The same of doors.
const DOOR: &str = "meshstor-door-";
/// The same of doors that nobody may pass just now.
const SHUT: &str = "meshstor-shut-";

/// Whether packets can be dropped on this node.
pub(super) fn available() -> bool {
    installed("nft").is_some()
}

/// Drops every packet of a TCP port, of existing connections too, in both directions.
pub(super) fn cut(port: u16) -> Result<()> {
    // `add` of what exists is no error; rules would pile up, so the chains are emptied in the same transaction.
    let script = format!(
        "add table inet {CUT}{port}\n\
         add chain inet {CUT}{port} input {{ type filter hook input priority -300; }}\n\
         add chain inet {CUT}{port} output {{ type filter hook output priority -300; }}\n\
         flush chain inet {CUT}{port} input\n\
         flush chain inet {CUT}{port} output\n\
         add rule inet {CUT}{port} input tcp dport {port} drop\n\
         add rule inet {CUT}{port} output tcp sport {port} drop\n"
    );
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Lets in so many connections to a TCP port, ever, and drops what would open another.
///
/// The set of their source ports has just so much room, and the kernel adds to it while the packet waits: there is no moment between the
/// last that is let in and the shutting. A packet that is sent again opens no other.
pub(super) fn door(port: u16, connections: u16) -> Result<()> {
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&door_script(port, connections))).map(|_| ())
}

fn door_script(port: u16, connections: u16) -> String {
    let table = format!("inet {DOOR}{port}");
    let opens = opens(port);
    format!(
        "add table {table}\n\
         delete table {table}\n\
         add table {table}\n\
         add set {table} seen {{ type inet_service; size {connections}; flags dynamic; }}\n\
         add chain {table} input {{ type filter hook input priority -290; }}\n\
         add rule {table} input {opens} tcp sport @seen accept\n\
         add rule {table} input {opens} add @seen {{ tcp sport }} accept\n\
         add rule {table} input {opens} drop\n"
    )
}

/// What would open a connection to a port.
fn opens(port: u16) -> String {
    format!("tcp dport {port} tcp flags & (fin | syn | rst | ack) == syn")
}

/// Whether a connection was ever let in through the door of a port; not so where there is none.
pub(super) fn was_used(port: u16) -> Result<bool> {
    let table = format!("{DOOR}{port}");
    if !tables()?.contains(&table) {
        return Ok(false);
    }
    let listing = Tool::new("nft").arg("list").arg("set").arg("inet").arg(&table).arg("seen").run()?;
    has_elements(&listing).ok_or_else(|| failed("read who passed a door", format!("{listing:?} is no set")))
}

/// Whether a set that `nft list set` prints has elements; none where it prints anything else, or not to its end. Pure.
fn has_elements(listing: &str) -> Option<bool> {
    let lines: Vec<&str> = listing.lines().map(str::trim).collect();
    let whole = lines.first()?.starts_with("table inet ")
        && lines.get(1)?.starts_with("set ")
        && lines.ends_with(&["}", "}"])
        && listing.ends_with('\n');
    whole.then(|| lines.iter().any(|line| line.starts_with("elements = {")))
}

/// Drops what would open a connection to a port, whoever sends it, until [`unshut`] or [`clear`].
pub(super) fn shut(port: u16) -> Result<()> {
    if !available() {
        return Ok(());
    }
    let (table, opens) = (format!("inet {SHUT}{port}"), opens(port));
    let script = format!(
        "add table {table}\n\
         delete table {table}\n\
         add table {table}\n\
         add chain {table} input {{ type filter hook input priority -295; }}\n\
         add rule {table} input {opens} drop\n"
    );
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Undoes [`shut`].
pub(super) fn unshut(port: u16) -> Result<()> {
    if !available() {
        return Ok(());
    }
    let script = format!("add table inet {SHUT}{port}\ndelete table inet {SHUT}{port}\n");
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Lets every packet of the port through.
pub(super) fn clear(port: u16) -> Result<()> {
    if !available() {
        return Ok(());
    }
    let tables = tables()?;
    let ours = [CUT, DOOR, SHUT].map(|kind| format!("{kind}{port}"));
    let script: String =
        ours.iter().filter(|name| tables.contains(*name)).map(|name| format!("delete table inet {name}\n")).collect();
    if script.is_empty() {
        return Ok(());
    }
    Tool::new("nft").arg("-f").arg("-").run_with(Some(&script)).map(|_| ())
}

/// Ports whose packets are dropped now, all of them or those that would open another connection.
pub(super) fn ports() -> Result<BTreeSet<u16>> {
    let tables = tables()?;
    // A table with a port that is none was made by hand.
    let port =
        |name: &String| [CUT, DOOR, SHUT].iter().find_map(|kind| name.strip_prefix(kind)).and_then(digits::<u16>);
    Ok(tables.iter().filter_map(port).collect())
}

fn tables() -> Result<BTreeSet<String>> {
    if !available() {
        return Ok(BTreeSet::new());
    }
    let listing = Tool::new("nft").arg("list").arg("tables").arg("inet").run()?;
    parse(&listing).ok_or_else(|| failed("list the packet filters", format!("{listing:?} is no list of tables")))
}

/// Names in what `nft list tables inet` prints; none where it prints anything else, or not to its end. Pure.
fn parse(listing: &str) -> Option<BTreeSet<String>> {
    if !(listing.is_empty() || listing.ends_with('\n')) {
        return None;
    }
    let lines = listing.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| line.trim().strip_prefix("table inet ").map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Rule 9: as many as there is room for, and only what opens a connection is looked at.
    #[test]
    fn a_door_lets_in_so_many() {
        let script = door_script(42001, 3);
        assert!(script.contains("size 3; flags dynamic"), "{script}");
        assert_eq!(script.matches("tcp dport 42001 tcp flags & (fin | syn | rst | ack) == syn").count(), 3);
        assert!(script.ends_with("== syn drop\n"));
    }

    /// Rule 9: whoever was let in is seen, and half an answer is none.
    #[test]
    fn a_door_tells_whether_it_was_used() {
        let head =
            "table inet meshstor-door-42001 {\n\tset seen {\n\t\ttype inet_service\n\t\tsize 3\n\t\tflags dynamic\n";
        let used = format!("{head}\t\telements = {{ 40001, 40002,\n\t\t\t     40003 }}\n\t}}\n}}\n");
        assert_eq!(has_elements(&format!("{head}\t}}\n}}\n")), Some(false));
        assert_eq!(has_elements(&used), Some(true));
        for cut in 0..used.len() {
            assert_eq!(has_elements(&used[..cut]), None, "{cut}");
        }
    }

    proptest! {
        #[test]
        fn every_listed_table_is_found(ports in proptest::collection::btree_set(any::<u16>(), 0..30)) {
            let ours = ports.iter().map(|port| format!("table inet {CUT}{port}\n")).collect::<String>();
            let text = format!("table inet filter\n{ours}table inet meshstor-door-1\n");
            let names = ports.iter().map(|port| format!("{CUT}{port}"));
            let want: BTreeSet<String> = names.chain(["filter".to_owned(), format!("{DOOR}1")]).collect();
            prop_assert_eq!(parse(&text), Some(want));
            prop_assert_eq!(parse(&format!("{text}table inet meshstor-cut-4")), None);
            prop_assert_eq!(parse(&format!("{text}tab")), None);
        }

        #[test]
        fn any_listing_is_read(text in ".{0,80}") {
            let _ = (parse(&text), has_elements(&text));
        }
    }
}
