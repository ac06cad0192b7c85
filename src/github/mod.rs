//! Client of GitHub's REST API: requests and their answers, rate limits, access tokens and Apps.

mod answer;
mod api;
mod app;
mod error;
mod request;
mod tokens;

pub(crate) use api::{Answer, Api, INTERVAL, PER_PAGE};
pub use app::{AppAuth, AppKeyError, Installation, InstallationId};
pub use error::GitHubError;
pub use tokens::Credential;
pub(crate) use tokens::Tokens;
