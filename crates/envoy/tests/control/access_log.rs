//! The access log: what Envoy says of how things ended, as records.

use std::time::Duration;

use outgate_envoy::reasons::{Found, REASONS};
use outgate_envoy_proto::envoy::{
    config::core::v3::Metadata,
    data::accesslog::v3::{
        AccessLogCommon, AccessLogType, HttpAccessLogEntry, HttpRequestProperties,
        HttpResponseProperties, ResponseFlags, TcpAccessLogEntry, TlsProperties,
    },
    service::{
        accesslog::v3::stream_access_logs_message::{HttpAccessLogEntries, LogEntries},
        ext_proc::v3::{processing_request, processing_response},
    },
};
use outgate_journey::{
    denial::DenyCode::{self, *},
    record::{Ending, Entry, Verdict},
};
use prost_types::{Any, Struct, Value, value::Kind};

use crate::{
    ask::{Ask, CLIENT, address, entry, entry_with, log_message, metadata, recorded, tcp_entry},
    world::{UPSTREAM, World},
};

const SETTLED: Duration = Duration::from_secs(1);

/// A request that was admitted, in a tunnel of `bare.test`.
async fn admitted(world: &World) -> String {
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let ask = Ask::bumped(&tunnel, "bare.test", "/a");
    world.admit(&ask).await.0
}

#[tokio::test]
async fn the_last_entry_of_a_request_completes_its_record() {
    let world = World::new().await;
    let id = admitted(&world).await;
    let dialled = "93.184.216.99:443".parse().unwrap();
    let last = entry_with(Some(&id), |common, response| {
        common.upstream_remote_address = Some(address(dialled));
        response.response_code = Some(404);
    });
    world.log("bumped", vec![last]).await;
    let record = world.record(&id);
    assert_eq!(record.verdict, Verdict::Allowed);
    assert_eq!(record.ending, Ending::Completed);
    assert_eq!(record.status, Some(404));
    assert_eq!((record.bytes_out, record.bytes_in), (120, 3000));
    assert_eq!(record.ended_after, Duration::from_millis(1500));
    assert_eq!(record.upstream, Some(dialled), "what Envoy dialled");
    assert_eq!(record.entry, Entry::Bumped);
    // What ext_authz was told, not what the log says: there a query would be.
    assert_eq!(record.path.as_deref(), Some("/a"));
    assert_eq!(record.host.as_deref(), Some("bare.test"));
    assert_eq!(record.method.as_deref(), Some("GET"));
    assert_eq!(record.posture, None);
    assert_eq!(world.control.open_exchanges(), 1, "its tunnel");
}

#[tokio::test]
async fn a_tunnel_is_recorded_once_all_that_its_entries_say_is_heard() {
    let world = World::new().await;
    let guest = world.guest().await;
    for (target, posture, upstream) in [
        ("pass.test:443", Some("pass-through"), true),
        ("opaque.test:5432", Some("pass-through"), true),
        ("bare.test:443", Some("bump"), false),
        ("plainonly.test:80", None, false),
    ] {
        let id = world.tunnel(target, Some(&guest)).await;
        world.log("connect", vec![entry(Some(&id))]).await;
        assert!(
            world
                .records()
                .iter()
                .all(|it| it.request_id != recorded(&id)),
            "{target}: too early"
        );
        world.after(SETTLED);
        let record = world.record(&id);
        assert_eq!(record.verdict, Verdict::Allowed, "{target}");
        assert_eq!(record.ending, Ending::Completed, "{target}");
        assert_eq!(record.posture, posture, "{target}");
        assert_eq!(record.session.as_ref(), Some(&guest.id), "{target}");
        let port = target.split(':').next_back().unwrap();
        let expected = upstream.then(|| format!("{UPSTREAM}:{port}"));
        assert_eq!(
            record.upstream.map(|it| it.to_string()),
            expected,
            "{target}"
        );
    }
    assert_eq!(world.control.open_exchanges(), 0);
}

