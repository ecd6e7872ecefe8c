//! Scripted daemons and kernels: just enough of the protocol's other side, one step a turn.

use super::{Bug, Sim};
use meshstor_crds::*;
use std::collections::{BTreeMap, BTreeSet};

/// What a leg's drive and target keep.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub epoch: i64,
    pub spent: i64,
    pub made: bool,
    pub used: bool,
    /// Live export: epoch and grant.
    pub export: Option<(i64, i64)>,
    /// Newest write that it holds.
    pub data: u64,
}

/// An array on a node.
#[derive(Clone, Debug)]
pub struct Array {
    pub epoch: i64,
    /// By leg: state, and the export through which it is reached (none for the local leg).
    pub members: BTreeMap<String, (MemberState, Option<(i64, i64)>)>,
    pub shown: bool,
}

/// What a node's daemon holds as a consumer.
#[derive(Clone, Debug, Default)]
pub struct Consumer {
    pub array: Option<Array>,
    /// Connections ever made: none of them is made twice.
    pub connected: BTreeSet<(String, i64, i64)>,
    pub fail_starts: u32,
    pub boots: u32,
}

impl Sim {
    /// Power is cut.
    pub fn crash(&mut self, name: &str) {
        self.log.push(format!("t={} {name} crashes", self.seconds));
        let node = self.nodes.get_mut(name).unwrap();
        node.up = false;
        node.consumer.array = None;
        for leg in self.on_node(name) {
            self.ledgers.get_mut(&leg).unwrap().export = None;
        }
    }

    pub fn boot(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        if !node.up {
            node.up = true;
            node.consumer.boots += 1;
            node.beat = self.seconds;
        }
    }

    fn on_node(&self, name: &str) -> Vec<String> {
        self.legs.iter().filter(|(_, leg)| leg.spec.node == name).map(|(leg, _)| leg.clone()).collect()
    }

    /// Whether I/O of `node` reaches `leg` now through this path.
    fn reaches(&self, node: &str, leg: &str, path: Option<(i64, i64)>) -> bool {
        let Some(object) = self.legs.get(leg) else { return false };
        let (here, there) = (&self.nodes[node], &self.nodes[&object.spec.node]);
        match path {
            None => object.spec.node == node && here.up,
            Some(path) => here.up && there.up && here.fabric && there.fabric && self.ledgers[leg].export == Some(path),
        }
    }

    /// Whether an array on `node` holds `leg` through a path that is open.
    pub fn can_write(&self, node: &str, leg: &str) -> bool {
        let member = self.nodes[node].consumer.array.as_ref().and_then(|a| a.members.get(leg));
        member.is_some_and(|(_, path)| self.reaches(node, leg, *path))
    }

    /// One turn of the daemon of `name`, and of the application that writes on it.
    pub fn daemon(&mut self, name: &str) {
        if !self.nodes[name].up {
            return;
        }
        self.application(name);
        if !self.nodes[name].api {
            return;
        }
        for leg in self.on_node(name) {
            self.target(name, &leg);
        }
        self.consume(name);
    }

    /// A write is acknowledged when every member that is in sync has it; else it is held.
    fn application(&mut self, name: &str) {
        let Some(array) = self.nodes[name].consumer.array.clone().filter(|a| a.shown) else { return };
        self.written += 1;
        let mut everywhere = true;
        let careless = self.bug == Some(Bug::FailsBeforeRecording);
        for (leg, (state, path)) in &array.members {
            let reached = self.reaches(name, leg, *path);
            if reached {
                let data = &mut self.ledgers.get_mut(leg).unwrap().data;
                *data = if *state == MemberState::Rebuilding { *data } else { self.written };
            }
            everywhere &= careless || reached || *state == MemberState::Rebuilding;
        }
        if everywhere {
            self.acked = self.written;
        }
    }

    fn report(&mut self, leg: &str, change: impl FnOnce(&mut MeshReplicaStatus)) {
        let mut object = self.legs[leg].clone();
        let old = object.status.clone();
        change(object.status.get_or_insert_default());
        if old != object.status {
            self.stamp(&mut object);
            self.legs.insert(leg.to_owned(), object);
        }
    }

