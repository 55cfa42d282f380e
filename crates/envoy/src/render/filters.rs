//! The filters of one leg, in the journey's order: authenticate → decide → rules → limit → inject → scrub → originate.
//! A filter is on unless a route says otherwise, so that a route which says nothing gets all of them.

use std::time::Duration;

use http::HeaderName;
use serde_json::{Value, json};

use super::{
    RenderOptions,
    json::{decided, decided_key, extension, grpc, merged},
    names::{
        CLAIMS, CLAIMS_PROXY, CLAIMS_REQUEST, CONNECTION_HEADER, CONTROL, DECISION, INJECT_HEADER,
        INJECT_NONE, OWN_PREFIX, STATE_ADDRESS, STATE_ALT_NAMES, STATE_CONNECTION, STATE_HOST,
        STATE_POOL, STATE_REQUEST, STATE_SERVER_NAME, STATE_SESSION, STATE_TARGET, STATE_TREATMENT,
        asks, decision, filter,
    },
    rbac,
};
use crate::leg::Leg;

/// How long ext_authz may take: it resolves names, for which the resolver has ten seconds.
const DECIDES_WITHIN: Duration = Duration::from_secs(12);
/// How long any other question may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The filters of a connection manager whose tunnels come by `tunnel` and whose requests come by `request`.
pub(super) fn chain(
    options: &RenderOptions<'_>,
    token_headers: &[HeaderName],
    tunnel: Option<Leg>,
    request: Option<Leg>,
) -> Vec<Value> {
    let inner = request.is_some_and(Leg::is_inner);
    let mut filters = vec![
        strip(inner),
        authenticate(options, token_headers, tunnel, request),
    ];
    filters.extend(tunnel.map(|leg| decide(filter::AUTHZ_TUNNEL, leg)));
    filters.extend(request.map(|leg| decide(filter::AUTHZ_REQUEST, leg)));
    filters.extend(rbac::decided(tunnel, request));
    if request.is_some() {
        filters.extend(rbac::by_path());
    }
    filters.extend(rbac::by_rule());
    filters.push(state(tunnel.is_some()));
    if !inner {
        // What is inside a tunnel ends with it.
        let leg = tunnel.or(request).map_or("", Leg::as_str);
        filters.push(hold(leg));
    }
    if let Some(leg) = request {
        filters.push(limit());
        filters.push(inject());
        filters.push(scrub(leg));
    }
    filters.push(extension(
        filter::ROUTER,
        "envoy.extensions.filters.http.router.v3.Router",
        json!({ "suppress_envoy_headers": true }),
    ));
    filters
}

/// No guest speaks in our name.
fn strip(inner: bool) -> Value {
    let mut mutations = vec![
        json!({ "remove_on_match": { "key_matcher": { "prefix": OWN_PREFIX, "ignore_case": true } } }),
    ];
    if inner {
        mutations.push(json!({ "append": {
            "header": { "key": CONNECTION_HEADER, "value": format!("%FILTER_STATE({STATE_CONNECTION}:PLAIN)%") },
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        } }));
    }
    extension(
        filter::STRIP,
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        json!({ "mutations": {
            "request_mutations": mutations,
            // Trailers come when the request is long on its way: nobody can look for a token in them in time.
            "request_trailers_mutations": [
                { "remove_on_match": { "key_matcher": { "safe_regex": { "regex": ".*" } } } },
            ],
        } }),
    )
}

/// Verifies what looks like a session token and hands the claims on: ext_authz verifies by itself, and refuses where Envoy
/// read another session's token. Nothing is refused here: a guest's own key for a destination that injects nothing is its
/// own business, and what a missing token means is the rule's to say. No cache: Envoy's outlives a key that was taken back.
fn authenticate(
    options: &RenderOptions<'_>,
    token_headers: &[HeaderName],
    tunnel: Option<Leg>,
    request: Option<Leg>,
) -> Value {
    let bearer = |name: &str| {
        // The prefix is compared with its case.
        ["Bearer ", "bearer "].map(|prefix| json!({ "name": name, "value_prefix": prefix }))
    };
    let to_proxy = provider(options, CLAIMS_PROXY, bearer("proxy-authorization").into());
    let mut from: Vec<_> = bearer("authorization").into();
    from.push(json!({ "name": "x-api-key" }));
    let own = token_headers
        .iter()
        .filter(|name| !matches!(name.as_str(), "authorization" | "x-api-key"));
    from.extend(own.map(|name| json!({ "name": name.as_str() })));
    let to_upstream = provider(options, CLAIMS_REQUEST, from);
    let verify = |name: &str| {
        json!({ "requires_any": { "requirements": [
            { "provider_name": name },
            { "allow_missing_or_failed": {} },
        ] } })
    };
    let with_proxy = request.is_some_and(|leg| leg == Leg::Forward);
    let mut rules = Vec::new();
    if tunnel.is_some() {
        rules.push(json!({ "match": { "connect_matcher": {} }, "requires": verify(CLAIMS_PROXY) }));
    }
    if request.is_some() {
        let requires = if with_proxy {
            json!({ "requires_all": { "requirements": [verify(CLAIMS_PROXY), verify(CLAIMS_REQUEST)] } })
        } else {
            verify(CLAIMS_REQUEST)
        };
        rules.push(json!({ "match": { "prefix": "/" }, "requires": requires }));
    }
    let mut providers = serde_json::Map::new();
    if tunnel.is_some() || with_proxy {
        providers.insert(CLAIMS_PROXY.to_owned(), to_proxy);
    }
    if request.is_some() {
        providers.insert(CLAIMS_REQUEST.to_owned(), to_upstream);
    }
    extension(
        filter::JWT,
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        json!({ "providers": providers, "rules": rules }),
    )
}

