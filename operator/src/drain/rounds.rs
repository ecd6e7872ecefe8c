//! When the drains are looked at: after news of a drain, a cordon, a node or a guard, and now and then.

use super::guard::NAMESPACE;
use super::world::Settings;
use super::{apply, observe, plan};
use crate::context::Context;
use crate::error::Error;
use crate::node::Face;
use futures::stream::{BoxStream, select_all};
use futures::{FutureExt as _, Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Resource, ResourceExt as _};
use meshstor_crds::{MeshNode, NodeDrain, WATCH_SECONDS};
use std::collections::HashMap;
use std::time::Duration;

/// News within this time is looked at together.
const BREATH: Duration = Duration::from_millis(200);

/// Looks at all drains until it is dropped.
pub async fn run(ctx: &Context, settings: &Settings) {
    let mut news = news(ctx);
    loop {
        let wait = match round(ctx, settings).await {
            Ok(wait) => wait,
            Err(failure) => {
                tracing::warn!(class = failure.class().name(), "look at the drains: {failure}");
                failure.class().requeue()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Some(()) = news.next() => {
                tokio::time::sleep(BREATH).await;
                while let Some(Some(())) = news.next().now_or_never() {}
            }
        }
    }
}

/// One look: read, plan, do.
///
/// # Errors
/// The first that failed; the next round derives anew what was left.
pub async fn round(ctx: &Context, settings: &Settings) -> Result<Duration, Error> {
    let world = observe::observe(ctx, settings).await?;
    let actions = plan::plan(&world);
    apply::apply(&actions, ctx).await?;
    Ok(plan::next_look(&world, &actions))
}

fn any() -> watcher::Config {
    watcher::Config::default().timeout(WATCH_SECONDS)
}

fn news(ctx: &Context) -> impl Stream<Item = ()> + Unpin + use<> {
    let client = &ctx.client;
    let drains = watcher(Api::<NodeDrain>::all(client.clone()), any()).default_backoff().touched_objects();
    let nodes = watcher(Api::<Node>::all(client.clone()), any()).default_backoff().touched_objects();
    let pods = watcher(Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), NAMESPACE), any());
    let ours = watcher(Api::<PartialObjectMeta<MeshNode>>::all(client.clone()), any());
    // Of a node only what matters, or its heartbeats would be news.
    let faces = changes(nodes, |node: &Node| (Face::of(node), node.metadata.deletion_timestamp.is_some()));
    let comings = changes(ours.default_backoff().touched_objects(), |n: &PartialObjectMeta<MeshNode>| {
        n.metadata.deletion_timestamp.is_some()
    });
    let drains = changes(drains, |drain: &NodeDrain| {
        (drain.spec.clone(), drain.metadata.deletion_timestamp.is_some(), drain.metadata.resource_version.clone())
    });
    let pods = changes(pods.default_backoff().touched_objects(), |pod: &PartialObjectMeta<Pod>| {
        pod.metadata.resource_version.clone()
    });
    select_all([drains, faces, comings, pods])
}

/// A word for each object of which `digest` is new.
fn changes<K, D>(
    objects: impl Stream<Item = watcher::Result<K>> + Send + 'static,
    digest: impl Fn(&K) -> D + Send + 'static,
) -> BoxStream<'static, ()>
where
    K: Resource + Send + 'static,
    D: PartialEq + Send + 'static,
{
    let mut seen: HashMap<String, D> = HashMap::new();
    let fresh = move |object: watcher::Result<K>| {
        let new = object.ok().and_then(|object| {
            let digest = digest(&object);
            let same = seen.get(&object.name_any()) == Some(&digest);
            seen.insert(object.name_any(), digest);
            (!same).then_some(())
        });
        std::future::ready(new)
    };
    objects.filter_map(fresh).boxed()
}
