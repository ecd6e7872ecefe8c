//! What belongs to no object: it is kept, and goes only when a person says so and nobody uses it.

use meshstor_crds::{MeshNode, MeshNodeSpec, MeshNodeStatus, QuarantineKind, Quarantined, Transport, naming};

use super::sim::{Sim, leg_ref};
use crate::control::quarantine::Keeper;
use crate::host::crash::CrashPoint;
use crate::host::fake::Write;
use crate::host::{ConnectSpec, ExportSpec, Host};

struct Yard {
    sim: Sim,
    keepers: Vec<(&'static str, Keeper)>,
}

impl Yard {
    /// A volume with a leg on each node, prepared, and attached on `a` if asked for.
    async fn new(attached: bool) -> Self {
        let mut sim = Sim::new();
        if attached {
            sim.want(Some("a"));
        }
        sim.settle().await;
        for node in ["a", "b"] {
            let object = MeshNode::new(node, MeshNodeSpec::default());
            sim.state.lock().unwrap().nodes.insert(node.to_owned(), object);
        }
        let mut keepers = vec![];
        for node in ["a", "b"] {
            keepers.push((node, Keeper::new(sim.context(node, CrashPoint::never()))));
        }
        Self { sim, keepers }
    }

    /// Every keeper looks three times: to suspect, to believe, and to see that nothing more comes of it.
    async fn look(&mut self) {
        for (_, keeper) in &mut self.keepers {
            for _ in 0..3 {
                keeper.turn().await.unwrap();
            }
        }
    }

    /// The object of a node as its daemon would write it now.
    fn show(&self) {
        for (node, keeper) in &self.keepers {
            let quarantine = keeper.kept().items;
            let mut state = self.sim.state.lock().unwrap();
            let object = state.nodes.get_mut(*node).unwrap();
            object.status = Some(MeshNodeStatus { quarantine, ..MeshNodeStatus::default() });
        }
    }

    fn items(&self) -> Vec<Quarantined> {
        self.keepers.iter().flat_map(|(_, keeper)| keeper.kept().items).collect()
    }

    fn kinds(&self) -> Vec<QuarantineKind> {
        let mut kinds: Vec<_> = self.items().into_iter().map(|item| item.kind).collect();
        kinds.sort();
        kinds
    }

    /// A person names all of it.
    fn wipe(&self, ids: &[String]) {
        self.sim.state.lock().unwrap().nodes.values_mut().for_each(|node| node.spec.wipe = ids.to_vec());
    }

    fn ids(&self) -> Vec<String> {
        self.items().into_iter().map(|item| item.id).collect()
    }

    /// etcd is lost.
    fn lose_every_object(&self) {
        let mut state = self.sim.state.lock().unwrap();
        state.replicas.clear();
        state.attachments.clear();
        state.volumes.clear();
    }

    fn told(&self, reason: &str) -> usize {
        self.sim.state.lock().unwrap().notices.iter().filter(|n| n.reason == reason).count()
    }

