//! Which tables there are. A file that is damaged, that another program made, or that a later release made is refused:
//! whatever cannot be read whole cannot be trusted to name all that was revoked.

use std::path::Path;

use sqlx::{
    SqlSafeStr, SqliteConnection,
    migrate::{Migrate, MigrateError, Migration, MigrationType, Migrator},
};

use crate::{StoreError, StoreFault};

/// `Outg`, in SQLite's header field for what program a file belongs to.
const APPLICATION_ID: i64 = 0x4f75_7467;

fn migrations() -> Vec<Migration> {
    [
        (
            "sessions",
            include_str!("../../migrations/sqlite/0001_sessions.sql"),
        ),
        (
            "denials by lapses",
            include_str!("../../migrations/sqlite/0002_denials_by_lapses.sql"),
        ),
    ]
    .into_iter()
    .zip(1..)
    .map(|((what, statements), version)| {
        let statements = statements.into_sql_str();
        Migration::new(
            version,
            what.into(),
            MigrationType::Simple,
            statements,
            false,
        )
    })
    .collect()
}

/// Checks the file and brings its tables up to date.
pub(super) async fn migrate(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), StoreError> {
    let unreadable = |error| fault(path, StoreFault::Unreadable, &error);
    check_whole(connection, path).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master")
        .fetch_one(&mut *connection)
        .await
        .map_err(unreadable)?;
    if tables == 0 {
        // The one place where SQLite takes no parameter.
        sqlx::query("PRAGMA application_id = 0x4f757467")
            .execute(&mut *connection)
            .await
            .map_err(unreadable)?;
    }
    check_owner(connection, path).await?;
    Migrator::with_migrations(migrations())
        .run(connection)
        .await
        .map_err(|error| migration_fault(path, &error))
}

/// Checks that the file can be read as it is.
pub(super) async fn check(
    connection: &mut SqliteConnection,
    path: &Path,
) -> Result<(), StoreError> {
    check_whole(connection, path).await?;
    check_owner(connection, path).await?;
    let applied = connection
        .list_applied_migrations("_sqlx_migrations")
        .await
        .map_err(|error| migration_fault(path, &error))?;
    let known = migrations();
    let unknown = |version| !known.iter().any(|known| known.version == version);
    if let Some(later) = applied.iter().find(|applied| unknown(applied.version)) {
        return Err(migration_fault(
            path,
            &MigrateError::VersionMissing(later.version),
        ));
    }
    if applied.len() < known.len() {
        let detail = "an earlier release wrote it; start the gateway once";
        return Err(StoreError::new(StoreFault::Unreadable, path, detail));
    }
    Ok(())
}

async fn check_whole(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let verdict: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(path, StoreFault::Unreadable, &error))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::new(StoreFault::Corrupt, path, verdict))
}

async fn check_owner(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreError> {
    let id: i64 = sqlx::query_scalar("PRAGMA application_id")
        .fetch_one(connection)
        .await
        .map_err(|error| fault(path, StoreFault::Unreadable, &error))?;
    if id == APPLICATION_ID {
        return Ok(());
    }
    let detail = "not a database of this program";
    Err(StoreError::new(StoreFault::Corrupt, path, detail))
}

fn migration_fault(path: &Path, error: &MigrateError) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
            StoreError::new(StoreFault::Newer, path, "a later release wrote it")
        }
        MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => {
            StoreError::new(StoreFault::Corrupt, path, error)
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
            fault(path, StoreFault::Unreadable, error)
        }
        error => StoreError::new(StoreFault::Unreadable, path, error),
    }
}

/// What SQLite says, as a fault of ours; `otherwise` is what it is if the file is not damaged.
pub(super) fn fault(path: &Path, otherwise: StoreFault, error: &sqlx::Error) -> StoreError {
    // The low byte of an extended result code is the plain one: 11 SQLITE_CORRUPT, 26 SQLITE_NOTADB.
    let code = error
        .as_database_error()
        .and_then(|error| error.code()?.parse::<u32>().ok());
    match (code.map(|code| code & 0xff), error) {
        (Some(11 | 26), _) => StoreError::new(StoreFault::Corrupt, path, error),
        (
            None,
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::Decode(_)
            | sqlx::Error::ColumnNotFound(_),
        ) => StoreError::new(StoreFault::Corrupt, path, "a value is of the wrong type"),
        _ => StoreError::new(otherwise, path, error),
    }
}
