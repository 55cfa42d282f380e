//! One change, as statements.

use outgate_journey::{
    limit_text::LimitsText,
    policy::SessionLimits,
    session::{SessionId, TokenOrigin},
};
use sqlx::SqliteConnection;

use crate::{
    Change, DenyTarget, KillSwitch, Progress, Steady, StoredDenial, StoredEnding, StoredSession,
};

/// Rows that one [`Change::Forget`] takes out of each table, in about ten milliseconds: a long sweep would hold an ending
/// up.
const FORGET_MOST: i64 = 5_000;

/// Whether the change was made; `false` only for a session that exists.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    change: &Change,
    now: Steady,
) -> Result<bool, sqlx::Error> {
    match change {
        Change::Create(session) => return create(connection, session).await,
        Change::Track(session) => {
            forget_session(connection, &session.id).await?;
            create(connection, session).await?;
        }
        Change::Renew { id, expires } => {
            sqlx::query("UPDATE sessions SET expires = max(expires, ?) WHERE id = ?")
                .bind(number(expires.0))
                .bind(id.as_str())
                .execute(connection)
                .await?;
        }
        Change::SetLimits { id, limits } => {
            sqlx::query("UPDATE sessions SET set_limits = ? WHERE id = ?")
                .bind(limits_text(limits))
                .bind(id.as_str())
                .execute(connection)
                .await?;
        }
        Change::End(ending) => end(connection, ending).await?,
        Change::Deny(denial) => deny(connection, denial).await?,
        Change::Undeny(target) => undeny(connection, target).await?,
        Change::Kill(kill) => put_switch(connection, kill).await?,
        Change::Lift => {
            sqlx::query("DELETE FROM kill_switch")
                .execute(connection)
                .await?;
        }
        Change::SetQuota { tenant, sessions } => set_quota(connection, tenant, *sessions).await?,
        Change::Progress(sessions) => {
            for session in sessions {
                go_on(connection, session).await?;
            }
        }
        Change::Forget(sessions) => {
            for id in sessions {
                forget_session(connection, id).await?;
            }
            forget_what_is_over(connection, now).await?;
        }
    }
    Ok(true)
}

pub(super) async fn set_floor(
    connection: &mut SqliteConnection,
    now: Steady,
) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO clock (one, floor) VALUES (1, ?)
        ON CONFLICT (one) DO UPDATE SET floor = max(floor, excluded.floor)";
    sqlx::query(query)
        .bind(number(now.0))
        .execute(connection)
        .await?;
    Ok(())
}

async fn create(
    connection: &mut SqliteConnection,
    session: &StoredSession,
) -> Result<bool, sqlx::Error> {
    let (issuer, subject) = match &session.origin {
        TokenOrigin::Own => (None, None),
        TokenOrigin::External { issuer, subject } => (Some(&**issuer), Some(&**subject)),
    };
    let query = "INSERT INTO sessions (id, tenant, labels, container, policy, limits, set_limits,
            created, created_by, expires, began, last_active, issuer, subject)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";
    // A map of strings always serialises.
    let labels = serde_json::to_string(&session.labels).unwrap_or_default();
    let policy = session.terms.policy.as_ref();
    let done = sqlx::query(query)
        .bind(session.id.as_str())
        .bind(session.tenant.as_deref())
        .bind(labels)
        .bind(session.container.as_deref())
        .bind(policy.map(|policy| policy.as_str()))
        .bind(limits_text(&session.terms.limits))
        .bind(session.set_limits.as_ref().map(limits_text))
        .bind(number(session.created.0))
        .bind(&session.created_by)
        .bind(number(session.expires.0))
        .bind(number(session.began.0))
        .bind(number(session.last_active.0))
        .bind(issuer)
        .bind(subject)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

async fn end(connection: &mut SqliteConnection, ending: &StoredEnding) -> Result<(), sqlx::Error> {
    let query =
        "INSERT INTO endings (id, cause, at, ended_by, tokens_until, own, began, keep_until)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (id) DO UPDATE SET cause = excluded.cause, at = excluded.at,
            ended_by = excluded.ended_by, tokens_until = excluded.tokens_until,
            own = excluded.own, began = excluded.began, keep_until = excluded.keep_until
        WHERE endings.tokens_until IS NOT NULL
            AND (excluded.tokens_until IS NULL OR excluded.tokens_until > endings.tokens_until)";
    sqlx::query(query)
        .bind(ending.id.as_str())
        .bind(ending.cause.as_str())
        .bind(number(ending.at.0))
        .bind(&ending.by)
        .bind(ending.tokens_until.map(|until| number(until.0)))
        .bind(ending.own)
        .bind(number(ending.began.0))
        .bind(number(ending.keep_until.0))
        .execute(connection)
        .await?;
    Ok(())
}