    fn legs(&self) -> usize {
        ["a", "b"].map(|node| self.sim.host(node).legs().unwrap().len()).iter().sum()
    }
}

/// I1: when every object is lost, a running volume runs on, whatever a person asks for: each thing that it needs is told of and kept.
#[tokio::test]
async fn the_loss_of_every_object_takes_nothing_from_a_running_volume() {
    use QuarantineKind::{Array, Connection, Export, Partition};
    let mut yard = Yard::new(true).await;
    assert_eq!(yard.sim.write("a"), Write::Acked);
    yard.look().await;
    assert_eq!(yard.kinds(), []);
    yard.lose_every_object();
    yard.look().await;
    assert_eq!(yard.kinds(), [Partition, Partition, Array, Export, Connection]);
    assert!(yard.items().iter().all(|item| item.in_use.is_some()), "{:#?}", yard.items());
    let told = yard.told("Quarantined");
    yard.wipe(&yard.ids());
    yard.look().await;
    assert_eq!(yard.kinds(), [Partition, Partition, Array, Export, Connection]);
    assert_eq!((told, yard.told("WipeRefused"), yard.told("Wiped")), (5, 5, 0), "each is told of once");
    assert_eq!(yard.sim.write("a"), Write::Acked);
    let legs: Vec<_> = yard.items().into_iter().filter_map(|item| item.leg).collect();
    assert!(legs.iter().all(|leg| leg.array_uuid.is_some() && leg.active_slots == [0, 1]), "{legs:#?}");
}

/// I1: a cache that lost its legs makes litter of nothing, and erases nothing.
#[tokio::test]
async fn a_cache_that_is_behind_makes_no_litter() {
    let mut yard = Yard::new(false).await;
    yard.sim.state.lock().unwrap().blind = true;
    yard.look().await;
    assert_eq!(yard.ids(), Vec::<String>::new());
    // Nor does an API server that does not answer.
    yard.sim.state.lock().unwrap().away = true;
    for (_, keeper) in &mut yard.keepers {
        assert!(keeper.turn().await.is_err());
    }
    yard.sim.state.lock().unwrap().away = false;
    yard.look().await;
    assert_eq!((yard.ids(), yard.legs()), (vec![], 2));
}

/// I1: what got its object back is not erased, though the cache of the daemon does not know yet.
#[tokio::test]
async fn what_was_adopted_in_the_last_moment_is_not_erased() {
    let mut yard = Yard::new(false).await;
    let replicas = yard.sim.state.lock().unwrap().replicas.clone();
    yard.lose_every_object();
    yard.look().await;
    let ids = yard.ids();
    assert_eq!(ids.len(), 2);
    {
        let mut state = yard.sim.state.lock().unwrap();
        (state.replicas, state.blind) = (replicas, true);
    }
    yard.wipe(&ids);
    yard.look().await;
    assert_eq!((yard.ids(), yard.legs(), yard.told("Wiped")), (vec![], 2, 0));
}

#[tokio::test]
async fn what_a_person_named_is_erased_once() {
    let mut yard = Yard::new(false).await;
    yard.lose_every_object();
    yard.look().await;
    let first = yard.ids();
    assert_eq!((yard.kinds(), yard.legs()), (vec![QuarantineKind::Partition; 2], 2), "nothing was erased by itself");
    yard.wipe(&first[..1]);
    yard.look().await;
    assert_eq!((yard.ids(), yard.legs(), yard.told("Wiped")), (vec![first[1].clone()], 1, 1));
    // A process that is started anew has what the node's object says.
    yard.show();
    let since = yard.items()[0].since.clone();
    yard.keepers = vec![("b", Keeper::new(yard.sim.context("b", CrashPoint::never())))];
    yard.look().await;
    assert_eq!((yard.ids(), yard.told("Quarantined")), (vec![first[1].clone()], 2));
    assert_eq!(yard.items()[0].since, since);
}

/// I1: what comes back under a name that was erased once is not erased by the line that is still there.
#[tokio::test]
async fn a_forgotten_line_erases_nothing_that_comes_later() {
    let mut yard = Yard::new(false).await;
    yard.lose_every_object();
    yard.look().await;
    yard.wipe(&yard.ids());
    yard.look().await;
    assert_eq!(yard.legs(), 0);
    yard.sim.host("a").create_partition(&leg_ref(0, "a"), 64 << 20, "v-0").unwrap();
    yard.look().await;
    assert_eq!((yard.ids().len(), yard.legs(), yard.told("WipeRefused")), (1, 1, 1));
    yard.wipe(&[]);
    yard.look().await;
    yard.wipe(&yard.ids());
    yard.look().await;
    assert_eq!(yard.legs(), 0);
}

/// A connection that nobody uses is taken down without being asked for; the export behind it is left until somebody names it.
#[tokio::test]
async fn a_connection_that_nobody_uses_goes() {
    let mut yard = Yard::new(false).await;
    let (a, b) = (yard.sim.host("a").clone(), yard.sim.host("b").clone());
    let nqn = naming::export_nqn("nobody", 1, 1);
    let export = ExportSpec {
        nqn: nqn.clone(),
        host_nqn: a.node().unwrap().host_nqn,
        transport: Transport::Tcp,
        address: "10.0.0.1".to_owned(),
        io_queues: 1,
    };
    let (address, port) = b.export(&leg_ref(1, "b"), &export).unwrap().listening.unwrap();
    let transport = Transport::Tcp;
    a.connect(&ConnectSpec { nqn, transport, address, port, io_queues: 1, queue_size: 16, keep_alive: 2 }).unwrap();
    yard.keepers[0].1.turn().await.unwrap();
    assert_eq!(a.connections().unwrap().len(), 1, "one look is no proof");
    yard.look().await;
    assert_eq!((a.connections().unwrap().len(), yard.told("Released")), (0, 1));
    assert_eq!((yard.kinds(), b.exports().unwrap().len()), (vec![QuarantineKind::Export], 1));
    yard.wipe(&yard.ids());
    yard.look().await;
    assert_eq!((yard.ids(), b.exports().unwrap().len(), yard.legs()), (vec![], 0, 2));
}
