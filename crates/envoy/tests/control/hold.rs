//! The external processor that holds what is open, so that it can be cut.

use std::time::Duration;

use outgate_control::sessions::{DenyEntry, DenyTarget};
use outgate_envoy_proto::envoy::{
    data::accesslog::v3::{AccessLogType, HttpAccessLogEntry},
    service::ext_proc::v3::{HttpHeaders, HttpTrailers, processing_request, processing_response},
};
use outgate_journey::{
    denial::DenyCode::{self, *},
    record::{Ending, Verdict},
};
use tonic::Code;

use crate::{
    ask::{Ask, Process, entry, entry_with, head},
    world::World,
};

const SOON: Duration = Duration::from_secs(1);

#[track_caller]
fn assert_cut((details, after): (String, Duration)) {
    assert_eq!(details, "outgate_cut");
    assert!(after < SOON, "only after {after:?}");
}

/// Envoy resets a tunnel that was cut, and says so in its log.
async fn end_of(world: &World, hold: Process, id: &str, code: DenyCode) {
    assert_eq!(hold.cut_for.as_deref(), Some(code.as_str()));
    hold.finish().await;
    let reset = entry_with(Some(id), |_, response| {
        response.response_code_details = "outgate_cut".to_owned();
    });
    world.log("connect", vec![reset]).await;
    world.after(SOON);
    let record = world.record(id);
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.ending, Ending::Cut(code));
}

#[tokio::test]
async fn whatever_takes_a_sessions_standing_away_cuts_what_it_has_open() {
    // (host, how it ends, why)
    for (target, how, code) in [
        ("pass.test:443", "end", SessionRevoked),
        ("bare.test:443", "end", SessionRevoked),
        ("opaque.test:5432", "end", SessionRevoked),
        ("pass.test:443", "deny the session", SessionRevoked),
        ("pass.test:443", "deny the token", SessionRevoked),
        ("pass.test:443", "kill", KillSwitch),
    ] {
        let world = World::new().await;
        let (guest, other) = (world.guest().await, world.guest().await);
        let tunnel = world.tunnel(target, Some(&guest)).await;
        let others = world.tunnel(target, Some(&other)).await;
        let mut hold = world.hold(&tunnel).await;
        let mut others_hold = world.hold(&others).await;
        hold.is_quiet().await;
        let deny = async |target| {
            let entry = DenyEntry {
                target,
                reason: "a test".to_owned(),
                by: "a test".to_owned(),
                at: 0,
                until: None,
            };
            world.sessions().deny(entry).await.unwrap();
        };
        match how {
            "end" => world.end(&guest).await,
            "deny the session" => deny(DenyTarget::Session(guest.id.clone())).await,
            "deny the token" => deny(DenyTarget::Token(guest.token_id.clone())).await,
            _ => drop(world.sessions().kill_all("a test", "a test").await.unwrap()),
        }
        assert_cut(hold.cut().await);
        end_of(&world, hold, &tunnel, code).await;
        if how == "kill" {
            assert_cut(others_hold.cut().await);
        } else {
            others_hold.is_quiet().await;
        }
    }
}

#[tokio::test]
async fn a_session_that_only_its_requests_name_is_the_tunnels_from_then_on() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", None).await;
    let mut hold = world.hold(&tunnel).await;
    world
        .admit(&Ask::bumped(&tunnel, "key.test", "/").by(&guest))
        .await;
    hold.is_quiet().await;
    world.end(&guest).await;
    assert_cut(hold.cut().await);
    end_of(&world, hold, &tunnel, SessionRevoked).await;
}

#[tokio::test]
async fn a_request_of_its_own_is_cut_with_its_session_and_one_of_nobody_is_not() {
    let world = World::new().await;
    let guest = world.guest().await;
    let (id, _) = world
        .admit(&Ask::forward("both.test", "/").by(&guest))
        .await;
    let (nobodys, _) = world.admit(&Ask::forward("optional.test", "/")).await;
    let mut hold = world.hold(&id).await;
    let mut other = world.hold(&nobodys).await;
    world.end(&guest).await;
    assert_cut(hold.cut().await);
    hold.finish().await;
    let reset = entry_with(Some(&id), |_, response| {
        response.response_code_details = "outgate_cut".to_owned();
    });
    world.log("forward", vec![reset]).await;
    assert_eq!(world.record(&id).ending, Ending::Cut(SessionRevoked));
    other.is_quiet().await;
}