    fn target(&mut self, name: &str, leg: &str) {
        let (object, mut ledger) = (self.legs[leg].clone(), self.ledgers[leg].clone());
        let gone = self.term().is_none_or(|t| t.phase == TermPhase::Retired || t.retired.iter().any(|l| l == leg));
        let used = self.nodes[name].consumer.array.as_ref().is_some_and(|a| a.members.contains_key(leg));
        if object.metadata.deletion_timestamp.is_some() && gone && !used {
            self.legs.remove(leg);
            self.ledgers.remove(leg);
            return;
        }
        let array = self.nodes[name].consumer.array.as_ref();
        let blind = self.bug == Some(Bug::ConfirmsUnderAnOldArray);
        let holds = !blind && array.is_some_and(|a| a.epoch < object.spec.epoch && a.members.contains_key(leg));
        ledger.made = true;
        if object.spec.epoch > ledger.epoch {
            ledger.epoch = object.spec.epoch;
        }
        let grant = object.spec.grant.as_ref().filter(|g| g.epoch == ledger.epoch);
        let current = grant.map(|g| (g.epoch, g.number));
        let slow = self.bug == Some(Bug::ConfirmsBeforeRevoking) && self.seconds % 7 != 0;
        if ledger.export.is_some() && ledger.export != current && !slow {
            ledger.export = None;
        }
        if let Some(grant) = grant {
            ledger.used = true;
            if grant.consumer != name && ledger.export.is_none() && grant.number > ledger.spent {
                ledger.spent = grant.number;
                ledger.export = Some((grant.epoch, grant.number));
            }
        }
        self.ledgers.insert(leg.to_owned(), ledger.clone());
        self.report(leg, |status| {
            let uuid = "0".repeat(36);
            let size_bytes = object.spec.size_bytes;
            let blank = !ledger.used;
            status.partition = Some(LegPartition { uuid: uuid.clone(), first_byte: 1 << 20, size_bytes, blank });
            status.spent_grant = (ledger.spent > 0).then_some(ledger.spent);
            status.export = ledger.export.map(|(epoch, grant)| Export {
                epoch,
                grant,
                nqn: naming::export_nqn(leg, epoch, grant),
                address: "10.0.0.1".into(),
                port: 4420,
                device_uuid: uuid,
            });
            if ledger.epoch > 0 && !holds {
                status.revoked_below = Some(ledger.epoch);
            }
        });
    }

    fn record(&mut self, change: impl FnOnce(&mut MeshAttachmentStatus)) {
        let mut object = self.attachment.clone().unwrap();
        let old = object.status.clone();
        change(object.status.get_or_insert_default());
        if old != object.status {
            self.stamp(&mut object);
            self.attachment = Some(object);
        }
    }

    fn consume(&mut self, name: &str) {
        let term = self.term().cloned();
        let array = self.nodes[name].consumer.array.clone();
        let mine = term.as_ref().is_some_and(|t| t.node == name);
        // Fenced: an array of an older epoch never sees its writes succeed; it goes.
        if array.as_ref().is_some_and(|a| !mine || term.as_ref().is_none_or(|t| t.epoch != a.epoch)) {
            // Its holders have to be killed first: that takes a while.
            if self.seconds % 3 == 0 {
                self.nodes.get_mut(name).unwrap().consumer.array = None;
            }
            return;
        }
        let Some(term) = term.filter(|_| mine) else { return };
        let epoch = term.epoch;
        let status = self.attachment.as_ref().and_then(|a| a.status.clone()).unwrap_or_default();
        if status.ended.is_some_and(|e| e.epoch == epoch) {
            return;
        }
        let wanted = self.attachment.as_ref().and_then(|a| a.runs_on()) == Some(name);
        match (term.phase, array) {
            (TermPhase::Started | TermPhase::Running, _) if !wanted => {
                self.nodes.get_mut(name).unwrap().consumer.array = None;
                self.end(epoch, EndedReason::Detached);
            }
            (TermPhase::Started, _) => self.claim(name, &term),
            (TermPhase::Running, None) => self.end(epoch, EndedReason::ArrayGone),
            (TermPhase::Running, Some(array)) => self.run(name, &term, array),
            _ => {}
        }
    }

    fn end(&mut self, epoch: i64, reason: EndedReason) {
        self.log.push(format!("t={} epoch {epoch} ended: {reason:?}", self.seconds));
        self.record(|status| {
            status.ended = Some(Ended { epoch, reason });
            status.array = None;
        });
    }

    /// The path to a leg under its current grant, if it is open.
    fn path(&self, name: &str, leg: &str) -> Option<Option<(i64, i64)>> {
        let grant = self.legs.get(leg)?.spec.grant.as_ref()?;
        let path = (self.legs[leg].spec.node != name).then_some((grant.epoch, grant.number));
        self.reaches(name, leg, path).then_some(path)
    }

