//! The hands of one leg: observe, plan, do one step.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use kube::ResourceExt as _;
use meshstor_crds::{MeshReplica, MeshReplicaStatus, REPLICA_FINALIZER, identity, naming};
use tokio::sync::oneshot;

use super::context::{Again, Context, Turn, newest};
use super::error::{ClusterError, TurnError, reason};
use super::interest::{Key, kernel_name};
use crate::attachment::{disowned, failing, held};
use crate::host::{Host, HostError, LegFacts, LegRef, Part};
use crate::leg::{self, LegStep, Memory, Record, View};

/// Serves one leg of this node.
pub struct LegWorker {
    ctx: Arc<Context>,
    name: String,
    latest: Option<MeshReplica>,
    memory: Memory,
}

impl LegWorker {
    /// For the `MeshReplica` of that name.
    pub fn new(ctx: Arc<Context>, name: String) -> Self {
        Self { ctx, name, latest: None, memory: Memory::default() }
    }

    /// Observes, plans, and does the one next step.
    ///
    /// # Errors
    /// [`TurnError`] when the step failed; the status already says so.
    pub async fn turn(&mut self) -> Result<Turn, TurnError> {
        let Some(replica) = newest(self.ctx.cluster.replica(&self.name), self.latest.as_ref()) else {
            return Ok(Turn::Gone);
        };
        let done = self.step(&replica).await;
        if let Err(TurnError::Host(error)) = &done {
            self.complain(error).await?;
        }
        done
    }

    async fn step(&mut self, replica: &MeshReplica) -> Result<Turn, TurnError> {
        let mut record = Record::Unread;
        let mut step = self.plan(replica, &record).await?;
        if step == LegStep::ReadRecord {
            record = self.read_record(replica).await?;
            step = self.plan(replica, &record).await?;
        }
        if step.destructive() && !self.fresh(replica).await? {
            return Ok(Turn::Acted);
        }
        let gate = self.ctx.gate(&replica.spec.volume);
        let held = if step.needs_gate() { Some(gate.lock_owned().await) } else { None };
        if held.is_some() && self.plan(replica, &record).await? != step {
            return Ok(Turn::Acted);
        }
        let span = tracing::info_span!("leg", node = %self.ctx.node, volume = %replica.spec.volume,
            leg = %self.name, epoch = replica.spec.epoch);
        span.in_scope(|| {
            if step != LegStep::Settled {
                tracing::info!(%step)
            }
        });
        self.act(replica, step).await
    }

    async fn plan(&self, replica: &MeshReplica, record: &Record) -> Result<LegStep, TurnError> {
        let facts = self.observe(replica).await?;
        let address = self.ctx.address(replica.spec.transport);
        let attachment = self.ctx.cluster.attachment(&replica.spec.volume);
        let status = attachment.as_ref().and_then(|a| a.status.as_ref());
        Ok(leg::plan(&View {
            replica,
            facts: &facts,
            node: &self.ctx.node,
            boot_id: &self.ctx.boot_id,
            address: address.as_deref(),
            record,
            failing: status.is_some_and(|s| failing(s, &self.name)),
            disowned: status.is_some_and(|s| disowned(s, &self.name, replica.spec.epoch)),
            locked_out: self.is_held(replica) && self.is_left(&facts).await?,
            memory: &self.memory,
            now: &self.ctx.now(),
        }))
    }

    /// The consumer says that writes to the leg are held.
    fn is_held(&self, replica: &MeshReplica) -> bool {
        let attachment = self.ctx.cluster.attachment(&replica.spec.volume);
        let status = attachment.as_ref().and_then(|a| a.status.as_ref());
        status.is_some_and(|s| held(s, &self.name, replica.spec.epoch))
    }

    /// Who had a connection to an export of the leg has it no more, and cannot make another.
    async fn is_left(&self, facts: &LegFacts) -> Result<bool, TurnError> {
        let exports = facts.exports.clone();
        let any = move |host: &dyn Host| exports.iter().try_fold(false, |any, e| Ok(any || host.is_left(e)?));
        self.ctx.blocking(any).await
    }

    async fn observe(&self, replica: &MeshReplica) -> Result<LegFacts, TurnError> {
        let leg = reference(replica);
        let facts = self.ctx.blocking(move |host| host.leg(&leg)).await;
        self.ctx.interests.set(Key::Leg(self.name.clone()), facts.as_ref().ok().and_then(|f| names(replica, f)));
        facts
    }

    /// The record by a GET without `resourceVersion`, so that it is none that was.
    async fn read_record(&self, replica: &MeshReplica) -> Result<Record, TurnError> {
        let found = self.ctx.cluster.read_attachment(replica.spec.volume.clone()).await?;
        // The attachment of another volume of the same name says nothing of this leg.
        let owners = |a: &meshstor_crds::MeshAttachment| a.metadata.owner_references.clone().unwrap_or_default();
        let ours = |a: &meshstor_crds::MeshAttachment| {
            owners(a).iter().all(|o| o.kind != "MeshVolume" || o.uid == replica.spec.volume_uid)
        };
        let term = found.filter(ours).and_then(|a| a.status).and_then(|s| s.term);
        Ok(term.map_or(Record::Absent, |t| Record::Present(Box::new(t))))
    }

    /// Whether a quorum read of the object says what was planned from.
    async fn fresh(&mut self, replica: &MeshReplica) -> Result<bool, TurnError> {
        let read = self.ctx.cluster.read_replica(self.name.clone()).await?;
        let same = read.as_ref().is_some_and(|r| {
            r.metadata.uid == replica.metadata.uid && r.spec == replica.spec && r.status == replica.status
        });
        self.latest = read;
        Ok(same)
    }

