//! HTTP: router, access tokens, errors, the API.
