//! The fake API server's objects: versions, conflicts, subresources, finalizers, and a log of changes for watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::Resource;
use kube::api::ObjectMeta;
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy, Time};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::diary::Diary;
use crate::rules::{self, By};

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: u16,
    pub(crate) message: String,
}

pub(crate) type Answer<T> = Result<T, Refused>;

fn refused<T>(code: u16, message: impl Into<String>) -> Answer<T> {
    Err(Refused { code, message: message.into() })
}

/// A kind that the server keeps.
pub(crate) trait Kind:
    Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + PartialEq + Send + Sync + 'static
{
    fn table(state: &mut State) -> &mut Table<Self>;
    /// The object with the status of `other`.
    fn with_status_of(self, other: &Self) -> Self;
    fn same_spec(&self, other: &Self) -> bool;
    /// The value of a field that lists may be selected by.
    fn field(&self, name: &str) -> Option<&str>;
    fn rules(old: Option<&Self>, new: &Self, by: &By) -> Result<(), String>;
}

macro_rules! kinds {
    ($($kind:ident, $table:ident, $rules:expr, $field:expr;)*) => {$(
        impl Kind for $kind {
            fn table(state: &mut State) -> &mut Table<Self> {
                &mut state.$table
            }
            fn with_status_of(self, other: &Self) -> Self {
                Self { status: other.status.clone(), ..self }
            }
            fn same_spec(&self, other: &Self) -> bool {
                self.spec == other.spec
            }
            fn field(&self, name: &str) -> Option<&str> {
                let field: for<'a> fn(&'a Self, &str) -> Option<&'a str> = $field;
                field(self, name)
            }
            fn rules(old: Option<&Self>, new: &Self, by: &By) -> Result<(), String> {
                let rules: fn(Option<&Self>, &Self, &By) -> Result<(), String> = $rules;
                rules(old, new, by)
            }
        }
    )*};
}

kinds! {
    MeshVolume, volumes, |_, _, _| Ok(()), |_, _| None;
    MeshAttachment, attachments, rules::attachment, |_, _| None;
    MeshReplica, replicas, rules::replica, |leg, name| match name {
        "spec.volume" => Some(&leg.spec.volume),
        "spec.node" => Some(&leg.spec.node),
        _ => None,
    };
    MeshNode, nodes, |_, _, _| Ok(()), |_, _| None;
    ReplicaSetPolicy, policies, |_, _, _| Ok(()), |_, _| None;
    NodeDrain, drains, |_, _, _| Ok(()), |_, _| None;
}

/// Objects of one kind, and every change of them.
pub(crate) struct Table<K> {
    pub(crate) objects: BTreeMap<String, Arc<K>>,
    /// Name, and the object as it became; none when it went.
    pub(crate) changes: Vec<(String, Option<Arc<K>>)>,
    /// Objects as they were last written out, by name, with their version.
    texts: BTreeMap<String, (Option<String>, Arc<str>)>,
}

impl<K> Default for Table<K> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), changes: Vec::new(), texts: BTreeMap::new() }
    }
}

impl<K> Table<K> {
    pub(crate) fn get(&self, name: &str) -> Option<Arc<K>> {
        self.objects.get(name).cloned()
    }

    /// The object in JSON.
    pub(crate) fn text(&mut self, object: &K) -> Arc<str>
    where
        K: Kind,
    {
        let (name, version) = (name(object), &object.meta().resource_version);
        if let Some((known, text)) = self.texts.get(&name)
            && known == version
        {
            return Arc::clone(text);
        }
        let text: Arc<str> = serde_json::to_string(object).unwrap_or_default().into();
        self.texts.insert(name, (version.clone(), Arc::clone(&text)));
        text
    }

    fn put(&mut self, name: &str, object: Option<Arc<K>>) {
        match &object {
            Some(object) => self.objects.insert(name.to_owned(), Arc::clone(object)),
            None => self.objects.remove(name),
        };
        self.changes.push((name.to_owned(), object));
    }
}

/// Everything that the server knows.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) volumes: Table<MeshVolume>,
    pub(crate) attachments: Table<MeshAttachment>,
    pub(crate) replicas: Table<MeshReplica>,
    pub(crate) nodes: Table<MeshNode>,
    pub(crate) policies: Table<ReplicaSetPolicy>,
    pub(crate) drains: Table<NodeDrain>,
    pub(crate) version: u64,
    /// Changes of anything but heartbeats.
    pub(crate) changed: u64,
    pub(crate) now: Option<Time>,
    /// What was seen to be wrong as it was done: what a real server would have refused, never to be sent by anybody of ours, and
    /// refusals of hosts that were not clean.
    pub(crate) broken: Vec<String>,
    /// Calls that hosts refused.
    pub(crate) refusals: u64,
    /// What is said to have happened, when a run is looked at.
    pub(crate) log: Option<Diary>,
}

fn name<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

impl State {
    fn stamp<K: Kind>(&mut self, object: &mut K) {
        self.version += 1;
        if K::plural(&()) != "meshnodes" {
            self.changed += 1;
        }
        object.meta_mut().resource_version = Some(self.version.to_string());
    }

