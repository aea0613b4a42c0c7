//! TokenReview, SubjectAccessReview and their relatives: asked, answered, not stored.

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Call, body};
use crate::answer::{self, Answer};
use crate::auth::{Attributes, User, rbac};
use crate::error::ApiError;
use crate::object::{at, metadata, text};

pub(super) async fn create(call: &Call, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let mut review = body(request).await?;
    crate::objects::typed(&call.resource, &mut review)?;
    let status = match call.resource.plural.as_str() {
        "tokenreviews" => token(call, &review),
        "selfsubjectreviews" => json!({"userInfo": call.user.info()}),
        "subjectaccessreviews" => access(call, &subject(&review), &review),
        "localsubjectaccessreviews" => {
            let asked = text(&review, &["spec", "resourceAttributes", "namespace"]);
            if asked != call.path.namespace {
                return Err(ApiError::bad_request(
                    "spec.resourceAttributes.namespace must match the namespace of the request",
                ));
            }
            access(call, &subject(&review), &review)
        }
        "selfsubjectaccessreviews" => access(call, &call.user, &review),
        "selfsubjectrulesreviews" => rules(call, text(&review, &["spec", "namespace"])),
        "bindings" => {
            let name = crate::object::name(&review).to_owned();
            return super::subresources::bind(call, &name, &review);
        }
        _ => return Err(ApiError::no_such_path()),
    };
    review["status"] = status;
    review["metadata"] = Value::Object(metadata(&review).clone());
    Ok(answer::json(StatusCode::CREATED, &review))
}

fn token(call: &Call, review: &Value) -> Value {
    let audiences: Vec<String> = at(review, &["spec", "audiences"])
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    match call
        .api
        .tokens
        .check(&call.api.store, text(review, &["spec", "token"]), &audiences)
    {
        Ok(valid) => json!({"authenticated": true, "user": valid.user.info(), "audiences": valid.audiences}),
        Err(refused) => json!({"authenticated": false, "user": {}, "error": refused.to_string()}),
    }
}

fn subject(review: &Value) -> User {
    let spec = &review["spec"];
    let groups = spec["groups"].as_array();
    User {
        name: text(spec, &["user"]).to_owned(),
        uid: text(spec, &["uid"]).to_owned(),
        groups: groups
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        ..User::default()
    }
}

fn access(call: &Call, user: &User, review: &Value) -> Value {
    let spec = &review["spec"];
    let word = |path: &[&str]| text(spec, path).to_owned();
    let asked = if spec.get("nonResourceAttributes").is_some_and(Value::is_object) {
        Attributes {
            verb: word(&["nonResourceAttributes", "verb"]),
            path: word(&["nonResourceAttributes", "path"]),
            ..Attributes::default()
        }
    } else {
        Attributes {
            verb: word(&["resourceAttributes", "verb"]),
            group: word(&["resourceAttributes", "group"]),
            resource: word(&["resourceAttributes", "resource"]),
            subresource: word(&["resourceAttributes", "subresource"]),
            namespace: word(&["resourceAttributes", "namespace"]),
            name: word(&["resourceAttributes", "name"]),
            path: String::new(),
        }
    };
    if rbac::allowed(&call.api.store, user, &asked) {
        json!({"allowed": true, "reason": "RBAC: allowed"})
    } else {
        json!({"allowed": false})
    }
}

fn rules(call: &Call, namespace: &str) -> Value {
    let mut all = rbac::rules(&call.api.store, &call.user, namespace);
    if call.user.in_group("system:masters") {
        all.push(json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}));
        all.push(json!({"nonResourceURLs": ["*"], "verbs": ["*"]}));
    }
    let (paths, resources): (Vec<Value>, Vec<Value>) = all
        .into_iter()
        .partition(|rule| rule.get("nonResourceURLs").is_some_and(Value::is_array));
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
