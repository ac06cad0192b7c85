//! Requests of the world outside.

use reqwest::{RequestBuilder, Response};

/// Sending of requests as anybody would, who knows nothing of the program's own client.
pub(crate) trait Ask {
    /// Sends the request.
    async fn ask(self) -> reqwest::Result<Response>;
}

impl Ask for RequestBuilder {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test is not bound to what the program asks"
    )]
    async fn ask(self) -> reqwest::Result<Response> {
        self.send().await
    }
}
