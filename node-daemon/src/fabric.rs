//! How long the way to other nodes is, in classes that rarely change. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use meshstor_crds::{FABRIC_PEERS_MAX, FabricPeer};

/// The lowest and the highest class, in µs (`FabricPeer::latency_microseconds`).
const CLASSES: [u64; 2] = [16, 65_536];
/// A round trip leaves its class when it is this much below or above it, in percent.
const MARGIN: u64 = 30;
/// Time between two rounds of a small cluster.
const ROUND: Duration = Duration::from_secs(600);

/// Time until the next round in a cluster of so many nodes: all of them together read the list of nodes once a second at most.
pub fn round(nodes: usize) -> Duration {
    ROUND.max(Duration::from_secs(nodes as u64))
}

/// The nodes that `node` measures, of all: each other one, or where those are too many as good as any, but always the same; most of them
/// measure it too.
pub fn chosen<'a>(node: &str, all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut others: Vec<(u64, &str)> = all
        .filter(|other| *other != node)
        .map(|other| {
            let mut hasher = DefaultHasher::new();
            (node.min(other), node.max(other)).hash(&mut hasher);
            (hasher.finish(), other)
        })
        .collect();
    others.sort_unstable();
    others.into_iter().take(FABRIC_PEERS_MAX).map(|(_, other)| other).collect()
}

/// What is to be said after a round: of each node that was asked its class, by name. One that did not answer keeps what it had.
pub fn said(old: &[FabricPeer], round: &BTreeMap<String, Option<Duration>>) -> Vec<FabricPeer> {
    let each = round.iter().filter_map(|(node, took)| {
        let before = old.iter().find(|peer| peer.node == *node).map(|peer| peer.latency_microseconds);
        let latency_microseconds = took.map(|took| class(took, before)).or(before)?;
        Some(FabricPeer { node: node.clone(), latency_microseconds })
    });
    each.collect()
}

/// The power of two above the time, unless it is about where it was.
fn class(took: Duration, before: Option<i32>) -> i32 {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let stays = |before: &i32| {
        let high = u64::try_from(*before).unwrap_or(0);
        micros * 100 <= high * (100 + MARGIN) && micros * 100 >= high / 2 * (100 - MARGIN)
    };
    let [least, most] = CLASSES;
    let class = i32::try_from(micros.clamp(least, most).next_power_of_two()).unwrap_or(i32::MAX);
    before.filter(stays).unwrap_or(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn us(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    #[test]
    fn a_way_that_is_as_it_was_is_not_news() {
        assert_eq!([1, 16, 17, 100, 128, 1_000_000].map(|n| class(us(n), None)), [16, 16, 32, 128, 128, 65_536]);
        // Around 128 µs: up to 166, and down to 45.
        assert_eq!([45, 60, 128, 160].map(|n| class(us(n), Some(128))), [128; 4]);
        assert_eq!([30, 170, 400].map(|n| class(us(n), Some(128))), [32, 256, 512]);
        assert_eq!(class(us(2), Some(16)), 16);
    }

    #[test]
    fn who_did_not_answer_keeps_what_it_had_and_who_is_gone_goes() {
        let peer = |node: &str, latency_microseconds| FabricPeer { node: node.to_owned(), latency_microseconds };
        let old = [peer("a", 128), peer("b", 256), peer("gone", 16)];
        let round = [("a", None), ("b", Some(us(2000))), ("c", Some(us(90))), ("d", None)];
        let round = round.map(|(node, took)| (node.to_owned(), took)).into_iter().collect();
        assert_eq!(said(&old, &round), [peer("a", 128), peer("b", 2048), peer("c", 128)]);
    }

    #[test]
    fn many_nodes_measure_some_and_list_once_a_second() {
        let all: Vec<String> = (0..500).map(|n| format!("n{n}")).collect();
        let of = |node: &str| chosen(node, all.iter().map(String::as_str));
        assert_eq!((of("n1").len(), chosen("n1", ["n1", "n2"].into_iter())), (FABRIC_PEERS_MAX, vec!["n2"]));
        assert_ne!(of("n1"), of("n2"));
        let mutual = of("n1").into_iter().filter(|other| of(other).contains(&"n1")).count();
        assert!(mutual > FABRIC_PEERS_MAX * 3 / 4, "{mutual}");
        assert_eq!(of("n1"), of("n1"));
        assert_eq!((round(3), round(5000)), (ROUND, us(5_000_000_000)));
    }

    proptest! {
        #[test]
        fn a_class_is_a_power_of_two_and_holds(took in 0_u64..200_000, again in 95_u64..105) {
            let first = class(us(took), None);
            prop_assert!((16..=65_536).contains(&first) && first.count_ones() == 1);
            prop_assert_eq!(class(us(took * again / 100), Some(first)), first);
        }
    }
}