fn provider(options: &RenderOptions<'_>, metadata: &str, from: Vec<Value>) -> Value {
    json!({
        "issuer": options.tokens.issuer,
        "audiences": [options.tokens.audience],
        "require_expiration": true,
        // The least that Envoy takes for itself; 0 would mean a minute.
        "clock_skew_seconds": 1,
        "forward": true,
        "from_headers": from,
        "payload_in_metadata": metadata,
        "remote_jwks": {
            "http_uri": { "uri": "http://outgate/.well-known/jwks.json", "cluster": CONTROL, "timeout": "1s" },
            "cache_duration": "2s",
            // Requests never wait for keys, and listeners do not wait for us.
            "async_fetch": { "fast_listener": true, "failed_refetch_duration": "1s" },
        },
    })
}

/// Asks the journey. No answer in time is a no.
fn decide(name: &str, leg: Leg) -> Value {
    extension(
        name,
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        json!({
            "transport_api_version": "V3",
            "grpc_service": grpc(DECIDES_WITHIN, &[(asks::LEG, leg.as_str())]),
            "failure_mode_allow": false,
            "status_on_error": { "code": "ServiceUnavailable" },
            "encode_raw_headers": true,
            "include_tls_session": true,
            "metadata_context_namespaces": [CLAIMS],
            // The route was chosen by what the guest sent, and what the guest sent is what was judged.
            "clear_route_cache": false,
        }),
    )
}

/// What the decision says about everything after it.
fn state(opens_tunnel: bool) -> Value {
    let value = |state: &str, decision: &str, factory: &str, sharing: &str| {
        json!({
            "object_key": state,
            "factory_key": factory,
            "skip_if_empty": true,
            "shared_with_upstream": sharing,
            "format_string": {
                "omit_empty_values": true,
                "text_format_source": { "inline_string": decided(decision) },
            },
        })
    };
    let shared = |state, decision, factory| value(state, decision, factory, "TRANSITIVE");
    let pool = value(STATE_POOL, decision::POOL, "envoy.hashable_string", "ONCE");
    let values = if opens_tunnel {
        vec![
            // Hashable, so that it keys Envoy's connections to the inside: one that a second tunnel waited for would carry
            // the first one's state.
            shared(STATE_CONNECTION, decision::TUNNEL, "envoy.hashable_string"),
            // Of the requests that come the same way.
            pool,
            shared(STATE_SESSION, decision::SESSION, "envoy.string"),
            shared(STATE_REQUEST, decision::REQUEST, "envoy.string"),
            shared(STATE_HOST, decision::HOST, "envoy.string"),
            shared(STATE_TARGET, decision::TARGET, "envoy.string"),
            shared(STATE_TREATMENT, decision::TREATMENT, "envoy.string"),
            shared(STATE_ADDRESS, decision::TUNNEL_ADDRESS, STATE_ADDRESS),
        ]
    } else {
        vec![
            pool,
            // The name that was judged, not the spelling that was sent.
            value(STATE_SERVER_NAME, decision::HOST, STATE_SERVER_NAME, "NONE"),
            value(STATE_ALT_NAMES, decision::HOST, STATE_ALT_NAMES, "NONE"),
        ]
    };
    extension(
        filter::STATE,
        "envoy.extensions.filters.http.set_filter_state.v3.Config",
        json!({ "on_request_headers": values }),
    )
}

