//! The file: private, and refused with a reason whenever it is not what was written.

use std::{
    fs,
    io::{Read, Seek, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
};

use outgate_journey::session::SessionEnd;
use outgate_store::{Change, SessionStore, SqliteStore, StoreFault};
use sqlx::{Connection, SqliteConnection};

use crate::support::{Folder, commit, ending, load, remembered, session};

async fn change_by_hand(folder: &Folder, statement: &'static str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new()
        .filename(folder.path())
        .create_if_missing(true);
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut other).await.unwrap();
    other.close().await.unwrap();
}

async fn filled(folder: &Folder) {
    let store = folder.open().await;
    let sessions = (0..200).map(|number| {
        let change = Change::Create(Box::new(session(&format!("s{number}"))));
        commit(&store, change)
    });
    futures_util::future::try_join_all(sessions).await.unwrap();
    commit(&store, Change::End(ending("s7", SessionEnd::Ended, None)))
        .await
        .unwrap();
    store.close().await;
}

#[tokio::test]
async fn the_file_and_its_log_are_the_gateways_alone() {
    let folder = Folder::new();
    let store = folder.open().await;
    commit(&store, Change::Create(Box::new(session("a"))))
        .await
        .unwrap();
    let mut seen = 0;
    for entry in fs::read_dir(folder.path().parent().unwrap()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        seen += 1;
    }
    assert!(seen >= 2, "the database and its log");
}

#[tokio::test]
async fn a_file_that_others_can_read_or_that_is_none_is_refused() {
    let folder = Folder::new();
    folder.open().await.close().await;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o644)).unwrap();
    let error = folder.refused().await;
    assert_eq!(error.code(), "store_exposed");
    assert!(error.to_string().contains("0644"), "{error}");

    fs::remove_file(folder.path()).unwrap();
    fs::create_dir(folder.path()).unwrap();
    assert_eq!(folder.refused().await.code(), "store_unreadable");

    let nowhere = folder.path().join("none/outgate.db");
    let error = SqliteStore::open(&nowhere).await.err().unwrap();
    assert_eq!(error.code(), "store_unreadable");
    assert!(error.to_string().contains("none/outgate.db"), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_by_name() {
    let folder = Folder::new();
    fs::write(
        folder.path(),
        "not a database, and long enough to be taken for a header of one".repeat(20),
    )
    .unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let error = folder.refused().await;
    assert_eq!(error.code(), "store_corrupt");
    assert!(
        error.to_string().contains("outgate.db") && error.to_string().contains("store_corrupt")
    );
    let error = SqliteStore::open_read_only(&folder.path())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "store_corrupt");
}

#[tokio::test]
async fn a_damaged_page_is_found_before_anything_is_served() {
    let folder = Folder::new();
    filled(&folder).await;
    let mut file = fs::File::options()
        .read(true)
        .write(true)
        .open(folder.path())
        .unwrap();
    let mut whole = Vec::new();
    file.read_to_end(&mut whole).unwrap();
    // Every page but the first: whichever holds the denylist.
    for page in 1..whole.len() / 4096 {
        file.seek(SeekFrom::Start(page as u64 * 4096)).unwrap();
        file.write_all(&[0xff; 64]).unwrap();
    }
    drop(file);
    assert_eq!(folder.refused().await.fault(), StoreFault::Corrupt);
}

#[tokio::test]
async fn a_row_that_its_table_forbids_is_damage() {
    let folder = Folder::new();
    filled(&folder).await;
    let second_switch = "PRAGMA ignore_check_constraints = ON;
        INSERT INTO kill_switch (one, since, set_by, reason) VALUES (2, 1, 'nobody', '')";
    change_by_hand(&folder, second_switch).await;
    assert_eq!(folder.refused().await.code(), "store_corrupt");
}

