//! The host calls of an attachment's steps, and what the process remembers of them.

use std::path::Path;

use meshstor_crds::{MeshAttachment, conditions};

use super::cluster::Notice;
use crate::attachment::{Failure, Memory, RETURNS, Step, Trouble};
use crate::host::{ArraySpec, Content, Host, HostError};

/// What an effect found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing but that it is done.
    Done,
    /// What the device holds.
    Content(Content),
    /// The array was made; true where none of its members ever was of an array, so that all of them are zeros.
    Created(bool),
}

/// Does the step on the host. Steps that write the record have no effect here.
///
/// # Errors
/// Those of the [`Host`].
pub fn perform(host: &dyn Host, step: &Step) -> Result<Found, HostError> {
    match step {
        Step::Connect { spec, .. } => host.connect(spec)?,
        Step::Create(spec) => return create(host, spec).map(Found::Created),
        Step::Assemble(spec) => assemble(host, spec)?,
        Step::Probe { device } => return host.content(device).map(Found::Content),
        Step::Wipe { device } => host.wipe(device)?,
        Step::Mkfs { device, filesystem } => host.mkfs(device, filesystem)?,
        Step::Mount { device, filesystem, at } => host.mount(device, filesystem, at)?,
        Step::Unmount { at } => host.unmount(at)?,
        Step::Evict { device } => evict(host, device)?,
        Step::StopArray { device } => host.stop_array(device)?,
        Step::Disconnect { nqn } => host.disconnect(nqn)?,
        Step::RemoveMember { device, name } => host.remove_member(device, name)?,
        Step::ZeroSuperblock { device, .. } => host.zero_superblock(device)?,
        Step::AddMember { device, member, .. } => host.add_member(device, member)?,
        Step::Readd { device, member, .. } => host.readd_member(device, member)?,
        Step::ReplaceMember { device, old, member, .. } => host.replace_member(device, old, member)?,
        Step::Suspend { device } => host.suspend(device)?,
        Step::FinishSync { device } => host.finish_sync(device)?,
        Step::Resume { device } => host.resume(device)?,
        Step::HoldFailures { device } => host.hold_failures(device)?,
        Step::Agree { device, number } => host.agree_to_failures(device, *number)?,
        Step::RefuseWrites { device } => host.refuse_writes(device)?,
        Step::ExpelMember { device, name, .. } => host.expel_member(device, name)?,
        Step::Thaw { device } => host.thaw(device)?,
        Step::Pace { device, kib } => host.limit_rebuild(device, *kib)?,
        Step::Forget { .. }
        | Step::Settle
        | Step::Claim
        | Step::Adopt
        | Step::RecordInitialised
        | Step::RecordLoss { .. }
        | Step::RecordInSync { .. }
        | Step::RecordEnded { .. }
        | Step::Report(_)
        | Step::Settled => {}
    }
    Ok(Found::Done)
}

/// Before `initialised` nothing was acknowledged to anybody: what an earlier try left is made anew. Its superblocks are
/// not erased before that, for they alone tell that the legs are zeros no more.
fn create(host: &dyn Host, spec: &ArraySpec) -> Result<bool, HostError> {
    let mut fresh = true;
    for member in &spec.members {
        match host.examine(&member.device)? {
            Some(found) if found.uuid != spec.uuid => return Err(foreign(&member.device, &found.uuid.to_string())),
            Some(_) => fresh = false,
            None => {}
        }
    }
    host.create_array(spec)?;
    Ok(fresh)
}

/// Every member must carry the array's UUID; nothing is touched where one does not.
fn assemble(host: &dyn Host, spec: &ArraySpec) -> Result<(), HostError> {
    for member in &spec.members {
        match host.examine(&member.device)? {
            Some(found) if found.uuid == spec.uuid => {}
            Some(found) => return Err(foreign(&member.device, &found.uuid.to_string())),
            None => return Err(foreign(&member.device, "no array")),
        }
    }
    host.assemble(spec)
}

/// That somebody is left is a failure: nothing may be released.
fn evict(host: &dyn Host, device: &Path) -> Result<(), HostError> {
    let left = host.evict(device)?;
    if left.is_empty() {
        return Ok(());
    }
    let action = format!("take {} away from its users", device.display());
    Err(HostError::Busy { action, cause: format!("{} cannot be killed", left.join(", ")) })
}

