//! What leaves of a guest's request.

use http::{
    HeaderName,
    header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};
use outgate_credential::request_accept_encoding;
use outgate_envoy_proto::envoy::{
    config::core::v3::{HeaderValue, HeaderValueOption, header_value_option::HeaderAppendAction},
    service::auth::v3::OkHttpResponse,
};
use outgate_journey::{
    denial::{Denial, DenyCode},
    gate::PermittedRequest,
    outgoing::strip_for_upstream,
};
use outgate_plane::{Live, clock::unix_now, tokens::Tokens};

use crate::control::evidence::Evidence;

/// What Envoy does to the guest's fields, so that only those leave which the journey lets out. What is between two hops is
/// Envoy's own.
pub(super) fn leaving(
    evidence: &Evidence,
    live: &Live,
    permitted: &PermittedRequest,
    tokens: &Tokens,
) -> Result<OkHttpResponse, Denial> {
    let before = &evidence.headers;
    let allowed = permitted.permit().allowed();
    let rule = allowed.rule();
    let mut after = before.clone();
    strip_for_upstream(&mut after, &live.policy, rule, tokens, unix_now());
    if rule.injection.is_some() {
        request_accept_encoding(&mut after);
    }
    let mut answer = OkHttpResponse::default();
    for name in before.keys() {
        let is_envoys = [CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE].contains(name);
        if !is_envoys && !after.contains_key(name) {
            answer.headers_to_remove.push(name.as_str().to_owned());
        }
    }
    // What is sent is the name that was judged, and not the spelling of it that the guest chose.
    let canonical = allowed.destination().authority();
    if evidence.authority != canonical {
        answer.headers.push(text(
            ":authority",
            canonical,
            HeaderAppendAction::OverwriteIfExistsOrAdd,
        ));
    }
    for name in after.keys() {
        let mut is_same = before.get_all(name).iter().eq(after.get_all(name));
        is_same |= *name == HOST || *name == TE;
        if is_same {
            continue;
        }
        for (place, value) in after.get_all(name).iter().enumerate() {
            let action = if place == 0 {
                HeaderAppendAction::OverwriteIfExistsOrAdd
            } else {
                HeaderAppendAction::AppendIfExistsOrAdd
            };
            answer.headers.push(field(name, value, action)?);
        }
    }
    Ok(answer)
}

/// A field of the guest's that is written anew. Envoy reads texts alone here: what is none cannot be kept as it is.
fn field(
    name: &HeaderName,
    value: &http::HeaderValue,
    action: HeaderAppendAction,
) -> Result<HeaderValueOption, Denial> {
    let value = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Denial::new(DenyCode::MalformedRequest).because("a header field"))?;
    Ok(text(name.as_str(), value.to_owned(), action))
}

fn text(name: &str, value: String, action: HeaderAppendAction) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue {
            key: name.to_owned(),
            value,
            ..HeaderValue::default()
        }),
        append_action: action.into(),
        ..HeaderValueOption::default()
    }
}
