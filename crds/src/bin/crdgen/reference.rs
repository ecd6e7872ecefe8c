//! The reference of the API for people: every field with its type, default, bounds, meaning and rules, as Markdown.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

const HEAD: &str = "<!-- Generated from crds/src by `make crds`. Do not edit. -->

# Fields of the API

Every field of every kind, as the definitions have them. What values and conditions mean, and who writes what, is in
[objects and conditions](objects.md). All kinds are cluster-scoped.

A field is *required*, or has the default that is shown, or may be absent (–). Below a field's meaning stand the rules that the API server
holds it to, in the words of its refusal.
";
const TABLE: &str = "| Field | Type | Default | Bounds | Meaning |\n|---|---|---|---|---|\n";
/// The field whose items are described once for all kinds.
const CONDITIONS: &str = "status.conditions";

/// The whole page.
///
/// # Errors
/// A definition that lacks a schema, or has conditions of its own shape.
pub fn page(crds: &[CustomResourceDefinition]) -> Result<String, String> {
    let mut text = HEAD.to_owned();
    let link = |crd: &CustomResourceDefinition| {
        let kind = &crd.spec.names.kind;
        format!("[{kind}](#{})", kind.to_lowercase())
    };
    let links: Vec<String> = crds.iter().map(link).chain(["[Condition](#condition)".to_owned()]).collect();
    text += &format!("\n{}\n", links.join(" · "));
    for crd in crds {
        text += &kind(crd)?;
    }
    let mut conditions = crds.iter().filter_map(|crd| Some(condition(schema(crd).ok()?)));
    let condition = conditions.next().flatten().ok_or("no kind has conditions")?;
    if conditions.any(|other| other != Some(condition)) {
        return Err("the conditions of all kinds must have one shape, for they are described once".to_owned());
    }
    text += "\n## Condition\n\nOne of `status.conditions[]`: `metav1.Condition`, one for each `type`.\n\n";
    text += TABLE;
    fields(condition, "", &mut text);
    Ok(text)
}

/// One kind's section.
fn kind(crd: &CustomResourceDefinition) -> Result<String, String> {
    let schema = schema(crd)?;
    let mut text = format!("\n## {}\n\n{}\n\n{}\n\n", crd.spec.names.kind, prose(schema), facts(crd));
    let rules: Vec<String> = messages(schema).iter().map(|rule| format!("- {rule}\n")).collect();
    if !rules.is_empty() {
        text += &format!("Rules of the whole object:\n\n{}\n", rules.concat());
    }
    text += TABLE;
    fields(schema, "", &mut text);
    Ok(text)
}

fn schema(crd: &CustomResourceDefinition) -> Result<&JSONSchemaProps, String> {
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref());
    let schema = schema.and_then(|schema| schema.open_api_v3_schema.as_ref());
    schema.ok_or_else(|| format!("{} has no schema", crd.spec.names.kind))
}

fn condition(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    item(schema.properties.as_ref()?.get("status")?.properties.as_ref()?.get("conditions")?)
}

/// How `kubectl` knows it.
fn facts(crd: &CustomResourceDefinition) -> String {
    let (names, code) = (&crd.spec.names, |word: &str| format!("`{word}`"));
    let mut facts = Vec::new();
    for version in &crd.spec.versions {
        facts.push(format!("`{}/{}`, `kubectl get {}`", crd.spec.group, version.name, names.plural));
        let selectable = version.selectable_fields.iter().flatten();
        facts.extend(selectable.map(|field| format!("field selector {}", code(&field.json_path))));
    }
    facts.extend(names.short_names.iter().flatten().map(|name| format!("short {}", code(name))));
    facts.join(", ") + "."
}

/// Adds a row for each field below `schema`, outer ones before inner ones.
fn fields(schema: &JSONSchemaProps, path: &str, text: &mut String) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        *text += &row(&path, field, required.contains(name));
        fields(field, &path, text);
        if let Some(item) = item(field).filter(|_| path != CONDITIONS) {
            fields(item, &format!("{path}[]"), text);
        }
    }
}

fn row(path: &str, field: &JSONSchemaProps, required: bool) -> String {
    let default = match &field.default {
        _ if required => "*required*".to_owned(),
        Some(json) => format!("`{}`", json.0),
        None => "–".to_owned(),
    };
    let mut meaning = prose(field);
    for rule in messages(field).into_iter().chain(item(field).map(messages).unwrap_or_default()) {
        meaning += &format!("<br>• {rule}");
    }
    let cells = [format!("`{path}`"), type_(field, path), default, bounds(field).join("; "), meaning];
    format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "))
}

