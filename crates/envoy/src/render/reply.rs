//! How Envoy says no by itself: in the journey's own words. Upstream detail (certificate names, addresses) stays out.

use std::collections::BTreeMap;

use outgate_journey::denial::DenyCode;
use serde_json::{Value, json};

use super::json::{decided, extension};
use super::names::decision;
use crate::reasons::{Found, REASONS};

/// What Envoy calls a refusal of the rate limit.
const LIMITED: &str = "request_rate_limited";

/// The first that matches is used.
pub(super) fn local_replies() -> Value {
    let mut mappers = limited();
    mappers.push(ours());
    mappers.extend(
        REASONS
            .iter()
            .map(|reason| answer(&matching(reason.found), reason.code)),
    );
    mappers.extend(
        BY_STATUS.map(|(status, code)| answer(&when(&format!("response.code == {status}")), code)),
    );
    mappers.push(fallback());
    json!({ "mappers": mappers })
}

/// What the rate limit refused is a 429 to Envoy, whose protocol has room for no other status: it gets that of its reason.
fn limited() -> Vec<Value> {
    let mut reasons = BTreeMap::<u16, Vec<String>>::new();
    for code in DenyCode::ALL {
        let of_status = reasons.entry(code.status()).or_default();
        of_status.push(format!("'{}'", code.as_str()));
    }
    reasons.remove(&429);
    let mapper = |(status, reasons): (u16, Vec<String>)| {
        let reasons = reasons.join(", ");
        let filter = when(&format!(
            "response.code_details == '{LIMITED}' && response.headers['x-deny-reason'] in [{reasons}]"
        ));
        json!({ "filter": filter, "status_code": status })
    };
    reasons.into_iter().map(mapper).collect()
}

/// What our services answered is left as it is.
fn ours() -> Value {
    let details =
        ["ext_authz_denied", LIMITED].map(|it| format!("response.code_details == '{it}'"));
    let cut = "response.code_details.startsWith('outgate_')";
    json!({ "filter": when(&format!("{} || {cut}", details.join(" || "))) })
}

fn matching(found: Found) -> Value {
    match found {
        Found::DetailsAre(text) => when(&format!("response.code_details == '{text}'")),
        Found::DetailsStart(text) => when(&format!("response.code_details.startsWith('{text}')")),
        Found::DetailsHave(text) => when(&format!("response.code_details.contains('{text}')")),
        Found::Flag(flag) => json!({ "response_flag_filter": { "flags": [flag] } }),
    }
}

/// What a status says where nothing else is known.
const BY_STATUS: [(u16, DenyCode); 3] = [
    (431, DenyCode::HeaderTooLarge),
    (408, DenyCode::RequestTimeout),
    (400, DenyCode::MalformedRequest),
];

fn when(expression: &str) -> Value {
    json!({ "extension_filter": extension(
        "envoy.access_loggers.extension_filters.cel",
        "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        json!({ "expression": expression }),
    ) })
}

/// Whatever else Envoy refuses.
fn fallback() -> Value {
    let failed = json!({ "status_code_filter": { "comparison": {
        "op": "GE",
        "value": { "default_value": 400, "runtime_key": "outgate.unused" },
    } } });
    answer(&failed, DenyCode::InternalFault)
}

/// The answer to a denial, as the native plane writes it.
fn answer(filter: &Value, code: DenyCode) -> Value {
    json!({
        "filter": filter,
        "status_code": code.status(),
        "headers_to_add": [{
            "header": { "key": "x-deny-reason", "value": code.as_str() },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }],
        "body_format_override": {
            "json_format": { "error": {
                "code": code.as_str(),
                "message": code.message(),
                "remedy": code.remedy(),
                "request_id": decided(decision::RECORD),
            } },
            "omit_empty_values": true,
        },
    })
}
