//! Every event of every class against the published schema: what it requires, which attributes and values it knows.
//! `ocsf-1.7.0.json` names its source and licence.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test helper fails loudly"
)]

mod common;

use std::{fs, sync::Arc, time::Duration};

use common::{DAY, NOW, SOON, decision, options_at, record};
use outgate_audit::{AuditLog, OCSF_VERSION, RECORDS_FILE, Rotation, show, to_ocsf};
use outgate_clock::FakeClock;
use outgate_journey::{
    denial::DenyCode,
    policy::CredentialName,
    record::{
        ActionRecord, AnomalyRecord, AuditEvent, AuditSink, Ending, Entry, Operator, OperatorKind,
        SessionChange, SessionRecord, Verdict,
    },
    session::{SessionEnd, SessionId, UnixSeconds},
    tripwire::{Budget, Overrun},
};
use serde_json::Value;

fn schema() -> Value {
    let schema: Value = serde_json::from_str(include_str!("ocsf-1.7.0.json")).unwrap();
    assert_eq!(schema["version"], OCSF_VERSION);
    schema
}

fn check_event(schema: &Value, event: &Value) {
    let classes = schema["classes"].as_object().unwrap();
    let (name, class) = classes
        .iter()
        .find(|(_, class)| class["uid"] == event["class_uid"])
        .unwrap_or_else(|| panic!("no such class: {event}"));
    check_object(schema, class, event, name);
}

fn check_object(schema: &Value, kind: &Value, object: &Value, at: &str) {
    let given = object
        .as_object()
        .unwrap_or_else(|| panic!("{at}: {object}"));
    let known = kind["attributes"].as_object().unwrap();
    for (name, attribute) in known {
        let missing = attribute["required"] == true && !given.contains_key(name);
        assert!(!missing, "{at}.{name} is required: {object}");
    }
    if let Some(one_of) = kind["constraints"]["at_least_one"].as_array() {
        let has = |name: &Value| given.contains_key(name.as_str().unwrap());
        assert!(
            one_of.iter().any(has),
            "{at} needs one of {one_of:?}: {object}"
        );
    }
    for (name, value) in given {
        let at = format!("{at}.{name}");
        let attribute = known
            .get(name)
            .unwrap_or_else(|| panic!("{at} is not of the schema"));
        match attribute["array"] == true {
            false => check_value(schema, attribute, value, &at),
            true => {
                let values = value.as_array().unwrap_or_else(|| panic!("{at} is a list"));
                values
                    .iter()
                    .for_each(|value| check_value(schema, attribute, value, &at));
            }
        }
    }
}

fn check_value(schema: &Value, attribute: &Value, value: &Value, at: &str) {
    if let Some(values) = attribute["enum"].as_array() {
        assert!(
            values.contains(value),
            "{at}: {value} is none of {values:?}"
        );
    }
    let kind = attribute["type"].as_str().unwrap();
    match kind.strip_prefix("object:") {
        Some("object") => assert!(value.is_object(), "{at}"),
        Some(name) => {
            let object = &schema["objects"][name];
            assert!(object.is_object(), "{at}: the excerpt lacks {name}");
            check_object(schema, object, value, at);
        }
        None => match kind {
            "integer_t" | "long_t" | "timestamp_t" | "port_t" => assert!(value.is_u64(), "{at}"),
            "boolean_t" => assert!(value.is_boolean(), "{at}"),
            _ => assert!(value.as_str().is_some_and(|text| !text.is_empty()), "{at}"),
        },
    }
}

fn check(schema: &Value, event: AuditEvent) -> Value {
    let event = serde_json::to_value(to_ocsf(&event)).unwrap();
    check_event(schema, &event);
    event
}

const ENTRIES: [Entry; 11] = [
    Entry::Connect,
    Entry::AbsoluteForm,
    Entry::Bumped,
    Entry::TunnelledPlain,
    Entry::Transparent,
    Entry::TransparentPlain,
    Entry::Dns,
    Entry::Namespace,
    Entry::Inbound,
    Entry::InboundPlain,
    Entry::Listener,
];

