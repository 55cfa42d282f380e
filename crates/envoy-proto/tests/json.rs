//! Envoy's configuration, written as JSON, becomes the protobuf that it describes, or is refused with the place.

#![cfg(feature = "reflect")]
#![allow(clippy::unwrap_used, reason = "what helps a test fails it")]

use outgate_envoy_proto::{Problem, any_from_json, check, message_from_json};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};

const LISTENER: &str = "envoy.config.listener.v3.Listener";
const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn listener() -> Value {
    serde_json::from_str(include_str!("listener.json")).unwrap()
}

/// What another reader of the descriptors makes of `bytes`.
fn read_back(type_name: &str, bytes: &[u8]) -> Value {
    let descriptors: &[u8] = include_bytes!("../src/json/descriptors.bin");
    let pool = DescriptorPool::decode(descriptors).unwrap();
    let kind = pool.get_message_by_name(type_name).unwrap();
    let message = DynamicMessage::decode(kind, bytes).unwrap();
    let options = SerializeOptions::new().use_proto_field_name(true);
    message
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap()
}

#[test]
fn a_listener_reads_back_as_it_was_written() {
    let written = listener();
    let any = any_from_json(&written).unwrap();
    assert_eq!(any.type_url, format!("type.googleapis.com/{LISTENER}"));
    let mut expected = written;
    expected.as_object_mut().unwrap().remove("@type");
    assert_eq!(read_back(LISTENER, &any.value), expected);
}

#[test]
fn the_entries_of_a_map_stand_in_the_order_of_their_keys() {
    let metadata = json!({ "filter_metadata": { "c": {}, "a": {}, "d": {}, "b": {} } });
    let bytes = message_from_json("envoy.config.core.v3.Metadata", &metadata).unwrap();
    // filter_metadata = 1 { key = 1, value = 2 {} }
    let entry = |key| [0x0a, 5, 0x0a, 1, key, 0x12, 0];
    assert_eq!(bytes, b"abcd".map(entry).concat());
}

#[test]
fn the_same_json_gives_the_same_bytes() {
    let first = any_from_json(&listener()).unwrap();
    for _ in 0..8 {
        assert_eq!(any_from_json(&listener()).unwrap(), first);
    }
}

#[test]
fn names_in_camel_case_mean_the_same() {
    let snake = json!({ "connect_timeout": "0.250s", "lb_policy": "CLUSTER_PROVIDED" });
    let camel = json!({ "connectTimeout": "0.250s", "lbPolicy": "CLUSTER_PROVIDED" });
    let bytes = message_from_json(CLUSTER, &snake).unwrap();
    assert_eq!(message_from_json(CLUSTER, &camel).unwrap(), bytes);
    assert_eq!(read_back(CLUSTER, &bytes), snake);
}

#[test]
fn an_any_may_be_there_and_empty() {
    let filter = json!({ "config": {}, "disabled": true });
    let bytes = message_from_json("envoy.config.route.v3.FilterConfig", &filter).unwrap();
    assert_eq!(bytes, [0x0a, 0, 0x18, 1]);
    let resource = any_from_json(&json!({})).unwrap_err();
    assert_eq!(resource.problem(), &Problem::Untyped);
}

#[test]
fn a_choice_keeps_a_zero_and_a_plain_field_drops_it() {
    let address = "envoy.config.core.v3.SocketAddress";
    let zero = json!({ "address": "::", "port_value": 0, "ipv4_compat": false });
    let bytes = message_from_json(address, &zero).unwrap();
    let read = read_back(address, &bytes);
    assert_eq!(read, json!({ "address": "::", "port_value": 0 }));
}

