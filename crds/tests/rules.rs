//! I2, I6, I7 (the part that the API keeps): every bad write of the table is refused client-side, and names field and remedy.

#![allow(clippy::expect_used, clippy::panic)]

mod table;

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
    assert!(rows.len() >= 25);
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
