//! Where legs are, held against the rules as they are now. Pure.

use super::near::Near;
use super::{drives, filters};
use crate::node;
use kube::ResourceExt as _;
use meshstor_crds::{FabricLatency, MeshNode, MeshReplica, Placement, SpreadMode};
use std::sync::Arc;

/// One leg's place.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing<'a> {
    /// The leg.
    pub leg: &'a MeshReplica,
    /// What speaks for the place, for people.
    pub for_it: Vec<String>,
    /// The first rule that it breaks; or what is not known, and would decide.
    pub against: Result<Option<String>, String>,
}

/// The value of a node's label, absent, or what is not known.
pub type Value<'a> = Result<Option<&'a str>, String>;

/// How each of `legs` stands. Of two that may not share a value of a required label the later one is against the rule. What a place needs
/// only when it is chosen (room, a node that answers and is not drained) is no rule for who is there already.
pub fn of<'a, 'l>(
    legs: &[&'a MeshReplica],
    rules: &Placement,
    preferred: Option<&str>,
    nodes: &[Arc<MeshNode>],
    label: impl Fn(&str, &str) -> Value<'l>,
) -> Vec<Standing<'a>> {
    let first = || legs.first().map(|leg| leg.spec.node.as_str());
    let centre = preferred.or_else(first).filter(|_| rules.fabric_latency == FabricLatency::Prefer);
    let near = Near::of(centre, nodes);
    let stands = |(index, leg): (usize, &&'a MeshReplica)| {
        let name = &leg.spec.node;
        let spread = rules.spread.iter().map(|rule| rule.topology_key.as_str());
        let values = spread.filter_map(|key| Some(format!("{key}={}", label(name, key).ok()??)));
        let preferred = (preferred == Some(name)).then(|| "the preferred node".to_owned());
        let way = node::find(nodes, name).and_then(|node| near.way(node));
        let against = node_against(name, rules, &label)
            .and_then(|found| if found.is_some() { Ok(found) } else { drive_against(leg, rules, nodes) })
            .and_then(
                |found| if found.is_some() { Ok(found) } else { spread_against(leg, &legs[..index], rules, &label) },
            );
        Standing { leg, for_it: values.chain(preferred).chain(way).collect(), against }
    };
    legs.iter().enumerate().map(stands).collect()
}

type Against = Result<Option<String>, String>;

fn node_against<'l>(node: &str, rules: &Placement, label: &impl Fn(&str, &str) -> Value<'l>) -> Against {
    for (key, wanted) in &rules.node_selector {
        let has = label(node, key)?;
        if has != Some(wanted) {
            return Ok(Some(filters::node_selector(key, wanted, has).to_string()));
        }
    }
    Ok(None)
}

fn drive_against(leg: &MeshReplica, rules: &Placement, nodes: &[Arc<MeshNode>]) -> Against {
    let node = node::find(nodes, &leg.spec.node).ok_or_else(|| format!("there is no MeshNode {}", leg.spec.node))?;
    let drives = node.status.as_ref().map_or(&[][..], |s| &s.drives);
    // One that is gone from its node has other troubles.
    Ok(drives.iter().find(|d| d.id == leg.spec.drive).and_then(|drive| drives::unwanted(node, drive, rules)))
}

fn spread_against<'l>(
    leg: &MeshReplica,
    before: &[&MeshReplica],
    rules: &Placement,
    label: &impl Fn(&str, &str) -> Value<'l>,
) -> Against {
    for rule in rules.spread.iter().filter(|rule| rule.mode == SpreadMode::Required) {
        let key = rule.topology_key.as_str();
        let Some(value) = label(&leg.spec.node, key)? else {
            return Ok(Some(filters::spread(&format!("no label {key}")).to_string()));
        };
        for other in before.iter().filter(|other| other.spec.mirror_set == leg.spec.mirror_set) {
            if label(&other.spec.node, key)? == Some(value) {
                let why = format!("{key}={value} has {}", other.name_any());
                return Ok(Some(filters::spread(&why).to_string()));
            }
        }
    }
    Ok(None)
}
