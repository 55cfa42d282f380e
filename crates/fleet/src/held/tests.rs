//! What follows from what is held, and what does not.

use std::sync::Mutex;

use outgate_journey::session::{SessionEnd, SessionId};

use super::*;
use crate::{convert::change_to_proto, denylist::Fact};

#[derive(Default)]
struct Sink {
    applied: Mutex<Vec<String>>,
    refuses: bool,
}

impl StateSink for Sink {
    fn apply(&self, part: StatePart<'_>) -> Result<(), String> {
        if self.refuses {
            return Err("no".to_owned());
        }
        let line = match part {
            StatePart::Policy(policy) => format!("policy {}", policy.text),
            StatePart::Keys(keys) => format!("keys {keys}"),
            StatePart::Denylist(list) => format!("{} facts", list.len()),
        };
        self.applied.lock().unwrap().push(line);
        Ok(())
    }
}

const ONE: u8 = 1;
const TWO: u8 = 2;

fn message(epoch: u8, head: u64, part: Option<Part>) -> pb::State {
    pb::State {
        epoch: vec![epoch; EPOCH_BYTES],
        denylist_head: head,
        current_as_of_ms: Some(0),
        part,
    }
}

fn policy(epoch: u8, head: u64, number: u64, text: &str) -> pb::State {
    let piece = pb::Piece {
        number,
        total: text.len() as u64,
        offset: 0,
        data: text.as_bytes().to_vec(),
    };
    message(epoch, head, Some(Part::Policy(piece)))
}

fn ended(session: &str) -> Change {
    Change::Set(Fact::Ended {
        session: SessionId::parse(session).unwrap(),
        how: SessionEnd::Ended,
    })
}

fn part(restart: bool, reaches: u64, changes: &[Change]) -> Option<Part> {
    Some(Part::Denylist(pb::DenylistPart {
        restart,
        reaches,
        changes: changes.iter().map(change_to_proto).collect(),
    }))
}

/// One that has a list that reaches 5, with one fact, and policy 3.
fn held(sink: &Sink) -> Held {
    let mut held = Held::default();
    held.begin();
    let list = part(true, 5, &[ended("s_1")]);
    held.take(message(ONE, 5, list), true).unwrap();
    held.take(policy(ONE, 5, 3, "three"), false).unwrap();
    let done = held.put_in_force(sink).unwrap();
    assert!(done.changed && done.current);
    held
}

fn step(held: &mut Held, state: pb::State, first: bool, sink: &Sink) -> Result<InForce, Fault> {
    if first {
        held.begin();
    }
    held.take(state, first)?;
    held.put_in_force(sink)
}

#[test]
fn an_older_or_repeated_policy_of_the_epoch_is_not_applied_but_one_of_a_new_life_is() {
    let sink = Sink::default();
    let mut held = held(&sink);
    for (epoch, first, number, text, applied) in [
        (ONE, false, 3, "other three", false),
        (ONE, false, 2, "two", false),
        (ONE, true, 1, "one", false),
        (ONE, false, 4, "four", true),
        (ONE, false, 4, "four", false),
        (TWO, true, 1, "four", false),
        (TWO, false, 2, "one again", true),
        (TWO, false, 2, "two", false),
    ] {
        sink.applied.lock().unwrap().clear();
        let done = step(&mut held, policy(epoch, 5, number, text), first, &sink).unwrap();
        assert_eq!(done.changed, applied, "{epoch} {number} {text}");
        assert_eq!(sink.applied.lock().unwrap().len(), usize::from(applied));
    }
    assert_eq!(&*held.policy.unwrap().text, "one again");
}

#[test]
fn of_what_came_together_only_the_newest_is_put_in_force() {
    let sink = Sink::default();
    let mut held = held(&sink);
    sink.applied.lock().unwrap().clear();
    for n in 4..50 {
        let more = part(false, n + 2, &[ended(&format!("s_{n}"))]);
        held.take(message(ONE, 51, more), false).unwrap();
        held.take(policy(ONE, 51, n, &n.to_string()), false)
            .unwrap();
    }
    assert!(held.put_in_force(&sink).unwrap().current);
    assert_eq!(*sink.applied.lock().unwrap(), ["47 facts", "policy 49"]);
}

#[test]
fn a_part_of_the_denylist_that_does_not_follow_is_refused() {
    let more = &[ended("s_2")];
    for (why, state, first) in [
        ("repeated", message(ONE, 9, part(false, 5, more)), false),
        ("older", message(ONE, 9, part(false, 4, more)), false),
        (
            "beyond its end",
            message(ONE, 9, part(false, 10, more)),
            false,
        ),
        ("of no number", message(ONE, 9, part(true, 0, more)), false),
        (
            "changes of another life's list",
            message(TWO, 9, part(false, 6, more)),
            true,
        ),
        (
            "of another life, in between",
            message(TWO, 9, part(true, 9, more)),
            false,
        ),
        (
            "of no life",
            pb::State {
                epoch: vec![1],
                ..message(ONE, 9, None)
            },
            true,
        ),
    ] {
        let sink = Sink::default();
        let mut held = held(&sink);
        let outcome = step(&mut held, state, first, &sink);
        assert!(
            matches!(outcome, Err(Fault::Message(_))),
            "{why}: {outcome:?}"
        );
        assert_eq!(held.denylist.unwrap().len(), 1, "{why}");
    }
}

