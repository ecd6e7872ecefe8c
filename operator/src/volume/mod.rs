//! `MeshVolume`: from what a person asks for to legs, epochs and grants, and back to conditions.

pub mod action;
pub mod apply;
pub mod budget;
pub mod clocks;
pub mod copying;
pub mod deletion;
pub mod dereference;
pub mod edit;
pub mod events;
pub mod grants;
pub mod guard;
pub mod kernels;
pub mod placed;
pub mod placing;
pub mod plan;
pub mod reasons;
pub mod replacing;
pub mod seats;
pub mod status;
pub mod terms;
pub mod validate;
pub mod verdict;
pub mod world;

#[cfg(test)]
mod copying_tests;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod lost_tests;
#[cfg(test)]
mod placed_tests;
#[cfg(test)]
mod replacing_tests;
#[cfg(test)]
mod status_tests;

use crate::context::Context;
use crate::error::{Class, Error};
use kube::{ResourceExt as _, runtime::controller};
use meshstor_crds::MeshVolume;
use std::sync::Arc;
use tracing::{Instrument as _, error, info_span, warn};

/// Brings one volume a step closer to its spec.
///
/// # Errors
/// [`Error`], whose class says when to try again.
pub async fn reconcile(volume: Arc<MeshVolume>, ctx: Arc<Context>) -> Result<controller::Action, Error> {
    let span = info_span!("volume", volume = %volume.name_any());
    step(&volume.name_any(), &ctx).instrument(span).await
}

async fn step(name: &str, ctx: &Context) -> Result<controller::Action, Error> {
    let mut turn = ctx.placing_turn(name).await;
    let Some(mut world) = dereference::dereference(name, ctx).await? else {
        return Ok(controller::Action::await_change());
    };
    if replacing::places(&world) {
        if turn.is_none() {
            turn = Some(ctx.turn().await);
        }
        dereference::survey(&mut world, ctx).await?;
    }
    (world.clocks.waits, world.clocks.ahead) = ctx.budget(&world);
    let settled = validate::validate(&world);
    let plan = plan::plan(&world, &settled);
    apply::apply(&world, &plan, ctx).await?;
    let status = status::status(&world, &settled, &plan);
    apply::update_status(&world, status, ctx).await?;
    drop(turn);
    Ok(controller::Action::requeue(plan::next_look(&world, &plan)))
}

/// What to do after an error: its class decides.
#[allow(clippy::needless_pass_by_value, reason = "the signature is the controller's")]
pub fn on_error(volume: Arc<MeshVolume>, failure: &Error, _: Arc<Context>) -> controller::Action {
    let (name, class) = (volume.name_any(), failure.class());
    match class {
        Class::Conflict => tracing::debug!(volume = %name, class = class.name(), "{failure}"),
        Class::Bug => error!(volume = %name, class = class.name(), "{failure}"),
        _ => warn!(volume = %name, class = class.name(), "{failure}"),
    }
    controller::Action::requeue(class.requeue())
}