#[test]
fn every_decision_is_an_event_of_the_schema() {
    let schema = schema();
    let verdicts = DenyCode::ALL.iter().copied().map(Verdict::Denied);
    let verdicts: Vec<Verdict> = verdicts.chain([Verdict::Allowed]).collect();
    let endings = [
        Ending::Completed,
        Ending::Aborted,
        Ending::Cut(DenyCode::SessionRevoked),
    ];
    for entry in ENTRIES {
        for verdict in &verdicts {
            for ending in endings {
                for method in [None, Some("GET"), Some("PROPFIND")] {
                    for bare in [true, false] {
                        let mut record = match bare {
                            true => outgate_journey::record::DecisionRecord::begin(
                                "r".to_owned(),
                                0,
                                entry,
                                "[::1]:1".parse().unwrap(),
                            ),
                            false => decision(1),
                        };
                        if !bare {
                            record.upstream = Some("192.0.2.1:443".parse().unwrap());
                            record.injected = Some(CredentialName::new("x".to_owned()));
                            record.rule = Some("rule".to_owned());
                            record.status = Some(200);
                            record.detail = "detail".to_owned();
                            record.http_version = Some("HTTP/2");
                            record.token_id = Some("t".into());
                            record.posture = Some("bump");
                            record.caller = Some(outgate_journey::record::Caller {
                                issuer: "https://idp.test".into(),
                                subject: "ann".into(),
                            });
                        }
                        (record.entry, record.verdict, record.ending) = (entry, *verdict, ending);
                        record.method = method.map(str::to_owned);
                        check(&schema, AuditEvent::Decision(Arc::new(record)));
                    }
                }
            }
        }
    }
}

fn operator(kind: OperatorKind, name: &str) -> Operator {
    Operator {
        name: name.to_owned(),
        kind,
        tenant: (kind == OperatorKind::Token).then(|| "team-a".to_owned()),
    }
}

#[test]
fn every_action_is_api_activity() {
    let schema = schema();
    let operations = [
        ("session.create", 1),
        ("deny.add", 1),
        ("session.list", 2),
        ("session.renew", 3),
        ("keys.rotate", 3),
        ("session.end", 4),
        ("deny.remove", 4),
        ("kill.all", 99),
    ];
    for (operation, activity) in operations {
        for outcome in [Ok(()), Err("unknown_session")] {
            for client in [None, Some("198.51.100.7:4000".parse().unwrap())] {
                let record = ActionRecord {
                    request_id: "req-1".to_owned(),
                    time_unix_ms: 1_790_000_000_000,
                    operator: operator(OperatorKind::Token, "ci"),
                    client,
                    operation,
                    target: client.map(|_| "s-1".to_owned()),
                    outcome,
                    status: client.map(|_| 200),
                    detail: String::new(),
                };
                let event = check(&schema, AuditEvent::Action(Box::new(record)));
                assert_eq!(event["activity_id"], activity, "{operation}");
                assert_eq!(event["status_code"].as_str(), outcome.err());
                assert_eq!(event["action_id"], if outcome.is_ok() { 1 } else { 2 });
                assert_eq!(event["actor"]["user"]["name"], "ci");
                assert_eq!(event["unmapped"]["identity"], "token");
                assert_eq!(event["unmapped"]["tenant"], "team-a");
            }
        }
    }
    let nobody = ActionRecord {
        request_id: String::new(),
        time_unix_ms: 0,
        operator: operator(OperatorKind::Nobody, ""),
        client: None,
        operation: "session.create",
        target: None,
        outcome: Err("unauthenticated"),
        status: None,
        detail: "x".repeat(5000),
    };
    check(&schema, AuditEvent::Action(Box::new(nobody)));
}

fn session_record(change: SessionChange, full: bool) -> SessionRecord {
    SessionRecord {
        time_unix_ms: 1_790_000_000_000,
        session: SessionId::parse("s-1").unwrap(),
        change,
        token_id: full.then(|| "t-1".into()),
        expires: full.then_some(UnixSeconds(1_790_003_600)),
        issuer: full.then(|| "https://idp.example.org".into()),
        subject: full.then(|| "agent-7".into()),
        policy: full.then(|| "read-only".to_owned()),
        by: Operator::itself(),
    }
}

#[test]
fn the_life_of_a_session_is_authentication() {
    let schema = schema();
    let changes = [(SessionChange::Began, 1), (SessionChange::Renewed, 5)];
    let ends = SessionEnd::ALL
        .iter()
        .map(|end| (SessionChange::Ended(*end), 2));
    for (change, activity) in changes.into_iter().chain(ends) {
        for full in [false, true] {
            let event = check(
                &schema,
                AuditEvent::Session(Box::new(session_record(change, full))),
            );
            assert_eq!(event["activity_id"], activity, "{change:?}");
            assert_eq!(event["session"]["uid"], "s-1");
            let cause = match change {
                SessionChange::Ended(end) => Some(end.as_str()),
                _ => None,
            };
            assert_eq!(event["status_code"].as_str(), cause);
            assert_eq!(event["session"]["expiration_reason"].as_str(), cause);
            if full {
                assert_eq!(event["session"]["expiration_time"], 1_790_003_600_000_u64);
                assert_eq!(event["user"]["name"], "agent-7");
                assert_eq!(event["policy"]["name"], "read-only");
            }
        }
    }
}