#[tokio::test]
async fn whatever_is_said_again_makes_no_second_record() {
    let world = World::new().await;
    let id = admitted(&world).await;
    world
        .log("bumped", vec![entry(Some(&id)), entry(Some(&id))])
        .await;
    world.log("bumped", vec![entry(Some(&id))]).await;
    world.record(&id);
    let guest = world.guest().await;
    let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
    for _ in 0..2 {
        world.log("connect", vec![entry(Some(&tunnel))]).await;
        world
            .log_tcp("pass", vec![tcp_entry(&tunnel, |_| {})])
            .await;
        world.after(SETTLED);
    }
    world.record(&tunnel);
    world.control.close();
    assert_eq!(world.records().len(), 3, "and the tunnel of the first");
}

#[tokio::test]
async fn an_entry_that_is_not_the_last_ends_nothing() {
    let world = World::new().await;
    let id = admitted(&world).await;
    for kind in [
        AccessLogType::DownstreamStart,
        AccessLogType::DownstreamPeriodic,
        AccessLogType::UpstreamPoolReady,
        AccessLogType::DownstreamTunnelSuccessfullyEstablished,
    ] {
        let entry = entry_with(Some(&id), |common, _| common.access_log_type = kind.into());
        world.log("bumped", vec![entry]).await;
        let nobodys = entry_with(None, |common, _| common.access_log_type = kind.into());
        world.log("bumped", vec![nobodys]).await;
        assert!(world.records().is_empty(), "{kind:?}");
    }
    // An entry that comes late says less than what is known: it takes nothing back.
    let mut late = entry(Some(&id));
    late.request.as_mut().unwrap().request_body_bytes = 1;
    world.log("bumped", vec![late]).await;
    assert_eq!(world.record(&id).bytes_out, 120);
}

/// The flags of these words.
fn flags(word: &str) -> ResponseFlags {
    let mut flags = ResponseFlags::default();
    *match word {
        "DPE" => &mut flags.downstream_protocol_error,
        "OM" => &mut flags.overload_manager,
        "UT" => &mut flags.upstream_request_timeout,
        "UF" => &mut flags.upstream_connection_failure,
        "UH" => &mut flags.no_healthy_upstream,
        "UO" => &mut flags.upstream_overflow,
        "UC" => &mut flags.upstream_connection_termination,
        "UR" => &mut flags.upstream_remote_reset,
        "UPE" => &mut flags.upstream_protocol_error,
        "NC" => &mut flags.no_cluster_found,
        "NR" => &mut flags.no_route_found,
        "SI" => &mut flags.stream_idle_timeout,
        "LR" => &mut flags.local_reset,
        "DC" => &mut flags.downstream_connection_termination,
        "DR" => &mut flags.downstream_remote_reset,
        other => panic!("{other}"),
    } = true;
    flags
}

#[tokio::test]
async fn whatever_envoy_gave_up_for_is_recorded_as_a_refusal_of_that_kind() {
    let world = World::new().await;
    for reason in REASONS {
        let guest = world.guest().await;
        let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
        let mut given = ResponseFlags::default();
        let details = match reason.found {
            Found::DetailsAre(text) => text.to_owned(),
            Found::DetailsStart(text) => format!("{text}_and_more"),
            Found::DetailsHave(text) => format!("before_{text}_after"),
            Found::Flag(word) => {
                given = flags(word);
                "x".to_owned()
            }
        };
        let context = format!("{:?}", reason.found);
        let allowed = world.ask(&Ask::bumped(&tunnel, "bare.test", "/")).await;
        let id = allowed.unwrap().id().to_owned();
        if !details.contains("rbac") && !details.contains("matched_policy") {
            world.limit(&id).await.expect("admitted");
        }
        let given_up = entry_with(Some(&id), |common, response| {
            common.response_flags = Some(given);
            response.response_code_details = details;
            response.response_code = Some(reason.code.status().into());
        });
        world.log("bumped", vec![given_up]).await;
        let record = world.record(&id);
        assert_eq!(record.verdict, Verdict::Denied(reason.code), "{context}");
        assert_eq!(record.status, Some(reason.code.status()), "{context}");
        assert!(!record.detail.is_empty(), "{context}");
    }
}

