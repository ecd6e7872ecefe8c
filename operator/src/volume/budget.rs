//! How many legs are rebuilt at once, in the cluster and at each node, and which volume goes first. Pure but for [`Ledger`], in which
//! this process keeps what it saw last of each volume: a restart begins with what the volumes' statuses say.
//!
//! It limits how fast copies come back, and nothing else: no rule of safety depends on it.

use super::world::World;
use super::{copying, reasons};
use crate::node::NotReady;
use kube::ResourceExt as _;
use meshstor_crds::{LegState, MeshReplica, MeshVolume, RebuildBudget, Term, TermPhase, conditions, geometry};
use std::collections::{BTreeMap, BTreeSet};

/// A leg that is being rebuilt, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// Its name.
    pub leg: String,
    /// Name of its volume.
    pub volume: String,
    /// Its node and that of its consumer.
    pub nodes: BTreeSet<String>,
    /// It has its grant: it is rebuilt, or may be any moment.
    pub active: bool,
    /// It has a grant that only lets it be connected to.
    pub ahead: bool,
    /// Copies of its volume that are in sync.
    pub copies: usize,
    /// The budget of its volume's policy: rebuilds at once in the cluster, and from or to one node.
    pub limits: (usize, usize),
    /// The failure domain from which a leg goes only because it breaks a rule: from one at a time.
    pub leaves: Option<String>,
}

/// So many times the limits are granted: from its grant to its first block a leg takes seconds, in which the budget would not be used up.
const AHEAD: usize = 2;

/// What this process saw last of each volume, by UID.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Vec<Rebuild>>);

impl Ledger {
    /// Takes note of a volume, and answers which of its legs must wait, and of these the next ones. Those that need not are counted from
    /// now on.
    pub fn observe(&mut self, uid: &str, rebuilds: Vec<Rebuild>) -> (BTreeSet<String>, BTreeSet<String>) {
        self.0.insert(uid.to_owned(), rebuilds);
        let (leave, next) = self.allotted();
        let (mut waits, mut ahead) = (BTreeSet::new(), BTreeSet::new());
        for rebuild in self.0.get_mut(uid).into_iter().flatten() {
            rebuild.active |= leave.contains(&rebuild.leg);
            rebuild.ahead |= next.contains(&rebuild.leg);
            if !rebuild.active {
                waits.insert(rebuild.leg.clone());
                ahead.extend(rebuild.ahead.then(|| rebuild.leg.clone()));
            }
        }
        (waits, ahead)
    }

    /// The volumes of which a leg waits that could begin now, or be one of the next.
    pub fn next(&self) -> BTreeSet<String> {
        let (leave, next) = self.allotted();
        let turn = |r: &&Rebuild| leave.contains(&r.leg) || (!r.ahead && next.contains(&r.leg));
        self.0.values().flatten().filter(turn).map(|rebuild| rebuild.volume.clone()).collect()
    }

    /// Legs that wait and may begin, and those that would [`AHEAD`] of that.
    fn allotted(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        (allot(self.0.values().flatten(), 1), allot(self.0.values().flatten(), AHEAD))
    }

    /// Counts what the status of a volume shows that this process has not looked at yet.
    pub fn heard(&mut self, volume: &MeshVolume) {
        let (Some(uid), Some(status)) = (volume.uid(), &volume.status) else { return };
        let rebuilds = || {
            let under_way = status.legs.iter().filter(|leg| leg.state == LegState::Rebuilding);
            under_way.map(|leg| Rebuild {
                leg: leg.name.clone(),
                volume: volume.name_any(),
                nodes: status.consumer.iter().chain([&leg.node]).cloned().collect(),
                active: true,
                ahead: false,
                copies: 0,
                limits: limits(&RebuildBudget::default()),
                leaves: None,
            })
        };
        self.0.entry(uid).or_insert_with(|| rebuilds().collect());
    }

    /// Forgets a volume that is gone.
    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }
}

fn limits(budget: &RebuildBudget) -> (usize, usize) {
    let least = |n: i32| usize::try_from(n).unwrap_or(1).max(1);
    (least(budget.max_concurrent), least(budget.max_concurrent_per_node))
}

