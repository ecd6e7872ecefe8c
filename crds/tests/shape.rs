//! Every field is documented and bounded, every value of an enum and every condition is in the reference, and the
//! generated files are what the types say.

#![allow(clippy::expect_used, clippy::panic)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use meshstor_crds::all;

const REFERENCE: &str = include_str!("../../docs/reference/objects.md");
const REASONS: &str = include_str!("../src/conditions.rs");

/// Calls `see(path, schema)` for every field of every kind.
fn fields(see: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    for crd in all() {
        let root = crd.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema).expect("a schema");
        walk(&crd.spec.names.kind, &root, see);
    }
}

fn walk(path: &str, schema: &JSONSchemaProps, see: &mut dyn FnMut(&str, &JSONSchemaProps)) {
    see(path, schema);
    for (name, field) in schema.properties.iter().flatten() {
        walk(&format!("{path}.{name}"), field, see);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        walk(&format!("{path}[]"), item, see);
    }
}

#[test]
fn every_field_is_described() {
    fields(&mut |path, schema| {
        let plain_item = path.ends_with("[]") && schema.properties.is_none();
        assert!(plain_item || schema.description.is_some(), "{path}: no description");
    });
}

#[test]
fn every_field_is_bounded() {
    fields(&mut |path, schema| {
        let bounded = match schema.type_.as_deref() {
            Some("string") => {
                schema.max_length.is_some() || schema.enum_.is_some() || schema.format.as_deref() == Some("date-time")
            }
            Some("array") => schema.max_items.is_some(),
            Some("object") => schema.properties.is_some() || map_is_bounded(schema),
            Some("integer") => schema.minimum.is_some() || path.ends_with(".observedGeneration"),
            _ => true,
        };
        assert!(bounded, "{path}: {:?} without a bound", schema.type_);
    });
}

fn map_is_bounded(schema: &JSONSchemaProps) -> bool {
    let Some(JSONSchemaPropsOrBool::Schema(value)) = &schema.additional_properties else { return false };
    schema.max_properties.is_some() && value.max_length.is_some()
}

#[test]
fn every_enum_value_is_in_the_reference() {
    fields(&mut |path, schema| {
        for value in schema.enum_.iter().flatten().filter_map(|json| json.0.as_str()) {
            assert!(
                REFERENCE.contains(&format!("`{value}`")),
                "{path}: docs/reference/objects.md says nothing of `{value}`"
            );
        }
    });
}

#[test]
fn every_condition_type_and_reason_is_in_the_reference() {
    let constants: Vec<_> =
        REASONS.lines().filter_map(|line| line.strip_prefix("pub const ")?.split('"').nth(1)).collect();
    assert!(constants.len() > 20);
    for value in constants {
        assert!(REFERENCE.contains(&format!("`{value}`")), "docs/reference/objects.md says nothing of `{value}`");
    }
}

/// Text of every test of the workspace: whole files of tests, and of others what stands behind `#[cfg(test)]`.
fn tests(dir: &std::path::Path, into: &mut String) {
    for entry in std::fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        let name = entry.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        if entry.is_dir() && !["target", ".git"].contains(&name.as_str()) {
            tests(&entry, into);
        } else if name.ends_with(".rs") && name != "shape.rs" {
            let text = std::fs::read_to_string(&entry).expect("a source");
            let whole = entry.components().any(|c| c.as_os_str() == "tests") || name.ends_with("tests.rs");
            into.push_str(if whole {
                &text
            } else {
                text.split_once("#[cfg(test)]\nmod tests").map_or("", |(_, t)| t)
            });
        }
    }
}

#[test]
fn every_condition_type_and_reason_is_produced_in_a_test() {
    let mut text = String::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    ["crds", "operator", "node-daemon", "e2e"].iter().for_each(|member| tests(&root.join(member), &mut text));
    let named = |word: &str| {
        let mut at = text.match_indices(word);
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        at.any(|(i, _)| edge(text[..i].chars().next_back()) && edge(text[i + word.len()..].chars().next()))
    };
    for line in REASONS.lines().filter_map(|line| line.strip_prefix("pub const ")) {
        let (Some(name), Some(value)) = (line.split(':').next(), line.split('"').nth(1)) else { continue };
        assert!(named(name) || named(value), "no test knows {name} ({value})");
    }
}
