//! The table of bad and good writes, shared by the client-side tests (`rules.rs`) and those against a real API server
//! (`api_server.rs`): both must refuse the same rows for the same reason.

#![allow(dead_code, reason = "each of the two test programs uses another half")]

use serde::Deserialize;
use serde_json::{Value, json};

/// What refuses a row.
#[derive(Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A CEL rule: the message is ours, the same on both sides.
    Cel,
    /// The schema: the words differ between the API server (`says`) and the `jsonschema` crate.
    Schema,
}

/// One bad write.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub name: String,
    pub kind: String,
    pub by: By,
    /// Merge patch over the kind's base that makes the object before; without it the row is a create.
    pub old: Option<Value>,
    /// Merge patch over the object before (or the base) that makes the bad object.
    pub new: Value,
    /// Dotted path of the field that the message names.
    pub field: String,
    /// What the message says besides: for a CEL rule the remedy, for a schema row the API server's words.
    pub says: String,
}

/// One write by an identity of ours.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Write {
    pub name: String,
    /// `daemon@NODE`, `daemon` (a token that names no node) or `operator`.
    pub by: String,
    /// `create`, `update`, `status`, `patch-status` or `delete`.
    pub verb: String,
    pub kind: String,
    /// Merge patch over the kind's base: the object before.
    #[serde(default)]
    pub old: Value,
    /// Delete the object before the write, so that only its finalizer holds it.
    #[serde(default)]
    pub deleted: bool,
    /// Merge patch over the object before: what is written.
    #[serde(default)]
    pub new: Value,
    /// Words of the refusal; absent where the write must pass.
    pub refused: Option<String>,
}

/// One update of a field, as it may be or must be refused.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct Update {
    pub kind: String,
    /// Dotted path of the field; `[]` where it is in a list.
    pub field: String,
    /// Merge patch over the kind's base that makes the object before.
    #[serde(default)]
    pub old: Value,
    /// Merge patch over that.
    pub new: Value,
    /// Words of the refusal; absent where the update must pass.
    pub refused: Option<String>,
}

impl Update {
    pub fn before(&self) -> Value {
        object(&self.kind, &self.old)
    }

    pub fn after(&self) -> Value {
        let mut after = self.before();
        merge(&mut after, &self.new);
        after
    }

    pub fn label(&self) -> String {
        format!("{} {} {}", self.kind, self.field, self.new)
    }
}

#[derive(Deserialize)]
struct Bases {
    base: std::collections::BTreeMap<String, Value>,
}

const RULES: &str = include_str!("rules.yaml");
const WRITES: &str = include_str!("writes.yaml");
const UPDATES: &str = include_str!("updates.yaml");
const BASES: &str = include_str!("bases.yaml");

/// Bad writes that every writer must be refused.
pub fn rows() -> Vec<Row> {
    serde_norway::from_str(RULES).expect("rules.yaml")
}

/// Writes by the service accounts of operator and daemon.
pub fn writes() -> Vec<Write> {
    serde_norway::from_str(WRITES).expect("writes.yaml")
}

/// Updates of every field.
pub fn updates() -> Vec<Update> {
    serde_norway::from_str(UPDATES).expect("updates.yaml")
}

/// A good object of each kind, by kind.
pub fn bases() -> std::collections::BTreeMap<String, Value> {
    serde_norway::from_str::<Bases>(BASES).expect("bases.yaml").base
}

/// The base of `kind` with `patch` merged in.
pub fn object(kind: &str, patch: &Value) -> Value {
    let mut object = bases().remove(kind).unwrap_or_else(|| panic!("no base for {kind}"));
    object["apiVersion"] = json!("meshstor.io/v1alpha1");
    object["kind"] = json!(kind);
    merge(&mut object, patch);
    object
}

/// RFC 7386.
pub fn merge(into: &mut Value, patch: &Value) {
    let (Some(into), Some(patch)) = (into.as_object_mut(), patch.as_object()) else { return };
    for (key, value) in patch {
        match value {
            Value::Null => drop(into.remove(key)),
            Value::Object(_) => merge(into.entry(key).or_insert_with(|| json!({})), value),
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

impl Row {
    /// The object before the write, for an update.
    pub fn before(&self) -> Option<Value> {
        self.old.as_ref().map(|old| object(&self.kind, old))
    }

    /// The bad object.
    pub fn after(&self) -> Value {
        let mut after = self.before().unwrap_or_else(|| object(&self.kind, &Value::Null));
        merge(&mut after, &self.new);
        after
    }

    /// Whether the write goes to the status subresource.
    pub fn is_status(&self) -> bool {
        self.new.get("status").is_some()
    }
}

/// The objects of `config/samples`.
pub fn samples() -> Vec<Value> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/samples");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("config/samples") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "yaml") || path.ends_with("kustomization.yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("sample");
        found.extend(serde_norway::Deserializer::from_str(&text).map(|d| Value::deserialize(d).expect("sample")));
    }
    found
}
