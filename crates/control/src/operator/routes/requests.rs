//! What a session asked for lately: metadata for whoever may read the audit trail, which has the same, and bodies for
//! the gateway's own user on the Unix socket alone. Decrypted traffic leaves on no network.

use bytes::Bytes;
use http::{Method, StatusCode};
use outgate_journey::record::{DecisionRecord, Ending, OperatorKind, Verdict};
use zeroize::Zeroizing;

use super::audit::number;
use crate::{
    operator::{
        body::{Base64Bytes, BodyPart, SessionRequest, SessionRequests},
        call::{Call, Done, Outcome},
        code::ErrorCode,
        problem::Refusal,
        query::Parameter,
        route::{Access, Gives, Route, schema},
        scope::Scope,
    },
    sessions::{BodyStart, RecentRequest},
};

const MOST: usize = 1000;
const USUAL: usize = 100;

static QUERY: &[Parameter] = &[
    Parameter {
        name: "after",
        about: "The `seq` behind which to begin; without it, the latest requests.",
        kind: "integer",
    },
    Parameter {
        name: "limit",
        about: "How many requests at most: 1 to 1000; 100, if it is not said.",
        kind: "integer",
    },
    Parameter {
        name: "bodies",
        about: "`true`: with the beginnings of bodies, where they are kept. On the Unix socket alone.",
        kind: "boolean",
    },
];

pub(crate) fn table() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/sessions/{id}/requests",
            "session.requests",
            Access::Scoped {
                any_of: &[Scope::AuditRead],
                every_tenant: false,
            },
            |call| Box::pin(requests(call)),
        )
        .about("Shows what a session asked this gateway for lately, out of memory.")
        .query(QUERY)
        .giving(Gives::Json(200, schema::<SessionRequests>))
        .refusing(&[
            ErrorCode::InvalidId,
            ErrorCode::UnknownSession,
            ErrorCode::BodiesStayLocal,
        ]),
    ]
}

async fn requests(call: Call) -> Outcome {
    let (id, _) = call.session()?;
    let after: Option<u64> = number(&call, "after")?;
    let limit: usize = number(&call, "limit")?.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Refusal::saying(ErrorCode::InvalidQuery, "limit: 1 to 1000"));
    }
    let with_bodies = match call.parameter("bodies").as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            let detail = "bodies: `true` or `false`";
            return Err(Refusal::saying(ErrorCode::InvalidQuery, detail));
        }
    };
    if with_bodies && call.identity.operator.kind != OperatorKind::Local {
        return Err(ErrorCode::BodiesStayLocal.into());
    }
    let sessions = &call.api.parts.sessions;
    let found = sessions.requests(&id, after, limit);
    let rules = sessions.view_rules();
    let bodies = if with_bodies { ", with bodies" } else { "" };
    let detail = format!("{} requests{bodies}", found.len());
    let shown = SessionRequests {
        requests: found.iter().map(|it| shown(it, with_bodies)).collect(),
        kept: u32::try_from(rules.requests).unwrap_or(u32::MAX),
        kept_body_bytes: u32::try_from(rules.bodies).unwrap_or(u32::MAX),
    };
    Ok(answer(&shown)?.noting(detail))
}

/// In a buffer that is wiped when it was sent, and does not grow: that would leave an unwiped copy behind.
fn answer(shown: &SessionRequests) -> Outcome {
    let fault = |error: serde_json::Error| {
        Refusal::from(ErrorCode::InternalFault).because(error.to_string())
    };
    let mut length = Length(0);
    serde_json::to_writer(&mut length, shown).map_err(fault)?;
    let mut body = Zeroizing::new(Vec::with_capacity(length.0));
    serde_json::to_writer(&mut *body, shown).map_err(fault)?;
    Ok(Done {
        status: StatusCode::OK,
        body: Some(Bytes::from_owner(body)),
        ..Done::default()
    })
}

/// Counts what is written.
struct Length(usize);

impl std::io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn shown(request: &RecentRequest, with_bodies: bool) -> SessionRequest {
    let record: &DecisionRecord = &request.record;
    let (ending, cut) = match record.ending {
        Ending::Completed => ("completed", None),
        Ending::Aborted => ("aborted", None),
        Ending::Cut(code) => ("cut", Some(code)),
    };
    let denied = match record.verdict {
        Verdict::Allowed => None,
        Verdict::Denied(code) => Some(code),
    };
    let bodies = request.bodies.as_ref().filter(|_| with_bodies);
    SessionRequest {
        seq: request.seq,
        request_id: record.request_id.clone(),
        time_unix_ms: record.time_unix_ms,
        entry: record.entry.as_str().to_owned(),
        method: record.method.clone(),
        host: record.host.clone(),
        port: record.port,
        path: record.path.clone(),
        posture: record.posture.map(str::to_owned),
        allowed: denied.is_none(),
        code: denied.or(cut).map(|code| code.as_str().to_owned()),
        rule: record.rule.clone(),
        detail: record.detail.clone(),
        token_id: record.token_id.as_deref().map(str::to_owned),
        credential: record.injected.as_ref().map(ToString::to_string),
        scrubbed: record.scrubbed,
        status: record.status,
        bytes_out: record.bytes_out,
        bytes_in: record.bytes_in,
        duration_ms: u64::try_from(record.ended_after.as_millis()).unwrap_or(u64::MAX),
        ending: ending.to_owned(),
        request_body: bodies.map(|it| part(&it.request)),
        response_body: bodies.map(|it| part(&it.response)),
    }
}

fn part(body: &BodyStart) -> BodyPart {
    BodyPart {
        base64: Base64Bytes(body.bytes.clone()),
        is_cut: body.is_cut,
    }
}