    fn check<K: Kind>(&mut self, old: Option<&K>, new: &K, by: &By) -> Answer<()> {
        match K::rules(old, new, by) {
            Ok(()) => Ok(()),
            Err(why) => {
                let said = format!("{by:?} wrote {} {}: {why}", K::kind(&()), name(new));
                self.broken.push(format!("the API would refuse it: {said}"));
                refused(422, said)
            }
        }
    }

    pub(crate) fn get<K: Kind>(&mut self, name: &str) -> Answer<Arc<K>> {
        K::table(self).get(name).map_or_else(|| refused(404, format!("{name} not found")), Ok)
    }

    pub(crate) fn create<K: Kind>(&mut self, mut object: K, by: &By) -> Answer<Arc<K>> {
        let name = name(&object);
        if K::table(self).objects.contains_key(&name) {
            return refused(409, format!("{name} exists"));
        }
        self.check(None, &object, by)?;
        // The status is a subresource: nobody creates it.
        let blank: ObjectMeta = object.meta().clone();
        let (uid, created) = (uuid::Uuid::from_u128(u128::from(self.version) + (0x4000_u128 << 64)), self.now.clone());
        *object.meta_mut() =
            ObjectMeta { uid: Some(uid.to_string()), creation_timestamp: created, generation: Some(1), ..blank };
        self.stamp(&mut object);
        let object = Arc::new(object);
        K::table(self).put(&name, Some(Arc::clone(&object)));
        Ok(object)
    }

    /// Replaces the status, or everything but the status.
    pub(crate) fn replace<K: Kind>(&mut self, new: K, status: bool, by: &By) -> Answer<Arc<K>> {
        let name = name(&new);
        let old = self.get::<K>(&name)?;
        let sent = new.meta().clone();
        if sent.uid.is_some() && sent.uid != old.meta().uid {
            return refused(409, format!("{name} is another"));
        }
        if sent.resource_version.is_some() && sent.resource_version != old.meta().resource_version {
            return refused(409, format!("{name} changed"));
        }
        let mut next = if status {
            (*old).clone().with_status_of(&new)
        } else {
            let mut next = new.with_status_of(&old);
            let (finalizers, owners) = (sent.finalizers, sent.owner_references);
            *next.meta_mut() = ObjectMeta { finalizers, owner_references: owners, ..old.meta().clone() };
            next
        };
        if next == *old {
            return Ok(old);
        }
        self.check(Some(&*old), &next, by)?;
        if !next.same_spec(&old) {
            let generation = next.meta().generation.unwrap_or(0) + 1;
            next.meta_mut().generation = Some(generation);
        }
        self.store(&name, next)
    }

    fn store<K: Kind>(&mut self, name: &str, mut next: K) -> Answer<Arc<K>> {
        self.stamp(&mut next);
        let next = Arc::new(next);
        let gone = next.meta().deletion_timestamp.is_some() && next.meta().finalizers.iter().flatten().next().is_none();
        K::table(self).put(name, (!gone).then(|| Arc::clone(&next)));
        if let Some(log) = &mut self.log {
            let text = serde_json::to_value(&*next).unwrap_or_default();
            let what = if gone { "is gone".to_owned() } else { summary(&text) };
            log.push(format!("      {} {name} {what}", K::kind(&())));
        }
        Ok(next)
    }

    /// Deletes: at once where no finalizer holds it.
    pub(crate) fn delete<K: Kind>(&mut self, name: &str, version: Option<&str>, uid: Option<&str>) -> Answer<()> {
        let old = self.get::<K>(name)?;
        let differs = |wanted: Option<&str>, is: &Option<String>| wanted.is_some() && wanted != is.as_deref();
        if differs(version, &old.meta().resource_version) || differs(uid, &old.meta().uid) {
            return refused(409, format!("{name} changed"));
        }
        if old.meta().deletion_timestamp.is_some() {
            return Ok(());
        }
        let mut next = (*old).clone();
        next.meta_mut().deletion_timestamp.clone_from(&self.now);
        next.meta_mut().generation = Some(next.meta().generation.unwrap_or(0) + 1);
        self.store(name, next).map(drop)
    }
}

/// What of an object a reader of a log wants to see.
fn summary(object: &serde_json::Value) -> String {
    let (spec, status) = (&object["spec"], &object["status"]);
    let ready = status["conditions"].as_array().into_iter().flatten().find(|c| c["type"] == "Ready");
    let ready = ready.map(|c| format!("{}/{}: {}", c["status"], c["reason"], c["message"])).unwrap_or_default();
    match object["kind"].as_str() {
        Some("MeshAttachment") => {
            format!(
                "spec {spec} term {} ended {} array {} ready {ready}",
                status["term"], status["ended"], status["array"]
            )
        }
        Some("MeshReplica") => format!(
            "epoch {} grant {} revokedBelow {} spent {} export {} ready {ready}",
            spec["epoch"],
            spec["grant"]["number"],
            status["revokedBelow"],
            status["spentGrant"],
            status["export"]["grant"]
        ),
        _ => format!("ready {ready}"),
    }
}
