//! What revokes waits for nothing else, judged by the order in which things are done.

use std::sync::{Arc, Mutex};

use outgate_journey::session::SessionEnd;
use outgate_store::{Change, SessionStore};
use sqlx::{Connection, SqliteConnection};

use crate::support::{Folder, NOW, ending, kill, load, session};

#[tokio::test]
async fn an_ending_overtakes_thousands_of_creations() {
    const CREATIONS: usize = 4000;
    /// What can have been begun before the ending came in: one flush of the ordinary lane.
    const BEGUN: usize = 64;
    let folder = Folder::new();
    let store = Arc::new(folder.open().await);
    let done = Arc::new(Mutex::new(Vec::new()));

    // Somebody else holds the file, so that nothing gets through until all have come in.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE")
        .execute(&mut other)
        .await
        .unwrap();

    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..CREATIONS {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        waiting.spawn(async move {
            let change = Change::Create(Box::new(session(&format!("s{number}"))));
            store.commit(change, NOW).await.unwrap();
            done.lock().unwrap().push("created");
        });
    }
    // Every one of them has been polled, and the lane is full.
    for _ in 0..CREATIONS {
        tokio::task::yield_now().await;
    }
    for (change, what) in [
        (Change::End(ending("s1", SessionEnd::Ended, None)), "ended"),
        (Change::Kill(kill("now")), "killed"),
    ] {
        let (answer, done) = (store.commit(change, NOW), Arc::clone(&done));
        waiting.spawn(async move {
            answer.await.unwrap();
            done.lock().unwrap().push(what);
        });
    }
    assert!(done.lock().unwrap().is_empty());
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    waiting.join_all().await;

    let done = done.lock().unwrap().clone();
    let place = |what| done.iter().position(|done| *done == what).unwrap();
    assert_eq!(done.len(), CREATIONS + 2);
    assert!(place("ended") <= BEGUN, "{}", place("ended"));
    assert!(place("killed") <= BEGUN + 1, "{}", place("killed"));
    assert_eq!(load(&store).await.unwrap().sessions.len(), CREATIONS);
}

#[tokio::test]
async fn one_change_that_cannot_be_made_takes_no_other_with_it() {
    let folder = Folder::new();
    let store = folder.open().await;
    // A table that refuses one row, as a damaged page would.
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(folder.path());
    let mut other = SqliteConnection::connect_with(&options).await.unwrap();
    let trap = "CREATE TRIGGER trap BEFORE INSERT ON sessions WHEN new.id = 'bad'
        BEGIN SELECT RAISE(ABORT, 'trapped'); END";
    sqlx::query(trap).execute(&mut other).await.unwrap();

    let create = |name: &str| store.commit(Change::Create(Box::new(session(name))), NOW);
    let answers = futures_util::future::join3(create("a"), create("bad"), create("b")).await;
    assert_eq!(answers.0, Ok(()));
    assert_eq!(answers.1.unwrap_err().code(), "store_write_failed");
    assert_eq!(answers.2, Ok(()));
    assert_eq!(load(&store).await.unwrap().sessions.len(), 2);
}