    async fn act(&mut self, replica: &MeshReplica, step: LegStep) -> Result<Turn, TurnError> {
        let leg = reference(replica);
        match step {
            // No event tells when the last connection to an export is gone.
            LegStep::Settled if self.is_held(replica) => return Ok(Turn::Settled(Again::Tick)),
            LegStep::Settled | LegStep::ReadRecord => return Ok(Turn::Settled(Again::Full)),
            LegStep::Report(status) => self.write(replica, *status).await?,
            LegStep::CreatePartition { bytes, label } => {
                self.ctx.blocking(move |host| host.create_partition(&leg, bytes, &label)).await?;
            }
            LegStep::Zero { part, then } => {
                self.zero(replica, &leg, part).await?;
                self.ctx.blocking(move |host| host.write_ledger(&leg, &then)).await?;
            }
            LegStep::WriteLedger { entry, .. } => {
                self.ctx.blocking(move |host| host.write_ledger(&leg, &entry)).await?;
            }
            LegStep::Revoke { nqn } => {
                self.memory.unserved = None;
                self.ctx.blocking(move |host| host.revoke(&nqn)).await?;
            }
            LegStep::Export { entry, spec } => {
                // In the ledger as spent before it is open; an error that left nothing behind may be tried again.
                self.memory.unserved = Some(entry.spent_grant);
                self.ctx
                    .blocking(move |host| host.write_ledger(&leg, &entry).and_then(|()| host.export(&leg, &spec)))
                    .await?;
                self.memory.unserved = None;
            }
            LegStep::Readmit { spec } => {
                self.ctx.blocking(move |host| host.readmit(&leg, &spec)).await?;
            }
            LegStep::DeletePartition => {
                self.ctx.blocking(move |host| host.delete_partition(&leg)).await?;
                self.ctx.node_changed.notify_one();
            }
            LegStep::RemoveFinalizer => return self.release(replica).await,
        }
        Ok(Turn::Acted)
    }

    async fn release(&mut self, replica: &MeshReplica) -> Result<Turn, TurnError> {
        let mut object = replica.clone();
        object.finalizers_mut().retain(|f| f != REPLICA_FINALIZER);
        let released = self.ctx.cluster.release_replica(object).await;
        self.ctx.node_changed.notify_one();
        if let Err(error) = released {
            self.latest = self.ctx.cluster.read_replica(self.name.clone()).await?;
            return if self.latest.is_none() { Ok(Turn::Gone) } else { Err(error.into()) };
        }
        Ok(Turn::Gone)
    }

    /// Zeroes in the background and says how far it is, in tens of percent.
    async fn zero(&mut self, replica: &MeshReplica, leg: &LegRef, part: Part) -> Result<(), TurnError> {
        let done = Arc::new(AtomicU8::new(0));
        let (host, leg, count) = (Arc::clone(&self.ctx.host), leg.clone(), Arc::clone(&done));
        let (answer, mut zeroed) = oneshot::channel();
        self.ctx.surroundings.apart(Box::new(move || {
            drop(answer.send(host.zero(&leg, part, &|percent| count.store(percent, Ordering::Relaxed))));
        }));
        let mut object = replica.clone();
        loop {
            let status = leg::progress(&object, done.load(Ordering::Relaxed), &self.ctx.now());
            if object.status.as_ref() != Some(&status) && self.write(&object, status).await.is_ok() {
                object = self.latest.clone().unwrap_or(object);
            }
            tokio::select! {
                biased;
                result = &mut zeroed => return Ok(result??),
                () = self.ctx.surroundings.sleep(Duration::from_secs(1)) => {}
            }
        }
    }

    async fn write(&mut self, replica: &MeshReplica, status: MeshReplicaStatus) -> Result<(), TurnError> {
        let mut object = replica.clone();
        object.status = Some(status);
        let prepared = object.status.as_ref().map(|s| s.partition.is_some());
        if prepared != replica.status.as_ref().map(|s| s.partition.is_some()) {
            self.ctx.node_changed.notify_one();
        }
        match self.ctx.cluster.write_replica(object).await {
            Ok(written) => self.latest = Some(written),
            Err(error @ ClusterError::Refused(..)) => return Err(error.into()),
            Err(error) => {
                self.latest = self.ctx.cluster.read_replica(self.name.clone()).await?;
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn complain(&mut self, error: &HostError) -> Result<(), TurnError> {
        if matches!(error, HostError::Crashed) {
            return Ok(());
        }
        let Some(replica) = newest(self.ctx.cluster.replica(&self.name), self.latest.as_ref()) else { return Ok(()) };
        let stalled = matches!(error, HostError::Conflict { .. });
        let status = leg::trouble(&replica, reason(error), &error.to_string(), stalled, &self.ctx.now());
        if replica.status.as_ref() == Some(&status) {
            return Ok(());
        }
        self.write(&replica, status).await
    }
}

/// What the leg depends on: partition, the array that holds it, exports. None without a partition.
fn names(replica: &MeshReplica, facts: &LegFacts) -> Option<BTreeSet<String>> {
    let partition = kernel_name(&facts.partition.as_ref()?.device);
    let holder = facts.held_by.as_deref().and_then(kernel_name);
    let exports = facts.exports.iter().map(|e| e.nqn.clone());
    let uid = replica.metadata.uid.as_deref().unwrap_or_default();
    let granted = replica.spec.grant.as_ref().map(|g| naming::export_nqn(uid, g.epoch, g.number));
    Some(exports.chain(partition).chain(holder).chain(granted).collect())
}

/// The leg as the host knows it.
pub fn reference(replica: &MeshReplica) -> LegRef {
    LegRef { drive: replica.spec.drive.clone(), uuid: identity::partition(replica) }
}
