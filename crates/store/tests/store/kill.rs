//! What was acknowledged is there after the process was killed.

use std::{
    env,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use outgate_journey::session::SessionEnd;
use outgate_store::{Change, SessionStore, SqliteStore};

use crate::support::{Folder, NOW, ending, id, load, session};

/// Names the store in the child, which is this test program itself.
const PLACE: &str = "OUTGATE_TEST_STORE";

fn begin_child(place: &Path) -> Child {
    Command::new(env::current_exe().unwrap())
        .args([
            "--exact",
            "kill::a_child_that_writes_until_it_is_killed",
            "--nocapture",
        ])
        .env(PLACE, place)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Passes at once unless it was started by the test below.
#[tokio::test]
async fn a_child_that_writes_until_it_is_killed() {
    let Ok(place) = env::var(PLACE) else { return };
    let store = Arc::new(SqliteStore::open(Path::new(&place)).await.unwrap());
    for number in 0.. {
        for other in 0..20 {
            let change = Change::Create(Box::new(session(&format!("s{number}-{other}"))));
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(change, NOW).await });
        }
        let over = ending(&format!("s{number}"), SessionEnd::Ended, None);
        store.commit(Change::End(over), NOW).await.unwrap();
        // Told only when it was acknowledged.
        println!("\nended s{number}");
        std::io::stdout().flush().unwrap();
    }
}

#[tokio::test]
async fn every_ending_that_was_acknowledged_survives_a_kill() {
    let folder = Folder::new();
    let mut acknowledged = Vec::new();
    for kill_after in [1, 7, 23] {
        let mut child = begin_child(&folder.path());
        let told = BufReader::new(child.stdout.take().unwrap()).lines();
        let ended = told
            .map(Result::unwrap)
            .filter_map(|line| line.strip_prefix("ended ").map(|name| id(name.trim())));
        let before = acknowledged.len();
        acknowledged.extend(ended.take(kill_after));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(acknowledged.len() - before, kill_after);

        let store = folder.open().await;
        let known = load(&store).await.unwrap().endings;
        for id in &acknowledged {
            assert!(
                known.iter().any(|ending| ending.id == *id),
                "{id} was forgotten"
            );
        }
        store.close().await;
    }
}
