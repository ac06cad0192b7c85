//! Payloads of the events that announce something to fetch.

use serde::Deserialize;

use crate::source::feed::scalar::{first, id, text_or_nothing};

#[derive(Deserialize)]
pub(super) struct PushPayload {
    #[serde(default, deserialize_with = "id")]
    pub(super) repository_id: Option<String>,
    #[serde(rename = "ref")]
    pub(super) reference: String,
    pub(super) head: String,
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) before: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct CreatePayload {
    /// `branch`, `tag`, or `repository`. Called `object` in the oldest archives.
    #[serde(alias = "object")]
    pub(super) ref_type: String,
    /// Name without `refs/heads/`; `None` for a repository. Called `object_name` in the oldest archives.
    #[serde(
        rename = "ref",
        alias = "object_name",
        default,
        deserialize_with = "text_or_nothing"
    )]
    pub(super) reference: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct WikiPayload {
    #[serde(deserialize_with = "first")]
    pub(super) pages: Option<WikiPage>,
}

#[derive(Deserialize)]
pub(super) struct WikiPage {
    pub(super) sha: String,
}

#[derive(Deserialize)]
pub(super) struct ForkPayload {
    pub(super) forkee: Forkee,
}

#[derive(Deserialize)]
pub(super) struct Forkee {
    #[serde(default, deserialize_with = "id")]
    pub(super) id: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) full_name: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) name: Option<String>,
    #[serde(default)]
    pub(super) owner: Option<Owner>,
}

#[derive(Deserialize)]
pub(super) struct Owner {
    pub(super) login: String,
}
