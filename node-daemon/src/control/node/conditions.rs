//! How fit the node is, as conditions. Pure.

use std::collections::BTreeMap;

use meshstor_crds::conditions::{self as c, Want};

use crate::host::{DriveFacts, DriveFault, NodeFacts, Unusable};
use crate::quarantine::Kept;

/// What a kernel must be able to do.
const OF_KERNEL: [&str; 3] = ["raid1", "nvmet-tcp", "nvme-tcp"];
/// Programs without which no volume can be served.
const TOOLS: [&str; 2] = ["mdadm", "nft"];

/// How many things in quarantine a message names.
const NAMED: usize = 3;

/// Every condition of a node that was looked at.
pub(super) fn wants(facts: &NodeFacts, addresses: &[String]) -> Vec<Want> {
    let kernel = kernel(facts);
    let mut wants = ready(facts, &kernel, addresses);
    wants.extend([kernel, assembly(facts), drives(&facts.drives)]);
    wants
}

/// Whether only a reboot lets go of some volume, by volume and with the reason.
pub(super) fn reboot(stuck: &BTreeMap<String, String>) -> Want {
    if stuck.is_empty() {
        return Want::new(c::REBOOT_REQUIRED, false, c::REASON_OK, "no array here outlives its epoch");
    }
    let each: Vec<String> = stuck.iter().map(|(volume, why)| format!("{volume}: {why}")).collect();
    let message = format!("{}; its writes stay held until the node reboots", each.join("; "));
    Want::new(c::REBOOT_REQUIRED, true, c::REASON_WRITES_HELD, message)
}

/// Whether everything of ours on the node belongs to an object; names the first of what does not.
pub(super) fn owned(quarantine: Option<&Kept>) -> Want {
    let (type_, reason) = (c::EVERYTHING_OWNED, c::REASON_HOST_ERROR);
    let unknown = |why: &str| Want { type_, status: None, reason, message: why.to_owned() };
    let Some(Kept { items, unseen }) = quarantine else {
        return unknown("what belongs to no object was not looked for yet");
    };
    if items.is_empty() {
        if let Some(why) = unseen {
            return unknown(why);
        }
        return Want::new(type_, true, c::REASON_OK, "everything of MeshStor's here belongs to an object");
    }
    let first: Vec<&str> = items.iter().take(NAMED).map(|item| item.id.as_str()).collect();
    let more = if items.len() > NAMED { ", …" } else { "" };
    let message = format!(
        "{} in quarantine, which no object names: {}{more}; see status.quarantine, or: meshstor quarantine list",
        items.len(),
        first.join(", ")
    );
    Want::new(type_, false, c::REASON_QUARANTINED, message)
}

/// Those of a node that could not be looked at.
pub(super) fn unseen(error: &str) -> Vec<Want> {
    let unknown = |type_| Want {
        type_,
        status: None,
        reason: c::REASON_HOST_ERROR,
        message: "the node could not be looked at".to_owned(),
    };
    let mut wants = not_ready(c::REASON_HOST_ERROR, error.to_owned());
    wants.extend([c::KERNEL_SUPPORTED, c::ASSEMBLY_GUARDED, c::DRIVES_USABLE].map(unknown));
    wants
}

/// Foreign rules and single drives do not make a node unready: what it has served it serves on, and other drives are good.
fn ready(facts: &NodeFacts, kernel: &Want, addresses: &[String]) -> Vec<Want> {
    let tools = missing(facts, &TOOLS);
    if kernel.status != Some(true) {
        not_ready(kernel.reason, kernel.message.clone())
    } else if !tools.is_empty() {
        not_ready(c::REASON_MISSING_CAPABILITY, tools.join("; "))
    } else if addresses.is_empty() {
        not_ready(c::REASON_HOST_ERROR, "no fabric address: start the daemon with --address".to_owned())
    } else {
        vec![Want::new(c::READY, true, c::REASON_OK, "serves legs and arrays")]
    }
}

fn not_ready(reason: &'static str, message: String) -> Vec<Want> {
    vec![Want::new(c::READY, false, reason, message.clone()), Want::new(c::STALLED, true, reason, message)]
}

fn kernel(facts: &NodeFacts) -> Want {
    let lacks = missing(facts, &OF_KERNEL);
    match &facts.kernel_fault {
        Some(fault) => Want::new(c::KERNEL_SUPPORTED, false, c::REASON_KERNEL_UNSAFE, fault),
        None if !lacks.is_empty() => {
            Want::new(c::KERNEL_SUPPORTED, false, c::REASON_MISSING_CAPABILITY, lacks.join("; "))
        }
        None => Want::new(c::KERNEL_SUPPORTED, true, c::REASON_OK, format!("Linux {}", facts.kernel_release)),
    }
}

