//! Fields that all events of a feed or archive share.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::scalar::{id, text_or_nothing};
use crate::fetch::RepositoryName;
use crate::forge::{Remote, id_or_name};

/// Fields that all events share.
#[derive(Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(default, deserialize_with = "id")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", default, deserialize_with = "text_or_nothing")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) created_at: Option<String>,
    #[serde(borrow, default)]
    repo: Option<&'a RawValue>,
    #[serde(borrow, default)]
    repository: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Repository {
    #[serde(default, deserialize_with = "id")]
    id: Option<String>,
    name: String,
    /// Owner, given in the oldest archives, in which `name` does not include it.
    #[serde(default, deserialize_with = "text_or_nothing")]
    owner: Option<String>,
}

/// Payload of 2011.
#[derive(Deserialize)]
struct OldPayload {
    #[serde(default, deserialize_with = "text_or_nothing")]
    repo: Option<String>,
}

impl Envelope<'_> {
    /// Returns the repository that the event is about.
    ///
    /// # Errors
    /// Returns what is wrong with the repository, without quoting it.
    pub(super) fn remote(&self, host: &str) -> Result<Remote, &'static str> {
        let repository = self.repo.or(self.repository);
        let repository = repository.ok_or("it names no repository")?;
        let repository: Repository = serde_json::from_str(repository.get())
            .map_err(|_| "its repository has no name, or something else in its place")?;
        // Some of 2011 say so, and the payload of which one it is.
        let is_nameless = repository.name == "/";
        let of_payload = self.payload.filter(|_| is_nameless).and_then(|payload| {
            let payload: OldPayload = serde_json::from_str(payload.get()).ok()?;
            payload.repo
        });
        if let Some(name) = of_payload {
            return Ok(Remote {
                host: host.to_owned(),
                repository_id: repository.id.unwrap_or_else(|| name.clone()),
                repository: RepositoryName::parse(&name)
                    .map_err(|_| "its repository's name is not OWNER/NAME")?,
                clone_url: None,
            });
        }
        let name = match &repository.owner {
            Some(owner) if !repository.name.contains('/') => format!("{owner}/{}", repository.name),
            _ => repository.name,
        };
        let name =
            RepositoryName::parse(&name).map_err(|_| "its repository's name is not OWNER/NAME")?;
        Ok(Remote {
            host: host.to_owned(),
            repository_id: id_or_name(repository.id, &name),
            repository: name,
            clone_url: None,
        })
    }
}