#[tokio::test]
async fn what_a_failing_upstream_looks_like_has_names() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let reset = "upstream_reset_before_response_started";
    // (flag, details, what TLS says, verdict, ending)
    let denied = |code| (Verdict::Denied(code), Ending::Completed);
    let aborted = (Verdict::Allowed, Ending::Aborted);
    let completed = (Verdict::Allowed, Ending::Completed);
    for (flag, details, tls, expected) in [
        (
            "UF",
            format!("{reset}{{remote_connection_failure}}"),
            "",
            denied(UpstreamUnreachable),
        ),
        (
            "UF",
            format!("{reset}{{connection_timeout}}"),
            "",
            denied(UpstreamUnreachable),
        ),
        (
            "UF",
            format!(
                "{reset}{{remote_connection_failure|TLS_error:|268435581:SSL_routines:CERTIFICATE_VERIFY_FAILED:TLS_error_end}}"
            ),
            "",
            denied(UpstreamTlsFailed),
        ),
        (
            "UF",
            format!("{reset}{{remote_connection_failure}}"),
            "TLS_error:|268435581:CERTIFICATE_VERIFY_FAILED",
            denied(UpstreamTlsFailed),
        ),
        (
            "UC",
            format!("{reset}{{connection_termination}}"),
            "",
            denied(UpstreamProtocol),
        ),
        (
            "UPE",
            "upstream_protocol_error".to_owned(),
            "",
            denied(UpstreamProtocol),
        ),
        (
            "UT",
            "response_timeout".to_owned(),
            "",
            denied(UpstreamTimeout),
        ),
        (
            "UH",
            "no_healthy_upstream".to_owned(),
            "",
            denied(UpstreamUnreachable),
        ),
        // The answer had begun, or the guest did not wait for it: it was let out all the same.
        ("UC", "via_upstream".to_owned(), "", aborted),
        ("DC", "downstream_remote_disconnect".to_owned(), "", aborted),
        ("DR", "http2.remote_reset".to_owned(), "", aborted),
        (
            "DC",
            format!("{reset}{{remote_connection_failure}}"),
            "",
            aborted,
        ),
        ("DC", "via_upstream".to_owned(), "", aborted),
        ("NR", "via_upstream".to_owned(), "", completed),
    ] {
        let ask = Ask::bumped(&tunnel, "bare.test", "/");
        let (id, _) = world.admit(&ask).await;
        let last = entry_with(Some(&id), |common, response| {
            common.response_flags = Some(flags(flag));
            common.upstream_transport_failure_reason = tls.to_owned();
            response.response_code_details.clone_from(&details);
        });
        world.log("bumped", vec![last]).await;
        let record = world.record(&id);
        assert_eq!(
            (record.verdict, record.ending),
            expected,
            "{flag} {details}"
        );
    }
}

#[tokio::test]
async fn a_request_that_never_passed_its_limits_is_never_recorded_as_allowed() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    for details in ["via_upstream", "", "something_new"] {
        let allowed = world.ask(&Ask::bumped(&tunnel, "bare.test", "/")).await;
        let id = allowed.unwrap().id().to_owned();
        let last = entry_with(Some(&id), |_, response| {
            response.response_code_details = details.to_owned();
        });
        world.log("bumped", vec![last]).await;
        assert_eq!(
            world.record(&id).verdict,
            Verdict::Denied(InternalFault),
            "{details}"
        );
    }
}

