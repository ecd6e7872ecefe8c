//! The choice among what passed the filters: legs apart by the policy's labels, on the drives that are least full.

use super::Candidate;
use foldhash::{HashMap, HashMapExt as _};
use kube::ResourceExt as _;
use meshstor_crds::{MeshNode, MeshReplica, Placement, SpreadMode};
use std::collections::BTreeSet;

/// Comparisons of classes of nodes that one search may make, some tens of milliseconds of them. Rules that cross each other all
/// over a large cluster could else take forever; within that no arrangement is missed.
const EFFORT: usize = 4_000_000;

/// The values of the rules' labels on one node, in the order of the rules; `None` where it lacks the label.
type Values<'a> = Vec<Option<&'a str>>;

/// The rules of spreading, and what of them is taken by legs that are there already.
#[derive(Clone, Debug)]
pub(super) struct Rules<'a> {
    required: Vec<&'a str>,
    preferred: Vec<&'a str>,
    /// Of each leg: the values of its node for `required` and for `preferred`, and its name.
    legs: Vec<(Values<'a>, Values<'a>, String)>,
    /// A leg of which it is not known what it takes of a required label.
    unknown: Option<String>,
}

impl<'a> Rules<'a> {
    /// The rules of `placement` beside the legs that are `placed`; `find` gives a node by its name.
    pub(super) fn of(
        placement: &'a Placement,
        placed: &[MeshReplica],
        find: impl Fn(&str) -> Option<&'a MeshNode>,
    ) -> Self {
        let keys = |mode| {
            let rules = placement.spread.iter().filter(move |rule| rule.mode == mode);
            rules.map(|rule| rule.topology_key.as_str()).collect::<Vec<_>>()
        };
        let (required, preferred) = (keys(SpreadMode::Required), keys(SpreadMode::Preferred));
        let legs = placed.iter().map(|leg| {
            let of = |keys: &[&str]| find(&leg.spec.node).map_or_else(|| vec![None; keys.len()], |n| values(n, keys));
            (of(&required), of(&preferred), leg.name_any())
        });
        let legs: Vec<(Values<'a>, Values<'a>, String)> = legs.collect();
        let unknown = legs.iter().find(|(values, ..)| values.contains(&None)).map(|(.., leg)| leg.clone());
        Self { required, preferred, legs, unknown }
    }

    /// Why a leg on `node` would break a required rule beside the legs that are there.
    pub(super) fn broken_by(&self, node: &MeshNode) -> Option<String> {
        let ours = values(node, &self.required);
        if let Some(at) = ours.iter().position(Option::is_none) {
            return Some(format!("no label {}", self.required[at]));
        }
        if let Some(leg) = &self.unknown {
            return Some(format!("the node of {leg} lacks a required label, or is gone"));
        }
        self.legs
            .iter()
            .find_map(|(theirs, _, leg)| self.clash(&ours, theirs).map(|clash| format!("{clash} has {leg}")))
    }

    /// The first required label that both have the same value of, as `key=value`.
    fn clash(&self, ours: &Values<'_>, theirs: &Values<'_>) -> Option<String> {
        let both = self.required.iter().zip(ours.iter().zip(theirs));
        both.filter_map(|(key, (a, b))| a.as_ref().filter(|_| a == b).map(|value| format!("{key}={value}"))).next()
    }
}

fn values<'a>(node: &'a MeshNode, keys: &[&str]) -> Values<'a> {
    let labels = node.metadata.labels.as_ref();
    keys.iter().map(|key| labels.and_then(|l| l.get(*key)).map(String::as_str)).collect()
}

/// A node with the drive that it would give.
#[derive(Clone, Debug)]
struct Place<'a> {
    candidate: Candidate<'a>,
    /// Nodes with equal values of all required labels can stand in for each other.
    class: usize,
    preferred: Values<'a>,
}

/// What a search found.
#[derive(Clone, Debug, Default)]
pub(super) struct Found<'a> {
    /// The drives, in the order of the slots; fewer than asked for when there is no arrangement.
    pub(super) chosen: Vec<Candidate<'a>>,
    /// For nodes that fit but clash with the chosen ones: the rule.
    pub(super) clashes: HashMap<&'a str, String>,
}

impl Found<'_> {
    /// How far the chosen nodes are and how full the drives, for a choice between two arrangements.
    pub(super) fn far_and_full(&self) -> (i64, u64) {
        (self.chosen.iter().map(|c| i64::from(c.far)).sum(), self.chosen.iter().map(|c| u64::from(c.fill)).sum())
    }
}

