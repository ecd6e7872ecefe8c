//! What an attachment's worker looks at before it plans.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use meshstor_crds::{Filesystem, MeshAttachment, MeshReplica, MeshVolume, identity};
use uuid::Uuid;

use super::context::Context;
use super::error::TurnError;
use super::leg::reference;
use crate::attachment::{Leg, Params};
use crate::host::{ArrayFacts, ConnectionFacts, ControllerState, LegFacts, Traffic};
use crate::ids::Nqn;

/// One look.
pub struct Seen {
    /// Every leg of the volume; with facts where it is on this node.
    pub legs: Vec<(Arc<MeshReplica>, Option<LegFacts>)>,
    /// The volume's array.
    pub array: Option<ArrayFacts>,
    /// What the array has to do.
    pub traffic: Traffic,
    /// Connections to legs of this volume.
    pub connections: Vec<ConnectionFacts>,
    /// What the volume asks.
    pub params: Option<Params>,
}

impl Seen {
    /// How much of what a start of `epoch` waits for is there: exports that are shown, connections, local legs.
    pub fn reached(&self, epoch: i64) -> usize {
        let shown = |replica: &MeshReplica| {
            replica.status.as_ref().and_then(|s| s.export.as_ref()).is_some_and(|e| e.epoch == epoch)
        };
        let ours = |facts: &LegFacts| facts.ledger.as_ref().is_some_and(|l| l.local_epoch == epoch);
        let legs = self.legs.iter().filter(|(r, local)| shown(r) || local.as_ref().is_some_and(ours)).count();
        legs + self.connections.iter().filter(|c| c.state == ControllerState::Live).count()
    }

    /// The legs as the planning takes them.
    pub fn legs(&self) -> Vec<Leg<'_>> {
        self.legs.iter().map(|(replica, local)| Leg { replica, local: local.as_ref() }).collect()
    }
}

/// Looks at everything of one volume.
pub async fn look(ctx: &Context, attachment: &MeshAttachment) -> Result<Seen, TurnError> {
    let name = attachment.metadata.name.clone().unwrap_or_default();
    let replicas = ctx.cluster.replicas_of(&name);
    let uid = volume_uid(attachment, &replicas);
    let replicas: Vec<_> = replicas.into_iter().filter(|r| uid.as_deref() == Some(&r.spec.volume_uid)).collect();
    let volume = ctx.cluster.volume(&name).filter(|v| v.metadata.uid == uid);
    let uuid = uid.as_deref().map(|uid| identity::array(uid, replicas.iter().map(Arc::as_ref)));
    let local: Vec<_> = replicas.iter().filter(|r| r.spec.node == ctx.node).map(|r| reference(r)).collect();
    let uids: BTreeSet<String> = replicas.iter().filter_map(|r| r.metadata.uid.clone()).collect();
    let (array, traffic, connections, facts) = ctx
        .blocking(move |host| {
            let array = uuid.map(|uuid| host.array(uuid)).transpose()?.flatten();
            let traffic = array.as_ref().map(|a| host.traffic(&a.device)).transpose()?.unwrap_or_default();
            let ours = |nqn: &str| Nqn::parse(nqn).is_some_and(|n| uids.contains(n.leg_uid));
            // A local leg that cannot be seen is one without facts: its member is known by its remembered name.
            let seen = |leg| host.leg(leg).unwrap_or_default();
            let facts: Vec<_> = local.iter().map(|leg| (leg.uuid, seen(leg))).collect();
            Ok((array, traffic, host.connections_of(&ours)?, facts))
        })
        .await?;
    let facts = |r: &MeshReplica| facts.iter().find(|(u, _)| *u == reference(r).uuid).map(|(_, f)| f.clone());
    let here = |r: &MeshReplica| (r.spec.node == ctx.node).then(|| facts(r).unwrap_or_default());
    Ok(Seen {
        array,
        traffic,
        connections,
        params: volume.and_then(|v| params(ctx, &v, uuid?)),
        legs: replicas.into_iter().map(|r| (Arc::clone(&r), here(&r))).collect(),
    })
}