#[tokio::test]
async fn what_envoy_refused_before_it_asked_is_recorded_as_its_own_refusal() {
    let world = World::new().await;
    // (log, entry, details, flag, code)
    for (log, leg, details, flag, code) in [
        (
            "connect",
            Entry::Connect,
            "http1.codec_error",
            "DPE",
            MalformedRequest,
        ),
        (
            "forward",
            Entry::AbsoluteForm,
            "path_normalization_failed",
            "SI",
            PathAmbiguous,
        ),
        (
            "bumped",
            Entry::Bumped,
            "request_headers_too_large",
            "DPE",
            HeaderTooLarge,
        ),
        (
            "tunnelled-plain",
            Entry::TunnelledPlain,
            "ext_authz_error",
            "DPE",
            InternalFault,
        ),
        (
            "transparent",
            Entry::Transparent,
            "route_not_found",
            "NR",
            DestinationNotAllowed,
        ),
        (
            "transparent-plain",
            Entry::TransparentPlain,
            "overload_manager",
            "OM",
            TooManyConnections,
        ),
        (
            "bumped",
            Entry::Bumped,
            "something_new",
            "LR",
            InternalFault,
        ),
    ] {
        let before = world.records().len();
        let refused = entry_with(None, |common, response| {
            common.downstream_remote_address = Some(address(CLIENT.parse().unwrap()));
            common.response_flags = Some(flags(flag));
            response.response_code = Some(400);
            response.response_code_details = details.to_owned();
        });
        world.log(log, vec![refused]).await;
        let records = world.records();
        assert_eq!(records.len(), before + 1, "{details}");
        let record = records.last().unwrap();
        assert_eq!(record.verdict, Verdict::Denied(code), "{details}");
        assert_eq!(record.entry, leg, "{details}");
        assert_eq!(record.client.to_string(), CLIENT, "{details}");
        assert_eq!(record.status, Some(400), "{details}");
        assert_eq!(record.host.as_deref(), Some("as.written"), "{details}");
        assert_eq!(
            record.path.as_deref(),
            Some("/p"),
            "{details}: the query has no place there"
        );
        assert_eq!(record.method.as_deref(), Some("GET"), "{details}");
        assert_eq!(record.detail, details);
        assert_eq!(record.session, None);
    }
    // The journey's own refusals were recorded when they were made.
    let before = world.records().len();
    let ours = entry_with(None, |_, response| {
        response.response_code_details = "ext_authz_denied".to_owned();
    });
    world.log("connect", vec![ours]).await;
    assert_eq!(world.records().len(), before);
}

#[tokio::test]
async fn no_token_is_recorded_wherever_envoy_writes_it() {
    let world = World::new().await;
    let guest = world.guest().await;
    let mut refused = entry_with(None, |_, response| {
        response.response_code_details = "http1.codec_error".to_owned();
    });
    let request = refused.request.as_mut().unwrap();
    request.path = format!("/v1/{}", guest.token);
    request.authority.clone_from(&guest.token);
    world.log("connect", vec![refused]).await;
    let text = format!("{:?}", world.only_record());
    assert!(
        !text.contains(&guest.token) && text.contains("[session token]"),
        "{text}"
    );
}

#[tokio::test]
async fn what_no_entry_tells_the_end_of_is_recorded_after_a_while() {
    let world = World::new().await;
    let guest = world.guest().await;
    // Never begun, as far as anybody says.
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let (inside, _) = world.admit(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    let permitted = world.ask(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    let permitted = permitted.unwrap().id().to_owned();
    let (own, _) = world
        .admit(&Ask::forward("both.test", "/").by(&guest))
        .await;
    // Envoy asks for the rest of a request's journey at once, if at all.
    world.after(Duration::from_secs(9));
    assert!(world.records().is_empty());
    world.after(Duration::from_secs(11));
    assert_eq!(
        world.record(&permitted).verdict,
        Verdict::Denied(InternalFault)
    );
    world.after(Duration::from_secs(59));
    assert_eq!(world.records().len(), 1);
    world.after(Duration::from_secs(61));
    assert_eq!(world.record(&tunnel).verdict, Verdict::Allowed);
    let record = world.record(&own);
    assert_eq!(
        (record.verdict, record.ending),
        (Verdict::Allowed, Ending::Aborted)
    );
    // With their tunnel, a little later.
    world.after(Duration::from_secs(64));
    let record = world.record(&inside);
    assert_eq!(
        (record.verdict, record.ending),
        (Verdict::Allowed, Ending::Aborted)
    );
    assert_eq!(
        world.record(&permitted).verdict,
        Verdict::Denied(InternalFault)
    );
    assert_eq!(world.control.open_exchanges(), 0);
}

#[tokio::test]
async fn a_request_whose_end_is_never_told_does_not_stay_for_as_long_as_its_tunnel() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let _held = world.hold(&tunnel).await;
    let ask = Ask::bumped(&tunnel, "bare.test", "/");
    let permitted = world.ask(&ask).await.unwrap().id().to_owned();
    let (silent, _) = world.admit(&ask).await;
    let (heard_of, _) = world.admit(&ask).await;
    let upgrade = [("connection", "upgrade"), ("upgrade", "websocket")];
    world.admit(&ask.clone().fields(&upgrade)).await;
    assert_eq!(world.control.open_exchanges(), 5);
    world.after(Duration::from_secs(11));
    assert_eq!(
        world.record(&permitted).verdict,
        Verdict::Denied(InternalFault)
    );
    // The log tells every second of what is open.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let periodic = entry_with(Some(&heard_of), |common, _| {
        common.access_log_type = AccessLogType::DownstreamPeriodic.into();
    });
    world.log("bumped", vec![periodic]).await;
    world.after(Duration::from_secs(57));
    assert_eq!(world.records().len(), 1);
    world.after(Duration::from_secs(59));
    let record = world.record(&silent);
    assert_eq!(
        (record.verdict, record.ending),
        (Verdict::Allowed, Ending::Aborted)
    );
    assert_eq!(world.control.open_exchanges(), 3);
    world.after(Duration::from_secs(62));
    assert_eq!(world.record(&heard_of).ending, Ending::Aborted);
    // What is no HTTP any more has to be found for as long as it can be cut.
    world.after(Duration::from_secs(86_400));
    assert_eq!(world.control.open_exchanges(), 2, "and its tunnel");
}