/// `count` drives of one sector size on as many nodes, no two of which share a value of a required label; as few as
/// possible share one of a preferred label. Among those the least full one, then that with most room, then by name.
pub(super) fn choose<'a>(rules: &Rules<'_>, fits: &[Candidate<'a>], sector: i32, count: usize) -> Found<'a> {
    let mut same: Vec<Candidate<'a>> = fits.iter().filter(|c| c.sector() == sector).copied().collect();
    same.sort_by_key(Candidate::order);
    let mut numbers = HashMap::new();
    let mut classes = Vec::new();
    let places = same.into_iter().map(|candidate| {
        let class = *numbers.entry(values(candidate.node, &rules.required)).or_insert_with_key(|values| {
            classes.push(values.clone());
            classes.len() - 1
        });
        Place { candidate, class, preferred: values(candidate.node, &rules.preferred) }
    });
    let places: Vec<Place<'a>> = places.collect();
    let mut search = Search { rules, places: &places, classes: &classes, effort: EFFORT, best: Vec::new() };
    search.extend(&mut Vec::new(), count);
    search.found(count)
}

struct Search<'s, 'a> {
    rules: &'s Rules<'s>,
    places: &'s [Place<'a>],
    classes: &'s [Values<'a>],
    effort: usize,
    best: Vec<usize>,
}

impl<'a> Search<'_, 'a> {
    /// Extends `chosen` to `count` places, depth first; true when it is done. The longest arrangement stays in `best`.
    fn extend(&mut self, chosen: &mut Vec<usize>, count: usize) -> bool {
        if chosen.len() > self.best.len() {
            self.best.clone_from(chosen);
        }
        if chosen.len() == count {
            return true;
        }
        // What a class cannot complete, none of its nodes can.
        let mut tried = BTreeSet::new();
        while let Some(next) = self.next(chosen, &tried) {
            chosen.push(next);
            if self.extend(chosen, count) {
                return true;
            }
            chosen.pop();
            tried.insert(self.places[next].class);
        }
        false
    }

    /// The best place that goes with `chosen` and is of none of the classes that were `tried`.
    fn next(&mut self, chosen: &[usize], tried: &BTreeSet<usize>) -> Option<usize> {
        self.effort = self.effort.checked_sub(self.classes.len() * chosen.len())?;
        let free: Vec<bool> = (0..self.classes.len())
            .map(|class| {
                !tried.contains(&class) && chosen.iter().all(|at| self.clash(class, self.places[*at].class).is_none())
            })
            .collect();
        let open = self.places.iter().enumerate().filter(|(at, place)| free[place.class] && !chosen.contains(at));
        // They are in order, and of equals the first is taken; the first leg of all goes to the preferred node.
        let other = |place: &Place<'_>| chosen.is_empty() && !place.candidate.preferred;
        open.min_by_key(|(_, place)| (self.doubles(chosen, place), other(place))).map(|(at, _)| at)
    }

    fn clash(&self, class: usize, other: usize) -> Option<String> {
        self.rules.clash(&self.classes[class], &self.classes[other])
    }

    /// How many legs share the place's value, a number for each preferred rule; the first rule weighs most.
    fn doubles(&self, chosen: &[usize], place: &Place<'_>) -> Vec<usize> {
        let rules = 0..self.rules.preferred.len();
        let others =
            || self.rules.legs.iter().map(|(_, v, _)| v).chain(chosen.iter().map(|at| &self.places[*at].preferred));
        rules.map(|rule| others().filter(|values| values[rule] == place.preferred[rule]).count()).collect()
    }

    fn found(self, count: usize) -> Found<'a> {
        let mut found =
            Found { chosen: self.best.iter().map(|at| self.places[*at].candidate).collect(), ..Found::default() };
        if found.chosen.len() < count {
            for (_, place) in self.places.iter().enumerate().filter(|(at, _)| !self.best.contains(at)) {
                let clash = self.best.iter().find_map(|other| {
                    let key = self.clash(place.class, self.places[*other].class)?;
                    Some(format!("{key} has {} already", self.places[*other].candidate.node()))
                });
                let other = || "goes with no other arrangement of the required labels".to_owned();
                found.clashes.insert(place.candidate.node(), clash.unwrap_or_else(other));
            }
        }
        found
    }
}
