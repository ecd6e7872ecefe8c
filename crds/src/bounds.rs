//! Bounds for the types that are not ours: `k8s-openapi` gives `Condition` the shape of `metav1.Condition` without its limits.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::json;

/// Puts the limits of `metav1.Condition` (`k8s.io/apimachinery/pkg/apis/meta/v1/types.go`) on `status.conditions[]`.
pub(crate) fn conditions(crd: &mut CustomResourceDefinition) {
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        let status = schema.and_then(|root| root.properties.as_mut()?.get_mut("status"));
        let list = status.and_then(|status| status.properties.as_mut()?.get_mut("conditions"));
        if let Some(JSONSchemaPropsOrArray::Schema(condition)) = list.and_then(|list| list.items.as_mut()) {
            condition.properties.iter_mut().flatten().for_each(|(name, field)| bound(name, field));
        }
    }
}

/// Kinds that people apply.
const APPLIED: [&str; 4] = ["MeshNode", "MeshVolume", "NodeDrain", "ReplicaSetPolicy"];

/// Gives an object that nobody has looked at yet `status.observedGeneration: -1`: readers of kstatus (Flux, `kubectl wait`) call one without a status
/// current, as if there were nothing to wait for.
pub(crate) fn unseen(crd: &mut CustomResourceDefinition) {
    if !APPLIED.contains(&crd.spec.names.kind.as_str()) {
        return;
    }
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut());
        if let Some(status) = schema.and_then(|root| root.properties.as_mut()?.get_mut("status")) {
            status.default = Some(JSON(json!({ "observedGeneration": -1 })));
        }
    }
}

fn bound(name: &str, field: &mut JSONSchemaProps) {
    let text = |field: &mut JSONSchemaProps, min, max| {
        field.min_length = min;
        field.max_length = Some(max);
    };
    match name {
        "type" => text(field, Some(1), 316),
        "reason" => text(field, Some(1), 1024),
        "message" => text(field, None, 32768),
        "status" => {
            field.enum_ = Some(["True", "False", "Unknown"].map(|s| JSON(json!(s))).into());
            field.max_length = Some(7);
        }
        "observedGeneration" => field.minimum = Some(0.0),
        _ => {}
    }
}
