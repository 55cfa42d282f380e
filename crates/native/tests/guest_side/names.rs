//! The name server: allowed names and their addresses, and nothing else; every question in the audit trail, once.

use std::net::{IpAddr, Ipv6Addr};

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::DnsAnswer;
use serde_json::json;

use crate::{
    dns_wire::{
        A, AAAA, NO_ERROR, NO_SUCH_NAME, SERVER_FAILURE, question, question_with_edns, read,
    },
    world::{Setup, World},
};

/// NS, CNAME, SOA, PTR, MX, TXT, SRV, DS, SVCB, HTTPS, AXFR, ANY, CAA, and one that does not exist.
const OTHER_TYPES: [u16; 14] = [2, 5, 6, 12, 15, 16, 33, 43, 64, 65, 252, 255, 257, 65_000];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn world(attribution: Attribution) -> World {
    let world = World::with(Setup::new(attribution).config(|config, ports| {
        config["resolver"]["hosts"] = json!({
            "mapped.test": ["127.0.0.1", "93.184.216.34", "2606:4700::1"],
            "private.test": "10.0.0.1",
            "mixed.test": ["10.0.0.1", "93.184.216.34", "::1", "fd00::1", "169.254.169.254", "::ffff:10.0.0.1"],
            "unlisted.test": "93.184.216.34",
        });
        for host in ["mapped.test", "private.test", "mixed.test", "broken.test", "public.test", "gone.test"] {
            let rule = json!({ "host": host, "ports": [ports.tls], "posture": "pass-through" });
            config["destinations"].as_array_mut().unwrap().push(rule);
        }
    }))
    .await;
    let public = vec![
        ip("93.184.216.34"),
        ip("2606:4700::2"),
        ip("10.1.2.3"),
        ip("fe80::1"),
    ];
    world
        .dns
        .set("public.test", DnsAnswer::Addresses(public, 86_400));
    world.dns.set("broken.test", DnsAnswer::Broken);
    world
}

#[tokio::test]
async fn allowed_names_are_answered_with_the_addresses_that_may_be_dialled() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = world(attribution).await;
        for (name, kind, expected) in [
            ("mapped.test", A, &["127.0.0.1", "93.184.216.34"][..]),
            ("mapped.test", AAAA, &["2606:4700::1"][..]),
            ("a.test", A, &["127.0.0.1"]),
            ("a.test", AAAA, &[]),
            ("one.wild.test", A, &["127.0.0.1"]),
            ("public.test", A, &["93.184.216.34"]),
            ("public.test", AAAA, &["2606:4700::2"]),
            ("mixed.test", A, &["93.184.216.34"]),
            ("mixed.test", AAAA, &[]),
            // As sent: a client that varies the letter case checks that it comes back.
            ("MaPPed.TesT", A, &["127.0.0.1", "93.184.216.34"]),
        ] {
            let expected: Vec<IpAddr> = expected.iter().map(|text| ip(text)).collect();
            for (edns, over_tcp) in [(false, false), (true, false), (false, true)] {
                let context = format!("{attribution:?} {name} {kind} edns {edns} tcp {over_tcp}");
                let mark = world.mark();
                let packet = if edns {
                    question_with_edns(77, name, kind)
                } else {
                    question(77, name, kind)
                };
                let answer = if over_tcp {
                    world.ask_over_tcp(&packet).await
                } else {
                    world.ask(&packet).await
                };
                let answer = read(&answer.expect(&context));
                assert!(answer.is_answer && answer.recursion_available, "{context}");
                assert_eq!((answer.id, answer.code), (77, NO_ERROR), "{context}");
                assert_eq!(answer.name, name, "{context}");
                assert_eq!(answer.addresses, expected, "{context}");
                assert_eq!(answer.records, expected.len(), "{context}");
                assert!(answer.longest_ttl <= 60, "{context}: {answer:?}");
                assert_eq!(answer.reason, None, "{context}");
                let record = world.record(mark, &context, |_| true).await;
                assert_eq!(
                    (record.entry, record.verdict),
                    (Entry::Dns, Verdict::Allowed),
                    "{context}"
                );
                assert!(record.host.unwrap().eq_ignore_ascii_case(name), "{context}");
                assert!(
                    record.rule.unwrap().starts_with("destinations["),
                    "{context}"
                );
                let known = record.session.as_ref() == Some(world.session.id());
                assert_eq!(known, attribution == Attribution::BySocket, "{context}");
            }
        }
        assert!(
            !world.dns.was_asked_for("mapped.test"),
            "a name of the file was asked for"
        );
        world.finish().await;
    }
}