/// The legs of a volume that are rebuilt or could be: outside S, on nodes that answer, while an epoch runs or is about to, or could be
/// begun for them.
pub fn rebuilds(world: &World) -> Vec<Rebuild> {
    let here = |t: &&Term| world.wanted() == Some(t.node.as_str()) && world.ended().is_none();
    let running = |t: &&Term| matches!(t.phase, TermPhase::Started | TermPhase::Running);
    let budget = world.policy.as_ref().map(|p| p.spec.rebuild.clone()).unwrap_or_default();
    let copies = geometry::copies(&world.legs, |leg| world.in_sync().contains(&leg.name_any()));
    let Some(term) = world.term().filter(here).filter(running) else {
        let Some(node) = copying::place(world) else { return Vec::new() };
        let ahead = copying::unfilled(world);
        return ahead
            .iter()
            .map(|leg| Rebuild {
                leg: leg.name_any(),
                volume: world.name(),
                nodes: [leg.spec.node.clone(), node.clone()].into(),
                active: world.copied_on().is_some(),
                ahead: false,
                copies,
                limits: limits(&budget),
                leaves: leaves(world, leg),
            })
            .collect();
    };
    let outside = |leg: &&MeshReplica| {
        let name = leg.name_any();
        // A leg that fails is not taken back, whatever grant it has.
        !term.in_sync.contains(&name) && !term.retired.contains(&name) && !fails(leg)
    };
    let answers = |leg: &&MeshReplica| world.node_ready(&leg.spec.node) == Ok::<(), NotReady>(());
    let legs = world.legs.iter().filter(outside).filter(answers);
    legs.map(|leg| Rebuild {
        leg: leg.name_any(),
        volume: world.name(),
        nodes: [leg.spec.node.clone(), term.node.clone()].into(),
        active: granted(term, leg) == Some(false) || (world.only_copies() && leg.spec.replaces.is_some()),
        ahead: granted(term, leg) == Some(true),
        copies,
        limits: limits(&budget),
        leaves: leaves(world, leg),
    })
    .collect()
}

/// The failure domain that the holder leaves whose place `heir` takes only because that breaks a rule.
fn leaves(world: &World, heir: &MeshReplica) -> Option<String> {
    let holder = world.leg(heir.spec.replaces.as_deref()?)?;
    (reasons::why(world, holder) == Some(reasons::Why::Misplaced)).then(|| world.domain(&holder.spec.node))
}

/// Whether the leg's drive fails.
pub fn fails(leg: &MeshReplica) -> bool {
    leg.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::FAILING))
}

/// Whether nothing may be copied to the leg yet, if it has a grant of this epoch that was not served to its end.
fn granted(term: &Term, leg: &MeshReplica) -> Option<bool> {
    let grant = leg.spec.grant.as_ref().filter(|g| g.epoch == term.epoch)?;
    let spent = leg.status.as_ref().is_some_and(|s| s.export.is_none() && s.spent_grant >= Some(grant.number));
    (!spent).then_some(grant.copy_later)
}

