//! A disk that fills up and is freed: what was refused meanwhile can be done afterwards.

use std::{env, fs, path::Path, process::Command};

use outgate_journey::session::SessionEnd;
use outgate_store::{Change, SessionStore, SqliteStore, StoreFault};

use crate::support::{Folder, commit, ending, load, session};

/// Names the folder in the child, which is this test program itself, in a mount namespace of its own.
const PLACE: &str = "OUTGATE_TEST_FULL_DISK";

/// Passes at once unless it was started by the test below.
#[tokio::test]
async fn a_child_whose_disk_fills_up() {
    let Ok(place) = env::var(PLACE) else { return };
    let (place, filler) = (Path::new(&place), Path::new(&place).join("filler"));
    let path = place.join("outgate.db");
    let store = SqliteStore::open(&path).await.unwrap();
    commit(&store, Change::Create(Box::new(session("a"))))
        .await
        .unwrap();
    // To the last byte.
    let mut block = 64 * 1024;
    let mut written = Vec::new();
    while block > 0 {
        let more = [written.clone(), vec![0; block]].concat();
        match fs::write(&filler, &more) {
            Ok(()) => written = more,
            Err(_) => {
                fs::write(&filler, &written).unwrap();
                block /= 2;
            }
        }
    }
    for _ in 0..3 {
        let ended = commit(&store, Change::End(ending("a", SessionEnd::Denied, None))).await;
        assert_eq!(ended.err().unwrap().fault(), StoreFault::WriteFailed);
    }
    fs::remove_file(&filler).unwrap();
    commit(&store, Change::End(ending("a", SessionEnd::Denied, None)))
        .await
        .unwrap();
    store.close().await;
    let again = SqliteStore::open_existing(&path).await.unwrap();
    assert_eq!(load(&again).await.unwrap().endings.len(), 1);
}

#[tokio::test]
async fn a_database_that_somebody_else_holds_is_told_and_not_waited_for_without_end() {
    use sqlx::{Connection, SqliteConnection, sqlite::SqliteConnectOptions};
    let folder = Folder::new();
    let store = folder.open().await;
    let options = SqliteConnectOptions::new().filename(folder.path());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE")
        .execute(&mut other)
        .await
        .unwrap();
    let begin = std::time::Instant::now();
    let created = commit(&store, Change::Create(Box::new(session("a")))).await;
    assert_eq!(created.err().unwrap().fault(), StoreFault::WriteFailed);
    assert!(begin.elapsed() < std::time::Duration::from_secs(7));
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    commit(&store, Change::Create(Box::new(session("b"))))
        .await
        .unwrap();
    store.close().await;
}

#[test]
fn a_disk_that_has_room_again_takes_what_it_refused() {
    let folder = Folder::new();
    let place = folder.path().parent().unwrap().to_owned();
    let script = "mount -t tmpfs -o size=1m,mode=700 tmpfs \"$1\" && shift && exec \"$@\"";
    let child = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script, "sh"])
        .arg(&place)
        .arg(env::current_exe().unwrap())
        .args([
            "--exact",
            "full::a_child_whose_disk_fills_up",
            "--nocapture",
        ])
        .env(PLACE, &place)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && said.contains("1 passed"),
        "{child:?}"
    );
}
