//! What every store promises. `run` takes whatever opens one and the same store again and again.

use std::collections::BTreeMap;

use outgate_journey::session::{SessionEnd, UnixSeconds};
use outgate_store::{Change, DenyTarget, Progress, SessionStore, Steady, StoreFault};

use crate::support::{
    Everything, Folder, NOW, commit, denial, ending, external, id, kill, limits, load, remembered,
    session,
};

/// A store that can be closed and opened again.
trait Reopen {
    type Store: SessionStore;

    async fn open(&self) -> Self::Store;
}

impl Reopen for Folder {
    type Store = outgate_store::SqliteStore;

    async fn open(&self) -> Self::Store {
        self.open().await
    }
}

/// Makes the changes, each acknowledged, and gives back what another opening of the store remembers.
async fn after<R: Reopen>(place: &R, changes: Vec<Change>) -> Everything {
    let store = place.open().await;
    for change in changes {
        commit(&store, change).await.unwrap();
    }
    let before = remembered(&store).await;
    store.close().await;
    let store = place.open().await;
    let reopened = remembered(&store).await;
    store.close().await;
    assert_eq!(before, reopened);
    reopened
}

macro_rules! contract {
    ($($(#[$doc:meta])* $name:ident)*) => {
        mod sqlite {
            $(#[tokio::test] async fn $name() { super::$name(&super::Folder::new()).await; })*
        }
    };
}

contract! {
    a_new_store_is_empty
    a_session_comes_back_as_it_was
    an_id_is_created_once
    an_ending_for_every_token_is_never_replaced
    an_ending_for_some_tokens_gives_way_to_one_for_more
    an_id_that_was_never_seen_can_be_ended
    an_entry_of_the_denylist_is_replaced_by_one_of_the_same_target_and_taken_off_alone
    the_kill_switch_keeps_who_put_it_on_first_until_it_is_lifted
    a_session_only_moves_on
    limits_and_quotas_are_kept_and_taken_back
    what_is_over_is_forgotten_and_nothing_else
    the_floor_is_the_latest_time_and_never_falls
    what_was_handed_in_before_the_close_is_done_and_nothing_after_it
}

async fn a_new_store_is_empty<R: Reopen>(place: &R) {
    assert_eq!(after(place, vec![]).await, Everything::default());
}

async fn a_session_comes_back_as_it_was<R: Reopen>(place: &R) {
    let (own, seen) = (session("a"), external("x_b"));
    let changes = vec![
        Change::Create(Box::new(own.clone())),
        Change::Track(Box::new(seen.clone())),
    ];
    assert_eq!(after(place, changes).await.sessions, [own, seen]);
}

async fn an_id_is_created_once<R: Reopen>(place: &R) {
    let store = place.open().await;
    commit(&store, Change::Create(Box::new(session("a"))))
        .await
        .unwrap();
    let mut other = session("a");
    other.tenant = None;
    let again = commit(&store, Change::Create(Box::new(other))).await;
    assert_eq!(again.unwrap_err().fault(), StoreFault::Exists);
    assert_eq!(remembered(&store).await.sessions, [session("a")]);
}

async fn an_ending_for_every_token_is_never_replaced<R: Reopen>(place: &R) {
    let first = ending("a", SessionEnd::Ended, None);
    let changes = vec![
        Change::End(first.clone()),
        Change::End(ending("a", SessionEnd::Tripwire, None)),
        Change::End(ending("a", SessionEnd::Idle, Some(NOW.0 + 900))),
    ];
    assert_eq!(after(place, changes).await.endings, [first]);
}

async fn an_ending_for_some_tokens_gives_way_to_one_for_more<R: Reopen>(place: &R) {
    let later = ending("a", SessionEnd::LifetimeOver, Some(NOW.0 + 900));
    let whole = ending("b", SessionEnd::Ended, None);
    let changes = vec![
        Change::End(ending("a", SessionEnd::Idle, Some(NOW.0 + 600))),
        Change::End(later.clone()),
        Change::End(ending("a", SessionEnd::Idle, Some(NOW.0 + 700))),
        Change::End(ending("b", SessionEnd::Idle, Some(NOW.0 + 600))),
        Change::End(whole.clone()),
    ];
    assert_eq!(after(place, changes).await.endings, [later, whole]);
}

async fn an_id_that_was_never_seen_can_be_ended<R: Reopen>(place: &R) {
    let unseen = ending("never-seen", SessionEnd::Ended, None);
    let all = after(place, vec![Change::End(unseen.clone())]).await;
    assert_eq!((&*all.endings, &*all.sessions), (&[unseen][..], &[][..]));
}

async fn an_entry_of_the_denylist_is_replaced_by_one_of_the_same_target_and_taken_off_alone<
    R: Reopen,
>(
    place: &R,
) {
    let subject = |issuer: &str| DenyTarget::Subject {
        issuer: issuer.to_owned(),
        subject: "same".to_owned(),
    };
    let by_token = DenyTarget::Token("same".to_owned());
    let kept = [
        denial(DenyTarget::Session(id("same")), "new reason", None),
        denial(by_token.clone(), "lapses", Some(NOW.0 + 60)),
        denial(subject("https://b"), "b", None),
    ];
    let mut changes = vec![
        Change::Deny(denial(
            DenyTarget::Session(id("same")),
            "old reason",
            Some(NOW.0 + 9),
        )),
        Change::Deny(denial(subject("https://a"), "a", None)),
    ];
    changes.extend(kept.iter().cloned().map(Change::Deny));
    changes.push(Change::Undeny(subject("https://a")));
    changes.push(Change::Undeny(DenyTarget::Token("never denied".to_owned())));
    assert_eq!(after(place, changes).await.denials, kept);
}

async fn the_kill_switch_keeps_who_put_it_on_first_until_it_is_lifted<R: Reopen>(place: &R) {
    let on = vec![Change::Kill(kill("first")), Change::Kill(kill("second"))];
    assert_eq!(after(place, on).await.kill, Some(kill("first")));
    assert_eq!(
        after(place, vec![Change::Lift, Change::Lift]).await.kill,
        None
    );
    let again = vec![Change::Kill(kill("third"))];
    assert_eq!(after(place, again).await.kill, Some(kill("third")));
}

async fn a_session_only_moves_on<R: Reopen>(place: &R) {
    let progress = |last_active, expires| {
        Change::Progress(vec![
            Progress {
                id: id("a"),
                last_active: Steady(last_active),
                expires: UnixSeconds(expires),
            },
            Progress {
                id: id("unknown"),
                last_active: Steady(last_active),
                expires: UnixSeconds(expires),
            },
        ])
    };
    let renew = |expires| Change::Renew {
        id: id("a"),
        expires: UnixSeconds(expires),
    };
    let changes = vec![
        Change::Create(Box::new(session("a"))),
        progress(NOW.0 + 30, NOW.0 + 600),
        renew(NOW.0 + 1200),
        progress(NOW.0 + 10, NOW.0 + 900),
        renew(NOW.0 + 1),
    ];
    let mut moved = session("a");
    moved.last_active = Steady(NOW.0 + 30);
    moved.expires = UnixSeconds(NOW.0 + 1200);
    assert_eq!(after(place, changes).await.sessions, [moved]);
}

async fn limits_and_quotas_are_kept_and_taken_back<R: Reopen>(place: &R) {
    let quota = |tenant: &str, sessions| Change::SetQuota {
        tenant: tenant.to_owned(),
        sessions,
    };
    let changes = vec![
        Change::Create(Box::new(session("a"))),
        Change::SetLimits {
            id: id("a"),
            limits: limits("1/s", 9),
        },
        quota("team-a", Some(5)),
        quota("team-a", Some(0)),
        quota("team-b", Some(7)),
        quota("team-b", None),
        quota("team-c", None),
    ];
    let all = after(place, changes).await;
    assert_eq!(all.sessions[0].set_limits, Some(limits("1/s", 9)));
    assert_eq!(all.quotas, BTreeMap::from([("team-a".to_owned(), 0)]));
}

async fn what_is_over_is_forgotten_and_nothing_else<R: Reopen>(place: &R) {
    let mut old = ending("old", SessionEnd::Ended, None);
    old.keep_until = NOW;
    let recent = ending("recent", SessionEnd::Ended, None);
    let token = |name: &str| DenyTarget::Token(name.to_owned());
    let changes = vec![
        Change::Create(Box::new(session("a"))),
        Change::Create(Box::new(session("b"))),
        Change::End(old),
        Change::End(recent.clone()),
        Change::Deny(denial(token("lapsed"), "", Some(NOW.0))),
        Change::Deny(denial(token("lapses"), "", Some(NOW.0 + 1))),
        Change::Deny(denial(token("stays"), "", None)),
        Change::Forget(vec![id("a"), id("unknown")]),
    ];
    let all = after(place, changes).await;
    assert_eq!(all.sessions, [session("b")]);
    assert_eq!(all.endings, [recent]);
    let names: Vec<_> = all
        .denials
        .iter()
        .map(|denial| &denial.entry.target)
        .collect();
    assert_eq!(names, [&token("lapses"), &token("stays")]);
}

async fn the_floor_is_the_latest_time_and_never_falls<R: Reopen>(place: &R) {
    let store = place.open().await;
    assert_eq!(store.clock_floor(), UnixSeconds(0));
    for now in [500, 900, 700] {
        let change = Change::Progress(vec![]);
        store.commit(change, Steady(now)).await.unwrap();
    }
    store.close().await;
    let store = place.open().await;
    assert_eq!(store.clock_floor(), UnixSeconds(900));
    assert_eq!(remembered(&store).await.floor, Steady(900));
}

async fn what_was_handed_in_before_the_close_is_done_and_nothing_after_it<R: Reopen>(place: &R) {
    let store = place.open().await;
    // Not awaited: an urgent change is in its lane when `commit` returns.
    drop(store.commit(Change::End(ending("a", SessionEnd::Ended, None)), NOW));
    store.close().await;
    for change in [
        Change::End(ending("b", SessionEnd::Ended, None)),
        Change::Create(Box::new(session("c"))),
    ] {
        let late = commit(&store, change).await;
        assert_eq!(late.unwrap_err().fault(), StoreFault::Closed);
    }
    assert_eq!(load(&store).await.unwrap_err().fault(), StoreFault::Closed);
    let all = after(place, vec![]).await;
    assert_eq!(all.endings, [ending("a", SessionEnd::Ended, None)]);
    assert!(all.sessions.is_empty());
}
