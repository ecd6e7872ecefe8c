//! I2, I6, I7 (the part that the API keeps): every bad write of the table is refused client-side, and names field and remedy.

#![allow(clippy::expect_used, clippy::panic)]

mod table;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, JSONSchemaPropsOrArray};
use kube::core::cel::ValidationErrors;
use meshstor_crds::{MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy, all};
use serde_json::Value;
use table::{By, Row};

/// Runs the CEL rules of the kind of `new`, as the API server does for an update of `old` or a create.
fn cel(new: &Value, old: Option<&Value>) -> Result<(), ValidationErrors> {
    macro_rules! kinds {
        ($($kind:ident),*) => {
            match new["kind"].as_str() {
                $(Some(stringify!($kind)) => {
                    let parse = |v: &Value| serde_json::from_value::<$kind>(v.clone()).expect(stringify!($kind));
                    old.map_or_else(|| parse(new).validate_cel(), |old| parse(new).validate_cel_update(&parse(old)))
                })*
                kind => panic!("unknown kind {kind:?}"),
            }
        };
    }
    kinds!(MeshAttachment, MeshNode, MeshReplica, MeshVolume, NodeDrain, ReplicaSetPolicy)
}

/// The schema errors of `object`, as `dotted.path: message`.
fn schema(object: &Value) -> Vec<String> {
    let kind = object["kind"].as_str().expect("kind");
    let crd = all().into_iter().find(|crd| crd.spec.names.kind == kind).expect("a definition");
    let schema = crd.spec.versions[0].schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
    let validator = jsonschema::validator_for(&serde_json::to_value(schema).expect("schema")).expect("a valid schema");
    validator.iter_errors(object).map(|e| format!("{}: {e}", dotted(&e))).collect()
}

/// `spec.drives[0].id`, as the API server writes it.
fn dotted(error: &jsonschema::ValidationError<'_>) -> String {
    let mut path = String::new();
    let missing = match error.kind() {
        jsonschema::error::ValidationErrorKind::Required { property } => property.as_str().map(str::to_owned),
        _ => None,
    };
    let pointer = error.instance_path().as_str().to_owned();
    for part in pointer.split('/').skip(1).map(str::to_owned).chain(missing) {
        if part.parse::<usize>().is_ok() {
            path += &format!("[{part}]");
        } else {
            path += if path.is_empty() { "" } else { "." };
            path += &part;
        }
    }
    path
}

fn refusal(row: &Row) -> String {
    let (before, after) = (row.before(), row.after());
    match row.by {
        By::Cel => cel(&after, before.as_ref()).err().map(|e| e.to_string()).unwrap_or_default(),
        By::Schema => schema(&after).join("\n"),
    }
}

#[test]
fn every_bad_write_is_refused_with_field_and_remedy() {
    let rows = table::rows();
    assert!(rows.len() >= 60);
    let wrong: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let (text, wanted) = (refusal(row), format!("{}:", row.field));
            let says = row.by == By::Schema || text.contains(&row.says);
            (!text.contains(&wanted) || !says)
                .then(|| format!("{}: wanted {wanted} {}, got {text:?}", row.name, row.says))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Else a row would be refused for something that it does not name.
#[test]
fn what_a_row_starts_from_is_good() {
    for before in table::rows()
        .iter()
        .filter_map(Row::before)
        .chain(table::bases().keys().map(|k| table::object(k, &Value::Null)))
    {
        accepted(&before);
    }
}

/// I8: an update is what the table says: it passes, or is refused with the field and the remedy.
#[test]
fn every_update_passes_or_is_refused_as_the_table_says() {
    for update in table::updates() {
        let (before, after) = (update.before(), update.after());
        assert_ne!(before, after, "{} changes nothing", update.label());
        assert_eq!(schema(&after), Vec::<String>::new(), "{}", update.label());
        accepted(&before);
        match (&update.refused, cel(&after, Some(&before))) {
            (None, Ok(())) => {}
            (Some(words), Err(said)) if said.to_string().contains(words.as_str()) => {}
            (wanted, said) => panic!("{}: wanted {wanted:?}, got {said:?}", update.label()),
        }
    }
}

/// Fields of a status that are written under rules; what else is there is what was seen, and may become anything.
const RULED: [&str; 4] = ["status.term.", "status.ended.", "status.revokedBelow", "status.spentGrant"];

#[test]
fn every_field_has_an_update() {
    let rows = table::updates();
    for crd in all() {
        let root = crd.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema).expect("a schema");
        let mut fields = Vec::new();
        leaves("", &root, &mut fields);
        let ruled = |f: &&String| f.starts_with("spec.") || RULED.iter().any(|r| f.starts_with(r));
        for field in fields.iter().filter(ruled) {
            let covered = rows.iter().any(|row| row.kind == crd.spec.names.kind && row.field == **field);
            assert!(covered, "updates.yaml has no row for {field} of {}", crd.spec.names.kind);
        }
    }
}

/// Dotted paths of the fields that have none below them.
fn leaves(path: &str, schema: &JSONSchemaProps, into: &mut Vec<String>) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(item)) if item.properties.is_some() => {
                leaves(&format!("{path}[]"), item, into);
            }
            _ if field.properties.is_some() => leaves(&path, field, into),
            _ => into.push(path),
        }
    }
}

#[test]
fn every_sample_is_accepted() {
    let samples = table::samples();
    assert!(samples.len() >= 2);
    samples.iter().for_each(accepted);
}

fn accepted(object: &Value) {
    assert_eq!(schema(object), Vec::<String>::new(), "{object}");
    assert!(cel(object, None).is_ok(), "{object}: {:?}", cel(object, None));
}

#[test]
fn a_schema_row_passes_the_rules_and_a_rule_row_passes_the_schema() {
    for row in table::rows().iter().filter(|row| row.by == By::Cel) {
        assert_eq!(schema(&row.after()), Vec::<String>::new(), "{}", row.name);
    }
}
