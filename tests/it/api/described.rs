//! The description of the interface, and whether it allows what the server answers. Every answer that a test reads by
//! [`Reply::of`] is checked.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use jsonschema::Validator;
use serde_json::{Map, Value, json};

use super::harness::Reply;

/// The document of `GET /openapi.json`.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_slice(&rescind::server::document()).expect("JSON"));

/// Components whose objects have no fields but the described ones.
static COMPONENTS: LazyLock<Value> = LazyLock::new(|| {
    let mut components = DOCUMENT["components"].clone();
    let schemas = components["schemas"].as_object_mut().expect("schemas");
    let mut parts = BTreeSet::new();
    for schema in schemas.values() {
        for part in schema["allOf"].as_array().into_iter().flatten() {
            parts.extend(part["$ref"].as_str().map(str::to_owned));
        }
    }
    for (name, schema) in schemas {
        let is_part = parts.contains(&format!("#/components/schemas/{name}"));
        if schema.get("allOf").is_some() {
            schema["unevaluatedProperties"] = json!(false);
        } else if schema.get("properties").is_some() && !is_part {
            schema["additionalProperties"] = json!(false);
        }
    }
    components
});

/// Validators by operation and status.
static VALIDATORS: Mutex<Option<HashMap<String, Arc<Validator>>>> = Mutex::new(None);

/// Returns method, path and description of every endpoint.
pub(crate) fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().expect("operations").iter();
        operations.map(move |(method, operation)| (method.as_str(), path.as_str(), operation))
    })
}

/// Returns the schema that a reference leads to, or the schema itself.
pub(crate) fn resolved(schema: &'static Value) -> &'static Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.strip_prefix('#').expect("a local reference");
            DOCUMENT.pointer(pointer).expect(reference)
        }
        None => schema,
    }
}

/// Asserts that the description allows this answer, if it has the endpoint.
pub(crate) fn check(method: &str, path: &str, reply: &Reply) {
    let what = format!("{method} {path}: {} {}", reply.status, reply.text);
    let Some((template, item)) = endpoint(path) else {
        return;
    };
    let Some(operation) = item.get(method.to_lowercase()) else {
        return;
    };
    // What is wrong with a head is told before there is a path.
    if reply.status == 431 {
        return;
    }
    let response = &operation["responses"][reply.status.to_string()];
    let description = response["description"].as_str();
    let description = description.unwrap_or_else(|| panic!("an undescribed status: {what}"));
    let Some(content) = response["content"].as_object() else {
        assert!(reply.text.is_empty(), "an undescribed body: {what}");
        return;
    };
    let kind = reply.header("content-type").unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default();
    let content = content.get(essence);
    let content = content.unwrap_or_else(|| panic!("an undescribed content type, {kind}: {what}"));
    if essence != "application/json" {
        return;
    }
    let body: Value = serde_json::from_str(&reply.text).expect("JSON");
    let key = format!("{method} {template} {}", reply.status);
    let problems: Vec<_> = validator(key, &content["schema"])
        .iter_errors(&body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{problems:?} in {what}");
    if reply.status >= 400 {
        let code = format!("`{}`", body["code"].as_str().expect("a code"));
        assert!(
            description.contains(&code),
            "an undescribed code, {code}: {what}"
        );
    }
}

fn validator(key: String, schema: &Value) -> Arc<Validator> {
    let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || {
        let mut whole: Map<String, Value> = schema.as_object().cloned().unwrap_or_default();
        whole.insert("components".to_owned(), COMPONENTS.clone());
        let options = jsonschema::options().should_validate_formats(true);
        Arc::new(options.build(&Value::Object(whole)).expect("a schema"))
    };
    let validators = validators.get_or_insert_default();
    Arc::clone(validators.entry(key).or_insert_with(make))
}

/// Returns the path of the description that a path matches, without parameters if there is one, and what it has.
fn endpoint(path: &str) -> Option<(&'static str, &'static Value)> {
    let matches = |template: &str| {
        let (parts, templates) = (path.split('/'), template.split('/'));
        parts.clone().count() == templates.clone().count()
            && parts.zip(templates).all(|(part, template)| {
                part == template || !part.is_empty() && template.starts_with('{')
            })
    };
    let paths = DOCUMENT["paths"].as_object().expect("paths");
    paths
        .iter()
        .map(|(template, item)| (template.as_str(), item))
        .filter(|(template, _)| matches(template))
        .min_by_key(|(template, _)| template.matches('{').count())
}