fn anomaly(budget: Budget, armed: bool) -> AnomalyRecord {
    AnomalyRecord {
        time_unix_ms: 1_790_000_000_000,
        session: SessionId::parse("s-1").unwrap(),
        overrun: Overrun {
            budget,
            limit: 10,
            seen: 11,
        },
        window_seconds: 3600,
        armed,
    }
}

#[test]
fn an_anomaly_is_a_detection_finding() {
    let schema = schema();
    for budget in [
        Budget::BytesOut,
        Budget::Requests,
        Budget::DistinctDestinations,
    ] {
        for armed in [false, true] {
            let event = check(
                &schema,
                AuditEvent::Anomaly(Box::new(anomaly(budget, armed))),
            );
            assert_eq!(event["severity_id"], if armed { 4 } else { 3 });
            assert_eq!(event["disposition_id"], if armed { 24 } else { 19 });
            assert_eq!(event["unmapped"]["budget"], budget.as_str());
            assert_eq!(event["unmapped"]["seen"], 11);
            assert_eq!(event["actor"]["session"]["uid"], "s-1");
        }
    }
}

#[test]
fn what_the_log_says_of_itself_is_application_lifecycle() {
    let (schema, dir) = (schema(), tempfile::tempdir().unwrap());
    let clock = Arc::new(FakeClock::at(NOW));
    let rotation = Rotation {
        size: None,
        age: Some(Duration::from_secs(3600)),
    };
    let log = AuditLog::open(dir.path(), options_at(&clock, rotation)).unwrap();
    for day in 0..3 {
        log.record(record(day));
        log.flush(SOON).unwrap();
        clock.advance(DAY);
    }
    log.record(record(9));
    log.close(SOON).unwrap();
    let live = dir.path().join(RECORDS_FILE);
    let mut bytes = fs::read(&live).unwrap();
    bytes.extend_from_slice(b"torn");
    fs::write(&live, bytes).unwrap();
    drop(AuditLog::open(dir.path(), options_at(&clock, rotation)).unwrap());
    let mut names: Vec<String> = Vec::new();
    for shown in show(dir.path()).unwrap() {
        let line: Value = serde_json::from_str(&shown.unwrap().raw).unwrap();
        check_event(&schema, &line["record"]);
        names.extend(line["record"]["activity_name"].as_str().map(str::to_owned));
    }
    names.sort();
    names.dedup();
    assert_eq!(
        names,
        [
            "Audit day sealed",
            "Audit log continued",
            "Audit log created",
            "Audit log repaired"
        ]
    );
}

#[test]
fn each_kind_has_its_one_line_form() {
    let dir = tempfile::tempdir().unwrap();
    let log = common::open(dir.path());
    log.record(AuditEvent::Action(Box::new(ActionRecord {
        request_id: "req-1".to_owned(),
        time_unix_ms: 1_790_000_000_000,
        operator: operator(OperatorKind::Oidc, "ann@example.org"),
        client: None,
        operation: "session.end",
        target: Some("s-1".to_owned()),
        outcome: Err("unknown_session"),
        status: Some(404),
        detail: String::new(),
    })));
    let ended = SessionChange::Ended(SessionEnd::Idle);
    log.record(AuditEvent::Session(Box::new(session_record(ended, true))));
    log.record(AuditEvent::Anomaly(Box::new(anomaly(
        Budget::BytesOut,
        true,
    ))));
    log.close(SOON).unwrap();
    let shown: Vec<String> = show(dir.path())
        .unwrap()
        .skip(1)
        .map(|shown| shown.unwrap().to_string())
        .collect();
    assert_eq!(
        shown,
        [
            "2026-09-21T14:13:20.000Z denied  unknown_session - session.end oidc:ann@example.org s-1 404",
            "2026-09-21T14:13:20.000Z session idle s-1 ended itself:outgate - -",
            "2026-09-21T14:13:20.000Z anomaly - s-1 bytes_out - - -",
        ]
    );
}
