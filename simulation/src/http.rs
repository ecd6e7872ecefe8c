//! The fake API server as the operator's client sees it: requests and answers in JSON.

use http::{Method, Request, Response};
use kube::client::Body;
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::api::{Answer, Kind, Refused, State};
use crate::rules::By;

/// A request, as it is kept until it is done.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    method: Method,
    path: Vec<String>,
    query: String,
    body: Vec<u8>,
}

impl Asked {
    /// Whether it may change anything.
    pub(crate) fn writes(&self) -> bool {
        self.method != Method::GET && !self.path.iter().any(|p| p == "events")
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path.join("/"))
    }

    /// Reads the whole request.
    pub(crate) async fn of(request: Request<Body>) -> Self {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map(|b| b.to_vec()).unwrap_or_default();
        let path = parts.uri.path().split('/').filter(|p| !p.is_empty()).map(str::to_owned).collect();
        Self { method: parts.method, path, query: parts.uri.query().unwrap_or_default().to_owned(), body }
    }
}

/// The answer that a client gets.
pub(crate) fn response(answer: Result<String, Refused>) -> Response<Body> {
    let (code, body) = match answer {
        Ok(text) => (200, text),
        Err(refused) => {
            let reason = if refused.code == 404 { "NotFound" } else { "Conflict" };
            let text = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "reason": reason, "code": refused.code, "message": refused.message});
            (refused.code, text.to_string())
        }
    };
    let mut response = Response::new(Body::from(body.into_bytes()));
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response
}

/// Does a request.
pub(crate) fn serve(state: &mut State, asked: &Asked) -> Result<String, Refused> {
    let path: Vec<&str> = asked.path.iter().map(String::as_str).collect();
    match path.as_slice() {
        ["apis", "meshstor.io", "v1alpha1", "meshvolumes", rest @ ..] => kind::<MeshVolume>(state, asked, rest),
        ["apis", "meshstor.io", "v1alpha1", "meshattachments", rest @ ..] => kind::<MeshAttachment>(state, asked, rest),
        ["apis", "meshstor.io", "v1alpha1", "meshreplicas", rest @ ..] => kind::<MeshReplica>(state, asked, rest),
        ["apis", "meshstor.io", "v1alpha1", "meshnodes", rest @ ..] => kind::<MeshNode>(state, asked, rest),
        ["apis", "meshstor.io", "v1alpha1", "replicasetpolicies", rest @ ..] => {
            kind::<ReplicaSetPolicy>(state, asked, rest)
        }
        ["apis", "meshstor.io", "v1alpha1", "nodedrains"] => Ok(list::<NodeDrain>(&[])),
        ["apis", "events.k8s.io", ..] => Ok(String::from_utf8_lossy(&asked.body).into_owned()),
        // Nodes and whatever else of Kubernetes is looked at: there is none.
        ["api", "v1", ..] | ["apis", ..] if asked.method == Method::GET && path.len() <= 4 => {
            let none = json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []});
            Ok(none.to_string())
        }
        _ => Err(Refused { code: 404, message: format!("{} is not known here", asked.line()) }),
    }
}

fn list<K: kube::Resource<DynamicType = ()>>(items: &[Arc<str>]) -> String {
    let (version, kind, items) = (K::api_version(&()), K::kind(&()), items.join(","));
    format!(
        r#"{{"apiVersion":"{version}","kind":"{kind}List","metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#
    )
}

fn text<K: Kind>(state: &mut State, object: &Arc<K>) -> String {
    K::table(state).text(object).to_string()
}

fn parsed<K: Kind>(body: &[u8]) -> Answer<K> {
    serde_json::from_slice(body).map_err(|e| Refused { code: 400, message: e.to_string() })
}

fn kind<K: Kind>(state: &mut State, asked: &Asked, rest: &[&str]) -> Result<String, Refused> {
    let by = By::Operator;
    match (&asked.method, rest) {
        (&Method::GET, [name]) => state.get::<K>(name).map(|o| text(state, &o)),
        (&Method::GET, []) => Ok(list::<K>(&selected::<K>(state, &asked.query))),
        (&Method::POST, []) => state.create::<K>(parsed(&asked.body)?, &by).map(|o| text(state, &o)),
        (&Method::PUT, [_]) => state.replace::<K>(parsed(&asked.body)?, false, &by).map(|o| text(state, &o)),
        (&Method::PUT, [_, "status"]) => state.replace::<K>(parsed(&asked.body)?, true, &by).map(|o| text(state, &o)),
        (&Method::PATCH, [name]) | (&Method::PATCH, [name, "status"]) => {
            patch::<K>(state, name, &asked.body, rest.len() == 2, &by)
        }
        (&Method::DELETE, [name]) => {
            let options: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
            let wanted = |field: &str| options["preconditions"][field].as_str();
            state.delete::<K>(name, wanted("resourceVersion"), wanted("uid"))?;
            let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 200});
            Ok(done.to_string())
        }
        _ => Err(Refused { code: 405, message: asked.line() }),
    }
}

/// Those that a field selector asks for.
fn selected<K: Kind>(state: &mut State, query: &str) -> Vec<Arc<str>> {
    let wanted = query.split('&').find_map(|p| p.strip_prefix("fieldSelector="));
    let wanted = wanted.map(|w| w.replace("%3D", "=")).unwrap_or_default();
    let asked = |o: &K| wanted.split_once('=').is_none_or(|(field, is)| o.field(field) == Some(is));
    let table = K::table(state);
    let all: Vec<Arc<K>> = table.objects.values().filter(|o| asked(o)).cloned().collect();
    all.iter().map(|o| table.text(o)).collect()
}

/// Applies what one manager owns: each field of the patch's status or spec replaces the old one whole.
fn patch<K: Kind>(state: &mut State, name: &str, body: &[u8], status: bool, by: &By) -> Result<String, Refused> {
    let old = state.get::<K>(name)?;
    let patch: Value = serde_json::from_slice(body).map_err(|e| Refused { code: 400, message: e.to_string() })?;
    let uid = patch["metadata"]["uid"].as_str();
    if uid.is_some() && uid != old.meta().uid.as_deref() {
        return Err(Refused { code: 409, message: format!("{name} is another") });
    }
    let mut next = serde_json::to_value(&*old).unwrap_or_default();
    let field = if status { "status" } else { "spec" };
    next[field] = patch[field].clone();
    let next: K = serde_json::from_value(next).map_err(|e| Refused { code: 400, message: e.to_string() })?;
    state.replace(next, status, by).map(|o| text(state, &o))
}
