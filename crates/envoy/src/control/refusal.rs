//! A refusal in the shapes of Envoy's three questions: ext_authz, rate limit, ext_proc. What stands in it is the same.

use bytes::Bytes;
use http::{Response, header::CONTENT_LENGTH};
use outgate_envoy_proto::{
    envoy::{
        config::core::v3::{
            HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction,
        },
        service::{
            auth::v3::DeniedHttpResponse,
            ext_proc::v3::{
                ImmediateResponse, ProcessingResponse, processing_response::Response as Processing,
            },
            ratelimit::v3::{RateLimitResponse, rate_limit_response::Code},
        },
        r#type::v3::HttpStatus,
    },
    google::rpc,
};

use outgate_journey::denial::Denial;
use outgate_plane::answer::{self, Afterwards, Challenge};

use super::{authorize::Answer, scrub::fields};

const PERMISSION_DENIED: i32 = 7;

/// What is said to a refused request. Its connection is Envoy's to keep or to close.
pub(super) fn refuse(denial: &Denial, request_id: &str, challenge: Challenge) -> Response<Bytes> {
    answer::refuse(denial, request_id, challenge, Afterwards::KeepAlive)
}

/// Of an ext_authz call.
pub(super) fn checked(answer: &Response<Bytes>) -> Answer {
    let headers = texts(answer).map(|header| HeaderValueOption {
        header: Some(header),
        // A challenge has two fields of one name.
        append_action: HeaderAppendAction::AppendIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    });
    Answer {
        status: Some(rpc::Status {
            code: PERMISSION_DENIED,
            ..rpc::Status::default()
        }),
        denied: Some(DeniedHttpResponse {
            status: Some(status(answer)),
            headers: headers.collect(),
            body: String::from_utf8_lossy(answer.body()).into_owned(),
        }),
        ..Answer::default()
    }
}

/// Of a rate-limit call. Envoy's answer would say 429; its local replies correct the status by the reason
/// (`render/reply.rs`).
pub(super) fn limited(answer: &Response<Bytes>) -> RateLimitResponse {
    RateLimitResponse {
        overall_code: Code::OverLimit.into(),
        response_headers_to_add: texts(answer).collect(),
        raw_body: answer.body().to_vec(),
        ..RateLimitResponse::default()
    }
}

/// Of an exchange that an external processor sees. Where the upstream's head was let on already, Envoy resets the exchange
/// instead.
pub(super) fn processed(answer: &Response<Bytes>, details: &str) -> ProcessingResponse {
    let mut headers = answer.headers().clone();
    headers.remove(CONTENT_LENGTH);
    ProcessingResponse {
        response: Some(Processing::ImmediateResponse(ImmediateResponse {
            status: Some(status(answer)),
            headers: Some(fields::all(&headers)),
            body: answer.body().clone(),
            details: details.to_owned(),
            ..ImmediateResponse::default()
        })),
        ..ProcessingResponse::default()
    }
}

/// The fields, which are ours and ASCII. The length is Envoy's to say.
fn texts(answer: &Response<Bytes>) -> impl Iterator<Item = HeaderValue> {
    let fields = answer.headers().iter();
    fields
        .filter(|(name, _)| **name != CONTENT_LENGTH)
        .map(|(name, value)| HeaderValue {
            key: name.as_str().to_owned(),
            value: String::from_utf8_lossy(value.as_bytes()).into_owned(),
            ..HeaderValue::default()
        })
}

fn status(answer: &Response<Bytes>) -> HttpStatus {
    HttpStatus {
        code: i32::from(answer.status().as_u16()),
    }
}
