//! Measures how long the way to other nodes is.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{ListParams, VersionMatch};
use kube::{Api, Client};
use meshstor_crds::MeshNode;
use tokio::net::TcpSocket;

use super::cluster::ask;
use super::context::Context;
use super::error::ClusterError;
use crate::fabric::{chosen, round, said};

/// Port of NVMe/TCP discovery (IANA). Whether anybody listens is all the same: a refusal comes from the other node's kernel as fast as an answer.
const PORT: u16 = 8009;
/// Connections that are tried; the fastest counts.
const TRIES: usize = 5;
/// Who has not answered by then does not.
const TIMEOUT: Duration = Duration::from_millis(250);
/// Time until the first round: what matters more is done by then.
const FIRST: Duration = Duration::from_secs(10);
/// Time after a list that failed.
const AGAIN: Duration = Duration::from_secs(60);

/// Measures until the process ends.
pub async fn keep(ctx: Arc<Context>, client: Client) {
    let api: Api<MeshNode> = Api::all(client);
    let mut pause = FIRST;
    loop {
        tokio::time::sleep(pause).await;
        pause = match turn(&ctx, &api).await {
            Ok(nodes) => round(nodes),
            Err(error) => {
                tracing::debug!(%error, "the way to other nodes is not measured");
                AGAIN
            }
        };
    }
}

/// One round; gives the number of nodes.
async fn turn(ctx: &Context, api: &Api<MeshNode>) -> Result<usize, ClusterError> {
    // From the API server's cache: nobody depends on the newest.
    let params = ListParams::default().at("0").matching(VersionMatch::NotOlderThan);
    let nodes = ask("the list of nodes".to_owned(), api.list(&params)).await?.items;
    let name = |node: &MeshNode| node.metadata.name.clone().unwrap_or_default();
    let own = nodes.iter().find(|node| name(node) == ctx.node);
    let old = own.and_then(|node| node.status.as_ref()).map(|s| s.fabric.clone()).unwrap_or_default();
    let addresses: BTreeMap<String, Option<IpAddr>> = nodes.iter().map(|node| (name(node), address(node))).collect();
    let from = ctx.listen().first().and_then(|own| own.parse().ok());
    let mut took = BTreeMap::new();
    for peer in chosen(&ctx.node, addresses.keys().map(String::as_str)) {
        let time = match addresses.get(peer).copied().flatten() {
            Some(address) => fastest(from, SocketAddr::new(address, PORT)).await,
            None => None,
        };
        took.insert(peer.to_owned(), time);
    }
    ctx.note_fabric(said(&old, &took));
    Ok(nodes.len())
}

/// Where its exports listen.
fn address(node: &MeshNode) -> Option<IpAddr> {
    node.status.as_ref()?.addresses.first()?.parse().ok()
}

/// The shortest of some round trips; none if nobody answers.
async fn fastest(from: Option<IpAddr>, to: SocketAddr) -> Option<Duration> {
    let mut best: Option<Duration> = None;
    for _ in 0..TRIES {
        let took = round_trip(from, to).await?;
        best = Some(best.map_or(took, |best| best.min(took)));
    }
    best
}

/// The time in which a connection is accepted or refused.
async fn round_trip(from: Option<IpAddr>, to: SocketAddr) -> Option<Duration> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.ok()?;
    if let Some(from) = from.filter(|from| from.is_ipv4() == to.is_ipv4()) {
        socket.bind(SocketAddr::new(from, 0)).ok()?;
    }
    let began = Instant::now();
    match tokio::time::timeout(TIMEOUT, socket.connect(to)).await {
        Ok(Ok(_)) => Some(began.elapsed()),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Some(began.elapsed()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_and_a_refusal_are_measured_and_silence_is_not() {
        let here = IpAddr::from([127, 0, 0, 1]);
        let listener = std::net::TcpListener::bind((here, 0)).unwrap();
        let open = listener.local_addr().unwrap();
        assert!(fastest(Some(here), open).await.is_some());
        drop(listener);
        assert!(fastest(None, open).await.is_some(), "a refusal is an answer");
        // An address that this machine cannot have: the bind fails.
        assert_eq!(fastest(Some(IpAddr::from([192, 0, 2, 1])), open).await, None);
    }
}
