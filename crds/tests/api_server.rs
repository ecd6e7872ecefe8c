//! I2, I8: a real API server refuses the same rows as the client-side rules, and refuses operator and daemons what the
//! protocol does not give them. Run by `make test-api`, which starts the server (`with-api-server.sh`).

#![allow(clippy::expect_used, clippy::panic)]

mod table;

use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Request, Status};
use kube::{Client, Config};
use serde_json::{Value, json};
use table::{Row, Write};

const OPERATOR: &str = "system:serviceaccount:meshstor-system:meshstor-operator";
const DAEMON: &str = "system:serviceaccount:meshstor-system:meshstor-node-daemon";

async fn admin() -> Client {
    let path =
        std::env::var("MESHSTOR_TEST_KUBECONFIG").expect("MESHSTOR_TEST_KUBECONFIG: run this through `make test-api`");
    let kubeconfig = Kubeconfig::read_from(path).expect("read the kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a client config");
    Client::try_from(config).expect("a client")
}

/// One API server, one identity.
struct Api {
    client: Client,
    identity: Vec<(&'static str, String)>,
}

impl Api {
    async fn admin() -> Self {
        Self { client: admin().await, identity: vec![] }
    }

    /// `operator`, `daemon` or `daemon@NODE`, with the groups and the node-name claim of such a token.
    async fn of(who: &str) -> Self {
        let (name, node) = who.split_once('@').map_or((who, None), |(name, node)| (name, Some(node)));
        let user = if name == "operator" { OPERATOR } else { DAEMON };
        let mut identity =
            vec![("impersonate-user", user.to_owned()), ("impersonate-group", "system:authenticated".into())];
        // `/` of the claim's key is %-escaped in a header's name.
        identity
            .extend(node.map(|node| ("impersonate-extra-authentication.kubernetes.io%2fnode-name", node.to_owned())));
        Self { client: admin().await, identity }
    }

    async fn send(&self, mut request: http::Request<Vec<u8>>) -> Result<Value, String> {
        for (name, value) in &self.identity {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        match self.client.request::<Value>(request).await {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(refusal(&status)),
            Err(other) => panic!("no answer from the API server: {other}"),
        }
    }

    async fn create(&self, object: &Value) -> Result<Value, String> {
        let request = Request::new(url(object)).create(&PostParams::default(), bytes(object));
        self.send(request.expect("a request")).await
    }

    async fn replace(&self, object: &Value, subresource: Option<&str>) -> Result<Value, String> {
        let (request, name, post) = (Request::new(url(object)), name(object), PostParams::default());
        let request = match subresource {
            Some(sub) => request.replace_subresource(sub, name, &post, bytes(object)),
            None => request.replace(name, &post, bytes(object)),
        };
        self.send(request.expect("a request")).await
    }

    /// The write that the protocol never uses for a status of ours.
    async fn patch_status(&self, object: &Value) -> Result<Value, String> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(json!({"status": object["status"]})));
        let request = Request::new(url(object)).patch_subresource("status", name(object), &params, &patch);
        self.send(request.expect("a request")).await
    }

    async fn get(&self, object: &Value) -> Result<Value, String> {
        self.send(Request::new(url(object)).get(name(object), &GetParams::default()).expect("a request")).await
    }

    async fn delete(&self, object: &Value) -> Result<Value, String> {
        self.send(Request::new(url(object)).delete(name(object), &DeleteParams::default()).expect("a request")).await
    }

    /// Makes `object`, its status too, and returns it as the server has it.
    async fn make(&self, object: &Value) -> Result<Value, String> {
        let mut made = self.create(object).await?;
        if let Some(status) = object.get("status") {
            made["status"] = status.clone();
            made = self.replace(&made, Some("status")).await?;
        }
        Ok(made)
    }
}

fn refusal(status: &Status) -> String {
    format!("{} {}", status.code, status.message)
}

fn url(object: &Value) -> String {
    let kind = object["kind"].as_str().expect("kind");
    let crd = meshstor_crds::all().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a definition");
    format!("/apis/meshstor.io/v1alpha1/{}", crd.spec.names.plural)
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().expect("name")
}

fn bytes(object: &Value) -> Vec<u8> {
    serde_json::to_vec(object).expect("JSON")
}

/// Gives an object of the table a name of its own, unless the row is about the name.
fn named(mut object: Value, name: &str) -> Value {
    if object["metadata"]["name"] == "base" {
        object["metadata"]["name"] = json!(name);
    }
    object
}

async fn try_row(admin: &Api, row: &Row, label: &str) -> Result<Value, String> {
    let Some(before) = row.before() else { return admin.create(&named(row.after(), label)).await };
    let mut after = admin.make(&named(before, label)).await.unwrap_or_else(|e| panic!("{}: make it: {e}", row.name));
    table::merge(&mut after, &row.new);
    admin.replace(&after, row.is_status().then_some("status")).await
}