fn type_(field: &JSONSchemaProps, path: &str) -> String {
    if path == CONDITIONS {
        return "list of [Condition](#condition)".to_owned();
    }
    if let Some(item) = item(field) {
        return format!("list of {}", type_(item, ""));
    }
    if let Some(JSONSchemaPropsOrBool::Schema(value)) = &field.additional_properties {
        return format!("map to {}", type_(value, ""));
    }
    let name = field.type_.as_deref().unwrap_or("any");
    match field.format.as_deref() {
        Some("date-time") => "time".to_owned(),
        Some(format) => format.to_owned(),
        None => name.to_owned(),
    }
}

/// Each bound in a few words.
fn bounds(field: &JSONSchemaProps) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(values) = &field.enum_ {
        let values = values.iter().filter_map(|json| json.0.as_str()).map(|value| format!("`{value}`"));
        all.push(format!("one of {}", values.collect::<Vec<_>>().join(", ")));
    } else {
        all.extend(range(field.min_length, field.max_length, " characters"));
    }
    let whole = |number: Option<f64>| number.map(|number| number as i64);
    all.extend(range(whole(field.minimum), whole(field.maximum), ""));
    all.extend(range(field.min_items, field.max_items, " items"));
    all.extend(range(field.min_properties, field.max_properties, " entries"));
    let each = match (item(field), &field.additional_properties) {
        (Some(item), _) if item.properties.is_none() => bounds(item),
        (None, Some(JSONSchemaPropsOrBool::Schema(value))) => bounds(value),
        _ => Vec::new(),
    };
    all.extend(each.into_iter().map(|bound| format!("each {bound}")));
    let keys = field.x_kubernetes_list_map_keys.as_deref().unwrap_or_default();
    if !keys.is_empty() {
        all.push(format!("no two with the same `{}`", keys.join("`, `")));
    } else if field.x_kubernetes_list_type.as_deref() == Some("set") {
        all.push("no two the same".to_owned());
    }
    all
}

fn range(least: Option<i64>, most: Option<i64>, unit: &str) -> Option<String> {
    match (least, most) {
        (Some(least), Some(most)) if least == most => Some(format!("{least}{unit}")),
        (Some(least), Some(most)) => Some(format!("{least} to {most}{unit}")),
        (Some(least), None) => Some(format!("≥ {least}{unit}")),
        (None, Some(most)) => Some(format!("≤ {most}{unit}")),
        (None, None) => None,
    }
}

/// What the API server says when a rule is broken.
fn messages(schema: &JSONSchemaProps) -> Vec<String> {
    let rules = schema.x_kubernetes_validations.iter().flatten();
    rules.map(|rule| rule.message.clone().unwrap_or_else(|| format!("`{}`", rule.rule))).collect()
}

/// The description in one line.
fn prose(schema: &JSONSchemaProps) -> String {
    schema.description.as_deref().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn item(field: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &field.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => Some(item),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    /// A field's row has its type, its default, its bounds and the words of its rules, at any depth.
    #[test]
    fn a_row_says_what_the_definition_says() {
        let page = super::page(&meshstor_crds::all()).unwrap();
        for row in [
            "| `spec.replicaCount` | int32 | `2` | 1 to 4 |",
            "| `spec.filesystem` | string | `\"xfs\"` | one of `xfs`, `ext4`, `none` |",
            "| `spec.node` | string | *required* | 1 to 253 characters |",
            "| `spec.placement.spread[].topologyKey` | string | *required* |",
            "| `spec.placement.nodeSelector` | map to string | – | ≤ 16 entries; each ≤ 63 characters |",
            "| `status.term.inSync` | list of string | *required* | 1 to 32 items; each 1 to 63 characters; no two the same |",
            "| `status.conditions` | list of [Condition](#condition) | – | ≤ 16 items; no two with the same `type` |",
            "| `lastTransitionTime` | time | *required* |",
            "<br>• spec.filesystem: never changes;",
            "\n- metadata.name: must be at most 52 characters",
        ] {
            assert!(page.contains(row), "no {row:?}");
        }
    }
}
