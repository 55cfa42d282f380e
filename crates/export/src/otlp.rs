//! Batches as OTLP logs, in the JSON encoding of OTLP 1.x (`ExportLogsServiceRequest`: keys in lower camel case, 64-bit
//! numbers as strings, enums as numbers).
//!
//! The body of a log record is the OCSF event as a string, byte for byte as it stands in the trail: hashes are over
//! these bytes, so whoever holds the logs can check the chain. A structured body would lose them, and every collector
//! can take a JSON string apart. What one filters by stands beside it, as attributes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    batch::Batch,
    trail::{Line, TrailFault},
};

/// The request's body.
pub(crate) fn encode(log_id: &str, batch: &Batch) -> Result<Vec<u8>, TrailFault> {
    let lines = batch.lines()?;
    let request = Request {
        resource_logs: [ResourceLogs {
            resource: Resource {
                attributes: [
                    text("service.name", "outgate"),
                    text("service.version", env!("CARGO_PKG_VERSION")),
                    text("service.instance.id", log_id),
                ],
            },
            scope_logs: [ScopeLogs {
                scope: Scope {
                    name: "outgate.audit",
                    version: env!("CARGO_PKG_VERSION"),
                },
                log_records: lines.iter().map(|line| log_record(log_id, line)).collect(),
            }],
        }],
    };
    serde_json::to_vec(&request).map_err(|error| TrailFault::Unreadable(error.to_string()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_logs: [ResourceLogs<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'a> {
    resource: Resource<'a>,
    scope_logs: [ScopeLogs<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: [KeyValue<'a>; 3],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'a> {
    scope: Scope,
    log_records: Vec<LogRecord<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LogRecord<'a> {
    #[serde(serialize_with = "as_text")]
    time_unix_nano: u64,
    /// The same, as the data model asks of a source that observes itself: a record that is sent twice is the same.
    #[serde(serialize_with = "as_text")]
    observed_time_unix_nano: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity_number: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    severity_text: Option<&'static str>,
    event_name: &'static str,
    body: Value<'a>,
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'static str,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Value<'a> {
    StringValue(Cow<'a, str>),
    #[serde(serialize_with = "as_text")]
    IntValue(u64),
}

fn as_text<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn text<'a>(key: &'static str, value: impl Into<Cow<'a, str>>) -> KeyValue<'a> {
    KeyValue {
        key,
        value: Value::StringValue(value.into()),
    }
}

const fn number<'a>(key: &'static str, value: u64) -> KeyValue<'a> {
    KeyValue {
        key,
        value: Value::IntValue(value),
    }
}

fn log_record<'a>(log_id: &'a str, line: &Line<'a>) -> LogRecord<'a> {
    // An event that is not as expected is sent all the same, with what is known of it.
    let facts: Facts<'a> = serde_json::from_str(line.record.get()).unwrap_or_default();
    let nanos = facts.time.unwrap_or(0).saturating_mul(1_000_000);
    let (severity_number, severity_text) = severity(facts.severity_id).unzip();
    let mut attributes = vec![
        text("log.record.uid", format!("{log_id}-{}", line.seq)),
        text("outgate.audit.log_id", log_id),
        number("outgate.audit.seq", line.seq),
        text("outgate.audit.prev", line.prev),
        text("outgate.audit.hash", line.hash),
    ];
    let numbers = [
        ("ocsf.class_uid", facts.class_uid),
        ("ocsf.type_uid", facts.type_uid),
        ("ocsf.action_id", facts.action_id),
        ("ocsf.status_id", facts.status_id),
    ];
    attributes.extend(
        numbers
            .into_iter()
            .filter_map(|(key, value)| Some(number(key, value?))),
    );
    let session = facts.session_id();
    let texts = [
        ("ocsf.status_code", facts.status_code),
        (
            "ocsf.metadata.uid",
            facts.metadata.and_then(|named| named.uid),
        ),
        ("session.id", session),
    ];
    attributes.extend(
        texts
            .into_iter()
            .filter_map(|(key, value)| Some(text(key, value?))),
    );
    LogRecord {
        time_unix_nano: nanos,
        observed_time_unix_nano: nanos,
        severity_number,
        severity_text,
        event_name: "outgate.audit",
        body: Value::StringValue(Cow::Borrowed(line.record.get())),
        attributes,
    }
}

/// What is known of an event without knowing its class.
#[derive(Default, Deserialize)]
struct Facts<'a> {
    time: Option<u64>,
    severity_id: Option<u64>,
    class_uid: Option<u64>,
    type_uid: Option<u64>,
    action_id: Option<u64>,
    status_id: Option<u64>,
    #[serde(borrow)]
    status_code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    metadata: Option<Named<'a>>,
    #[serde(borrow)]
    actor: Option<Actor<'a>>,
    /// Authentication has it at the top.
    #[serde(borrow)]
    session: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Actor<'a> {
    #[serde(borrow)]
    session: Option<Named<'a>>,
}

#[derive(Deserialize)]
struct Named<'a> {
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    fn session_id(&self) -> Option<Cow<'a, str>> {
        let actor = self.actor.as_ref().and_then(|actor| actor.session.as_ref());
        let named = actor.or(self.session.as_ref());
        named.and_then(|session| session.uid.clone())
    }
}

/// OCSF's severity in the ranges of OTel's data model; none for Unknown and Other, which it does not know either.
const fn severity(ocsf: Option<u64>) -> Option<(u8, &'static str)> {
    match ocsf {
        Some(1) => Some((9, "Informational")),
        Some(2) => Some((13, "Low")),
        Some(3) => Some((17, "Medium")),
        Some(4) => Some((19, "High")),
        Some(5) => Some((21, "Critical")),
        Some(6) => Some((24, "Fatal")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{KeyValue as ProtoKeyValue, any_value},
        logs::v1::{LogRecord as ProtoLogRecord, SeverityNumber},
    };

    use super::*;
    use crate::{
        batch::{Bounds, Supply},
        trail::test_trail::{LOG_ID, TestTrail, hash_of, line},
    };

    fn batch_of(lines: Vec<String>) -> Batch {
        let trail = TestTrail::new([]);
        for (seq, line) in lines.into_iter().enumerate() {
            trail.put(seq as u64, line);
        }
        let mut supply = Supply::new(trail);
        supply.open(None).unwrap();
        let bounds = Bounds {
            records: 1000,
            bytes: usize::MAX,
            until: None,
        };
        supply.batch(bounds).unwrap().unwrap()
    }

    /// Decoded by OpenTelemetry's own types.
    fn decoded(lines: Vec<String>) -> (ExportLogsServiceRequest, Vec<ProtoLogRecord>) {
        let bytes = encode(LOG_ID, &batch_of(lines)).unwrap();
        let request: ExportLogsServiceRequest = serde_json::from_slice(&bytes).unwrap();
        let records = request.resource_logs[0].scope_logs[0].log_records.clone();
        (request, records)
    }

    fn attribute(attributes: &[ProtoKeyValue], key: &str) -> Option<any_value::Value> {
        let mut found = attributes.iter().filter(|pair| pair.key == key);
        let value = found.next()?.value.clone()?.value;
        assert!(found.next().is_none(), "{key} stands twice");
        value
    }

    fn string(text: &str) -> Option<any_value::Value> {
        Some(any_value::Value::StringValue(text.to_owned()))
    }

    fn int(number: i64) -> Option<any_value::Value> {
        Some(any_value::Value::IntValue(number))
    }

    #[test]
    fn an_independent_decoder_reads_what_was_meant() {
        let fields = r#","type_uid":400206,"action_id":2,"status_id":2,"status_code":"destination_not_allowed","metadata":{"uid":"01kd\"q"},"actor":{"session":{"uid":"s-1f4c9a"}},"text":"\u001b[31m é \\ \n""#;
        let first = line(0, fields);
        let (request, records) = decoded(vec![first.clone(), line(1, "")]);
        let resource = request.resource_logs[0]
            .resource
            .clone()
            .unwrap()
            .attributes;
        assert_eq!(attribute(&resource, "service.name"), string("outgate"));
        assert_eq!(attribute(&resource, "service.instance.id"), string(LOG_ID));
        let scope = request.resource_logs[0].scope_logs[0]
            .scope
            .clone()
            .unwrap();
        assert_eq!(scope.name, "outgate.audit");

        assert_eq!(records.len(), 2);
        let record = &records[0];
        assert_eq!(record.time_unix_nano, 1_790_000_000_123_000_000);
        assert_eq!(record.observed_time_unix_nano, record.time_unix_nano);
        assert_eq!(record.severity_number, SeverityNumber::Info as i32);
        assert_eq!(record.event_name, "outgate.audit");
        let (_, body) = first.split_once("\"record\":").unwrap();
        let body = body.strip_suffix('}').unwrap();
        assert_eq!(
            record.body.clone().unwrap().value,
            string(body),
            "byte for byte"
        );
        for (key, wanted) in [
            ("log.record.uid", string(&format!("{LOG_ID}-0"))),
            ("outgate.audit.log_id", string(LOG_ID)),
            ("outgate.audit.seq", int(0)),
            ("outgate.audit.prev", string(&"0".repeat(64))),
            ("outgate.audit.hash", string(&hash_of(0))),
            ("ocsf.class_uid", int(4002)),
            ("ocsf.type_uid", int(400_206)),
            ("ocsf.action_id", int(2)),
            ("ocsf.status_id", int(2)),
            ("ocsf.status_code", string("destination_not_allowed")),
            ("ocsf.metadata.uid", string("01kd\"q")),
            ("session.id", string("s-1f4c9a")),
        ] {
            assert_eq!(attribute(&record.attributes, key), wanted, "{key}");
        }
        assert_eq!(attribute(&records[1].attributes, "session.id"), None);
        assert_eq!(
            attribute(&records[1].attributes, "outgate.audit.seq"),
            int(1)
        );
    }

    #[test]
    fn the_encoding_is_the_one_that_the_specification_asks_for() {
        let bytes = encode(LOG_ID, &batch_of(vec![line(0, "")])).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        let record = &value["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["timeUnixNano"], "1790000000123000000");
        assert_eq!(record["severityNumber"], 9);
        assert!(record["attributes"].as_array().unwrap().iter().any(|pair| *pair
            == serde_json::json!({ "key": "outgate.audit.seq", "value": { "intValue": "0" } })));
    }

    #[test]
    fn severities_and_sessions_are_found_in_every_class() {
        let replaced = |with: &str| line(0, "").replace("\"severity_id\":1", with);
        for (severity_id, wanted) in [
            (0, 0),
            (1, 9),
            (2, 13),
            (3, 17),
            (4, 19),
            (5, 21),
            (6, 24),
            (99, 0),
        ] {
            let (_, records) = decoded(vec![replaced(&format!("\"severity_id\":{severity_id}"))]);
            assert_eq!(records[0].severity_number, wanted, "{severity_id}");
        }
        for fields in [
            r#","actor":{"session":{"uid":"s-1"}}"#,
            r#","actor":{"user":{"name":"x"}},"session":{"uid":"s-1"}"#,
        ] {
            let (_, records) = decoded(vec![line(0, fields)]);
            assert_eq!(
                attribute(&records[0].attributes, "session.id"),
                string("s-1"),
                "{fields}"
            );
        }
        // Nothing of it is as expected, and it is sent all the same.
        let (_, records) = decoded(vec![replaced(r#""severity_id":"high","time":-1"#)]);
        assert_eq!(records[0].time_unix_nano, 0);
        assert_eq!(
            attribute(&records[0].attributes, "outgate.audit.hash"),
            string(&hash_of(0))
        );
    }
}