fn foreign(device: &Path, found: &str) -> HostError {
    HostError::Conflict {
        action: format!("start the array from {}", device.display()),
        cause: format!("its superblock names {found}"),
    }
}

/// What the process remembers after the step was done.
pub fn remember(memory: &mut Memory, step: &Step, found: Found) {
    match (step, found) {
        (Step::Probe { .. }, Found::Content(content)) => memory.content = Some(content),
        (Step::Create(_), Found::Created(fresh)) => {
            memory.fresh = fresh;
            memory.assembled = true;
            memory.content = None;
        }
        (Step::Assemble(_), _) => memory.assembled = true,
        (Step::Evict { .. }, _) => {
            memory.evicted = true;
            memory.stuck = None;
        }
        (Step::Wipe { .. }, _) => {
            memory.wiped = true;
            memory.content = None;
        }
        (Step::Mkfs { .. }, _) => memory.made = true,
        (Step::ZeroSuperblock { key, .. }, _) => {
            memory.erased.insert(key.clone());
        }
        (Step::AddMember { .. } | Step::ReplaceMember { .. }, _) => memory.erased.clear(),
        (Step::Readd { key, .. }, _) => {
            memory.refused.remove(key);
        }
        _ => {}
    }
    memory.trouble = None;
}

/// What the process remembers after the step failed.
pub fn regret(memory: &mut Memory, step: &Step, error: &HostError, published: bool) {
    let message = error.to_string();
    let reason = super::error::reason(error);
    if matches!(step, Step::AddMember { .. } | Step::ReplaceMember { .. }) {
        // It may have a superblock again.
        memory.erased.clear();
    }
    if let Step::Readd { key, .. } = step {
        // What was found on the leg stays as it is; anything else may pass.
        let weight = if matches!(error, HostError::Conflict { .. }) { RETURNS } else { 1 };
        *memory.refused.entry(key.clone()).or_default() += weight;
    }
    if step.starts() && !published {
        memory.failed = Some(Failure { message, conflict: reason == conditions::REASON_CONFLICT });
        return;
    }
    if let Step::Connect { spec, .. } = step {
        // What it tried may have used the door of the export up (rule 9): it needs a new grant.
        memory.burnt.insert(spec.nqn.clone());
    }
    if matches!(step, Step::HoldFailures { .. }) {
        memory.ungated = Some(message.clone());
    }
    if matches!(step, Step::Evict { .. }) {
        memory.stuck = Some(message.clone());
    }
    if matches!(step, Step::Evict { .. } | Step::Mount { .. } | Step::Unmount { .. } | Step::StopArray { .. }) {
        memory.trouble = Some(Trouble { step: step.to_string(), reason, message });
    }
}

/// What people are told of a step that was done.
pub fn notice(step: &Step, object: &MeshAttachment) -> Option<Notice> {
    let volume = object.metadata.name.as_deref().unwrap_or_default();
    let (warning, reason, note) = match step {
        Step::Create(spec) | Step::Assemble(spec) => {
            (false, "ArrayAssembled", format!("the array of {volume} runs from {} legs", spec.members.len()))
        }
        Step::RecordLoss { leg, why } => (true, "LegLost", format!("leg {leg} was recorded away: {why}")),
        Step::AddMember { leg, .. } => (false, "RebuildStarted", format!("leg {leg} is being rebuilt")),
        Step::Readd { leg, .. } => (false, "LegReturns", format!("leg {leg} is copied to what it lacks by the bitmap")),
        Step::ReplaceMember { leg, old, .. } => {
            (false, "ReplacementStarted", format!("leg {leg} is filled beside member {old}"))
        }
        Step::ExpelMember { leg, .. } => (false, "LegLeft", format!("leg {leg} left the array")),
        Step::RecordInSync { leg } => (false, "RebuildFinished", format!("leg {leg} is in sync")),
        Step::RecordEnded { reason: meshstor_crds::EndedReason::Detached } => {
            (false, "Detached", format!("{volume} is detached"))
        }
        _ => return None,
    };
    Some(Notice { warning, reason, note })
}
