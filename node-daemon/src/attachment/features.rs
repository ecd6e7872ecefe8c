//! What the kernel that runs the array can do beyond a stock one, as conditions of the attachment.

use meshstor_crds::conditions::{self as c, Want};
use meshstor_crds::{Member, MemberState, MeshAttachmentStatus};

use super::View;

/// MD's RAID1 reads from members that are not write-mostly; all remote legs are.
const LOCAL_READS: &str =
    "the kernel does not have MeshStor's md patches: reads stay on the local leg, or go to any where there is none";
/// MD's RAID10 heeds no write-mostly.
const READS_ANYWHERE: &str =
    "the kernel does not have MeshStor's md patches: a RAID10 reads from remote legs as from local ones";

/// `ReadLatencyBalanced` and `TakeoverSupported`; `Unknown` while there is no array.
pub(super) fn wants(view: &View<'_>, status: &MeshAttachmentStatus) -> [Want; 2] {
    let none = |type_| unknown(type_, "it is known only while the array runs");
    match (view.array, &status.array) {
        (Some(facts), Some(array)) => [balanced(view, facts.latency_balance, &array.members), takeover(view)],
        _ => [none(c::READ_LATENCY_BALANCED), none(c::TAKEOVER_SUPPORTED)],
    }
}

fn unknown(type_: &'static str, message: &str) -> Want {
    Want { type_, status: None, reason: c::REASON_NOT_ATTACHED, message: message.to_owned() }
}

fn balanced(view: &View<'_>, chosen: Option<bool>, members: &[Member]) -> Want {
    let said = |status, reason, message: String| Want::new(c::READ_LATENCY_BALANCED, status, reason, message);
    match chosen {
        Some(true) => said(true, c::REASON_BALANCED, measured(members)),
        Some(false) => {
            let message = "switched off by hand: write 1 to md/latency_balance of the array, or attach it anew";
            said(false, c::REASON_SWITCHED_OFF, message.to_owned())
        }
        None => {
            let message = if view.striped() { READS_ANYWHERE } else { LOCAL_READS };
            said(false, c::REASON_KERNEL_LACKS_PATCH, message.to_owned())
        }
    }
}

/// What each member takes to answer a read, in the numbers of the status: they move in powers of two, so this text does.
fn measured(members: &[Member]) -> String {
    let in_sync = members.iter().filter(|m| m.state == MemberState::InSync);
    let each: Vec<String> = in_sync
        .map(|m| match m.latency_ewma_ns {
            Some(ns) if ns > 0 => format!("{} about {} µs", m.leg, ns.div_euclid(1000)),
            _ => format!("{} not read yet", m.leg),
        })
        .collect();
    format!("reads go to the leg that is expected to answer first: {}", each.join(", "))
}

fn takeover(view: &View<'_>) -> Want {
    let said = |status, reason, message: &str| Want::new(c::TAKEOVER_SUPPORTED, status, reason, message);
    match (view.striped(), view.params.map(|p| p.takeover)) {
        (false, None) => unknown(c::TAKEOVER_SUPPORTED, "what the volume asks for is not known yet"),
        (true, _) => said(false, c::REASON_ALREADY_STRIPED, "the array is a RAID10: there is nothing to take over"),
        (false, Some(true)) => {
            said(true, c::REASON_KERNEL_SUPPORTS, "the kernel can make this RAID1 a RAID10 in place")
        }
        (false, Some(false)) => said(
            false,
            c::REASON_KERNEL_LACKS_PATCH,
            "the kernel does not have MeshStor's md patches: it cannot make this RAID1 a RAID10 in place",
        ),
    }
}