async fn deny(connection: &mut SqliteConnection, denial: &StoredDenial) -> Result<(), sqlx::Error> {
    let query = "INSERT OR REPLACE INTO denials
        (kind, issuer, name, reason, denied_by, at, until, lapses) VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
    let entry = &denial.entry;
    let (kind, issuer, name) = key(&entry.target);
    sqlx::query(query)
        .bind(kind)
        .bind(issuer)
        .bind(name)
        .bind(&entry.reason)
        .bind(&entry.by)
        .bind(number(entry.at))
        .bind(entry.until.map(number))
        .bind(denial.lapses.map(|lapses| number(lapses.0)))
        .execute(connection)
        .await?;
    Ok(())
}

async fn undeny(connection: &mut SqliteConnection, target: &DenyTarget) -> Result<(), sqlx::Error> {
    let (kind, issuer, name) = key(target);
    sqlx::query("DELETE FROM denials WHERE kind = ? AND issuer = ? AND name = ?")
        .bind(kind)
        .bind(issuer)
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

fn key(target: &DenyTarget) -> (&'static str, &str, &str) {
    match target {
        DenyTarget::Session(id) => ("session", "", id.as_str()),
        DenyTarget::Token(id) => ("token", "", id),
        DenyTarget::Subject { issuer, subject } => ("subject", issuer, subject),
    }
}

async fn put_switch(
    connection: &mut SqliteConnection,
    kill: &KillSwitch,
) -> Result<(), sqlx::Error> {
    let query = "INSERT INTO kill_switch (one, since, set_by, reason) VALUES (1, ?, ?, ?)
        ON CONFLICT (one) DO NOTHING";
    sqlx::query(query)
        .bind(number(kill.since))
        .bind(&kill.by)
        .bind(&kill.reason)
        .execute(connection)
        .await?;
    Ok(())
}

async fn set_quota(
    connection: &mut SqliteConnection,
    tenant: &str,
    sessions: Option<u32>,
) -> Result<(), sqlx::Error> {
    let query = match sessions {
        Some(sessions) => {
            sqlx::query("INSERT OR REPLACE INTO quotas (sessions, tenant) VALUES (?, ?)")
                .bind(sessions)
        }
        None => sqlx::query("DELETE FROM quotas WHERE tenant = ?"),
    };
    query.bind(tenant).execute(connection).await?;
    Ok(())
}

async fn go_on(connection: &mut SqliteConnection, session: &Progress) -> Result<(), sqlx::Error> {
    let query = "UPDATE sessions SET last_active = max(last_active, ?), expires = max(expires, ?)
        WHERE id = ?";
    sqlx::query(query)
        .bind(number(session.last_active.0))
        .bind(number(session.expires.0))
        .bind(session.id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

async fn forget_session(
    connection: &mut SqliteConnection,
    id: &SessionId,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sessions WHERE id = ?")
        .bind(id.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// Judged by what is in the table, not by what the caller knew: an ending that came in since is kept.
async fn forget_what_is_over(
    connection: &mut SqliteConnection,
    now: Steady,
) -> Result<(), sqlx::Error> {
    let endings = "DELETE FROM endings WHERE id IN
        (SELECT id FROM endings WHERE keep_until <= ? ORDER BY keep_until LIMIT ?)";
    sqlx::query(endings)
        .bind(number(now.0))
        .bind(FORGET_MOST)
        .execute(&mut *connection)
        .await?;
    let denials = "DELETE FROM denials WHERE (kind, issuer, name) IN
        (SELECT kind, issuer, name FROM denials WHERE lapses <= ? ORDER BY lapses LIMIT ?)";
    sqlx::query(denials)
        .bind(number(now.0))
        .bind(FORGET_MOST)
        .execute(connection)
        .await?;
    Ok(())
}

fn limits_text(limits: &SessionLimits) -> String {
    // Numbers and strings always serialise.
    serde_json::to_string(&LimitsText::from(limits)).unwrap_or_default()
}

/// SQLite's integers end at 2^63: a time or a number beyond is as good as for ever.
fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
