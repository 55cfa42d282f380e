//! Who revokes gets through, whatever else there is.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use outgate_control::operator::CreateSession;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::world::{Who, World};

/// What counts as at once here, on a machine that is busy with other tests.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_kill_gets_through_a_full_lane_and_creations_are_told_to_wait() {
    let world = Arc::new(World::new().await);
    *world.trail.held.lock().unwrap() = Some("session.create");
    let creations: Vec<_> = (0..32)
        .map(|_| {
            let client = world.local_client();
            tokio::spawn(async move { client.create(&CreateSession::default()).await.map(drop) })
        })
        .collect();
    while world.trail.waiting.load(Ordering::SeqCst) < 32 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for who in [Who::Local, Who::Token("all")] {
        let answer = world.call(&who, "POST", "/v1/sessions", &[], b"").await;
        assert_eq!(answer.code(), "too_busy");
        assert_eq!(answer.headers["retry-after"], "1");
    }
    let answer = world
        .call(&Who::Token("all"), "GET", "/v1/sessions", &[], b"")
        .await;
    assert_eq!(answer.code(), "too_busy");
    for path in ["/v1/health", "/v1/ready"] {
        let answer = world.call(&Who::Local, "GET", path, &[], b"").await;
        assert_eq!(answer.status, 200, "{path}: a probe waits behind nobody");
    }
    let began = Instant::now();
    world.client("revoke").kill_all("now").await.unwrap();
    world
        .local_client()
        .end(&world.sessions.list(None)[0].id)
        .await
        .unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    world.trail.permits.add_permits(32);
    for creation in creations {
        creation.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_kill_gets_through_hundreds_of_connections_that_say_nothing() {
    let world = World::new().await;
    let mut silent = Vec::new();
    for _ in 0..400 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    let mut local = Vec::new();
    for _ in 0..200 {
        local.push(UnixStream::connect(world.socket()).await.unwrap());
    }
    let began = Instant::now();
    world.client("revoke").kill_all("now").await.unwrap();
    world.local_client().kill_all("now").await.unwrap();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    // The oldest made room: the door closed on it without a word.
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(AT_ONCE, silent[0].read(&mut byte))
        .await
        .unwrap();
    assert!(!matches!(closed, Ok(length) if length > 0));
    let youngest = silent.last_mut().unwrap().read(&mut byte);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), youngest)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn who_has_begun_to_speak_keeps_its_place_before_those_that_only_knock() {
    let world = World::new().await;
    let mut caller = world.connect().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(world.address).await.unwrap());
    }
    // Others that are gone before their turn.
    for _ in 0..300 {
        drop(TcpStream::connect(world.address).await.unwrap());
    }
    let token = crate::world::token_of("revoke");
    let call = format!(
        "POST /v1/kill HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         content-length: 14\r\n\r\n{{\"reason\":\"r\"}}"
    );
    caller.write_all(call.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let count = caller.read(&mut answer).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    assert!(world.sessions.kill_switch().is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_gets_through_a_flood_of_creations_and_connections() {
    let world = Arc::new(World::new().await);
    let stop = tokio_util::sync::CancellationToken::new();
    let mut flood = Vec::new();
    for number in 0..16 {
        let (world, stop) = (Arc::clone(&world), stop.clone());
        flood.push(tokio::spawn(async move {
            while !stop.is_cancelled() {
                if number % 2 == 0 {
                    let _ = world.local_client().create(&CreateSession::default()).await;
                } else {
                    let _ = TcpStream::connect(world.address).await;
                    // The machine's two cores are the other tests', too.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
        }));
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let client = if number % 2 == 0 {
            world.local_client()
        } else {
            world.client("revoke")
        };
        let began = Instant::now();
        client.kill_all("now").await.unwrap();
        slowest = slowest.max(began.elapsed());
        assert!(world.sessions.kill_switch().is_some());
        world.sessions.lift("test").await.unwrap();
    }
    stop.cancel();
    for one in flood {
        one.await.unwrap();
    }
    assert!(slowest < AT_ONCE, "{slowest:?}");
}

#[tokio::test]
async fn a_flood_without_a_credential_is_summed_up_in_the_trail() {
    let world = World::new().await;
    let client = {
        let path = world.token_file("stranger");
        crate::world::secret_file(path, &"x".repeat(40));
        world.client("stranger")
    };
    for _ in 0..250 {
        client.kill_state().await.unwrap_err();
    }
    let own = |world: &World| {
        let records = world.trail.actions();
        records
            .iter()
            .filter(|record| record.operation == "kill.show")
            .count()
    };
    assert_eq!(own(&world), 200);
    let began = Instant::now();
    let left_out = loop {
        let records = world.trail.actions();
        let sums: Vec<_> = records
            .iter()
            .filter(|record| record.operation == "flood")
            .collect();
        let total: u64 = sums
            .iter()
            .map(|record| {
                record
                    .detail
                    .rsplit(' ')
                    .next()
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum();
        if total >= 50 || began.elapsed() > AT_ONCE {
            break total;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(left_out, 50);
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_not_waited_for() {
    let world = World::new().await;
    let mut stream = UnixStream::connect(world.socket()).await.unwrap();
    stream
        .write_all(b"GET /v1/kill HTTP/1.1\r\nhost: ")
        .await
        .unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(6), read)
        .await
        .unwrap()
        .unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert!(!answer.starts_with(b"HTTP/1.1 2"));
}
