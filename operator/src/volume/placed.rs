//! Whether a volume is as its policy says now: where each leg is and why, and which leg may be moved for it. Pure.

use super::seats::{inside, seats};
use super::validate;
use super::world::World;
use crate::placement::standing::{self, Standing};
use kube::ResourceExt as _;
use meshstor_crds::conditions::{self, Want};
use meshstor_crds::{MeshReplica, Placement, Rebalance, ResolvedPolicy};

/// How the holder of each seat stands.
fn standings<'a>(world: &'a World, rules: &Placement) -> Vec<Standing<'a>> {
    let legs: Vec<&MeshReplica> = seats(world).iter().map(|seat| seat.holder).collect();
    let label = |node: &str, key: &str| world.label(node, key).map_err(|unheard| unheard.to_string());
    standing::of(&legs, rules, world.volume.spec.preferred_node.as_deref(), &world.nodes, label)
}

/// Why each leg is where it is, and what of the volume is not as the policy says now.
pub fn condition(world: &World, resolved: Option<&ResolvedPolicy>) -> Want {
    let said = |status, reason, message| Want { type_: conditions::PLACED_BY_POLICY, status, reason, message };
    let rules = match validate::policy(world) {
        Ok(policy) => policy.placement,
        Err(refusal) => return said(None, conditions::REASON_NOT_FOUND, refusal.message),
    };
    if world.legs.is_empty() {
        return said(None, conditions::REASON_PREPARING, "nodes and drives are still to be chosen".to_owned());
    }
    let standings = standings(world, &rules);
    let frozen = resolved.map(|resolved| frozen(world, resolved)).unwrap_or_default();
    let each: Vec<String> = standings.iter().map(line).chain(frozen.iter().cloned()).collect();
    let message = each.join("; ");
    let broken = standings.iter().any(|s| matches!(s.against, Ok(Some(_)))) || !frozen.is_empty();
    let unknown = standings.iter().any(|s| s.against.is_err());
    match (broken, unknown) {
        (true, _) => said(Some(false), conditions::REASON_POLICY_VIOLATED, message),
        (false, true) => said(None, conditions::REASON_NOT_FOUND, message),
        (false, false) => said(Some(true), conditions::REASON_OK, message),
    }
}

fn line(standing: &Standing<'_>) -> String {
    let spec = &standing.leg.spec;
    let place = format!("{} on {} ({})", standing.leg.name_any(), spec.node, spec.drive);
    match &standing.against {
        Ok(Some(rule)) => format!("{place} breaks {rule}"),
        Err(unknown) => format!("{place}: {unknown}"),
        Ok(None) if standing.for_it.is_empty() => place,
        Ok(None) => format!("{place}: {}", standing.for_it.join(", ")),
    }
}

/// What was settled when the volume was made and is something else in the policy now. `auto` of a bitmap was an answer of that day.
fn frozen(world: &World, is: &ResolvedPolicy) -> Vec<String> {
    let Ok(now) = validate::resolve(world, &world.volume.spec) else { return Vec::new() };
    let asked = world.policy.as_ref().map(|policy| policy.spec.bitmap).unwrap_or_default();
    let auto = world.volume.spec.bitmap.unwrap_or(asked) == meshstor_crds::Bitmap::Auto;
    let text = |resolved: &ResolvedPolicy| {
        let bitmap = if auto { String::new() } else { format!("{:?}", resolved.bitmap).to_lowercase() };
        [
            ("minInSync", resolved.min_in_sync.to_string()),
            ("missingMemberTimeoutSeconds", resolved.missing_member_timeout_seconds.to_string()),
            ("bitmap", bitmap),
            ("transport", format!("{:?}", resolved.transport).to_lowercase()),
            ("connection.ioQueues", resolved.io_queues.to_string()),
            ("connection.queueSize", resolved.queue_size.to_string()),
            ("connection.keepAliveSeconds", resolved.keep_alive_seconds.to_string()),
        ]
    };
    let differs = text(is).into_iter().zip(text(&now)).filter(|(is, now)| is != now);
    differs
        .map(|((field, is), (_, now))| {
            format!("{field} is {is} since the volume was made, the policy says {now}: a new volume has that")
        })
        .collect()
}

/// Whether the leg is to be moved because it breaks a rule: the policy allows it, the volume is whole, and no other leg of it is
/// being replaced.
pub fn moves(world: &World, leg: &MeshReplica) -> bool {
    let allowed = world.policy.as_ref().filter(|policy| policy.spec.rebalance == Rebalance::Allowed);
    let Some(policy) = allowed.filter(|_| inside(world, leg)) else { return false };
    let seats = seats(world);
    let this = |other: &MeshReplica| other.name_any() == leg.name_any();
    let still = |holder: &MeshReplica| inside(world, holder) && world.node_ready(&holder.spec.node).is_ok();
    if !seats.iter().all(|seat| still(seat.holder) && (this(seat.holder) || seat.heirs.is_empty())) {
        return false;
    }
    let standings = standings(world, &policy.spec.placement);
    standings.iter().find(|s| matches!(s.against, Ok(Some(_)))).is_some_and(|s| this(s.leg))
}
