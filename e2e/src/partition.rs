//! Partitions: packets of a guest that are dropped, in its own kernel, without a word to anybody.

use anyhow::Result;

use crate::guest::Guest;

/// What does not pass any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// What goes between the node and the API server.
    Control,
    /// What goes between the node and the legs of other nodes, and between them and its own.
    Data,
    /// Both.
    Both,
}

/// In which direction, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What it would hear.
    In,
    /// What it says.
    Out,
    /// Both.
    Both,
}

/// Name of our table in the guest.
const TABLE: &str = "inet partition";
/// Port of the API server.
const API: &str = "6443";
/// Ports of exports, as the daemon's manifest has them. Nobody else's connection may come from one, or it is cut too: the lab's namespace
/// and the guests reserve them (`net.ipv4.ip_local_reserved_ports`).
pub(crate) const LEGS: &str = "42000-42999";

/// Drops packets of `guest` until [`heal`]; existing connections hang.
pub fn cut(guest: &Guest, what: Cut, way: Way) -> Result<()> {
    guest.shell(&script(what, way)).map(drop)
}

/// Lets everything pass again.
pub fn heal(guest: &Guest) -> Result<()> {
    guest.shell(&format!("nft delete table {TABLE}")).map(drop)
}

/// How many packets were dropped since the cut: proof that it fired.
pub fn dropped(guest: &Guest) -> Result<u64> {
    let rules = guest.shell(&format!("nft list table {TABLE}"))?;
    let counts = rules.split("counter packets ").skip(1);
    Ok(counts.filter_map(|rest| rest.split(' ').next()?.parse::<u64>().ok()).sum())
}

fn script(what: Cut, way: Way) -> String {
    let control = (what != Cut::Data).then_some(API);
    let data = (what != Cut::Control).then_some(LEGS);
    let ends = ["sport", "dport"];
    let rules = |chain: &str| -> String {
        let api = control.map(|port| {
            // The guest is always the client of the API server.
            let end = if chain == "in" { "sport" } else { "dport" };
            format!("add rule {TABLE} {chain} tcp {end} {port} counter drop\n")
        });
        let legs = data
            .map(|ports| ends.map(|end| format!("add rule {TABLE} {chain} tcp {end} {ports} counter drop\n")).concat());
        [api, legs].into_iter().flatten().collect()
    };
    let chain = |name: &str, hook: &str| {
        format!("add chain {TABLE} {name} {{ type filter hook {hook} priority 0; }}\n{}", rules(name))
    };
    let heard = if way == Way::Out { String::new() } else { chain("in", "input") };
    let said = if way == Way::In { String::new() } else { chain("out", "output") };
    format!("nft -f - <<'E'\nadd table {TABLE}\n{heard}{said}E")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_cut_is_dropped() {
        let all = script(Cut::Both, Way::Both);
        assert_eq!(all.matches("drop").count(), 6, "{all}");
        let one = script(Cut::Control, Way::In);
        assert!(
            one.contains("in tcp sport 6443 counter drop") && !one.contains("out") && !one.contains("42000"),
            "{one}"
        );
        assert_eq!(script(Cut::Data, Way::Out).matches("out tcp").count(), 2);
    }
}
