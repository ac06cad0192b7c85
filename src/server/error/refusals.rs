//! Errors in the description of the interface. Whatever refuses requests names its codes, and each endpoint names what
//! may refuse its requests.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use utoipa::openapi::{
    ContentBuilder, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response, ResponseBuilder, Type,
};
use utoipa::{IntoResponses, ToSchema};

use super::{ErrorBody, ErrorCode};

/// Codes that any request may be answered with.
const ALWAYS: &[ErrorCode] = &[ErrorCode::InternalError, ErrorCode::ServiceUnavailable];

/// Part of an endpoint that refuses some of the requests.
pub(in crate::server) trait Refuses {
    /// Codes of the errors.
    const CODES: &'static [ErrorCode];
}

impl Refuses for () {
    const CODES: &'static [ErrorCode] = &[];
}

/// Body that is read as it is.
pub(in crate::server) struct RawBody;

impl Refuses for RawBody {
    const CODES: &'static [ErrorCode] = &[
        ErrorCode::BodyParsingError,
        ErrorCode::RequestTimeout,
        ErrorCode::PayloadTooLarge,
    ];
}

/// Error responses of an endpoint with these parts, besides those that every endpoint has.
pub(in crate::server) struct Refusals<A = (), B = (), C = ()>(PhantomData<(A, B, C)>);

impl<A: Refuses, B: Refuses, C: Refuses> IntoResponses for Refusals<A, B, C> {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut of_status: BTreeMap<u16, Vec<ErrorCode>> = BTreeMap::new();
        for code in [A::CODES, B::CODES, C::CODES, ALWAYS].concat() {
            let codes = of_status.entry(code.status().as_u16()).or_default();
            if !codes.contains(&code) {
                codes.push(code);
            }
        }
        of_status
            .into_iter()
            .map(|(status, codes)| (status.to_string(), response(&codes).into()))
            .collect()
    }
}

fn response(codes: &[ErrorCode]) -> Response {
    let names: Vec<_> = codes
        .iter()
        .map(|code| format!("`{}`", code.name()))
        .collect();
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ErrorBody::name())))
        .build();
    let code = HeaderBuilder::new()
        .schema(Some(Ref::from_schema_name(<ErrorCode as ToSchema>::name())))
        .description(Some("Code of the error, as in the body"))
        .build();
    let mut response = ResponseBuilder::new()
        .description(names.join(", "))
        .header("x-stack-known-error", code)
        .content("application/json", body);
    let waits = [ErrorCode::RateLimited, ErrorCode::ServiceUnavailable];
    if codes.iter().all(|code| waits.contains(code)) {
        let seconds = ObjectBuilder::new().schema_type(Type::Integer).build();
        let wait = HeaderBuilder::new()
            .schema(Some(seconds))
            .description(Some("Seconds to wait before the request is sent again"))
            .build();
        response = response.header("retry-after", wait);
    }
    response.build()
}
