//! The OpenAPI v2 document in the protobuf form that kubectl before 1.27 insists on (gnostic's `openapi.v2`).
//!
//! It lists, for each resource, that its patch takes `dryRun`, with its kind as a vendor extension. It defines no
//! types: kubectl then skips its own validation.

use std::sync::Arc;

use crate::resource::{Resource, Verbs};

fn varint(mut value: usize, out: &mut Vec<u8>) {
    while value > 0x7f {
        out.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap_or(0));
}

/// A length-delimited field.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(content.len() + 4);
    varint(usize::from(number) << 3 | 2, &mut out);
    varint(content.len(), &mut out);
    out.extend_from_slice(content);
    out
}

fn word(number: u8, text: &str) -> Vec<u8> {
    field(number, text.as_bytes())
}

/// `Document` of openapi.v2: swagger = 1, info = 2, paths = 8, definitions = 9.
pub(super) fn document(resources: &[Arc<Resource>]) -> Vec<u8> {
    let info = [word(1, "Kubernetes"), word(2, "v1.33.0")].concat();
    // Paths.path = 2, NamedPathItem {name = 1, value = 2}.
    let paths: Vec<u8> = resources
        .iter()
        .filter(|r| r.verbs == Verbs::All)
        .flat_map(|r| field(2, &[word(1, &super::object_path(r)), field(2, &item(r))].concat()))
        .collect();
    [word(1, "2.0"), field(2, &info), field(8, &paths), field(9, &[])].concat()
}

/// `PathItem.patch = 8` with an `Operation` {parameters = 8, responses = 9, vendor_extension = 13}.
fn item(resource: &Resource) -> Vec<u8> {
    // ParametersItem.parameter = 1, Parameter.non_body_parameter = 2, NonBodyParameter.query_parameter_sub_schema = 3;
    // QueryParameterSubSchema {in = 2, name = 4}.
    let query = [word(2, "query"), word(4, "dryRun")].concat();
    let parameter = field(1, &field(2, &field(3, &query)));
    // NamedAny {name = 1, value = 2}, Any.yaml = 2.
    let kind = format!(
        "group: \"{}\"\nkind: {}\nversion: {}\n",
        resource.group, resource.kind, resource.version
    );
    let extension = [
        word(1, "x-kubernetes-group-version-kind"),
        field(2, &word(2, &kind)),
    ]
    .concat();
    let operation = [field(8, &parameter), field(9, &[]), field(13, &extension)].concat();
    field(8, &operation)
}