#[tokio::test]
async fn where_as_much_is_open_as_there_may_be_nothing_more_is_let_through() {
    let world = World::with_room_for(2).await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let (inside, _) = world.admit(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    for one_too_many in [
        Ask::connect("pass.test:443").proxied_by(&guest),
        Ask::bumped(&tunnel, "bare.test", "/"),
        Ask::forward("both.test", "/").by(&guest),
    ] {
        let before = world.records().len();
        let refused = world.ask(&one_too_many).await.unwrap_err();
        refused.is(TooManyConnections, 503, "one too many");
        let records = world.records();
        assert_eq!(records.len(), before + 1);
        let verdict = Verdict::Denied(TooManyConnections);
        assert_eq!(records.last().unwrap().verdict, verdict);
        assert_eq!(world.control.open_exchanges(), 2);
    }
    world.log("bumped", vec![entry(Some(&inside))]).await;
    world.admit(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    assert_eq!(world.control.open_exchanges(), 2);
}

#[tokio::test]
async fn records_are_written_though_much_is_open() {
    let world = World::new().await;
    let guest = world.guest().await;
    for _ in 0..600 {
        let ask = Ask::forward("both.test", "/").by(&guest);
        world.ask(&ask).await.unwrap();
    }
    // Wherever they are among the others.
    for _ in 0..20 {
        let tunnel = world.tunnel("pass.test:443", Some(&guest)).await;
        world.log("connect", vec![entry(Some(&tunnel))]).await;
    }
    let control = world.control.clone();
    tokio::spawn(async move { control.keep_house().await });
    let are_written = async {
        while world.records().len() < 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let patience = crate::world::PATIENCE;
    tokio::time::timeout(patience, are_written).await.unwrap();
    assert_eq!(world.control.open_exchanges(), 600);
}

#[tokio::test]
async fn what_is_open_when_the_gateway_ends_is_recorded_then() {
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("bare.test:443", Some(&guest)).await;
    let (inside, _) = world.admit(&Ask::bumped(&tunnel, "bare.test", "/")).await;
    world.control.close();
    world.record(&tunnel);
    world.record(&inside);
    assert_eq!(world.control.open_exchanges(), 0);
    world.log("bumped", vec![entry(Some(&inside))]).await;
    assert_eq!(world.records().len(), 2);
}

#[tokio::test]
async fn an_exchange_of_an_earlier_process_is_not_taken_for_one_of_this() {
    let (earlier, later) = (World::new().await, World::new().await);
    let id = admitted(&earlier).await;
    let own = admitted(&later).await;
    assert_ne!(id, own);
    later.log("bumped", vec![entry(Some(&id))]).await;
    assert!(later.records().is_empty());
    later.log_tcp("inner", vec![tcp_entry(&id, |_| {})]).await;
    assert_eq!(later.control.open_exchanges(), 2);
    later.log("bumped", vec![entry(Some(&own))]).await;
    later.record(&own);
}

#[tokio::test]
async fn a_tunnel_whose_inside_never_became_requests_says_why() {
    let world = World::new().await;
    let tls = |name: &str, version: i32| {
        Some(TlsProperties {
            tls_sni_hostname: name.to_owned(),
            tls_version: version,
            ..TlsProperties::default()
        })
    };
    // (target, SNI and version, flag, what failed, verdict)
    for (target, tls, flag, failure, expected) in [
        (
            "bare.test:443",
            tls("x.test", 0),
            "NR",
            "",
            Some(ServerNameMismatch),
        ),
        ("bare.test:443", None, "NR", "", Some(TlsRequired)),
        (
            "plainonly.test:80",
            tls("plainonly.test", 0),
            "NR",
            "",
            Some(TlsNotAllowed),
        ),
        (
            "bare.test:443",
            tls("bare.test", 0),
            "DC",
            "TLS_error:|268435612:HTTP_REQUEST",
            Some(TlsHandshakeFailed),
        ),
        (
            "bare.test:443",
            None,
            "DC",
            "TLS_error:|268435612:HTTP_REQUEST",
            Some(TlsHandshakeFailed),
        ),
        // The handshake was good: the client went away later.
        (
            "bare.test:443",
            tls("bare.test", 4),
            "DC",
            "TLS_error:|0:EOF",
            None,
        ),
        ("bare.test:443", tls("bare.test", 4), "DC", "", None),
    ] {
        let context = format!("{target} {flag} {failure}");
        let guest = world.guest().await;
        let id = world.tunnel(target, Some(&guest)).await;
        let inner = tcp_entry(&id, |common| {
            common.tls_properties = tls;
            common.response_flags = Some(flags(flag));
            common.downstream_transport_failure_reason = failure.to_owned();
        });
        // In whichever order.
        world.log("connect", vec![entry(Some(&id))]).await;
        world.log_tcp("inner", vec![inner]).await;
        world.after(SETTLED);
        let record = world.record(&id);
        let expected = expected.map_or(Verdict::Allowed, Verdict::Denied);
        assert_eq!(record.verdict, expected, "{context}");
        if expected != Verdict::Allowed {
            let host = target.split(':').next().unwrap();
            assert!(record.rule.unwrap().ends_with(host), "{context}");
        }
    }
}

#[tokio::test]
async fn a_carried_tunnel_whose_upstream_is_not_reached_says_so() {
    let world = World::new().await;
    let dialled = "93.184.216.34:443".parse().unwrap();
    for (log, target, flag, expected) in [
        ("pass", "pass.test:443", "UF", Some(UpstreamUnreachable)),
        (
            "opaque",
            "opaque.test:5432",
            "UF",
            Some(UpstreamUnreachable),
        ),
        // A carried connection may end as its two sides like.
        ("pass", "pass.test:443", "UC", None),
        ("opaque", "opaque.test:5432", "UR", None),
    ] {
        let guest = world.guest().await;
        let id = world.tunnel(target, Some(&guest)).await;
        let carried = tcp_entry(&id, |common| {
            common.response_flags = Some(flags(flag));
            common.upstream_remote_address = Some(address(dialled));
        });
        world.log_tcp(log, vec![carried]).await;
        world.log("connect", vec![entry(Some(&id))]).await;
        world.after(SETTLED);
        let record = world.record(&id);
        let expected = expected.map_or(Verdict::Allowed, Verdict::Denied);
        assert_eq!(record.verdict, expected, "{target} {flag}");
        assert_eq!(record.upstream, Some(dialled), "{target} {flag}");
    }
}

#[tokio::test]
async fn an_answer_that_was_refused_is_recorded_for_the_reason_that_it_was_refused_for() {
    use processing_request::Request as Asked;
    let world = World::new().await;
    let guest = world.guest().await;
    let tunnel = world.tunnel("key.test:443", None).await;
    let ask = Ask::bumped(&tunnel, "key.test", "/").by(&guest);
    let (id, _) = world.admit(&ask).await;
    let mut scrub = world.process(Some("scrub")).await.unwrap();
    let headers = [(":status", "200"), ("content-encoding", "compress")];
    scrub
        .say(
            Some(&id),
            Asked::ResponseHeaders(crate::ask::answer_head(&headers)),
        )
        .await;
    let Some(processing_response::Response::ImmediateResponse(refused)) = scrub.next().await else {
        panic!("an answer that cannot be read is let through");
    };
    let last = entry_with(Some(&id), |_, response| {
        response.response_code = Some(502);
        response.response_code_details = refused.details;
    });
    world.log("bumped", vec![last]).await;
    let record = world.record(&id);
    assert_eq!(record.verdict, Verdict::Denied(ResponseUnscrubbable));
    assert_eq!(record.status, Some(502));
}

#[tokio::test]
async fn no_entry_however_odd_stops_the_log() {
    let world = World::new().await;
    let id = admitted(&world).await;
    let odd_text = "\u{1F980}".repeat(10_000);
    let odd_metadata = |value: Option<Kind>| Metadata {
        filter_metadata: [(
            "envoy.filters.http.ext_authz".to_owned(),
            Struct {
                fields: [("request".to_owned(), Value { kind: value })].into(),
            },
        )]
        .into(),
        ..Metadata::default()
    };
    let enormous = |common: Option<AccessLogCommon>| HttpAccessLogEntry {
        common_properties: common,
        protocol_version: i32::MAX,
        request: Some(HttpRequestProperties {
            request_method: i32::MIN,
            authority: odd_text.clone(),
            path: odd_text.clone(),
            request_body_bytes: u64::MAX,
            upstream_header_bytes_sent: u64::MAX,
            ..HttpRequestProperties::default()
        }),
        response: Some(HttpResponseProperties {
            response_code: Some(u32::MAX),
            response_body_bytes: u64::MAX,
            response_code_details: odd_text.clone(),
            ..HttpResponseProperties::default()
        }),
    };
    let odd = |access_log_type: i32, metadata: Option<Metadata>| AccessLogCommon {
        access_log_type,
        metadata,
        duration: Some(prost_types::Duration {
            seconds: i64::MIN,
            nanos: i32::MIN,
        }),
        upstream_transport_failure_reason: odd_text.clone(),
        downstream_remote_address: Some(Default::default()),
        ..AccessLogCommon::default()
    };
    let entries = vec![
        HttpAccessLogEntry::default(),
        enormous(None),
        enormous(Some(odd(i32::MAX, Some(odd_metadata(None))))),
        enormous(Some(odd(
            0,
            Some(odd_metadata(Some(Kind::NumberValue(f64::NAN)))),
        ))),
        enormous(Some(odd(
            AccessLogType::DownstreamPeriodic.into(),
            Some(metadata(&id)),
        ))),
        enormous(Some(odd(-1, Some(metadata(&id))))),
    ];
    let http = LogEntries::HttpLogs(HttpAccessLogEntries { log_entry: entries });
    world
        .log_messages(vec![
            log_message("", None),
            log_message("no such log", Some(http)),
        ])
        .await;
    assert_eq!(world.record(&id).bytes_out, u64::MAX);
    let garbage = Any {
        type_url: String::new(),
        value: vec![0xff; 40],
    };
    let mut tcp = tcp_entry("", |_| {});
    tcp.common_properties
        .as_mut()
        .unwrap()
        .filter_state_objects
        .insert("outgate.connection".to_owned(), garbage);
    for log in ["inner", "pass", "opaque", ""] {
        world
            .log_tcp(log, vec![TcpAccessLogEntry::default(), tcp.clone()])
            .await;
    }
    // Of the others, each is a refusal of Envoy's own.
    let known = |record: &outgate_journey::record::DecisionRecord| {
        record.request_id == recorded(&id) || record.verdict == Verdict::Denied(InternalFault)
    };
    assert_eq!(world.records().len(), 5);
    assert!(world.records().iter().all(known));
    for record in world.records() {
        assert!(record.detail.len() <= 512 && record.host.unwrap_or_default().len() <= 255);
    }
    // And the log goes on.
    let next = admitted(&world).await;
    world.log("bumped", vec![entry(Some(&next))]).await;
    let code: Option<DenyCode> = match world.record(&next).verdict {
        Verdict::Allowed => None,
        Verdict::Denied(code) => Some(code),
    };
    assert_eq!(code, None);
}
