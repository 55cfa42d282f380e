//! The routes: what changes with the policy. A rule is one virtual host, with the rule's own settings of the filters,
//! found by host and port in one look-up however many there are. What no rule covers goes nowhere, after the journey was
//! asked why.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    convert::Infallible,
};

use outgate_envoy_proto::{RenderError, message_from_json};
use outgate_journey::{
    gate::opening_is_judged,
    name::HostPattern,
    policy::{Injection, InjectionForm, Policy, Posture, Rule},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::Any;
use serde_json::{Value, json};

use super::{
    Encoded, RenderOptions, Rendered, address,
    filters::scrub_mode,
    injection,
    json::{object, short_hash, span, type_url, typed},
    names::{
        CONNECTION_HEADER, INJECT_HEADER, NOWHERE, OPAQUE, ROUTES_BUMPED, ROUTES_PLAIN,
        ROUTES_PROXY, TUNNEL, UPSTREAM_PLAIN, UPSTREAM_TLS, UPSTREAM_TLS_HTTP1, filter,
    },
    rbac, regex, rendered,
};
use crate::leg::Leg;

/// What an upstream is not told: Envoy's own, and the road that the request took.
const REQUEST_FIELDS_REMOVED: [&str; 5] = [
    INJECT_HEADER,
    CONNECTION_HEADER,
    "x-forwarded-proto",
    "x-envoy-external-address",
    "x-envoy-internal",
];
/// What a guest is not told: another way past the gateway, and that an Envoy was there.
const RESPONSE_FIELDS_REMOVED: [&str; 3] = [
    "alt-svc",
    "x-envoy-upstream-service-time",
    "x-envoy-attempt-count",
];

const TABLE: &str = "envoy.config.route.v3.RouteConfiguration";
const HOST: &str = "envoy.config.route.v3.VirtualHost";
/// `RouteConfiguration.virtual_hosts`.
const HOSTS_FIELD: u32 = 2;

/// The three tables of routes, as JSON.
pub(super) fn routes(options: &RenderOptions<'_>, policy: &Policy) -> Vec<Rendered> {
    let whole = |table: &Table<'_>| {
        let (mut body, mut hosts) = (table.head(), Vec::new());
        let Ok(()) = table.each_host(|host| {
            hosts.push(host);
            Ok::<_, Infallible>(())
        });
        set(
            &mut body,
            [("virtual_hosts".to_owned(), Value::Array(hosts))],
        );
        rendered(table.name, TABLE, body)
    };
    let Ok(tables) = tables(options, policy, |table| Ok::<_, Infallible>(whole(table)));
    tables
}

/// The three tables, as messages. Of a table that is one JSON value, 10,000 hosts would be hundreds of MiB.
pub(super) fn encoded(
    options: &RenderOptions<'_>,
    policy: &Policy,
) -> Result<Vec<Encoded>, RenderError> {
    tables(options, policy, |table| {
        let mut bytes = message_from_json(TABLE, &table.head())?;
        table.each_host(|host| {
            let host = message_from_json(HOST, &host)?;
            encode_key(HOSTS_FIELD, WireType::LengthDelimited, &mut bytes);
            encode_varint(host.len() as u64, &mut bytes);
            bytes.extend(host);
            Ok::<_, RenderError>(())
        })?;
        Ok(Encoded {
            name: table.name.to_owned(),
            version: short_hash(&bytes, 16),
            message: Any {
                type_url: type_url(TABLE),
                value: bytes,
            },
        })
    })
}