#[tokio::test]
async fn an_answer_leaves_from_the_address_that_was_asked() {
    let world = world(Attribution::BySocket).await;
    let packet = question(5, "mapped.test", A);
    let servers = ["127.0.0.1", "127.0.0.2", "127.0.0.53", "127.8.8.8"].map(ip);
    // The clients are connected, so that the kernel drops an answer from anywhere else.
    for server in servers.into_iter().chain([Ipv6Addr::LOCALHOST.into()]) {
        let answer = world.ask_at(server, &packet).await;
        assert_eq!(
            read(&answer.unwrap_or_else(|| panic!("{server}"))).id,
            5,
            "{server}"
        );
    }
    world.finish().await;
}

#[tokio::test]
async fn an_unlisted_name_does_not_exist_and_nobody_hears_of_it() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = world(attribution).await;
        let label = "c2VjcmV0".repeat(7);
        let long = format!("{label}.{label}.{label}.a.test");
        for (name, code) in [
            ("x.test", DenyCode::DestinationNotAllowed),
            ("unlisted.test", DenyCode::DestinationNotAllowed),
            ("secret.a.test", DenyCode::DestinationNotAllowed),
            ("two.one.wild.test", DenyCode::DestinationNotAllowed),
            ("wild.test", DenyCode::DestinationNotAllowed),
            ("xwild.test", DenyCode::DestinationNotAllowed),
            ("closed.test", DenyCode::DestinationNotAllowed),
            ("a.test.x.test", DenyCode::DestinationNotAllowed),
            (&long, DenyCode::DestinationNotAllowed),
            ("test", DenyCode::DestinationNotAllowed),
            ("", DenyCode::HostInvalid),
            ("_dmarc.a.test", DenyCode::DestinationNotAllowed),
            ("a test.test", DenyCode::HostInvalid),
            ("1.0.0.127", DenyCode::IpLiteral),
            ("0x7f000001", DenyCode::IpLiteral),
            (
                "34.216.184.93.in-addr.arpa",
                DenyCode::DestinationNotAllowed,
            ),
        ] {
            for kind in [A, AAAA].into_iter().chain(OTHER_TYPES) {
                let context = format!("{attribution:?} {name:?} {kind}");
                let mark = world.mark();
                let plain = read(&world.ask(&question(9, name, kind)).await.expect(&context));
                assert_eq!(
                    (plain.id, plain.code, plain.records),
                    (9, NO_SUCH_NAME, 0),
                    "{context}"
                );
                assert_eq!(plain.reason, None, "{context}: EDNS was not asked for");
                let record = world.refusal(mark, Entry::Dns, code, &context).await;
                // In presentation form (RFC 1035 section 5.1).
                let written = name.replace(' ', "\\040");
                assert_eq!(record.host.as_deref(), Some(&*written), "{context}");
                let known = record.session.as_ref() == Some(world.session.id());
                assert_eq!(known, attribution == Attribution::BySocket, "{context}");
                world.assert_nothing_looked_up(mark, &context);
            }
            let mark = world.mark();
            let told = read(&world.ask(&question_with_edns(9, name, A)).await.unwrap());
            assert_eq!(told.code, NO_SUCH_NAME, "{name}");
            assert_eq!(told.reason, Some((15, code.as_str().to_owned())), "{name}");
            world.refusal(mark, Entry::Dns, code, name).await;
            assert_eq!(world.records_since(mark).len(), 1, "{name}");
        }
        assert_eq!(
            world.dns.queries(),
            [],
            "the upstream resolver heard something"
        );
        world.finish().await;
    }
}

#[tokio::test]
async fn an_allowed_name_has_no_records_but_addresses() {
    let world = world(Attribution::BySocket).await;
    for name in ["a.test", "mapped.test", "public.test", "one.wild.test"] {
        for kind in OTHER_TYPES {
            let context = format!("{name} {kind}");
            let mark = world.mark();
            for packet in [question(3, name, kind), question_with_edns(3, name, kind)] {
                let answer = read(&world.ask(&packet).await.expect(&context));
                assert_eq!((answer.code, answer.records), (NO_ERROR, 0), "{context}");
            }
            let records = world.records_since(mark);
            assert_eq!(records.len(), 2, "{context}");
            assert!(
                records.iter().all(|it| it.verdict == Verdict::Allowed),
                "{context}"
            );
        }
    }
    assert_eq!(
        world.dns.queries(),
        [],
        "the upstream resolver heard something"
    );
    world.finish().await;
}