#[tokio::test]
async fn every_bad_write_is_refused_with_field_and_remedy() {
    let (admin, mut wrong) = (Api::admin().await, vec![]);
    for (number, row) in table::rows().iter().enumerate() {
        let text = try_row(&admin, row, &format!("row-{number}")).await.err().unwrap_or_default();
        if !(text.starts_with("422 ") && text.contains(&format!("{}:", row.field)) && text.contains(&row.says)) {
            wrong.push(format!("{}: wanted {}: {}, got {text:?}", row.name, row.field, row.says));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_update_passes_or_is_refused_as_the_table_says() {
    let (admin, mut wrong) = (Api::admin().await, vec![]);
    for (number, update) in table::updates().iter().enumerate() {
        let before = named(update.before(), &format!("update-{number}"));
        let mut after = admin.make(&before).await.unwrap_or_else(|e| panic!("{}: make it: {e}", update.label()));
        table::merge(&mut after, &update.new);
        let status = update.new.get("status").is_some();
        let got = admin.replace(&after, status.then_some("status")).await;
        let right = match (&got, &update.refused) {
            (Ok(_), None) => true,
            (Err(text), Some(words)) => text.starts_with("422 ") && text.contains(words.as_str()),
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: wanted {:?}, got {:?}", update.label(), update.refused, got.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Runs kubectl; gives its exit status and what it said.
fn kubectl(args: &[&str]) -> (bool, String) {
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name}: run this through `make test-api`"));
    let mut command = Command::new(env("MESHSTOR_TEST_KUBECTL"));
    let out =
        command.args(["--kubeconfig", &env("MESHSTOR_TEST_KUBECONFIG")]).args(args).output().expect("run kubectl");
    let said = [out.stdout, out.stderr].concat();
    (out.status.success(), String::from_utf8_lossy(&said).into_owned())
}

/// What a person or Argo CD does with the samples: a dry run changes nothing, and once they are applied there is nothing to
/// apply and no difference, by client-side and by server-side apply.
#[test]
fn every_sample_is_accepted_and_then_dry_run_and_diff_are_clean() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
    let count = table::samples().len();
    let lines = |said: &str, end: &str| said.lines().filter(|l| l.ends_with(end)).count();
    let dry = ["apply", "--dry-run=server", "-k", samples];
    let (ok, said) = kubectl(&dry);
    assert!(ok && lines(&said, "created (server dry run)") == count, "{said}");
    let (there, said) = kubectl(&["get", "-k", samples]);
    assert!(!there && said.contains("NotFound"), "a dry run made something: {said}");

    for (way, clean) in
        [(&[][..], "unchanged (server dry run)"), (&["--server-side"], "serverside-applied (server dry run)")]
    {
        let (ok, said) = kubectl(&[&["apply", "-k", samples], way].concat());
        assert!(ok, "{way:?}: {said}");
        let (same, said) = kubectl(&[&["diff", "-k", samples], way].concat());
        assert!(same && said.is_empty(), "{way:?}: kubectl diff: {said}");
        let (ok, said) = kubectl(&[&dry[..], way].concat());
        assert!(ok && lines(&said, clean) == count, "{way:?}: {said}");
    }
}

/// `kubectl explain` of every kind and of each of its objects describes each field.
#[test]
fn kubectl_explains_every_field() {
    let mut paths = 0;
    for crd in meshstor_crds::all() {
        let root = crd.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema).expect("a schema");
        explain(&crd.spec.names.singular.clone().expect("a name"), &root, &mut paths);
    }
    assert!(paths > 30, "{paths} objects");
}

fn explain(path: &str, schema: &JSONSchemaProps, paths: &mut usize) {
    let schema = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => item,
        _ => schema,
    };
    let Some(fields) = &schema.properties else { return };
    let (ok, said) = kubectl(&["explain", path]);
    assert!(ok && !said.contains("<no description>") && !said.contains("<empty>"), "kubectl explain {path}: {said}");
    *paths += 1;
    for (name, field) in fields {
        assert!(said.contains(&format!("\n  {name}\t")), "kubectl explain {path} has no {name}: {said}");
        explain(&format!("{path}.{name}"), field, paths);
    }
}

async fn try_write(admin: &Api, write: &Write, label: &str) -> Result<Value, String> {
    let actor = Api::of(&write.by).await;
    let mut object = named(table::object(&write.kind, &write.old), label);
    if write.verb != "create" {
        let made = admin.make(&object).await.unwrap_or_else(|e| panic!("{}: make it: {e}", write.name));
        if write.deleted {
            admin.delete(&made).await.expect("delete it");
        }
        object = admin.get(&made).await.expect("get it");
    }
    table::merge(&mut object, &write.new);
    match write.verb.as_str() {
        "create" => actor.create(&object).await,
        "update" => actor.replace(&object, None).await,
        "status" => actor.replace(&object, Some("status")).await,
        "patch-status" => actor.patch_status(&object).await,
        "delete" => actor.delete(&object).await,
        verb => panic!("{}: unknown verb {verb}", write.name),
    }
}

#[tokio::test]
async fn operator_and_daemons_may_write_what_the_protocol_gives_them_and_no_more() {
    let (admin, mut wrong) = (Api::admin().await, vec![]);
    policies_bite(&admin).await;
    for (number, write) in table::writes().iter().enumerate() {
        let got = try_write(&admin, write, &format!("write-{number}")).await;
        let right = match (&got, &write.refused) {
            (Ok(_), None) => true,
            (Err(text), Some(words)) => !text.starts_with("409 ") && text.contains(words.as_str()),
            _ => false,
        };
        if !right {
            wrong.push(format!("{}: wanted {:?}, got {:?}", write.name, write.refused, got.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A new admission policy takes about a second to bite: waits until each refuses what it must.
async fn policies_bite(admin: &Api) {
    let deadline = Instant::now() + Duration::from_secs(30);
    for (number, who) in ["daemon", "operator"].into_iter().enumerate() {
        let attachment = table::object("MeshAttachment", &json!({"metadata": {"name": format!("poll-{number}")}}));
        let mut made = admin.make(&attachment).await.expect("make it");
        loop {
            made["status"]["term"]["writer"]["seq"] =
                json!(made["status"]["term"]["writer"]["seq"].as_i64().unwrap_or(0) + 1);
            match Api::of(who).await.replace(&made, Some("status")).await {
                Err(text) if text.contains("ValidatingAdmissionPolicy") => break,
                Err(text) => assert!(text.starts_with("403 "), "{text}"),
                Ok(written) => made = written,
            }
            assert!(Instant::now() < deadline, "the admission policy of the {who} refuses nothing after 30 s");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
