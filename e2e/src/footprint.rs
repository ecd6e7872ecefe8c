//! What a node's kernel and drives hold that MeshStor could have made: partitions, exports, connections, arrays, mounts and
//! packet filters. Two footprints that are equal prove that nothing was left behind, and nothing foreign was touched.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::Result;

use crate::guest::Guest;

/// A script that prints one line for each thing that is there: partitions by name and place, packet filters by rule (a table
/// without a rule or an element filters nothing).
const SCRIPT: &str = r#"
for p in /sys/class/block/*/partition; do
  [ -e "$p" ] || continue
  dir=${p%/partition}
  name=$(sed -n 's/^PARTNAME=//p' "$dir/uevent")
  echo "partition ${dir##*/} $name $(cat "$dir/start") $(cat "$dir/size")"
done
for d in /sys/kernel/config/nvmet/subsystems/* /sys/kernel/config/nvmet/ports/* /sys/kernel/config/nvmet/hosts/*; do
  [ -e "$d" ] && echo "nvmet ${d#/sys/kernel/config/nvmet/}"
done
for d in /sys/class/nvme/nvme*; do
  [ -e "$d" ] && echo "nvme ${d##*/} $(cat "$d/subsysnqn")"
done
sed -n 's/^\(md[^ ]*\) :.*/array \1/p' /proc/mdstat
nft list ruleset 2>/dev/null | awk '/^table/ { table = $2 " " $3 } /^\t\t/ && !/^\t\ttype / { print "nft " table ":" $0 }' | tr '\t' ' '
sed -n 's#^\(/dev/md[^ ]*\|/dev/nvme[^ ]*\) \([^ ]*\) .*#mount \1 \2#p' /proc/mounts
true
"#;

/// Name of the partition in which a daemon keeps its ledger, which lives as long as the drive is ours.
pub const LEDGER: &str = "ledger";

/// One node's footprint, without ledgers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint(pub BTreeSet<String>);

impl Footprint {
    /// Looks at a node.
    pub fn of(guest: &Guest) -> Result<Self> {
        let lines = guest.shell(SCRIPT)?;
        Ok(Self(lines.lines().filter(|line| !is_ledger(line)).map(str::to_owned).collect()))
    }

    /// What is here but was not in `before`, with `+`, and what is gone since, with `-`.
    pub fn since(&self, before: &Self) -> Vec<String> {
        let new = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let gone = before.0.difference(&self.0).map(|line| format!("- {line}"));
        new.chain(gone).collect()
    }
}

fn is_ledger(line: &str) -> bool {
    line.starts_with("partition ") && line.to_ascii_lowercase().contains(LEDGER)
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.iter().cloned().collect::<Vec<_>>().join("; "))
    }
}