/// Who of those that wait may begin, if limits were so many times what they are: the volume with the fewest copies first, and past one whose
/// nodes are busy the next.
fn allot<'a>(all: impl Iterator<Item = &'a Rebuild> + Clone, times: usize) -> BTreeSet<String> {
    let mut cluster = 0;
    let mut nodes: BTreeMap<&String, usize> = BTreeMap::new();
    let mut left: Option<&String> = None;
    let mut begin = |rebuild: &'a Rebuild, limits: (usize, usize)| {
        let room = rebuild.nodes.iter().all(|n| nodes.get(n).is_none_or(|busy| *busy < limits.1));
        let other =
            !rebuild.active && left.is_some() && rebuild.leaves.as_ref().is_some_and(|domain| left != Some(domain));
        if cluster >= limits.0 || !room || other {
            return false;
        }
        left = left.or(rebuild.leaves.as_ref());
        cluster += 1;
        rebuild.nodes.iter().for_each(|n| *nodes.entry(n).or_default() += 1);
        true
    };
    for rebuild in all.clone().filter(|r| r.active) {
        begin(rebuild, (usize::MAX, usize::MAX));
    }
    let mut waiting: Vec<&Rebuild> = all.filter(|r| !r.active).collect();
    // Whoever is one of the next stays that: else more and more would be.
    waiting.sort_by_key(|r| (times > 1 && !r.ahead, r.copies, &r.leg));
    let more = |r: &Rebuild| (r.limits.0.saturating_mul(times), r.limits.1.saturating_mul(times));
    waiting.into_iter().filter(|r| begin(r, more(r))).map(|r| r.leg.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::action::Action;
    use super::super::fixtures::{attached, leg_mut, now, silence, term_mut};
    use super::super::plan::plan;
    use super::super::status;
    use super::super::validate::validate;
    use super::super::{grants, guard};
    use super::*;
    use meshstor_crds::Grant;
    use proptest::prelude::*;

    fn rebuild(leg: &str, nodes: &[&str], copies: usize, limits: (usize, usize)) -> Rebuild {
        let nodes = nodes.iter().map(|n| (*n).to_owned()).collect();
        let volume = leg.split('-').next().unwrap().to_owned();
        Rebuild { leg: leg.to_owned(), volume, nodes, active: false, ahead: false, copies, limits, leaves: None }
    }

    #[test]
    fn the_most_exposed_volume_goes_first_and_a_busy_node_holds_up_only_its_own() {
        let mut ledger = Ledger::default();
        let limits = (2, 1);
        assert!(ledger.observe("a", vec![rebuild("a-1", &["n1", "n2"], 2, limits)]).0.is_empty());
        // n2 is busy; what waits for it holds up nobody else.
        assert_eq!(ledger.observe("b", vec![rebuild("b-1", &["n2", "n3"], 1, limits)]).0.len(), 1);
        assert_eq!(ledger.observe("c", vec![rebuild("c-1", &["n4", "n5"], 2, limits)]).0.len(), 0);
        assert_eq!(
            ledger.observe("d", vec![rebuild("d-1", &["n6", "n7"], 1, limits)]).0.len(),
            1,
            "two run in the cluster"
        );
        // One ends: the two that have one copy go before the one that has two, whoever asks first.
        assert!(ledger.next().is_empty());
        ledger.forget("c");
        assert_eq!(ledger.next(), ["d".to_owned()].into());
        assert_eq!(
            ledger.observe("e", vec![rebuild("e-1", &["n8", "n9"], 2, limits)]).0.len(),
            1,
            "d-1 is more exposed"
        );
        assert!(ledger.observe("d", vec![rebuild("d-1", &["n6", "n7"], 1, limits)]).0.is_empty());
        assert!(ledger.next().is_empty());
        ledger.forget("a");
        assert!(ledger.observe("b", vec![rebuild("b-1", &["n2", "n3"], 1, limits)]).0.is_empty());
    }

    #[test]
    fn the_next_ones_are_connected_to_before_there_is_room_for_them() {
        let mut ledger = Ledger::default();
        let one = |leg: &str| vec![rebuild(leg, &["n1", "n2"], 2, (9, 1))];
        assert_eq!(ledger.observe("a", one("a-1")), ([].into(), [].into()));
        assert_eq!(ledger.observe("b", one("b-1")), (["b-1".to_owned()].into(), ["b-1".to_owned()].into()));
        assert_eq!(
            ledger.observe("c", one("c-1")),
            (["c-1".to_owned()].into(), [].into()),
            "twice the budget is enough"
        );
        assert!(ledger.next().is_empty(), "nobody is woken who knows already");
        ledger.forget("a");
        assert_eq!(ledger.next(), ["b".to_owned(), "c".to_owned()].into(), "c is the next one when b begins");
        assert_eq!(ledger.observe("b", one("b-1")), ([].into(), [].into()));
        assert_eq!(ledger.next(), ["c".to_owned()].into());
        assert_eq!(ledger.observe("c", one("c-1")), (["c-1".to_owned()].into(), ["c-1".to_owned()].into()));
        assert!(ledger.next().is_empty());
    }

    #[test]
    fn what_only_breaks_a_rule_leaves_one_failure_domain_at_a_time() {
        let mut ledger = Ledger::default();
        let from = |leg: &str, nodes: &[&str], domain: &str| {
            vec![Rebuild { leaves: Some(domain.to_owned()), ..rebuild(leg, nodes, 2, (9, 9)) }]
        };
        assert!(ledger.observe("a", from("a-1", &["n1", "n2"], "z1")).0.is_empty());
        assert!(ledger.observe("b", from("b-1", &["n3", "n4"], "z1")).0.is_empty());
        assert_eq!(ledger.observe("c", from("c-1", &["n5", "n6"], "z2")).0.len(), 1);
        assert!(
            ledger.observe("d", vec![rebuild("d-1", &["n5", "n6"], 1, (9, 9))]).0.is_empty(),
            "a lost copy waits for nobody"
        );
        ledger.forget("a");
        assert_eq!(ledger.observe("c", from("c-1", &["n5", "n6"], "z2")).0.len(), 1);
        ledger.forget("b");
        assert!(ledger.observe("c", from("c-1", &["n5", "n6"], "z2")).0.is_empty());
    }

    proptest! {
        #[test]
        fn no_budget_is_ever_passed(
            asks in proptest::collection::vec((0usize..6, 0usize..6, 1usize..4), 1..30),
            limits in (1usize..6, 1usize..4),
        ) {
            let mut ledger = Ledger::default();
            let mut running: Vec<BTreeSet<String>> = vec![];
            for (n, (a, b, copies)) in asks.iter().enumerate() {
                let nodes = [format!("n{a}"), format!("n{b}")];
                let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
                let ask = rebuild(&format!("l{n}"), &nodes, *copies, limits);
                if ledger.observe(&format!("v{n}"), vec![ask.clone()]).0.is_empty() {
                    running.push(ask.nodes);
                }
            }
            prop_assert!(running.len() <= limits.0);
            for node in 0..6 {
                let busy = running.iter().filter(|nodes| nodes.contains(&format!("n{node}"))).count();
                prop_assert!(busy <= limits.1, "n{node}: {busy}");
            }
        }
    }

    /// A leg that waits gets no grant; one that is in sync, or whose node does not answer, counts for nothing.
    #[test]
    fn a_leg_that_waits_is_not_granted() {
        let mut world = attached();
        assert!(rebuilds(&world).is_empty());
        term_mut(&mut world).in_sync = vec!["v-0".to_owned()];
        assert!(rebuilds(&world)[0].active, "it has its grant still");
        let of = leg_mut(&mut world, "v-1").status.get_or_insert_default();
        (of.spent_grant, of.export) = (Some(1), None);
        let waiting = rebuilds(&world);
        assert!(waiting.len() == 1 && !waiting[0].active && waiting[0].copies == 1);
        assert_eq!(grants::plan(&world).len(), 1);
        world.clocks.waits = ["v-1".to_owned()].into();
        assert!(grants::plan(&world).is_empty());
        let mut next = world.clone();
        next.clocks.ahead = ["v-1".to_owned()].into();
        let given = |world: &World| match &grants::plan(world)[..] {
            [Action::SetGrant { grant, .. }] => grant.clone(),
            actions => panic!("{actions:?}"),
        };
        let later = given(&next);
        assert!(later.copy_later && later.number == 2);
        leg_mut(&mut next, "v-1").spec.grant = Some(later.clone());
        assert!(grants::plan(&next).is_empty() && !rebuilds(&next)[0].active && rebuilds(&next)[0].ahead);
        next.clocks.waits.clear();
        assert_eq!(given(&next), Grant { copy_later: false, ..later }, "its turn, within the grant that it has");
        assert_eq!(guard::check(&next, &grants::plan(&next)[0]), Ok(()));
        let settled = validate(&world);
        let said = status::status(&world, &settled, &plan(&world, &settled));
        let resynced = said.conditions.iter().find(|c| c.type_ == "Resynced").unwrap();
        assert_eq!((resynced.status.as_str(), resynced.reason.as_str()), ("False", "RebuildWaits"));
        let mut failing = world.clone();
        failing.clocks.waits.clear();
        let want = conditions::Want::new("Failing", true, "DriveFailing", "");
        let of = leg_mut(&mut failing, "v-1").status.get_or_insert_default();
        of.conditions = conditions::apply(&[], &[want], None, &meshstor_crds::Time(now()));
        assert!(rebuilds(&failing).is_empty() && grants::plan(&failing).is_empty(), "a leg that fails is not let in");
        silence(&mut world, "n2");
        assert!(rebuilds(&world).is_empty());
    }
}
