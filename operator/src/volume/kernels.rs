//! What the kernels of nodes can do for a volume: on which of them it runs, and how its reads are chosen.

use super::world::World;
use crate::node;
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{Condition, MemberState, ResolvedPolicy};

/// A member that takes this many times as long as the fastest to answer a read is slow …
const SLOW: i64 = 64;
/// … and stays so as long as it takes this many times as long: a number that swings between the two changes nothing.
const STILL_SLOW: i64 = 32;
/// Below this, in ns, nothing is slow: a local drive answers in 10 µs, and 64 times that is a network at work.
const SLOW_FROM: i64 = 1 << 20;

/// Says of a volume before it must move to which nodes it cannot. A node whose daemon has not reported yet is left out.
pub fn attachable_anywhere(world: &World, resolved: Option<&ResolvedPolicy>) -> Want {
    let unknown = |message: &str| {
        let (type_, reason) = (conditions::ATTACHABLE_ANYWHERE, conditions::REASON_PREPARING);
        Want { type_, status: None, reason, message: message.to_owned() }
    };
    let Some(resolved) = resolved else { return unknown("its bitmap is not chosen yet") };
    let mut known = world.nodes.iter().filter(|n| n.status.as_ref().is_some_and(|s| s.kernel.is_some())).peekable();
    if known.peek().is_none() {
        return unknown("no node has reported its kernel yet");
    }
    let cannot = known.filter_map(|n| Some((n, node::can_run(n, world.geometry(), resolved).err()?)));
    let cannot: Vec<String> = cannot.map(|(node, why)| format!("{} ({why})", node.name_any())).collect();
    if cannot.is_empty() {
        let message = "every node can run it";
        return Want::new(conditions::ATTACHABLE_ANYWHERE, true, conditions::REASON_OK, message);
    }
    let message = format!("cannot be attached on {}", cannot.join("; "));
    Want::new(conditions::ATTACHABLE_ANYWHERE, false, conditions::REASON_MISSING_CAPABILITY, message)
}

/// `ReadLatencyBalanced` and `TakeoverSupported`: as the consumer's daemon says them, with the volume's own thresholds.
pub fn of_consumer(world: &World, old: &[Condition]) -> [Want; 2] {
    let balanced = said(world, conditions::READ_LATENCY_BALANCED, &REASONS);
    let before = old.iter().find(|c| c.type_ == conditions::READ_LATENCY_BALANCED);
    let was_slow = before.is_some_and(|c| c.reason == conditions::REASON_SLOW_MEMBER);
    let slow = slow_member(world, was_slow)
        .filter(|_| balanced.status == Some(true))
        .map(|message| Want::new(conditions::READ_LATENCY_BALANCED, false, conditions::REASON_SLOW_MEMBER, message));
    [slow.unwrap_or(balanced), said(world, conditions::TAKEOVER_SUPPORTED, &REASONS)]
}

/// The reasons that a daemon gives: a condition is copied by what is known here, never as a string of somebody's.
const REASONS: [&str; 5] = [
    conditions::REASON_BALANCED,
    conditions::REASON_KERNEL_LACKS_PATCH,
    conditions::REASON_SWITCHED_OFF,
    conditions::REASON_KERNEL_SUPPORTS,
    conditions::REASON_ALREADY_STRIPED,
];

fn said(world: &World, type_: &'static str, reasons: &[&'static str]) -> Want {
    let unknown = |message: &str| {
        let reason = conditions::REASON_NOT_ATTACHED;
        Want { type_, status: None, reason, message: message.to_owned() }
    };
    if world.array().is_none() {
        return unknown("it is known only while the volume is attached");
    }
    let status = world.attachment.as_ref().and_then(|a| a.status.as_ref());
    let found = status.and_then(|s| s.conditions.iter().find(|c| c.type_ == type_));
    match found.and_then(|c| Some((c, reasons.iter().find(|r| **r == c.reason)?))) {
        Some((c, reason)) => Want::new(type_, c.status == "True", reason, c.message.clone()),
        None => unknown("the consumer's daemon has not said it"),
    }
}