    fn claim(&mut self, name: &str, term: &Term) {
        let consumer = &mut self.nodes.get_mut(name).unwrap().consumer;
        if consumer.fail_starts > 0 {
            consumer.fail_starts -= 1;
            return self.end(term.epoch, EndedReason::StartFailed);
        }
        let paths: Option<BTreeMap<_, _>> = term
            .in_sync
            .iter()
            .map(|leg| self.path(name, leg).map(|path| (leg.clone(), (MemberState::InSync, path))))
            .collect();
        let Some(members) = paths else {
            // A leg of S that cannot be had within a while: the start fails and another epoch finds out who is there.
            if self.seconds % 20 == 0 {
                self.end(term.epoch, EndedReason::StartFailed);
            }
            return;
        };
        self.check();
        let incarnation = format!("{name}-{}", self.nodes[name].consumer.boots);
        self.record(|status| {
            let term = status.term.as_mut().unwrap();
            term.phase = TermPhase::Running;
            term.initialised = true;
            term.writer = Some(Writer { incarnation, seq: 1 });
        });
        let consumer = &mut self.nodes.get_mut(name).unwrap().consumer;
        for (leg, (_, path)) in &members {
            if let Some((epoch, grant)) = path {
                assert!(consumer.connected.insert((leg.clone(), *epoch, *grant)), "rule 9: {leg} connected twice");
            }
        }
        consumer.array = Some(Array { epoch: term.epoch, members, shown: true });
    }

    fn run(&mut self, name: &str, term: &Term, mut array: Array) {
        array.members.retain(|leg, _| !term.retired.contains(leg));
        let lost: Vec<String> = array
            .members
            .iter()
            .filter(|(leg, (_, path))| !self.reaches(name, leg, *path))
            .map(|(l, _)| l.clone())
            .collect();
        let mut in_sync = term.in_sync.clone();
        for leg in lost {
            // The last of a mirror set is never recorded away.
            let others: Vec<&MeshReplica> = in_sync.iter().filter(|l| **l != leg).map(|l| &self.legs[l]).collect();
            let set = self.legs[&leg].spec.mirror_set;
            if in_sync.contains(&leg) && others.iter().all(|l| l.spec.mirror_set != set) {
                array.members.get_mut(&leg).unwrap().0 = MemberState::Held;
                continue;
            }
            in_sync.retain(|l| *l != leg);
            array.members.remove(&leg);
        }
        self.rebuild(name, &mut array, &mut in_sync);
        let members = array.members.iter();
        let members = members
            .map(|(leg, (state, _))| Member { leg: leg.clone(), state: *state, latency_ewma_ns: None })
            .collect();
        let epoch = term.epoch;
        self.record(|status| {
            status.term.as_mut().unwrap().in_sync = in_sync;
            let device = Some("/dev/md/v".to_owned());
            status.array = Some(ArrayStatus { epoch, device, mount_path: None, members, resync: None });
        });
        self.nodes.get_mut(name).unwrap().consumer.array = Some(array);
    }

    /// A member that is rebuilding is done; else one leg outside is taken in, over a connection that never was.
    fn rebuild(&mut self, name: &str, array: &mut Array, in_sync: &mut Vec<String>) {
        let good = in_sync.first().map_or(0, |leg| self.ledgers[leg].data);
        for (leg, (state, _)) in &mut array.members {
            if *state == MemberState::Rebuilding {
                self.ledgers.get_mut(leg).unwrap().data = good;
                *state = MemberState::InSync;
                in_sync.push(leg.clone());
                // One write: the leg whose place it takes, and that is to leave, goes as it comes.
                let leaving = self.legs[leg].spec.replaces.clone().filter(|old| in_sync.contains(old));
                if let Some(old) = leaving {
                    in_sync.retain(|l| *l != old);
                    array.members.remove(&old);
                }
                return;
            }
            *state = if *state == MemberState::Held && !self.nodes[name].fabric { *state } else { MemberState::InSync };
        }
        // Who left S for good does not come back.
        let retired = self.term().map(|t| t.retired.clone()).unwrap_or_default();
        let heir = |leg: &String| in_sync.iter().any(|l| self.legs[l].spec.replaces.as_ref() == Some(leg));
        let left = |leg: &&String| retired.contains(leg) || heir(leg);
        let next = self.legs.keys().filter(|leg| !left(leg)).find_map(|leg| {
            let path = self.path(name, leg).filter(|_| !array.members.contains_key(leg))?;
            let used = &self.nodes[name].consumer.connected;
            let fresh = path.is_none_or(|(epoch, grant)| !used.contains(&(leg.clone(), epoch, grant)));
            fresh.then(|| (leg.clone(), path))
        });
        if let Some((leg, path)) = next {
            if let Some((epoch, grant)) = path {
                let consumer = &mut self.nodes.get_mut(name).unwrap().consumer;
                consumer.connected.insert((leg.clone(), epoch, grant));
            }
            array.members.insert(leg, (MemberState::Rebuilding, path));
        }
    }
}