fn tables<T, E>(
    options: &RenderOptions<'_>,
    policy: &Policy,
    make: impl Fn(&Table<'_>) -> Result<T, E>,
) -> Result<Vec<T>, E> {
    let plain = |leg: Leg, rule: &Rule| {
        let route = || request_route(options, policy, rule, leg, UPSTREAM_PLAIN);
        rule.plaintext.then(route)
    };
    let proxy = |rule: &Rule| {
        let forward = plain(Leg::Forward, rule);
        vec![
            tunnel_route(options, rule),
            forward.unwrap_or_else(|| nowhere_request(options, &REQUEST_OFF)),
        ]
    };
    let bumped = |rule: &Rule| {
        if rule.posture != Posture::Bump {
            return Vec::new();
        }
        let to = |cluster| request_route(options, policy, rule, Leg::Bumped, cluster);
        vec![for_websocket(to(UPSTREAM_TLS_HTTP1)), to(UPSTREAM_TLS)]
    };
    let tunnelled = |rule: &Rule| plain(Leg::TunnelledPlain, rule).into_iter().collect();
    let mut rules: Vec<_> = policy.rules().map(|rule| &**rule).collect();
    rules.sort_by_cached_key(|rule| (rule.host.to_string(), rule.id.as_str().to_owned()));
    let rules = &*rules;
    let of = |name, leg, routes| {
        make(&Table {
            name,
            leg,
            rules,
            routes,
            nowhere: nowhere(options, leg == Leg::Forward),
        })
    };
    Ok(vec![
        of(ROUTES_PROXY, Leg::Forward, &proxy)?,
        of(ROUTES_BUMPED, Leg::Bumped, &bumped)?,
        of(ROUTES_PLAIN, Leg::TunnelledPlain, &tunnelled)?,
    ])
}

/// A table of routes. A host and a port lead to one rule, and a rule is one virtual host.
struct Table<'a> {
    name: &'a str,
    /// Which way its requests come. The explicit proxy's tunnels have a route here, too.
    leg: Leg,
    /// All rules, sorted.
    rules: &'a [&'a Rule],
    /// The routes of a rule; none: it is not reached this way.
    routes: &'a dyn Fn(&Rule) -> Vec<Value>,
    /// The routes of what no rule covers.
    nowhere: Vec<Value>,
}

impl Table<'_> {
    /// All but the virtual hosts.
    fn head(&self) -> Value {
        json!({
            "name": self.name,
            "request_headers_to_remove": REQUEST_FIELDS_REMOVED,
            "response_headers_to_remove": RESPONSE_FIELDS_REMOVED,
        })
    }

    /// Hands on one virtual host after the other.
    fn each_host<E>(&self, mut take: impl FnMut(Value) -> Result<(), E>) -> Result<(), E> {
        let mut domains = Domains::default();
        for rule in self.rules {
            let is_reached = rule.posture != Posture::DenyAll;
            let mut routes = if is_reached {
                (self.routes)(rule)
            } else {
                Vec::new()
            };
            let names = domains.of(rule, self.leg, !routes.is_empty());
            if routes.is_empty() {
                continue;
            }
            let shared = lift_shared(&mut routes);
            if matches!(rule.host, HostPattern::Wildcard(_)) {
                // Envoy's own wildcard covers any depth: what the rule does not cover is left over.
                routes.extend(self.nowhere.iter().cloned());
            }
            take(json!({
                "name": rule.id.as_str(),
                "domains": names,
                "routes": routes,
                SETTINGS: shared,
            }))?;
        }
        let mut unlisted = domains.hidden();
        unlisted.push("*".to_owned());
        take(json!({
            "name": "outgate_unlisted",
            "domains": unlisted,
            "routes": self.nowhere,
        }))
    }
}

/// The spellings by which Envoy finds a virtual host.
#[derive(Default)]
struct Domains {
    /// What may follow a wildcard's name, by the name under the asterisk.
    wildcards: HashMap<String, BTreeSet<String>>,
    /// Names with rules of their own, and what may follow them.
    exact: BTreeMap<String, BTreeSet<String>>,
}

impl Domains {
    /// Those of a rule.
    fn of(&mut self, rule: &Rule, leg: Leg, is_reached: bool) -> Vec<String> {
        let endings = || {
            // A name may be spelled with the root's dot.
            let ports = rule
                .ports
                .iter()
                .flat_map(|port| [format!(":{port}"), format!(".:{port}")]);
            let has_default = rule
                .ports
                .iter()
                .any(|port| Some(port.get()) == leg.default_port());
            let bare = has_default.then(|| [String::new(), ".".to_owned()]);
            ports.chain(bare.into_iter().flatten())
        };
        let known = match &rule.host {
            HostPattern::Exact(name) => self.exact.entry(name.to_string()).or_default(),
            HostPattern::Wildcard(parent) => self.wildcards.entry(parent.to_string()).or_default(),
        };
        if is_reached {
            known.extend(endings());
        }
        endings()
            .map(|ending| format!("{}{ending}", rule.host))
            .collect()
    }

