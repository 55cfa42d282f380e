//! Reads everything, or says which row cannot be read.

use std::{collections::BTreeMap, path::Path};

use futures_util::TryStreamExt;
use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    session::{PolicyName, SessionEnd, SessionId, Terms, TokenOrigin, UnixSeconds},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::schema::fault;
use crate::{
    DenyEntry, DenyTarget, KillSwitch, Remembered, Steady, StoreError, StoreFault, StoredDenial,
    StoredEnding, StoredSession,
};

/// The column whose value is not what was written. The value itself is not told: labels and reasons are the operator's.
type Unreadable = &'static str;

pub(super) async fn floor(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<Steady, StoreError> {
    let rows = rows(connection, path, "SELECT floor FROM clock", |row| {
        seconds(row, "floor")
    });
    Ok(Steady(rows.await?.first().copied().unwrap_or(0)))
}

pub(super) async fn everything(
    connection: &mut SqliteConnection,
    path: &Path,
    on_denial: impl FnMut(StoredDenial),
) -> Result<Remembered, StoreError> {
    let floor = floor(connection, path).await?;
    let sessions = rows(connection, path, "SELECT * FROM sessions", session).await?;
    let endings = rows(connection, path, "SELECT * FROM endings", ending).await?;
    each_row(connection, path, "SELECT * FROM denials", denial, on_denial).await?;
    let kill = rows(connection, path, "SELECT * FROM kill_switch", kill).await?;
    let quotas = rows(connection, path, "SELECT * FROM quotas", quota).await?;
    Ok(Remembered {
        floor,
        sessions,
        endings,
        kill: kill.into_iter().next(),
        quotas: quotas.into_iter().collect(),
    })
}

async fn rows<T>(
    connection: &mut SqliteConnection,
    path: &Path,
    query: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, Unreadable>,
) -> Result<Vec<T>, StoreError> {
    let mut all = Vec::new();
    each_row(connection, path, query, read, |row| all.push(row)).await?;
    Ok(all)
}

async fn each_row<T>(
    connection: &mut SqliteConnection,
    path: &Path,
    query: &'static str,
    read: impl Fn(&SqliteRow) -> Result<T, Unreadable>,
    mut take: impl FnMut(T),
) -> Result<(), StoreError> {
    let table = query.rsplit(' ').next().unwrap_or_default();
    let bad = |number: usize, column: Unreadable| {
        let detail = format!("table {table}, row {}: {column} cannot be read", number + 1);
        StoreError::new(StoreFault::Corrupt, path, detail)
    };
    let (mut stream, mut number) = (sqlx::query(query).fetch(connection), 0);
    while let Some(row) = stream
        .try_next()
        .await
        .map_err(|error| fault(path, StoreFault::Unreadable, &error))?
    {
        take(read(&row).map_err(|column| bad(number, column))?);
        number += 1;
    }
    Ok(())
}

fn session(row: &SqliteRow) -> Result<StoredSession, Unreadable> {
    let policy = text(row, "policy")?
        .map(|name| PolicyName::parse(&name).ok_or("policy"))
        .transpose()?;
    let labels: BTreeMap<String, String> =
        serde_json::from_str(&some_text(row, "labels")?).map_err(|_| "labels")?;
    let limits = limits(&some_text(row, "limits")?)?;
    let origin = match (text(row, "issuer")?, text(row, "subject")?) {
        (Some(issuer), Some(subject)) => TokenOrigin::External {
            issuer: issuer.into(),
            subject: subject.into(),
        },
        (None, None) => TokenOrigin::Own,
        _ => return Err("issuer"),
    };
    Ok(StoredSession {
        id: id(row)?,
        tenant: text(row, "tenant")?,
        labels,
        container: text(row, "container")?,
        terms: Terms { policy, limits },
        set_limits: text(row, "set_limits")?
            .map(|text| self::limits(&text))
            .transpose()?,
        created: UnixSeconds(seconds(row, "created")?),
        created_by: some_text(row, "created_by")?,
        expires: UnixSeconds(seconds(row, "expires")?),
        began: Steady(seconds(row, "began")?),
        last_active: Steady(seconds(row, "last_active")?),
        origin,
    })
}

fn ending(row: &SqliteRow) -> Result<StoredEnding, Unreadable> {
    let cause = SessionEnd::parse(&some_text(row, "cause")?).ok_or("cause")?;
    let own: bool = row.try_get("own").map_err(|_| "own")?;
    Ok(StoredEnding {
        id: id(row)?,
        cause,
        at: UnixSeconds(seconds(row, "at")?),
        by: some_text(row, "ended_by")?,
        tokens_until: maybe_seconds(row, "tokens_until")?.map(UnixSeconds),
        own,
        began: Steady(seconds(row, "began")?),
        keep_until: Steady(seconds(row, "keep_until")?),
    })
}

fn denial(row: &SqliteRow) -> Result<StoredDenial, Unreadable> {
    let name = some_text(row, "name")?;
    let target = match some_text(row, "kind")?.as_str() {
        "session" => DenyTarget::Session(SessionId::parse(&name).ok_or("name")?),
        "token" => DenyTarget::Token(name),
        "subject" => DenyTarget::Subject {
            issuer: some_text(row, "issuer")?,
            subject: name,
        },
        _ => return Err("kind"),
    };
    Ok(StoredDenial {
        entry: DenyEntry {
            target,
            reason: some_text(row, "reason")?,
            by: some_text(row, "denied_by")?,
            at: seconds(row, "at")?,
            until: maybe_seconds(row, "until")?,
        },
        lapses: maybe_seconds(row, "lapses")?.map(Steady),
    })
}

fn kill(row: &SqliteRow) -> Result<KillSwitch, Unreadable> {
    Ok(KillSwitch {
        since: seconds(row, "since")?,
        by: some_text(row, "set_by")?,
        reason: some_text(row, "reason")?,
    })
}

fn quota(row: &SqliteRow) -> Result<(String, u32), Unreadable> {
    let sessions = u32::try_from(seconds(row, "sessions")?).map_err(|_| "sessions")?;
    Ok((some_text(row, "tenant")?, sessions))
}

fn id(row: &SqliteRow) -> Result<SessionId, Unreadable> {
    SessionId::parse(&some_text(row, "id")?).ok_or("id")
}

fn limits(text: &str) -> Result<SessionLimits, Unreadable> {
    let written: LimitsText = serde_json::from_str(text).map_err(|_| "limits")?;
    SessionLimits::try_from(&written).map_err(|_| "limits")
}

fn text(row: &SqliteRow, column: &'static str) -> Result<Option<String>, Unreadable> {
    row.try_get(column).map_err(|_| column)
}

fn some_text(row: &SqliteRow, column: &'static str) -> Result<String, Unreadable> {
    text(row, column)?.ok_or(column)
}

fn maybe_seconds(row: &SqliteRow, column: &'static str) -> Result<Option<u64>, Unreadable> {
    let number: Option<i64> = row.try_get(column).map_err(|_| column)?;
    number
        .map(|number| u64::try_from(number).map_err(|_| column))
        .transpose()
}

fn seconds(row: &SqliteRow, column: &'static str) -> Result<u64, Unreadable> {
    maybe_seconds(row, column)?.ok_or(column)
}
