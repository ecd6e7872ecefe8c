//! What a leg's status says.

use meshstor_crds::conditions::{self as c, Want};
use meshstor_crds::identity;
use meshstor_crds::{Export, LegPartition, MeshReplica, MeshReplicaStatus, TRUST_DRIVE, Time};

use super::service::{Service, confirmed, service, stranger};
use super::{LegStep, View};
use crate::host::ExportFacts;

/// Writes the status where it changed.
pub(super) fn step(view: &View<'_>) -> LegStep {
    let status = observed(view);
    let mut wants = wants(view);
    wants.extend(view.failing.then(failing));
    changed(view, with(view.replica, status, &wants, view.now))
}

/// The leg cannot go on without a person; what was reported of it stays.
pub(super) fn stalled(view: &View<'_>, reason: &'static str, message: &str) -> LegStep {
    changed(view, trouble(view.replica, reason, message, true, view.now))
}

/// The status after a step failed: the facts stay as they were last reported.
pub fn trouble(
    replica: &MeshReplica,
    reason: &'static str,
    message: &str,
    stalled: bool,
    now: &Time,
) -> MeshReplicaStatus {
    let beside = if stalled { c::STALLED } else { c::RECONCILING };
    let wants = [Want::new(c::READY, false, reason, message), Want::new(beside, true, reason, message)];
    with(replica, replica.status.clone().unwrap_or_default(), &wants, now)
}

/// The status while the leg is made and zeroed; `percent` is rounded down to 10.
pub fn progress(replica: &MeshReplica, percent: u8, now: &Time) -> MeshReplicaStatus {
    let mut status = trouble(replica, c::REASON_PREPARING, "the leg is being zeroed", false, now);
    // 100 is said only with the ledger entry written, by `observed`.
    status.zeroed_percent = Some(i32::from(percent.min(99) / 10) * 10);
    status
}

fn changed(view: &View<'_>, status: MeshReplicaStatus) -> LegStep {
    if view.replica.status.as_ref() == Some(&status) { LegStep::Settled } else { LegStep::Report(Box::new(status)) }
}

fn with(replica: &MeshReplica, mut status: MeshReplicaStatus, wants: &[Want], now: &Time) -> MeshReplicaStatus {
    let generation = replica.metadata.generation;
    let trusted = replica.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(TRUST_DRIVE));
    // Once said it stays: a drive does not heal because nobody uses it.
    let still = c::is_true(&status.conditions, c::FAILING) && wants.iter().all(|w| w.type_ != c::FAILING);
    let mut wants: Vec<Want> = wants.iter().cloned().chain(still.then(failing)).collect();
    wants.retain(|w| w.type_ != c::FAILING || !trusted);
    status.conditions = c::apply(&status.conditions, &wants, generation, now);
    status.observed_generation = generation;
    status
}

fn observed(view: &View<'_>) -> MeshReplicaStatus {
    let mut status = view.status();
    let (Some(partition), Some(ledger)) = (&view.facts.partition, &view.facts.ledger) else { return status };
    status.zeroed_percent = Some(100);
    status.partition = Some(LegPartition {
        uuid: identity::partition(view.replica).to_string(),
        first_byte: i64::try_from(partition.first_byte).unwrap_or(i64::MAX),
        size_bytes: i64::try_from(partition.size).unwrap_or(i64::MAX),
        blank: ledger.blank,
    });
    let epoch = view.spec().epoch;
    if epoch > 0 && confirmed(view) {
        status.revoked_below = Some(status.revoked_below.unwrap_or(0).max(epoch));
    }
    if ledger.spent_grant > 0 {
        status.spent_grant = Some(status.spent_grant.unwrap_or(0).max(ledger.spent_grant));
    }
    status.export = match service(view) {
        Service::Live(grant, export) => shown(grant.epoch, grant.number, export),
        _ => None,
    };
    status
}

fn shown(epoch: i64, grant: i64, export: &ExportFacts) -> Option<Export> {
    let (address, port) = export.listening.clone()?;
    let device_uuid = export.device_uuid?.to_string();
    Some(Export { epoch, grant, nqn: export.nqn.clone(), address, port: i32::from(port), device_uuid })
}

fn wants(view: &View<'_>) -> Vec<Want> {
    match obstacle(view) {
        None => vec![Want::new(c::READY, true, c::REASON_OK, "prepared, and open to whom it was granted")],
        Some((reason, message)) => {
            let beside = if reason == c::REASON_FOREIGN_ASSEMBLY { c::STALLED } else { c::RECONCILING };
            vec![Want::new(c::READY, false, reason, message.clone()), Want::new(beside, true, reason, message)]
        }
    }
}

fn failing() -> Want {
    let message = "its consumer says that MD dropped it with errors again and again, or that it answers far later than the others; \
                   events of the attachment say more. To have it used again, annotate it: meshstor.io/trust-drive=true";
    Want::new(c::FAILING, true, c::REASON_DRIVE_FAILING, message)
}

/// What keeps the leg from doing what its spec asks.
fn obstacle(view: &View<'_>) -> Option<(&'static str, String)> {
    let spec = view.spec();
    if view.deleting() {
        let holder = view.facts.held_by.as_ref().map(|d| format!("; {} holds it", d.display())).unwrap_or_default();
        return Some((
            c::REASON_DELETING,
            format!("waits until the record retires the leg and nobody uses it{holder}"),
        ));
    }
    if let Some(array) = stranger(view) {
        let array = array.display();
        return Some((
            c::REASON_FOREIGN_ASSEMBLY,
            format!(
                "{array} holds the leg and MeshStor did not assemble it; nothing is erased. Find out what uses it, stop it \
                 (mdadm --stop {array}), and keep udev and systemd from assembling MeshStor's partitions"
            ),
        ));
    }
    let size = view.facts.partition.as_ref().map_or(0, |p| p.size);
    if size < u64::try_from(spec.size_bytes).unwrap_or_default() {
        return Some((
            c::REASON_NOT_IMPLEMENTED,
            format!("the partition has {size} bytes; growing it is not done yet"),
        ));
    }
    if !confirmed(view) {
        let why = match &view.facts.held_by {
            Some(device) => format!("{} of an older epoch still holds the leg", device.display()),
            None => "the leg was told of a newer epoch than its spec's".to_owned(),
        };
        return Some((c::REASON_REVOKING, why));
    }
    match service(view) {
        Service::Spent(grant) => {
            let why = format!("grant {} was served before and its export is gone; waits for a new grant", grant.number);
            Some((c::REASON_LEG_MISSING, why))
        }
        Service::Open(_) if view.address.is_none() => {
            Some((c::REASON_HOST_ERROR, "no fabric address: start the daemon with --address".to_owned()))
        }
        Service::Open(_) => Some((c::REASON_BUSY, "waits until the last use of the leg has ended".to_owned())),
        _ => None,
    }
}