#[tokio::test]
async fn a_policy_that_drops_a_tunnels_destination_cuts_it_and_no_other() {
    // (what changes of the destination, whether it is cut)
    for (what, is_cut) in [
        ("nothing", false),
        ("gone", true),
        ("port", true),
        ("posture", true),
        ("address", true),
    ] {
        let world = World::new().await;
        let guest = world.guest().await;
        let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
        let other = world.tunnel("opaque.test:5432", Some(&guest)).await;
        let mut hold = world.hold(&tunnel).await;
        let mut others_hold = world.hold(&other).await;
        world.reload(|config| {
            let rule = &mut config["destinations"][4];
            assert_eq!(rule["host"], "pass.test");
            match what {
                "gone" => rule["host"] = "elsewhere.test".into(),
                "port" => rule["ports"] = serde_json::json!([8443]),
                "posture" => rule["posture"] = "bump".into(),
                "address" => rule["addresses"] = serde_json::json!({ "deny": ["93.184.216.0/24"] }),
                _ => {}
            }
        });
        if is_cut {
            assert_cut(hold.cut().await);
            end_of(&world, hold, &tunnel, PolicyChanged).await;
        } else {
            hold.is_quiet().await;
        }
        others_hold.is_quiet().await;
    }
}

/// So much was carried, so far.
fn carried(id: &str, bytes: u64) -> HttpAccessLogEntry {
    let mut entry = entry_with(Some(id), |common, response| {
        common.access_log_type = AccessLogType::DownstreamPeriodic.into();
        response.response_code = None;
        response.response_code_details = String::new();
    });
    let request = entry.request.as_mut().unwrap();
    (
        request.request_body_bytes,
        request.upstream_header_bytes_sent,
    ) = (bytes, 0);
    entry
}

#[tokio::test]
async fn a_tunnel_is_cut_once_its_sessions_bytes_are_used_up() {
    let world = World::new().await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    let mut hold = world.hold(&tunnel).await;
    let others = world.tunnel("pass.test:443", Some(&other)).await;
    world.log("connect", vec![carried(&others, 4000)]).await;
    // Each entry tells of everything since the beginning: nothing is charged twice.
    for bytes in [2000, 4000, 4096] {
        world.log("connect", vec![carried(&tunnel, bytes)]).await;
    }
    hold.is_quiet().await;
    world.log("connect", vec![carried(&tunnel, 4097)]).await;
    assert_cut(hold.cut().await);
    end_of(&world, hold, &tunnel, BytesLimit).await;
    assert_eq!(world.record(&tunnel).bytes_out, 4097);
}

#[tokio::test]
async fn a_long_request_that_uses_its_sessions_bytes_up_is_cut_with_its_tunnel() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let mut hold = world.hold(&tunnel).await;
    let (id, _) = world.admit(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    world.log("bumped", vec![carried(&id, 5000)]).await;
    assert_cut(hold.cut().await);
    // What Envoy sees of a stream whose connection it has reset.
    let reset = entry_with(Some(&id), |common, response| {
        response.response_code_details = "downstream_remote_disconnect".to_owned();
        common.response_flags = Some(Default::default());
        let flags = common.response_flags.as_mut().unwrap();
        flags.downstream_connection_termination = true;
    });
    world.log("bumped", vec![reset]).await;
    assert_eq!(world.record(&id).ending, Ending::Cut(BytesLimit));
    end_of(&world, hold, &tunnel, BytesLimit).await;
}

#[tokio::test]
async fn everything_is_cut_when_the_gateways_grace_is_over() {
    let world = World::new().await;
    let tunnel = world.tunnel("freepass.test:443", None).await;
    let mut hold = world.hold(&tunnel).await;
    world.gateway.core().stopping.cancel();
    hold.is_quiet().await;
    world.gateway.core().killing.cancel();
    assert_cut(hold.cut().await);
    end_of(&world, hold, &tunnel, ShuttingDown).await;
}