/// What of `wanted` was looked for and is not there, each with its remedy.
fn missing(facts: &NodeFacts, wanted: &[&str]) -> Vec<String> {
    let absent = facts.capabilities.iter().filter(|(name, there, _)| !there && wanted.contains(&name.as_str()));
    absent.map(|(name, _, remedy)| format!("{name}: {remedy}")).collect()
}

fn assembly(facts: &NodeFacts) -> Want {
    let reason = match facts.assembly.guarded {
        Some(true) => c::REASON_OK,
        Some(false) => c::REASON_FOREIGN_RULES,
        None => c::REASON_HOST_ERROR,
    };
    let message = facts.assembly.message.clone();
    Want { type_: c::ASSEMBLY_GUARDED, status: facts.assembly.guarded, reason, message }
}

/// Names every drive that cannot be used; the reason is the gravest one.
fn drives(drives: &[DriveFacts]) -> Want {
    let bad: Vec<(&DriveFacts, &Unusable)> = drives.iter().filter_map(|d| Some((d, d.unusable.as_ref()?))).collect();
    let some = |fault: DriveFault| bad.iter().any(|(_, u)| u.fault == fault);
    let reason = if some(DriveFault::NoStableIdentity) {
        c::REASON_NO_STABLE_IDENTITY
    } else if some(DriveFault::SectorSize) {
        c::REASON_SECTOR_SIZE
    } else if !bad.is_empty() {
        c::REASON_DRIVE_UNUSABLE
    } else {
        return Want::new(c::DRIVES_USABLE, true, c::REASON_OK, format!("{} drives", drives.len()));
    };
    let each: Vec<String> = bad.iter().map(|(d, u)| format!("{} ({}): {}", d.path.display(), d.id, u.why)).collect();
    Want::new(c::DRIVES_USABLE, false, reason, each.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Assembly;
    use meshstor_crds::{QuarantineKind, Quarantined, Time};

    /// I7: a node that must reboot says so and why, and one that need not does not.
    #[test]
    fn a_node_that_holds_writes_of_an_old_epoch_must_reboot() {
        let free = reboot(&BTreeMap::new());
        assert_eq!((free.status, free.reason), (Some(false), c::REASON_OK));
        let held = reboot(&BTreeMap::from([("v".to_owned(), "block device dm-0 cannot be killed".to_owned())]));
        assert_eq!((held.status, held.reason), (Some(true), c::REASON_WRITES_HELD));
        assert!(held.message.starts_with("v: block device dm-0"), "{}", held.message);
    }

    /// I7: where something could not be looked for, nothing says that everything belongs to an object.
    #[test]
    fn what_no_object_names_is_counted_and_named() {
        let said = |kept: Option<&Kept>| {
            let want = owned(kept);
            (want.status, want.reason, want.message)
        };
        let item = |n: usize| Quarantined {
            id: format!("partition/{n}"),
            kind: QuarantineKind::Partition,
            drive: None,
            path: None,
            first_byte: None,
            size_bytes: None,
            label: None,
            volume: None,
            since: Time(jiff::Timestamp::UNIX_EPOCH),
            message: String::new(),
            leg: None,
            in_use: None,
            wipe_spent: false,
        };
        assert_eq!(said(None).0, None);
        let mut kept = Kept::default();
        assert_eq!((said(Some(&kept)).0, said(Some(&kept)).1), (Some(true), c::REASON_OK));
        kept.unseen = Some("no sysfs".to_owned());
        assert_eq!(said(Some(&kept)), (None, c::REASON_HOST_ERROR, "no sysfs".to_owned()));
        kept.items = (0..5).map(item).collect();
        let (status, reason, message) = said(Some(&kept));
        assert_eq!((status, reason), (Some(false), c::REASON_QUARANTINED));
        assert!(message.starts_with("5 in quarantine") && message.contains("partition/2, …"), "{message}");
    }

    fn facts() -> NodeFacts {
        let there = |name: &&str| ((*name).to_owned(), true, String::new());
        NodeFacts {
            kernel_release: "7.3.4".to_owned(),
            capabilities: OF_KERNEL.iter().chain(&TOOLS).map(there).collect(),
            assembly: Assembly { guarded: Some(true), message: "no udev".to_owned() },
            drives: vec![drive("a", None)],
            ..NodeFacts::default()
        }
    }

    fn drive(id: &str, unusable: Option<(DriveFault, &str)>) -> DriveFacts {
        DriveFacts {
            id: id.to_owned(),
            path: format!("/dev/{id}").into(),
            model: None,
            size: 1 << 30,
            sector: 512,
            free: vec![],
            unusable: unusable.map(|(fault, why)| Unusable { fault, why: why.to_owned() }),
        }
    }

    /// Status, reason and message of one condition.
    fn said(wants: &[Want], type_: &str) -> (Option<bool>, &'static str, String) {
        let want = wants.iter().find(|w| w.type_ == type_).unwrap_or_else(|| panic!("no {type_}"));
        (want.status, want.reason, want.message.clone())
    }

    fn of(facts: &NodeFacts) -> Vec<Want> {
        wants(facts, &["10.0.0.1".to_owned()])
    }

    #[test]
    fn a_fit_node_says_so_four_times() {
        let wants = of(&facts());
        for type_ in [c::READY, c::KERNEL_SUPPORTED, c::ASSEMBLY_GUARDED, c::DRIVES_USABLE] {
            let (status, reason, _) = said(&wants, type_);
            assert_eq!((status, reason), (Some(true), c::REASON_OK), "{type_}");
        }
        assert!(!wants.iter().any(|w| w.type_ == c::STALLED));
    }

    #[test]
    fn an_unsafe_kernel_makes_the_node_unready_with_the_remedy() {
        let fault = Some("boot a newer kernel".to_owned());
        let wants = of(&NodeFacts { kernel_fault: fault, ..facts() });
        for type_ in [c::READY, c::KERNEL_SUPPORTED] {
            let expected = (Some(false), c::REASON_KERNEL_UNSAFE, "boot a newer kernel".to_owned());
            assert_eq!(said(&wants, type_), expected, "{type_}");
        }
        assert_eq!(said(&wants, c::STALLED).0, Some(true));
    }

    #[test]
    fn every_missing_module_is_named_and_a_missing_tool_is_no_fault_of_the_kernel() {
        let lacking = |names: &[&str]| {
            let mut facts = facts();
            for (name, there, remedy) in &mut facts.capabilities {
                if names.contains(&name.as_str()) {
                    (*there, *remedy) = (false, format!("get {name}"));
                }
            }
            of(&facts)
        };
        let wants = lacking(&["raid1", "nvme-tcp"]);
        let (status, reason, message) = said(&wants, c::KERNEL_SUPPORTED);
        assert_eq!((status, reason), (Some(false), c::REASON_MISSING_CAPABILITY));
        assert_eq!(message, "raid1: get raid1; nvme-tcp: get nvme-tcp");
        assert_eq!(said(&wants, c::READY).0, Some(false));

        let wants = lacking(&["nft"]);
        assert_eq!(said(&wants, c::KERNEL_SUPPORTED).0, Some(true));
        assert_eq!(said(&wants, c::READY).1, c::REASON_MISSING_CAPABILITY);
    }

    #[test]
    fn foreign_rules_are_said_and_leave_the_node_ready() {
        let assembly = Assembly { guarded: Some(false), message: "70-x.rules: mask it".to_owned() };
        let wants = of(&NodeFacts { assembly, ..facts() });
        let expected = (Some(false), c::REASON_FOREIGN_RULES, "70-x.rules: mask it".to_owned());
        assert_eq!(said(&wants, c::ASSEMBLY_GUARDED), expected);
        assert_eq!(said(&wants, c::READY).0, Some(true));
    }

    #[test]
    fn each_unusable_drive_is_named_and_a_missing_identity_is_the_gravest() {
        let mut facts = facts();
        facts.drives.push(drive("b", Some((DriveFault::Other, "holds ext4"))));
        assert_eq!(said(&of(&facts), c::DRIVES_USABLE).1, c::REASON_DRIVE_UNUSABLE);
        facts.drives.push(drive("c", Some((DriveFault::SectorSize, "1024 bytes"))));
        assert_eq!(said(&of(&facts), c::DRIVES_USABLE).1, c::REASON_SECTOR_SIZE);
        facts.drives.push(drive("d", Some((DriveFault::NoStableIdentity, "a clone"))));
        let (status, reason, message) = said(&of(&facts), c::DRIVES_USABLE);
        assert_eq!((status, reason), (Some(false), c::REASON_NO_STABLE_IDENTITY));
        assert_eq!(message, "/dev/b (b): holds ext4; /dev/c (c): 1024 bytes; /dev/d (d): a clone");
        assert_eq!(said(&of(&facts), c::READY).0, Some(true));
    }

    #[test]
    fn what_cannot_be_looked_at_is_unknown() {
        let wants = unseen("no sysfs");
        assert_eq!(said(&wants, c::READY).0, Some(false));
        for type_ in [c::KERNEL_SUPPORTED, c::ASSEMBLY_GUARDED, c::DRIVES_USABLE] {
            assert_eq!(said(&wants, type_).0, None, "{type_}");
        }
    }
}
