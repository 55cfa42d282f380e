//! ext_authz on a `CONNECT`, a guest's own or one that Envoy makes of a captured connection.

use std::time::Duration;

use outgate_journey::{
    denial::DenyCode::{self, *},
    record::{Entry, Verdict},
};
use tonic::Code;

use crate::{
    ask::{Ask, CLIENT, basic, entry},
    world::{UPSTREAM, World},
};

#[tokio::test]
async fn a_tunnel_is_allowed_with_what_envoy_needs_to_carry_it() {
    let world = World::new().await;
    let guest = world.guest().await;
    // (target, whether by the guest, treatment, whether its bytes need an address)
    for (target, is_guests, treatment, has_address) in [
        ("key.test:443", true, "bump", false),
        ("key.test:443", false, "bump", false),
        ("both.test:443", true, "bump+plain", false),
        ("both.test:80", false, "bump+plain", false),
        ("pass.test:443", true, "pass", true),
        ("freepass.test:443", false, "pass", true),
        ("passplain.test:443", true, "pass+plain", true),
        // Only its requests in clear could bring a token later.
        ("passplain.test:443", false, "plain", false),
        ("plainonly.test:80", true, "plain", false),
        ("opaque.test:5432", true, "opaque", true),
    ] {
        let ask = Ask::connect(target);
        let ask = if is_guests {
            ask.proxied_by(&guest)
        } else {
            ask
        };
        let allowed = world.ask(&ask).await.expect(target);
        let (host, port) = target.split_once(':').unwrap();
        let id = allowed.id().to_owned();
        let mut metadata = allowed.metadata;
        let shown = metadata.remove("record").unwrap();
        assert!(shown != id && shown.len() < id.len(), "{shown} {id}");
        let rule = metadata.remove("rule").unwrap();
        assert!(
            rule.starts_with("destinations[") && rule.ends_with(host),
            "{rule}"
        );
        let mut expected = vec![
            ("connection", id.clone()),
            ("host", host.to_owned()),
            ("request", id.clone()),
            ("tunnel", id),
            ("target", target.to_owned()),
            ("treatment", treatment.to_owned()),
        ];
        if is_guests {
            expected.push(("session", guest.id.to_string()));
        }
        if has_address {
            expected.push(("tunnel_address", format!("{UPSTREAM}:{port}")));
        }
        let expected = expected.into_iter().map(|(key, it)| (key.to_owned(), it));
        assert_eq!(metadata, expected.collect(), "{target}");
        assert!(
            allowed.removed.is_empty() && allowed.set.is_empty(),
            "{target}"
        );
    }
    assert!(
        world.records().is_empty(),
        "a tunnel is recorded when it ends"
    );
    assert_eq!(world.control.open_exchanges(), 10);
}

#[tokio::test]
async fn a_refused_tunnel_tells_the_guest_why_and_is_recorded_once() {
    let world = World::new().await;
    let (guest, ended) = (world.guest().await, world.guest().await);
    world.end(&ended).await;
    let good = basic("session", &guest.token);
    // (target, proxy-authorization, code, status)
    let rows: Vec<(&str, Option<String>, DenyCode, i32)> = vec![
        ("x.test:443", None, DestinationNotAllowed, 403),
        ("x.test:443", Some(good.clone()), DestinationNotAllowed, 403),
        ("sub.key.test:443", None, DestinationNotAllowed, 403),
        (
            "closed.test:443",
            Some(good.clone()),
            DestinationNotAllowed,
            403,
        ),
        ("key.test:8443", None, PortNotAllowed, 403),
        ("key.test", None, HostInvalid, 400),
        ("key.test:0", None, HostInvalid, 400),
        ("k_y.te st:443", None, HostInvalid, 400),
        ("93.184.216.34:443", None, IpLiteral, 403),
        ("[::1]:443", None, IpLiteral, 403),
        ("2130706433:443", None, IpLiteral, 403),
        ("inside.test:443", Some(good.clone()), AddressDenied, 403),
        ("nowhere.test:443", Some(good), NameNotResolved, 502),
        ("pass.test:443", None, TokenMissing, 407),
        ("opaque.test:5432", None, TokenMissing, 407),
        (
            "pass.test:443",
            Some(basic("session", "forged")),
            TokenInvalid,
            407,
        ),
        (
            "key.test:443",
            Some("Bearer forged".to_owned()),
            TokenInvalid,
            407,
        ),
        (
            "pass.test:443",
            Some(format!("Bearer {}", world.expired(&guest))),
            TokenExpired,
            407,
        ),
        (
            "pass.test:443",
            Some(basic("session", &ended.token)),
            SessionRevoked,
            403,
        ),
    ];
    for (target, presented, code, status) in rows {
        let mut ask = Ask::connect(target);
        if let Some(presented) = &presented {
            ask = ask.field("proxy-authorization", presented);
        }
        let context = format!("{target} {code}");
        let Err(refused) = world.ask(&ask).await else {
            panic!("{context}: allowed");
        };
        refused.is(code, status, &context);
        let asked_for_token = if status == 407 { 2 } else { 0 };
        assert_eq!(
            refused.field("proxy-authenticate").len(),
            asked_for_token,
            "{context}"
        );
        assert!(refused.field("www-authenticate").is_empty(), "{context}");
        let record = world.record(refused.id());
        assert_eq!(record.verdict, Verdict::Denied(code), "{context}");
        assert_eq!(record.entry, Entry::Connect, "{context}");
        assert_eq!(
            record.status,
            Some(u16::try_from(status).unwrap()),
            "{context}"
        );
        assert_eq!(record.client.to_string(), CLIENT, "{context}");
        assert_eq!(record.method.as_deref(), Some("CONNECT"), "{context}");
        assert_eq!((record.path, record.upstream), (None, None), "{context}");
    }
    assert_eq!(
        world.control.open_exchanges(),
        0,
        "a refused tunnel is kept"
    );
}