/// UID of the volume, from the attachment's owner, else from its legs.
pub fn volume_uid(attachment: &MeshAttachment, replicas: &[Arc<MeshReplica>]) -> Option<String> {
    let owners = attachment.metadata.owner_references.iter().flatten();
    let owner = owners.filter(|o| o.kind == "MeshVolume").map(|o| o.uid.clone()).next();
    owner.or_else(|| replicas.first().map(|r| r.spec.volume_uid.clone()))
}

fn params(ctx: &Context, volume: &MeshVolume, uuid: Uuid) -> Option<Params> {
    let resolved = volume.status.as_ref()?.resolved.as_ref()?;
    let small = |n: i32, least: u16| u16::try_from(n).unwrap_or(least).max(least);
    Some(Params {
        filesystem: match volume.spec.filesystem {
            Filesystem::Xfs => Some("xfs"),
            Filesystem::Ext4 => Some("ext4"),
            Filesystem::None => None,
        },
        min_in_sync: usize::try_from(resolved.min_in_sync).unwrap_or(1),
        io_queues: small(resolved.io_queues, 1),
        queue_size: small(resolved.queue_size, 16),
        keep_alive: small(resolved.keep_alive_seconds, 1),
        write_mostly: !ctx.latency_balance,
        takeover: ctx.takeover,
        bitmap_raid10: ctx.bitmap_raid10,
        bitmap: resolved.bitmap,
        uuid,
    })
}

/// Since when each connection has not been live.
#[derive(Debug, Default)]
pub struct Silence(BTreeMap<String, Instant>);

impl Silence {
    /// NQNs that at `now` were not live for `hold`.
    pub fn held(&mut self, connections: &[ConnectionFacts], hold: Duration, now: Instant) -> BTreeSet<String> {
        let silent = |nqn: &str| connections.iter().any(|c| c.nqn == nqn && c.state != ControllerState::Live);
        self.0.retain(|nqn, _| silent(nqn));
        for connection in connections.iter().filter(|c| c.state != ControllerState::Live) {
            self.0.entry(connection.nqn.clone()).or_insert(now);
        }
        self.0.iter().filter(|(_, since)| now.duration_since(**since) >= hold).map(|(nqn, _)| nqn.clone()).collect()
    }

    /// How long until the next of them was not live for `hold`; none if all were.
    pub fn due(&self, hold: Duration, now: Instant) -> Option<Duration> {
        let left = self.0.values().map(|since| hold.saturating_sub(now.duration_since(*since)));
        left.filter(|left| !left.is_zero()).min()
    }
}

/// How much of a start set was there, and when it came to that.
#[derive(Clone, Copy, Debug, Default)]
pub struct Waiting(Option<(usize, Instant)>);

impl Waiting {
    /// How long nothing more than `there` came. What goes and comes back is nothing more.
    pub fn since(&mut self, there: usize, now: Instant) -> Duration {
        let (most, since) = self.0.filter(|(most, _)| there <= *most).unwrap_or((there, now));
        self.0 = Some((most, since));
        now.duration_since(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A silence counts at the end of the hold time, and not a look later.
    #[test]
    fn a_silence_is_due_when_it_was_held() {
        let (begun, hold) = (Instant::now(), Duration::from_secs(1));
        let mut silence = Silence(BTreeMap::from([("a".to_owned(), begun)]));
        let after = |ms| begun + Duration::from_millis(ms);
        assert_eq!(silence.due(hold, after(999)), Some(Duration::from_millis(1)));
        silence.0.insert("b".to_owned(), after(300));
        assert_eq!(silence.due(hold, after(600)), Some(Duration::from_millis(400)));
        assert_eq!(silence.due(hold, after(1000)), Some(Duration::from_millis(300)));
        assert_eq!(silence.due(hold, after(1300)), None);
    }

    /// I4: a start that is only slow is not given up, one of which a leg does not come is.
    #[test]
    fn waiting_counts_from_the_last_that_came() {
        let begun = Instant::now();
        let mut waiting = Waiting::default();
        let mut after = |seconds, there| waiting.since(there, begun + Duration::from_secs(seconds)).as_secs();
        assert_eq!([after(0, 0), after(50, 0), after(55, 2)], [0, 50, 0]);
        assert_eq!([after(100, 1), after(110, 2)], [45, 55], "what was there before is no progress");
        assert_eq!([after(111, 3), after(180, 3)], [0, 69]);
    }
}
