//! A refusal that comes before the client has sent its whole body.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use outgate_native::gateway::Attribution;
use outgate_testkit::Channel;
use tokio::time::timeout;

use crate::world::{SECOND, Way, World};

const SOON: Duration = Duration::from_millis(150);

/// Sends the head of a request that is refused, and says whether the refusal comes before its body does.
async fn is_told_before_the_body(length: Option<&str>) -> bool {
    let world = World::new(Attribution::BySocket).await;
    let req = world.get(Way::TlsH2, "rules.test", "/elsewhere");
    let channel = world.open(Way::TlsH2, &req).await;
    let Ok(Channel::H2(mut send)) = channel else {
        panic!("no connection");
    };
    let uri = format!("https://{}/elsewhere", req.host_field());
    let mut head = Request::post(uri);
    if let Some(length) = length {
        head = head.header("content-length", length);
    }
    let (mut answer, mut body) = send.send_request(head.body(()).unwrap(), false).unwrap();
    let early = timeout(SOON, &mut answer).await;
    let is_early = early.is_ok();
    let answer = match early {
        Ok(answer) => answer,
        Err(_) => {
            body.send_data(Bytes::from_static(b"x=1"), true).unwrap();
            timeout(SECOND, answer).await.expect("an answer")
        }
    };
    assert_eq!(answer.unwrap().status(), 403, "{length:?}");
    is_early
}

#[tokio::test]
async fn over_http2_a_short_body_is_taken_before_the_refusal() {
    assert!(!is_told_before_the_body(Some("3")).await);
}

#[tokio::test]
async fn over_http2_a_refusal_does_not_wait_for_a_stream_or_a_large_body() {
    assert!(is_told_before_the_body(None).await);
    assert!(is_told_before_the_body(Some("100000000")).await);
}