#[tokio::test]
async fn a_tunnels_name_is_told_in_its_canonical_form() {
    let world = World::new().await;
    for target in ["KEY.Test:443", "key.test.:443"] {
        match world.ask(&Ask::connect(target)).await {
            Ok(allowed) => assert_eq!(allowed.metadata["target"], "key.test:443", "{target}"),
            Err(refused) => assert_eq!(refused.reason(), "host_invalid", "{target}"),
        }
    }
    let allowed = world.ask(&Ask::connect("KEY.Test:443")).await;
    assert_eq!(allowed.unwrap().metadata["host"], "key.test");
}

#[tokio::test]
async fn a_captured_connection_is_judged_by_its_server_name_and_by_nothing_that_it_sends() {
    let world = World::new().await;
    let guest = world.guest().await;
    let captured = |authority: &str| Ask::of("transparent", "CONNECT", authority, "");
    let allowed = world.ask(&captured("key.test:443")).await.expect("bumped");
    assert_eq!(allowed.metadata["treatment"], "bump");
    assert_eq!(allowed.metadata["target"], "key.test:443");
    // Nobody but Envoy wrote this head: what stands there speaks for nobody.
    let allowed = world
        .ask(&captured("key.test:443").proxied_by(&guest))
        .await
        .expect("bumped");
    assert!(!allowed.metadata.contains_key("session"));
    for (authority, code, status) in [
        ("-:443", ServerNameMissing, 403),
        (":443", ServerNameMissing, 403),
        ("key.test", HostInvalid, 400),
        ("key.test:none", HostInvalid, 400),
        ("key.test:0", HostInvalid, 400),
        ("key.test:8443", PortNotAllowed, 403),
        ("x.test:443", DestinationNotAllowed, 403),
        ("10.0.0.7:443", IpLiteral, 403),
        ("pass.test:443", TokenMissing, 401),
    ] {
        let ask = captured(authority).proxied_by(&guest);
        let refused = world.ask(&ask).await.expect_err(authority);
        refused.is(code, status, authority);
        let record = world.record(refused.id());
        assert_eq!(record.entry, Entry::Transparent, "{authority}");
        assert!(
            refused.field("proxy-authenticate").is_empty(),
            "{authority}"
        );
    }
}

#[tokio::test]
async fn a_tunnel_holds_its_place_among_its_sessions_until_it_ends() {
    let world = World::with(|config| {
        config["sessions"]["limits"]["concurrent_connections"] = 1.into();
    })
    .await;
    let (guest, other) = (world.guest().await, world.guest().await);
    let first = world.tunnel("key.test:443", Some(&guest)).await;
    let again = Ask::connect("pass.test:443").proxied_by(&guest);
    let refused = world.ask(&again).await.expect_err("one is open");
    refused.is(ConnectionLimit, 429, "the second");
    world.tunnel("key.test:443", Some(&other)).await;
    world.log("connect", vec![entry(Some(&first))]).await;
    world.after(Duration::from_secs(1));
    world.ask(&again).await.expect("the first has ended");
}

#[tokio::test]
async fn nothing_is_taken_on_while_the_gateway_stops() {
    let world = World::new().await;
    let tunnel = world.tunnel("both.test:443", None).await;
    world.gateway.core().stopping.cancel();
    for ask in [
        Ask::connect("key.test:443"),
        Ask::forward("both.test", "/"),
        Ask::tunnelled_plain(&tunnel, "both.test", "/"),
    ] {
        let refused = world.ask(&ask).await.expect_err("it stops");
        refused.is(ShuttingDown, 503, "while it stops");
        world.record(refused.id());
    }
}

#[tokio::test]
async fn a_call_that_no_envoy_of_ours_makes_gets_no_verdict() {
    let world = World::new().await;
    for leg in [None, Some(""), Some("inner"), Some("CONNECT")] {
        let mut ask = Ask::connect("key.test:443");
        ask.leg = leg;
        let refused = world.try_ask(&ask).await;
        assert_eq!(
            refused.err().map(|it| it.code()),
            Some(Code::InvalidArgument),
            "{leg:?}"
        );
    }
    assert_eq!(world.control.open_exchanges(), 0);
}