    /// What a wildcard would catch though the name has rules of its own, which say nothing of that port: those hide it.
    fn hidden(&self) -> Vec<String> {
        let mut hidden = Vec::new();
        for (name, own) in &self.exact {
            let parent = name
                .split_once('.')
                .and_then(|(_, parent)| self.wildcards.get(parent));
            let caught = parent.into_iter().flatten().filter(|it| !own.contains(*it));
            hidden.extend(caught.map(|ending| format!("{name}{ending}")));
        }
        hidden
    }
}

/// Takes out of a rule's routes what all of them say of the filters; it is said once, by the virtual host.
fn lift_shared(routes: &mut [Value]) -> Value {
    let Some((first, others)) = routes.split_first() else {
        return json!({});
    };
    if others
        .iter()
        .any(|it| it.get(SETTINGS) != first.get(SETTINGS))
    {
        return json!({});
    }
    let shared = first.get(SETTINGS).cloned().unwrap_or_default();
    for route in routes.iter_mut().filter_map(Value::as_object_mut) {
        route.remove(SETTINGS);
    }
    shared
}

/// Where everything goes that no rule covers. There is an answer all the same: without a route Envoy would refuse a
/// CONNECT before it asks anyone.
fn nowhere(options: &RenderOptions<'_>, tunnels: bool) -> Vec<Value> {
    let mut routes = Vec::new();
    if tunnels {
        routes.push(json!({
            "match": { "connect_matcher": {} },
            "route": tunnel_action(options, NOWHERE),
            SETTINGS: unlisted(&TUNNEL_OFF),
        }));
    }
    let without: &[&str] = if tunnels { &REQUEST_OFF } else { &[] };
    routes.push(nowhere_request(options, without));
    routes
}

fn nowhere_request(options: &RenderOptions<'_>, without: &[&str]) -> Value {
    json!({
        "match": { "prefix": "/" },
        "route": request_action(options, NOWHERE),
        SETTINGS: unlisted(without),
    })
}

fn unlisted(without: &[&str]) -> Value {
    let mut settings = off(without);
    set(&mut settings, [rbac::of_nothing()]);
    settings
}

/// Where routes and virtual hosts say something of their own about filters.
const SETTINGS: &str = "typed_per_filter_config";
/// Filters that a tunnel's opening does without: they are about the requests inside.
const TUNNEL_OFF: [&str; 5] = [
    filter::AUTHZ_REQUEST,
    filter::PATH_DENY,
    filter::PATH,
    filter::LIMIT,
    filter::INJECT,
];
/// Filters that requests do without where a rule judges no path.
const PATHS_OFF: [&str; 2] = [filter::PATH_DENY, filter::PATH];
/// Filters that a request in absolute form does without.
const REQUEST_OFF: [&str; 1] = [filter::AUTHZ_TUNNEL];

fn off(names: &[&str]) -> Value {
    let settings = || {
        typed(
            "envoy.config.route.v3.FilterConfig",
            json!({ "disabled": true }),
        )
    };
    object(names.iter().map(|name| ((*name).to_owned(), settings())))
}

fn set(settings: &mut Value, more: impl IntoIterator<Item = (String, Value)>) {
    if let Value::Object(map) = settings {
        map.extend(more);
    }
}

/// Opens tunnels under a rule.
fn tunnel_route(options: &RenderOptions<'_>, rule: &Rule) -> Value {
    let cluster = if opening_is_judged(rule) {
        TUNNEL
    } else {
        OPAQUE
    };
    let mut settings = off(&TUNNEL_OFF);
    set(&mut settings, [rbac::of_opening(rule)]);
    json!({
        "name": rule.id.as_str(),
        "match": { "connect_matcher": {}, "headers": names_host(rule, Leg::Connect) },
        "route": tunnel_action(options, cluster),
        SETTINGS: settings,
    })
}