#[tokio::test]
async fn an_address_that_is_never_dialled_is_never_told() {
    let world = world(Attribution::BySocket).await;
    let forms = [
        "10.0.0.1",
        "127.0.0.2",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "192.168.1.1",
        "::1",
        "fd00:ec2::254",
        "fe80::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
        "::",
    ];
    world
        .dns
        .set("public.test", DnsAnswer::Addresses(forms.map(ip).into(), 0));
    for (name, kind) in [
        ("private.test", A),
        ("private.test", AAAA),
        ("public.test", A),
        ("public.test", AAAA),
    ] {
        let context = format!("{name} {kind}");
        let mark = world.mark();
        let answer = read(&world.ask(&question_with_edns(3, name, kind)).await.unwrap());
        assert_eq!(
            (answer.code, answer.records),
            (NO_SUCH_NAME, 0),
            "{context}: {answer:?}"
        );
        assert_eq!(
            answer.reason,
            Some((15, "address_denied".to_owned())),
            "{context}"
        );
        world
            .refusal(mark, Entry::Dns, DenyCode::AddressDenied, &context)
            .await;
    }
    // Rebinding: each answer is vetted on its own.
    let turns = vec![vec![ip("93.184.216.34")], vec![ip("127.0.0.2")]];
    world.dns.set("n.test", DnsAnswer::Alternating(turns));
    let mut told = Vec::new();
    for _ in 0..6 {
        told.extend(read(&world.ask(&question(3, "n.test", A)).await.unwrap()).addresses);
    }
    assert!(
        !told.is_empty() && told.iter().all(|address| *address == ip("93.184.216.34")),
        "{told:?}"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_resolver_that_fails_is_a_failure_and_no_answer() {
    let world = world(Attribution::BySocket).await;
    let mark = world.mark();
    let answer = read(
        &world
            .ask_over_tcp(&question_with_edns(3, "broken.test", A))
            .await
            .unwrap(),
    );
    assert_eq!((answer.code, answer.records), (SERVER_FAILURE, 0));
    world
        .refusal(mark, Entry::Dns, DenyCode::NameNotResolved, "broken")
        .await;
    world.finish().await;
}

#[tokio::test]
async fn more_addresses_than_fit_are_cut_to_what_does() {
    let world = world(Attribution::BySocket).await;
    let many = |count: u8| {
        (0..count)
            .map(|last| IpAddr::from([93, 184, 216, last]))
            .collect()
    };
    world
        .dns
        .set("public.test", DnsAnswer::Addresses(many(20), 60));
    let bytes = world.ask(&question(3, "public.test", A)).await.unwrap();
    assert!(bytes.len() <= 512, "{}", bytes.len());
    let told = read(&bytes).addresses;
    assert!((1..=8).contains(&told.len()), "{told:?}");
    world.finish().await;
}

#[tokio::test]
async fn no_token_reaches_a_record_by_way_of_a_name() {
    let world = world(Attribution::BySocket).await;
    let token = world.token();
    let labels: Vec<_> = token
        .as_bytes()
        .chunks(60)
        .map(|part| std::str::from_utf8(part).unwrap())
        .collect();
    // A whole token is longer than a name may be; its parts are what fits.
    for parts in labels.chunks(3) {
        let name = format!("{}.x.test", parts.join("."));
        let mark = world.mark();
        let answer = read(&world.ask(&question(3, &name, A)).await.unwrap());
        assert_eq!(answer.code, NO_SUCH_NAME);
        let record = world.record(mark, "a token in a name", |_| true).await;
        assert_ne!(record.verdict, Verdict::Allowed);
    }
    let mark = world.mark();
    let name = format!("{}.{}.x.test", labels[0], labels[1]);
    world.ask(&question(3, &name, A)).await.unwrap();
    let record = world
        .record(mark, "the beginning of a token", |_| true)
        .await;
    assert_eq!(record.host.as_deref(), Some("[session token]"));
    assert_eq!(world.dns.queries(), []);
    world.finish().await;
}
