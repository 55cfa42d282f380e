//! What only Envoy can get wrong: the places where it does something else than its configuration seems to say. Each
//! scenario names the mutation by which it can be seen to fail.

mod apart;
mod bypass;
mod renewal;

use outgate_conformance::{Guest, Outcome, Req, Way, World, plane::Edge, within};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{sync::Barrier, task::JoinHandle};

/// Why the native plane does not run these.
pub(crate) const TRAP: &str = "a trap of Envoy's own filters, or of two processes that fail apart";

pub(crate) fn edge(world: &mut World) -> &mut Edge {
    world.plane_mut().edge().expect("Envoy is under test")
}

pub(crate) async fn is_served(world: &World, token: &str, way: Way) -> bool {
    let req = world.get(way, "a.test", "/").bearer(token);
    let outcome = within(10, "an outcome", world.guest().send(way, &req)).await;
    matches!(&outcome, Outcome::Answered(answer) if answer.status == 200)
}

/// Waits until every way in is served.
pub(crate) async fn until_served(world: &World, token: &str, limit: Duration, what: &str) {
    let begin = Instant::now();
    for way in Way::ALL {
        while !is_served(world, token, way).await {
            assert!(begin.elapsed() < limit, "{what}: {way:?} is not served");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Whether an outcome is a request that was let out.
pub(crate) fn passed(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Answered(answer) if answer.reason().is_none() && answer.status == 200)
}

/// A stream of events that is read until it ends; the moment of its end.
pub(crate) async fn open_stream(guest: &Guest, way: Way, req: Req) -> JoinHandle<Instant> {
    let guest = guest.clone();
    let begun = Arc::new(Barrier::new(2));
    let begins = Arc::clone(&begun);
    let task = tokio::spawn(async move {
        let mut channel = guest.open(way, &req).await.expect("a connection");
        let mut stream = channel.start(&req).await.expect("a head");
        stream.next().await.expect("an event");
        begins.wait().await;
        while let Ok(Some(_)) = stream.next().await {}
        Instant::now()
    });
    within(10, "the stream", begun.wait()).await;
    task
}
