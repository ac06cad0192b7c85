//! The OpenAPI document as a page for people: plain HTML, without scripts and without anything from elsewhere.

use std::fmt::Write as _;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::AppState;
use super::error::Refusals;
use crate::keyformat::Sha256Digest;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}\
code,.method{font-family:ui-monospace,monospace;font-size:.9em}\
table{border-collapse:collapse;width:100%;margin:.5rem 0}\
th,td{text-align:left;vertical-align:top;border-top:1px solid #8886;padding:.25rem .5rem .25rem 0}\
details{border-top:1px solid #8886;padding:.5rem 0}summary{cursor:pointer}\
h4{margin:.75rem 0 0}.method{font-weight:bold;display:inline-block;min-width:4rem}\
:root{color-scheme:light dark}";

/// A page, and the policy that it comes with.
#[derive(Debug, Clone)]
pub(super) struct Page {
    html: Bytes,
    policy: HeaderValue,
}

/// Show every endpoint on a page for people.
#[utoipa::path(
    get, path = "/docs", operation_id = "docs", tag = "Description", security(()),
    responses((status = 200, description = "The page", body = String, content_type = "text/html"), Refusals),
)]
pub(super) async fn serve(State(state): State<AppState>) -> impl IntoResponse {
    let Page { html, policy } = state.0.page.clone();
    let kind = HeaderValue::from_static("text/html; charset=utf-8");
    let headers: [(HeaderName, HeaderValue); 2] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, html)
}

/// Returns the page of an OpenAPI document.
pub(super) fn page(document: &[u8]) -> Page {
    let document: Value = serde_json::from_slice(document).unwrap_or_default();
    let mut out = Html::default();
    out.document(&document);
    // Nothing but its own style is allowed, which has this digest.
    let digest = STANDARD.encode(Sha256Digest::of(STYLE.as_bytes()).0);
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    Page {
        html: Bytes::from(out.0),
        policy: HeaderValue::try_from(policy)
            .unwrap_or(HeaderValue::from_static("default-src 'none'")),
    }
}

/// A page that is being written.
#[derive(Default)]
struct Html(String);

impl Html {
    /// Appends markup.
    fn raw(&mut self, markup: &str) {
        self.0.push_str(markup);
    }

    /// Appends text, in which what stands between backticks is code.
    fn text(&mut self, text: &str) {
        for (at, part) in text.split('`').enumerate() {
            let is_code = at % 2 == 1;
            self.raw(if is_code { "<code>" } else { "" });
            for c in part.chars() {
                match c {
                    '&' => self.raw("&amp;"),
                    '<' => self.raw("&lt;"),
                    '>' => self.raw("&gt;"),
                    '"' => self.raw("&quot;"),
                    c => self.0.push(c),
                }
            }
            self.raw(if is_code { "</code>" } else { "" });
        }
    }

    /// Appends an element that has only text.
    fn element(&mut self, name: &str, text: &str) {
        // Writing into a String cannot fail.
        let _ = write!(self.0, "<{name}>");
        self.text(text);
        let _ = write!(self.0, "</{name}>");
    }

    fn document(&mut self, document: &Value) {
        let title = text(&document["info"]["title"]);
        self.raw("<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        self.raw("<meta name=\"viewport\" content=\"width=device-width\"><style>");
        self.raw(STYLE);
        self.raw("</style>");
        self.element("title", &format!("{title} API"));
        self.raw("</head><body>");
        self.element("h1", &format!("{title} API"));
        self.element("p", text(&document["info"]["description"]));
        self.raw("<p>For programs: <a href=\"/openapi.json\">openapi.json</a>.</p>");
        self.tokens(&document["components"]["securitySchemes"]);
        for tag in document["tags"].as_array().into_iter().flatten() {
            self.element("h2", text(&tag["name"]));
            self.element("p", text(&tag["description"]));
            self.operations(&document["paths"], &tag["name"]);
        }
        self.element("h2", "Objects");
        for (name, schema) in fields(&document["components"]["schemas"]) {
            self.object(name, schema);
        }
        self.raw("</body></html>");
    }

    fn tokens(&mut self, schemes: &Value) {
        self.element("h2", "Access tokens");
        self.raw("<ul>");
        for (name, scheme) in fields(schemes) {
            let header = match text(&scheme["name"]) {
                "" => "authorization: Bearer",
                header => header,
            };
            self.element("li", &format!("{name}: header `{header}`"));
        }
        self.raw("</ul>");
    }

    fn operations(&mut self, paths: &Value, tag: &Value) {
        for (path, item) in fields(paths) {
            for (method, operation) in fields(item) {
                let mut tags = operation["tags"].as_array().into_iter().flatten();
                if tags.any(|one| one == tag) {
                    self.operation(method, path, operation);
                }
            }
        }
    }