#[tokio::test]
async fn another_programs_database_is_left_alone() {
    let folder = Folder::new();
    change_by_hand(&folder, "CREATE TABLE mine (a)").await;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let error = folder.refused().await;
    assert_eq!(error.code(), "store_corrupt");
    assert!(
        error.to_string().contains("not a database of this program"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_of_a_later_release_is_refused() {
    let folder = Folder::new();
    filled(&folder).await;
    let later =
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
        VALUES (9999, 'later', true, x'00', 1)";
    change_by_hand(&folder, later).await;
    assert_eq!(folder.refused().await.code(), "store_newer");
    let error = SqliteStore::open_read_only(&folder.path())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "store_newer");
}

#[tokio::test]
async fn one_value_that_cannot_be_read_spoils_the_whole_answer() {
    for (statement, column) in [
        ("UPDATE endings SET cause = 'over'", "cause"),
        (
            "UPDATE sessions SET labels = 'no json' WHERE id = 's3'",
            "labels",
        ),
        (
            "UPDATE sessions SET limits = '{\"requests\":\"0/min\"}' WHERE id = 's3'",
            "limits",
        ),
        ("UPDATE sessions SET id = 'not an id' WHERE id = 's3'", "id"),
        ("UPDATE endings SET keep_until = -1", "keep_until"),
    ] {
        let folder = Folder::new();
        filled(&folder).await;
        change_by_hand(&folder, statement).await;
        let store = folder.open().await;
        let error = load(&store).await.unwrap_err();
        assert_eq!(error.code(), "store_corrupt", "{statement}");
        assert!(error.to_string().contains(column), "{error}");
        assert!(!error.to_string().contains("not an id"), "{error}");
    }
}

#[tokio::test]
async fn reading_beside_a_running_gateway_changes_nothing_and_sees_what_was_acknowledged() {
    let folder = Folder::new();
    let none = SqliteStore::open_read_only(&folder.path()).await.unwrap();
    assert!(remembered(&none).await.sessions.is_empty());
    assert!(!folder.path().exists());

    let store = folder.open().await;
    commit(&store, Change::Create(Box::new(session("a"))))
        .await
        .unwrap();
    commit(&store, Change::End(ending("a", SessionEnd::Ended, None)))
        .await
        .unwrap();
    let reader = SqliteStore::open_read_only(&folder.path()).await.unwrap();
    assert_eq!(remembered(&reader).await, remembered(&store).await);
    assert_eq!(reader.clock_floor().0, crate::support::NOW.0);
    let refused = commit(&reader, Change::Lift).await.unwrap_err();
    assert_eq!(refused.code(), "store_read_only");

    // And after it has stopped.
    store.close().await;
    let reader = SqliteStore::open_read_only(&folder.path()).await.unwrap();
    assert_eq!(remembered(&reader).await.endings.len(), 1);
}

#[tokio::test]
async fn a_file_that_was_removed_or_replaced_takes_no_change() {
    for replaced in [false, true] {
        let folder = Folder::new();
        let store = folder.open().await;
        commit(&store, Change::Create(Box::new(session("a"))))
            .await
            .unwrap();
        let aside = folder.path().with_extension("aside");
        fs::rename(folder.path(), &aside).unwrap();
        if replaced {
            fs::copy(&aside, folder.path()).unwrap();
        }
        let ended = commit(&store, Change::End(ending("a", SessionEnd::Ended, None))).await;
        assert_eq!(
            ended.err().unwrap().fault(),
            StoreFault::Missing,
            "{replaced}"
        );
        // Put back, it is the file that was opened: the change can be made.
        fs::rename(&aside, folder.path()).unwrap();
        commit(&store, Change::End(ending("a", SessionEnd::Ended, None)))
            .await
            .unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn where_there_has_to_be_a_store_none_and_an_empty_one_are_refused() {
    let folder = Folder::new();
    let refused = SqliteStore::open_existing(&folder.path())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), "store_missing");
    assert!(!folder.path().exists(), "nothing is made in its place");
    fs::write(folder.path(), "").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let refused = SqliteStore::open_existing(&folder.path())
        .await
        .err()
        .unwrap();
    assert_eq!(refused.code(), "store_missing");
    fs::remove_file(folder.path()).unwrap();
    filled(&folder).await;
    SqliteStore::open_existing(&folder.path())
        .await
        .unwrap()
        .close()
        .await;
}

#[tokio::test]
async fn an_acknowledged_change_stands_in_the_file_itself() {
    let folder = Folder::new();
    let store = folder.open().await;
    commit(&store, Change::End(ending("a", SessionEnd::Ended, None)))
        .await
        .unwrap();
    // The process dies here; whatever else SQLite had made beside the file is gone as well.
    let copy = Folder::new();
    fs::copy(folder.path(), copy.path()).unwrap();
    fs::set_permissions(copy.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let again = copy.open().await;
    assert_eq!(load(&again).await.unwrap().endings.len(), 1);
    again.close().await;
    store.close().await;
}

#[tokio::test]
async fn a_store_of_the_first_release_is_brought_up_to_date() {
    let folder = Folder::new();
    filled(&folder).await;
    let first = "DROP INDEX denials_by_lapses; DELETE FROM _sqlx_migrations WHERE version > 1";
    change_by_hand(&folder, first).await;
    let error = SqliteStore::open_read_only(&folder.path())
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("start the gateway once"),
        "{error}"
    );
    let before = remembered(&folder.open().await).await;
    assert_eq!((before.sessions.len(), before.endings.len()), (200, 1));
    SqliteStore::open_read_only(&folder.path()).await.unwrap();
}

#[tokio::test]
async fn a_sweep_takes_out_so_many_that_an_ending_need_not_wait_long_for_it() {
    let folder = Folder::new();
    filled(&folder).await;
    let lapsed = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 6000)
        INSERT INTO denials SELECT 'token', '', 'lapsed' || n, '', '', 1, n, n FROM numbers;
        INSERT INTO denials VALUES ('token', '', 'stays', '', '', 1, NULL, NULL)";
    change_by_hand(&folder, lapsed).await;
    let store = folder.open().await;
    for left in [1001, 1] {
        commit(&store, Change::Forget(vec![])).await.unwrap();
        assert_eq!(remembered(&store).await.denials.len(), left);
    }
}