/// Carries requests under a rule.
fn request_route(
    options: &RenderOptions<'_>,
    policy: &Policy,
    rule: &Rule,
    leg: Leg,
    cluster: &str,
) -> Value {
    let mut without: Vec<&str> = Vec::new();
    if leg == Leg::Forward {
        without.extend(REQUEST_OFF);
    }
    if !rule.requests.judge_paths() {
        without.extend(PATHS_OFF);
    }
    let mut settings = off(&without);
    set(&mut settings, rbac::of_requests(rule));
    let exceptions = policy.deny_set().exceptions();
    set(&mut settings, address::of_rule(exceptions, rule));
    let injects = rule
        .injection
        .as_ref()
        .filter(|it| it.over_plaintext || leg == Leg::Bumped);
    let choices = injects.and_then(|_| injection::choices(rule));
    set(
        &mut settings,
        choices.map(|it| (filter::INJECT.to_owned(), it)),
    );
    // A credential in the query is attached by that filter too.
    let is_processed = |injection: &&Injection| {
        options.envoy.scrub || matches!(injection.form, InjectionForm::Query { .. })
    };
    if let Some(injection) = injects.filter(is_processed) {
        let on = typed(
            "envoy.config.route.v3.FilterConfig",
            json!({ "config": scrub_of(&injection.form) }),
        );
        set(&mut settings, [(filter::SCRUB.to_owned(), on)]);
    }
    json!({
        "name": rule.id.as_str(),
        "match": { "prefix": "/", "headers": names_host(rule, leg) },
        "route": request_action(options, cluster),
        SETTINGS: settings,
    })
}

/// What the scrubber is shown of this rule's requests: their heads only where it is the one that attaches.
fn scrub_of(form: &InjectionForm) -> Value {
    if !matches!(form, InjectionForm::Query { .. }) {
        return json!({});
    }
    typed(
        "envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute",
        json!({ "overrides": { "processing_mode": scrub_mode(true) } }),
    )
}

/// What a virtual host's name leaves open: a wildcard's one label.
fn names_host(rule: &Rule, leg: Leg) -> Vec<Value> {
    let HostPattern::Wildcard(parent) = &rule.host else {
        return Vec::new();
    };
    let host = format!("[^.:]+\\.{}", regex::literal(parent.as_str()));
    let expression = regex::authority(&host, &rule.ports, leg.default_port());
    vec![json!({ "name": ":authority", "string_match": { "safe_regex": { "regex": expression } } })]
}

/// HTTP/2 upstreams that carry WebSocket (RFC 8441) are few, and one that does not is asked in vain.
fn for_websocket(mut route: Value) -> Value {
    let upgrade = json!({
        "name": "upgrade",
        "string_match": { "exact": "websocket", "ignore_case": true },
    });
    if let Some(Value::Array(headers)) = route.pointer_mut("/match/headers") {
        headers.push(upgrade);
    }
    route
}

fn tunnel_action(options: &RenderOptions<'_>, cluster: &str) -> Value {
    json!({
        "cluster": cluster,
        "timeout": "0s",
        "idle_timeout": span(options.timeouts.idle),
        "upgrade_configs": [{ "upgrade_type": "CONNECT", "connect_config": {} }],
    })
}

/// Envoy has no bound for an answer's head alone: silence of either kind ends a request after the longer of the two.
fn request_action(options: &RenderOptions<'_>, cluster: &str) -> Value {
    let silence = options.timeouts.idle.max(options.timeouts.response);
    json!({
        "cluster": cluster,
        "timeout": "0s",
        "idle_timeout": span(silence),
        // Nothing is tried twice; the time that a try has ends with the head of its answer.
        "retry_policy": { "num_retries": 0, "per_try_timeout": span(options.timeouts.response) },
    })
}