    fn operation(&mut self, method: &str, path: &str, operation: &Value) {
        self.raw("<details><summary><span class=\"method\">");
        self.text(&method.to_uppercase());
        self.raw("</span> ");
        self.text(&format!("`{path}` {}", text(&operation["summary"])));
        self.raw("</summary>");
        self.element("p", text(&operation["description"]));
        if operation.get("security").is_none() {
            self.element("p", "Takes an access token.");
        }
        let parameters = list(&operation["parameters"]);
        if !parameters.is_empty() {
            self.element("h4", "Parameters");
            self.raw("<table>");
            for parameter in parameters {
                let name = text(&parameter["name"]);
                let place = text(&parameter["in"]);
                self.row(
                    name,
                    &format!("{place}, {}", kind(&parameter["schema"])),
                    parameter["required"] == true,
                    &description(parameter, &parameter["schema"]),
                );
            }
            self.raw("</table>");
        }
        let body = &operation["requestBody"];
        if body.is_object() {
            self.element("h4", "Body");
            self.contents(&body["content"]);
        }
        self.element("h4", "Answers");
        self.raw("<table>");
        for (status, response) in fields(&operation["responses"]) {
            self.raw("<tr>");
            self.element("td", status);
            self.raw("<td>");
            self.text(text(&response["description"]));
            if !status.starts_with(['4', '5']) {
                for (header, _) in fields(&response["headers"]) {
                    self.text(&format!(", header `{header}`"));
                }
                self.contents(&response["content"]);
            }
            self.raw("</td></tr>");
        }
        self.raw("</table></details>");
    }

    fn contents(&mut self, contents: &Value) {
        for (kind_of, content) in fields(contents) {
            self.raw("<div>");
            self.text(&format!("`{kind_of}`: "));
            self.link(&content["schema"]);
            self.raw("</div>");
        }
    }

    /// Appends the name of a type, which leads to the object that it is.
    fn link(&mut self, schema: &Value) {
        match reference(schema).or_else(|| reference(&schema["items"])) {
            Some(name) => {
                let _ = write!(self.0, "<a href=\"#{name}\">");
                self.text(&kind(schema));
                self.raw("</a>");
            }
            None => self.text(&kind(schema)),
        }
    }

    fn object(&mut self, name: &str, schema: &Value) {
        let _ = write!(self.0, "<h3 id=\"{name}\">");
        self.text(name);
        self.raw("</h3>");
        self.element("p", &description(schema, schema));
        let parts = list(&schema["allOf"]);
        for part in parts.iter().chain([schema]) {
            if let Some(whole) = reference(part) {
                self.element("p", &format!("Has the fields of `{whole}`, and:"));
            }
            let required = list(&part["required"]);
            if !part["properties"].is_object() {
                continue;
            }
            self.raw("<table>");
            for (field, of_field) in fields(&part["properties"]) {
                let is_required = required.iter().any(|one| one == field);
                self.row(
                    field,
                    &kind(of_field),
                    is_required,
                    &description(of_field, of_field),
                );
            }
            self.raw("</table>");
        }
    }

    fn row(&mut self, name: &str, kind: &str, is_required: bool, description: &str) {
        self.raw("<tr>");
        self.element("td", &format!("`{name}`"));
        let required = if is_required { "" } else { ", optional" };
        self.element("td", &format!("{kind}{required}"));
        self.element("td", description);
        self.raw("</tr>");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn fields(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, field)| (name.as_str(), field))
}

/// Returns the name of the object that a schema refers to.
fn reference(schema: &Value) -> Option<&str> {
    text(&schema["$ref"]).rsplit_once('/').map(|(_, name)| name)
}

/// Returns the type of a schema in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = reference(schema) {
        return name.to_owned();
    }
    let alternatives = ["oneOf", "anyOf"].map(|key| list(&schema[key])).concat();
    if !alternatives.is_empty() {
        return alternatives
            .iter()
            .map(kind)
            .collect::<Vec<_>>()
            .join(" or ");
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.iter().map(text).collect::<Vec<_>>().join(" or "),
        one => text(one).to_owned(),
    };
    match text(&schema["format"]) {
        _ if schema["items"].is_object() => format!("{types} of {}", kind(&schema["items"])),
        "" => types,
        format => format!("{types} ({format})"),
    }
}

/// Returns what a schema says besides its type.
fn description(described: &Value, schema: &Value) -> String {
    let mut said = text(&described["description"]).to_owned();
    let values: Vec<_> = list(&schema["enum"])
        .iter()
        .map(|value| format!("`{}`", text(value)))
        .collect();
    if !said.is_empty() && !said.ends_with('.') {
        said.push('.');
    }
    if !values.is_empty() {
        let _ = write!(said, " One of {}.", values.join(", "));
    }
    for (key, words) in [
        ("minimum", "At least"),
        ("maximum", "At most"),
        ("minLength", "Shortest"),
        ("maxLength", "Longest"),
        ("maxItems", "Most"),
        ("default", "Default"),
        ("example", "Example"),
    ] {
        if let Some(value) = schema.get(key) {
            let _ = write!(said, " {words}: `{value}`.");
        }
    }
    said.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_document_says_is_text_and_no_markup() {
        let hostile = "<script>alert(\"x\")</script> & `<b>`";
        let document = json!({
            "info": {"title": hostile, "description": hostile},
            "tags": [{"name": "Keys", "description": hostile}],
            "paths": {"/a/{b}": {"get": {
                "tags": ["Keys"], "summary": hostile, "description": hostile,
                "parameters": [{"name": hostile, "in": "query", "schema": {"type": ["string", "null"]}}],
                "responses": {"200": {"description": hostile, "content": {"text/html": {"schema": {"type": "string"}}}}},
            }}},
        });
        let page = page(document.to_string().as_bytes());
        let html = String::from_utf8(page.html.to_vec()).unwrap();
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
        assert!(
            html.contains("&lt;script&gt;") && html.contains("string or null"),
            "{html}"
        );
    }
}
