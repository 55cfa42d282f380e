//! The audit trail, read only.

use std::sync::Arc;

use http::{Method, StatusCode};

use crate::operator::{
    body::{AuditRecordBody, AuditRecords},
    call::{Call, Done, Outcome},
    code::ErrorCode,
    problem::Refusal,
    query::Parameter,
    route::{Access, Gives, Route, schema},
    scope::Scope,
};

const ACCESS: Access = Access::Scoped {
    any_of: &[Scope::AuditRead],
    every_tenant: true,
};
const MOST: usize = 1000;
const USUAL: usize = 100;

static PAGE: &[Parameter] = &[
    Parameter {
        name: "after",
        about: "The sequence number behind which to begin; the oldest record, if it is not said.",
        kind: "integer",
    },
    Parameter {
        name: "limit",
        about: "How many records at most: 1 to 1000; 100, if it is not said.",
        kind: "integer",
    },
];

pub(crate) fn table() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/audit/verify",
            "audit.verify",
            ACCESS,
            |call| Box::pin(verify(call)),
        )
        .about("Verifies the trail as it is on disk, and reports. One at a time.")
        .giving(Gives::Anything(
            "The report, as `outgate audit verify --json` prints it.",
        ))
        .refusing(&[ErrorCode::AuditUnreadable]),
        Route::new(
            Method::GET,
            "/v1/audit/records",
            "audit.records",
            ACCESS,
            |call| Box::pin(records(call)),
        )
        .about("Reads records of the trail, the oldest first. Reading is recorded too.")
        .query(PAGE)
        .giving(Gives::Json(200, schema::<AuditRecords>))
        .refusing(&[ErrorCode::AuditUnreadable]),
    ]
}

fn unreadable(why: String) -> Refusal {
    Refusal::from(ErrorCode::AuditUnreadable).because(why)
}

async fn verify(call: Call) -> Outcome {
    let busy = || Refusal::from(ErrorCode::TooBusy).retry_after(5);
    // It reads the whole trail: two at once would only slow each other down.
    let only = Arc::clone(&call.api.verifying).try_acquire_owned();
    let only = only.map_err(|_| busy())?;
    let records = Arc::clone(&call.api.parts.records);
    let report = Call::blocking(move || {
        let _only = only;
        records.verify()
    });
    Done::json(StatusCode::OK, &report.await?.map_err(unreadable)?)
}

async fn records(call: Call) -> Outcome {
    let after: Option<u64> = number(&call, "after")?;
    let limit: usize = number(&call, "limit")?.unwrap_or(USUAL);
    if !(1..=MOST).contains(&limit) {
        return Err(Refusal::saying(ErrorCode::InvalidQuery, "limit: 1 to 1000"));
    }
    let reader = Arc::clone(&call.api.parts.records);
    let read = Call::blocking(move || reader.records(after, limit)).await?;
    let records = read.map_err(unreadable)?.into_iter().map(|(seq, line)| {
        let record = serde_json::from_str(&line)
            .map_err(|_| unreadable(format!("record {seq} is no JSON object")))?;
        Ok(AuditRecordBody { seq, record })
    });
    let records = records.collect::<Result<Vec<_>, Refusal>>()?;
    let first = records.first().map(|record| record.seq);
    let detail = first.map_or("none".to_owned(), |first| {
        format!("{} records from {first}", records.len())
    });
    Ok(Done::json(StatusCode::OK, &AuditRecords { records })?.noting(detail))
}

pub(super) fn number<N: std::str::FromStr>(
    call: &Call,
    name: &'static str,
) -> Result<Option<N>, Refusal> {
    let bad = || Refusal::saying(ErrorCode::InvalidQuery, format!("{name}: a whole number"));
    let read = |text: String| {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten().ok_or_else(bad)
    };
    call.parameter(name).map(read).transpose()
}