#[tokio::test]
async fn what_could_not_be_cut_later_is_cut_at_once() {
    let world = World::new().await;
    let guest = world.guest().await;
    let ended = world.tunnel("pass.test:443", Some(&guest)).await;
    world.log("connect", vec![entry(Some(&ended))]).await;
    world.after(SOON);
    for id in ["", "0", &ended, guest.id.as_str()] {
        let mut hold = world.process(Some("hold")).await.unwrap();
        hold.say(Some(id), head()).await;
        assert_cut(hold.cut().await);
    }
    // A session that ended before its tunnel was held.
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    world.end(&guest).await;
    let mut hold = world.process(Some("hold")).await.unwrap();
    hold.say(Some(&tunnel), head()).await;
    let first = hold.next().await;
    if !matches!(
        first,
        Some(processing_response::Response::ImmediateResponse(_))
    ) {
        assert_cut(hold.cut().await);
    }
}

#[tokio::test]
async fn what_names_no_exchange_is_cut() {
    let world = World::new().await;
    for first in [
        head(),
        processing_request::Request::ResponseHeaders(HttpHeaders::default()),
        processing_request::Request::ResponseTrailers(HttpTrailers::default()),
    ] {
        let mut hold = world.process(Some("hold")).await.unwrap();
        hold.say(None, first).await;
        assert_cut(hold.cut().await);
        assert_eq!(hold.cut_for.as_deref(), Some(InternalFault.as_str()));
    }
}

#[tokio::test]
async fn a_hold_changes_nothing_of_what_it_is_shown() {
    use processing_request::Request as Asked;
    use processing_response::Response as Answer;
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    let mut hold = world.hold(&tunnel).await;
    let shown = Asked::ResponseHeaders(HttpHeaders::default());
    hold.say(Some(&tunnel), shown).await;
    let Some(Answer::ResponseHeaders(answer)) = hold.next().await else {
        panic!("no answer to a head");
    };
    assert!(answer.response.is_none());
    let shown = Asked::ResponseTrailers(HttpTrailers::default());
    hold.say(Some(&tunnel), shown).await;
    let Some(Answer::ResponseTrailers(answer)) = hold.next().await else {
        panic!("no answer to trailers");
    };
    assert!(answer.header_mutation.is_none());
    hold.finish().await;
    world.after(Duration::from_secs(11));
    world.record(&tunnel);
}

#[tokio::test]
async fn a_tunnel_whose_hold_ended_is_recorded_even_if_the_log_never_tells() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    let hold = world.hold(&tunnel).await;
    // However long it is held.
    world.after(Duration::from_secs(86_400));
    assert!(world.records().is_empty());
    hold.finish().await;
    world.after(Duration::from_secs(3));
    assert!(world.records().is_empty(), "the log may be late");
    world.after(Duration::from_secs(11));
    let record = world.record(&tunnel);
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.ending, Ending::Aborted, "nobody saw its end");
    assert_eq!(world.control.open_exchanges(), 0);
}

#[tokio::test]
async fn a_stream_has_one_of_two_roles() {
    let world = World::new().await;
    for role in [None, Some(""), Some("Hold"), Some("connect")] {
        let refused = world.process(role).await;
        let code = refused.err().map(|it| it.code());
        assert_eq!(code, Some(Code::InvalidArgument), "{role:?}");
    }
}

#[tokio::test]
async fn a_policy_that_comes_between_the_verdict_and_the_hold_is_judged_by_too() {
    for is_dropped in [true, false] {
        let world = World::new().await;
        let guest = world.guest().await;
        let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
        world.reload(|config| {
            let rule = &mut config["destinations"][4];
            assert_eq!(rule["host"], "pass.test");
            if is_dropped {
                rule["host"] = "elsewhere.test".into();
            }
        });
        if !is_dropped {
            world.hold(&tunnel).await.is_quiet().await;
            continue;
        }
        let mut hold = world.process(Some("hold")).await.unwrap();
        hold.say(Some(&tunnel), head()).await;
        assert_cut(hold.cut().await);
        assert_eq!(hold.cut_for.as_deref(), Some(PolicyChanged.as_str()));
    }
}

#[tokio::test]
async fn nothing_is_let_through_once_the_records_are_closed() {
    let world = World::new().await;
    let guest = world.guest().await;
    world.tunnel("pass.test:443", Some(&guest)).await;
    world.control.close();
    assert_eq!(world.only_record().verdict, Verdict::Allowed);
    let ask = Ask::connect("pass.test:443").proxied_by(&guest);
    let late = world.try_ask(&ask).await;
    assert_eq!(late.err().map(|it| it.code()), Some(Code::Unavailable));
    assert_eq!(world.control.open_exchanges(), 0);
    assert_eq!(world.records().len(), 2, "both are recorded");
}