#[test]
fn a_list_counts_once_it_is_complete_and_is_current_at_its_head_alone() {
    let sink = Sink::default();
    let mut held = held(&sink);
    let first = message(TWO, 8, part(true, 4, &[ended("s_7")]));
    assert_eq!(step(&mut held, first, true, &sink), Ok(InForce::default()));
    assert_eq!(held.denylist.as_ref().unwrap().len(), 1);
    assert!(
        held.denylist
            .as_ref()
            .unwrap()
            .facts()
            .all(|fact| *fact != one("s_7"))
    );
    let beat = step(&mut held, message(TWO, 4, None), false, &sink).unwrap();
    assert!(!beat.current, "it is not complete");
    let rest = message(TWO, 8, part(false, 8, &[ended("s_8")]));
    let done = step(&mut held, rest, false, &sink).unwrap();
    assert!(done.changed && done.current);
    for (head, current) in [(8, true), (9, false), (7, false), (0, false)] {
        let beat = step(&mut held, message(TWO, head, None), false, &sink).unwrap();
        assert_eq!(beat.current, current, "{head}");
    }
    // A stream that broke off in the middle of a list leaves nothing of it behind.
    step(
        &mut held,
        message(TWO, 20, part(true, 10, &[])),
        true,
        &sink,
    )
    .unwrap();
    let next = message(TWO, 9, part(false, 9, &[ended("s_9")]));
    assert!(step(&mut held, next, true, &sink).unwrap().current);
    assert_eq!(held.denylist.unwrap().len(), 3);
}

fn one(session: &str) -> Fact {
    match ended(session) {
        Change::Set(fact) => fact,
        Change::Removed(_) => unreachable!(),
    }
}

#[test]
fn a_list_that_is_refused_has_to_come_whole_again() {
    let good = Sink::default();
    let mut held = held(&good);
    let picky = Sink {
        refuses: true,
        ..Sink::default()
    };
    let more = message(ONE, 6, part(false, 6, &[ended("s_2")]));
    assert_eq!(
        step(&mut held, more, false, &picky),
        Err(Fault::Refused("no".to_owned()))
    );
    assert!(held.denylist.is_none());
    assert_eq!(held.request().denylist, 0);
    assert_eq!(held.request().policy, 3, "the rest is held");
    let beat = step(&mut held, message(ONE, 6, None), true, &good).unwrap();
    assert!(!beat.current);
    let whole = message(ONE, 6, part(true, 6, &[ended("s_1"), ended("s_2")]));
    assert!(step(&mut held, whole, false, &good).unwrap().current);
}

#[test]
fn keys_with_a_private_part_are_refused_before_anybody_sees_them() {
    let sink = Sink::default();
    let mut held = held(&sink);
    sink.applied.lock().unwrap().clear();
    let text = r#"{"keys":[{"kty":"OKP","x":"AA","d":"AA"}]}"#;
    let piece = pb::Piece {
        number: 9,
        total: text.len() as u64,
        offset: 0,
        data: text.into(),
    };
    let done = step(
        &mut held,
        message(ONE, 5, Some(Part::Keys(piece))),
        false,
        &sink,
    )
    .unwrap();
    assert!(matches!(done.judged[..], [("keys", Err(_))]));
    assert!(sink.applied.lock().unwrap().is_empty() && held.keys.is_none());
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_call_current_what_was_not_put_in_force(
        messages in proptest::collection::vec(
            (0..3_u8, 0..6_u64, proptest::option::of((proptest::bool::ANY, 0..6_u64, 0..4_u8))),
            1..20,
        ),
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let sink = Sink::default();
        let mut held = held(&sink);
        for (epoch, head, list) in messages {
            let part = list.and_then(|(restart, reaches, fact)| {
                part(restart, reaches, &[ended(&format!("s_{fact}"))])
            });
            let before = sink.applied.lock().unwrap().len();
            let moved = held.denylist.clone();
            if let Ok(done) = step(&mut held, message(epoch, head, part), epoch == 2, &sink) {
                let applied = sink.applied.lock().unwrap().len() > before;
                assert_eq!(applied, moved != held.denylist || done.changed);
                assert!(!done.current || held.reached == head);
            }
        }
        if let Ok(state) = <pb::State as prost::Message>::decode(&noise[..]) {
            let _ = step(&mut held, state, true, &sink);
        }
    }
}