/// The in-sync member that answers reads much later than the fastest, if there is one.
fn slow_member(world: &World, was_slow: bool) -> Option<String> {
    let in_sync = world.array()?.members.iter().filter(|m| m.state == MemberState::InSync);
    let measured: Vec<(i64, &str)> = in_sync.filter_map(|m| Some((m.latency_ewma_ns?, m.leg.as_str()))).collect();
    let fastest = measured.iter().map(|(ns, _)| *ns).filter(|ns| *ns > 0).min()?;
    let (ns, leg) = measured.into_iter().max()?;
    let times = ns / fastest;
    let slow = ns >= SLOW_FROM && times >= if was_slow { STILL_SLOW } else { SLOW };
    slow.then(|| {
        format!(
            "leg {leg} takes {times} times as long as the fastest to answer a read: look at its drive and its network"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{attached, detached};
    use super::*;
    use meshstor_crds::{Bitmap, Capability, Kernel, ReplicaSetPolicySpec, Time, Transport};
    use std::sync::Arc;

    fn resolved(bitmap: Bitmap, transport: Transport) -> ResolvedPolicy {
        let connection = ReplicaSetPolicySpec::default().connection;
        ResolvedPolicy {
            min_in_sync: 1,
            bitmap,
            transport,
            missing_member_timeout_seconds: 0,
            io_queues: connection.io_queues,
            queue_size: connection.queue_size,
            keep_alive_seconds: connection.keep_alive_seconds,
        }
    }

    fn report(world: &mut World, node: usize, capabilities: &[(&str, bool)]) {
        let capability = |(name, supported): &(&str, bool)| Capability {
            name: (*name).to_owned(),
            supported: *supported,
            message: "CONFIG_X is needed".to_owned(),
        };
        let node = Arc::make_mut(&mut world.nodes[node]);
        let capabilities = capabilities.iter().map(capability).collect();
        node.status.get_or_insert_default().kernel = Some(Kernel { release: "7.3".into(), capabilities });
    }

    const ALL: [(&str, bool); 4] = [("raid1", true), ("raid10", true), ("llbitmap", true), ("llbitmap-raid10", true)];

    /// I8: an epoch is not begun for a node that cannot run the array, and the volume says so before it must move.
    #[test]
    fn a_node_that_cannot_run_the_array_is_named_and_gets_no_epoch() {
        let mut world = detached();
        let lockless = resolved(Bitmap::Lockless, Transport::Tcp);
        let nodes = std::mem::take(&mut world.nodes);
        assert_eq!(attachable_anywhere(&world, Some(&lockless)).status, None);
        world.nodes = nodes;
        (0..3).for_each(|n| report(&mut world, n, &ALL));
        assert_eq!(attachable_anywhere(&world, Some(&lockless)).status, Some(true));
        assert_eq!(attachable_anywhere(&world, None).status, None);
        report(&mut world, 2, &[("raid1", true), ("llbitmap", false)]);
        world.volume.status.get_or_insert_default().resolved = Some(lockless.clone());
        let said = attachable_anywhere(&world, Some(&lockless));
        assert_eq!((said.status, said.reason), (Some(false), conditions::REASON_MISSING_CAPABILITY));
        assert_eq!(said.message, "cannot be attached on n3 (llbitmap: CONFIG_X is needed)");
        let first = |world: &mut World, node: &str| {
            world.attachment.as_mut().unwrap().spec.node = Some(node.to_owned());
            super::super::terms::first(world).map(|t| t.node)
        };
        assert_eq!(first(&mut world, "n1"), Some("n1".to_owned()));
        assert_eq!(first(&mut world, "n3"), None);
        let rdma = resolved(Bitmap::Internal, Transport::Rdma);
        assert!(attachable_anywhere(&world, Some(&rdma)).message.contains("n1 (it reports no RDMA address)"));
    }

    #[test]
    fn a_slow_member_is_told_of_once_and_until_it_is_well_again() {
        let mut world = attached();
        let now = Time(world.now);
        let said = |world: &World, old: &[Condition]| {
            let wants = of_consumer(world, old);
            (wants[0].reason, conditions::apply(old, &wants, None, &now))
        };
        assert_eq!(said(&world, &[]).0, conditions::REASON_NOT_ATTACHED);
        let balanced = Want::new(
            conditions::READ_LATENCY_BALANCED,
            true,
            conditions::REASON_BALANCED,
            "v-0 0.016 ms, v-1 0.262 ms",
        );
        let mut old = Vec::new();
        for (slow, reason) in [
            (1 << 18, conditions::REASON_BALANCED),
            // 64 times 16 µs.
            (1 << 20, conditions::REASON_SLOW_MEMBER),
            (1 << 20, conditions::REASON_SLOW_MEMBER),
            (1 << 18, conditions::REASON_BALANCED),
        ] {
            let status = world.attachment.as_mut().unwrap().status.as_mut().unwrap();
            status.conditions = conditions::apply(&[], std::slice::from_ref(&balanced), None, &now);
            let members = &mut status.array.as_mut().unwrap().members;
            (members[0].latency_ewma_ns, members[1].latency_ewma_ns) = (Some(1 << 14), Some(slow));
            let (found, conditions) = said(&world, &old);
            assert_eq!(found, reason, "{slow}");
            old = conditions;
        }
        let members = &mut world.attachment.as_mut().unwrap().status.as_mut().unwrap().array.as_mut().unwrap().members;
        // 32 times: it stays as it was.
        (members[0].latency_ewma_ns, members[1].latency_ewma_ns) = (Some(1 << 16), Some(1 << 21));
        assert_eq!(said(&world, &old).0, conditions::REASON_BALANCED);
        let want = Want::new(conditions::READ_LATENCY_BALANCED, false, conditions::REASON_SLOW_MEMBER, "");
        let slow = conditions::apply(&[], &[want], None, &now);
        assert_eq!(said(&world, &slow).0, conditions::REASON_SLOW_MEMBER);
    }
}
