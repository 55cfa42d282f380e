//! Every decision leaves one record, and without a record nothing credentialed happens.

use std::time::Duration;

use outgate_conformance::{K1, Outcome, Req, Way, World, eventually, record};

outgate_conformance::scenarios! {
    every_decision_leaves_exactly_one_record: [A1];
    a_query_a_field_and_a_body_are_never_in_a_record: [A4];
    a_full_audit_disk_stops_credentialed_requests_and_loses_nothing: [A3];
    the_chain_verifies_and_any_edit_is_found: [A2];
    a_request_that_the_client_abandons_is_on_record: [A1];
}

async fn every_decision_leaves_exactly_one_record() {
    let world = World::new().await;
    let (id, token) = world.session();
    for way in Way::ALL {
        for (host, path, denied) in [
            ("a.test", "/one", None),
            ("rules.test", "/v2/two", Some("path_not_allowed")),
            ("n.test", "/three", None),
        ] {
            let mark = world.mark();
            let req = world.get(way, host, path).bearer(&token);
            let mut channel = world.guest().open(way, &req).await.expect("a connection");
            let answer = channel.send(&req).await.answered();
            assert_eq!(answer.reason(), denied);
            drop(channel);
            let context = format!("{way:?} {host}");
            let found = eventually(Duration::from_secs(3), || {
                let records = world.records_since(mark);
                let of_request: Vec<_> = records
                    .into_iter()
                    .filter(|record| record::names(record, path))
                    .collect();
                (!of_request.is_empty()).then_some(of_request)
            })
            .await
            .unwrap_or_else(|| panic!("{context}: no record: {:#?}", world.records_since(mark)));
            assert_eq!(found.len(), 1, "{context}: {found:#?}");
            let one = &found[0];
            assert!(
                record::names(one, host) && record::names(one, &id),
                "{context}: {one:#}"
            );
            assert_eq!(record::reason(one), denied, "{context}: {one:#}");
            let injected = (host == "a.test").then_some("k1");
            assert_eq!(record::injected(one), injected, "{context}: {one:#}");
            if let Some(request_id) = answer.headers.get("x-request-id") {
                assert!(record::names(one, request_id), "{context}: {one:#}");
            }
        }
    }
}

async fn a_query_a_field_and_a_body_are_never_in_a_record() {
    let world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        let req = Req::get("a.test", world.port(way), "/p?q=query-marker")
            .method("POST")
            .bearer(&token)
            .header("x-f", "field-marker")
            .body(outgate_conformance::ReqBody::Bytes(b"body-marker".to_vec()));
        assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let text = format!("{:?}", world.plane().audit_records());
    for marker in ["query-marker", "field-marker", "body-marker", K1, &token] {
        assert!(!text.contains(marker), "{marker} is in the audit trail");
    }
}

async fn a_full_audit_disk_stops_credentialed_requests_and_loses_nothing() {
    let world = World::new().await;
    let (_, token) = world.session();
    let gateway = world.plane().gateway();
    for way in Way::ALL {
        let answer = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert_eq!(answer.answered().status, 200, "{way:?}");
    }
    let file = gateway.state().join("audit/audit.jsonl");
    let size = std::fs::metadata(&file).expect("the audit file").len();
    gateway.limit_file_size(Some(size + 10));
    // The store finds out by failing to write; from then on nothing credentialed leaves.
    let mut refused = false;
    for _ in 0..100 {
        let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
        if world.guest().send(Way::TunnelH1, &req).await.reason() == Some("audit_unavailable") {
            refused = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(refused, "requests go on without a record");
    for way in Way::ALL {
        let before = world.seen();
        let outcome = world
            .guest()
            .send(way, &world.get(way, "a.test", "/").bearer(&token))
            .await;
        assert_eq!(
            outcome.reason(),
            Some("audit_unavailable"),
            "{way:?}: {outcome:?}"
        );
        assert_eq!(world.seen(), before, "{way:?}: sent all the same");
    }
    gateway.limit_file_size(None);
    let mut recovered = false;
    for _ in 0..100 {
        let req = world.get(Way::TunnelH1, "a.test", "/").bearer(&token);
        let outcome = world.guest().send(Way::TunnelH1, &req).await;
        if matches!(&outcome, Outcome::Answered(answer) if answer.status == 200) {
            recovered = true;
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(recovered, "it does not recover when there is room again");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let records = world.plane().audit_records();
    assert!(
        records
            .iter()
            .any(|one| record::reason(one) == Some("audit_unavailable")),
        "the refusals are on record once there is room"
    );
    let verify = gateway.command(&["audit", "verify"]);
    assert_eq!(verify.code, Some(0), "{verify:?}");
}

async fn the_chain_verifies_and_any_edit_is_found() {
    let mut world = World::new().await;
    let (_, token) = world.session();
    for way in Way::ALL {
        for host in ["a.test", "x.test"] {
            let _ = world
                .guest()
                .send(way, &world.get(way, host, "/").bearer(&token))
                .await;
        }
    }
    world.plane().begin_stop();
    assert_eq!(
        world.plane_mut().wait(Duration::from_secs(8)).code(),
        Some(0)
    );
    let gateway = world.plane().gateway();
    let verify = || gateway.command(&["audit", "verify", "--json"]);
    assert_eq!(verify().code, Some(0), "{:?}", verify());
    let file = gateway.state().join("audit/audit.jsonl");
    let good = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    assert!(lines.len() >= 6, "{good}");
    let edited = good.replacen("x.test", "y.test", 1);
    let without_second: String = lines
        .iter()
        .enumerate()
        .filter(|(index, _)| *index != 1)
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    let swapped: String = swapped.iter().map(|line| format!("{line}\n")).collect();
    for (what, text) in [
        ("an edit", edited),
        ("a gap", without_second),
        ("a swap", swapped),
    ] {
        assert_ne!(text, good, "{what}: the test changes something");
        std::fs::write(&file, text).unwrap();
        assert_ne!(verify().code, Some(0), "{what} went unnoticed");
    }
    std::fs::write(&file, &good).unwrap();
    assert_eq!(verify().code, Some(0));
}

async fn a_request_that_the_client_abandons_is_on_record() {
    let world = World::new().await;
    let (id, token) = world.session();
    for way in Way::ALL {
        let mark = world.mark();
        let req = world
            .get(way, "a.test", "/sse?n=1000&every_ms=10")
            .bearer(&token);
        let mut channel = world.guest().open(way, &req).await.expect("a connection");
        let mut stream = channel.start(&req).await.expect("a head");
        stream.next().await.expect("an event");
        drop(stream);
        drop(channel);
        let found = eventually(Duration::from_secs(5), || {
            let records = world.records_since(mark);
            records
                .into_iter()
                .find(|one| record::names(one, "/sse") && record::names(one, &id))
        });
        assert!(found.await.is_some(), "{way:?}: no record of it");
    }
}