/// A stream of ours beside each tunnel and each request outside of one: it ends when they do, and ends them when the
/// session ends or we do. It is opened by what was allowed, before anything goes on, and not by Envoy's own answers: a
/// filter that waits for us in the way of those loses the answer to a malformed request, whose connection is closed.
fn hold(leg: &str) -> Value {
    external(
        filter::HOLD,
        &[(asks::LEG, leg), (asks::ROLE, asks::HOLD)],
        &json!({
            "request_header_mode": "SEND",
            "response_header_mode": "SKIP",
            "request_body_mode": "NONE",
            "response_body_mode": "NONE",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SEND",
        }),
        json!({}),
    )
}

/// Takes the credential out of what comes back, on the routes that attach one.
fn scrub(leg: Leg) -> Value {
    let filter = external(
        filter::SCRUB,
        &[(asks::LEG, leg.as_str()), (asks::ROLE, asks::SCRUB)],
        &scrub_mode(false),
        json!({
            // A mask is as long as what it covers, and whoever decodes a body takes its length out.
            "allow_content_length_header": true,
            // An upstream may send Envoy's own fields, and the credential in one; what could not be masked must not pass.
            "mutation_rules": { "allow_envoy": true, "disallow_is_error": true },
            // Tells an upstream's answer from Envoy's.
            "response_attributes": ["response.code_details"],
        }),
    );
    merged(filter, json!({ "disabled": true }))
}

/// What the scrubber is shown. The request's head only where it attaches the credential: to the target.
pub(super) fn scrub_mode(attaches: bool) -> Value {
    json!({
        "request_header_mode": if attaches { "SEND" } else { "SKIP" },
        "response_header_mode": "SEND",
        "request_body_mode": "NONE",
        "response_body_mode": "FULL_DUPLEX_STREAMED",
        "request_trailer_mode": "SKIP",
        "response_trailer_mode": "SEND",
    })
}

fn external(name: &str, metadata: &[(&str, &str)], mode: &Value, more: Value) -> Value {
    let common = json!({
        // Streams last as long as what they accompany.
        "grpc_service": grpc(Duration::ZERO, metadata),
        "failure_mode_allow": false,
        "status_on_error": { "code": "ServiceUnavailable" },
        "message_timeout": "2s",
        "processing_mode": mode,
        "metadata_options": { "forwarding_namespaces": { "untyped": [DECISION] } },
    });
    extension(
        name,
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        merged(common, more),
    )
}

/// Counts the request for its session. The answer names what is attached, so a request that was not counted draws
/// nothing: without a descriptor Envoy does not ask, and without an answer nothing is attached and nothing sent.
fn limit() -> Value {
    let entry = |key: &str, may_be_absent: bool| {
        json!({ "metadata": {
            "descriptor_key": key,
            "source": "DYNAMIC",
            "metadata_key": decided_key(key),
            "skip_if_absent": may_be_absent,
        } })
    };
    extension(
        filter::LIMIT,
        "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
        json!({
            "domain": "outgate",
            "failure_mode_deny": true,
            "timeout": super::json::span(ANSWER),
            "disable_x_envoy_ratelimited_header": true,
            "status_on_error": { "code": "ServiceUnavailable" },
            "rate_limit_service": { "transport_api_version": "V3", "grpc_service": grpc(ANSWER, &[]) },
            "rate_limits": [{ "actions": [
                entry(decision::REQUEST, false),
                entry(decision::HOST, false),
                entry(decision::SESSION, true),
            ] }],
        }),
    )
}

/// Attaches what the rate limiter named, of what the route has. The route has nothing here.
fn inject() -> Value {
    extension(
        filter::INJECT,
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        json!({
            "extension_config": extension(
                "composite",
                "envoy.extensions.filters.http.composite.v3.Composite",
                json!({}),
            ),
            "xds_matcher": injection_matcher([]),
        }),
    )
}

/// Picks by the rate limiter's word. `choices`: a word and the filter that it stands for.
pub(super) fn injection_matcher(choices: impl IntoIterator<Item = (String, Value)>) -> Value {
    let execute = |name: &str, filter: Value| {
        json!({ "action": extension(
            name,
            "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
            json!({ "typed_config": filter }),
        ) })
    };
    let skip = extension(
        "skip",
        "envoy.extensions.filters.common.matcher.action.v3.SkipFilter",
        json!({}),
    );
    let mut map = serde_json::Map::new();
    map.insert(INJECT_NONE.to_owned(), json!({ "action": skip }));
    for (word, filter) in choices {
        let action = execute("inject", filter);
        map.insert(word, action);
    }
    let deny = rbac::denying(
        filter::INJECT,
        json!({ rbac::UNDECIDED: rbac::policy(rbac::anything()) }),
    );
    json!({
        "matcher_tree": {
            "input": extension(
                "word",
                "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                json!({ "header_name": INJECT_HEADER }),
            ),
            "exact_match_map": { "map": map },
        },
        "on_no_match": execute("deny", deny),
    })
}