#[test]
fn null_is_absence_except_where_any_json_may_stand() {
    let absent = json!({ "name": "a", "connect_timeout": null });
    let bytes = message_from_json(CLUSTER, &absent).unwrap();
    assert_eq!(
        bytes,
        message_from_json(CLUSTER, &json!({ "name": "a" })).unwrap()
    );
    let tree = json!({ "filter_metadata": { "a": { "b": null } } });
    let metadata = "envoy.config.core.v3.Metadata";
    let bytes = message_from_json(metadata, &tree).unwrap();
    assert_eq!(read_back(metadata, &bytes), tree);
}

/// The message type, the JSON, and what is said about it.
fn refused() -> Vec<(&'static str, Value, &'static str)> {
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    vec![
        (
            CLUSTER,
            json!({ "nmae": "a" }),
            "nmae: envoy.config.cluster.v3.Cluster has no such field",
        ),
        (
            CLUSTER,
            json!({ "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster" }),
            "@type: envoy.config.cluster.v3.Cluster has no such field",
        ),
        (
            LISTENER,
            json!({ "filter_chains": [{}, { "filters": [
                { "name": "hcm", "typed_config": { "@type": hcm, "stat_prefx": "inner" } }
            ] }] }),
            "filter_chains[1].filters[0].typed_config.stat_prefx: \
             envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager \
             has no such field",
        ),
        (
            LISTENER,
            json!({ "listener_filters": [{ "typed_config": { "@type": "type.googleapis.com/a.B" } }] }),
            "listener_filters[0].typed_config: there is no message type \"a.B\"",
        ),
        (
            LISTENER,
            json!({ "listener_filters": [{ "typed_config": { "stat_prefix": "a" } }] }),
            "listener_filters[0].typed_config: \"@type\" is missing, or is not text of the form \
             \"type.googleapis.com/NAME\"",
        ),
        (
            CLUSTER,
            json!({ "type": "STATIC", "cluster_type": { "name": "a" } }),
            "cluster_type: cannot be given together with \"type\"",
        ),
        (
            CLUSTER,
            json!({ "lb_policy": "RANDOM", "lbPolicy": "RANDOM" }),
            "lb_policy: is given twice",
        ),
        (
            CLUSTER,
            json!({ "load_assignment": [] }),
            "load_assignment: must be an object",
        ),
        (
            CLUSTER,
            json!({ "health_checks": {} }),
            "health_checks: must be a list",
        ),
        (
            CLUSTER,
            json!({ "typed_extension_protocol_options": { "a.b": null } }),
            "typed_extension_protocol_options[\"a.b\"]: must be a value, not null",
        ),
        (
            "envoy.config.Nothing",
            json!({}),
            "there is no message type \"envoy.config.Nothing\"",
        ),
    ]
}

#[test]
fn what_envoy_does_not_know_is_refused_where_it_stands() {
    for (kind, value, said) in refused() {
        let error = check(kind, &value).unwrap_err();
        assert_eq!(error.to_string(), said, "{value}");
    }
}

#[test]
fn a_value_of_another_type_is_refused_where_it_stands() {
    let table = [
        (json!({ "connect_timeout": "5" }), "connect_timeout"),
        (json!({ "connect_timeout": 5 }), "connect_timeout"),
        (json!({ "name": 5 }), "name"),
        (json!({ "lb_policy": "FASTEST" }), "lb_policy"),
        (json!({ "respect_dns_ttl": "yes" }), "respect_dns_ttl"),
        (
            json!({ "per_connection_buffer_limit_bytes": -1 }),
            "per_connection_buffer_limit_bytes",
        ),
        (
            json!({ "per_connection_buffer_limit_bytes": 4_294_967_296_u64 }),
            "per_connection_buffer_limit_bytes",
        ),
        (
            json!({ "load_assignment": { "endpoints": [{ "priority": 1.5 }] } }),
            "load_assignment.endpoints[0].priority",
        ),
    ];
    for (value, path) in table {
        let error = check(CLUSTER, &value).unwrap_err();
        assert_eq!(error.path(), path, "{error}");
        assert!(matches!(error.problem(), Problem::Value(_)), "{error}");
    }
}
