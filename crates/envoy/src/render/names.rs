//! The names that the rendered configuration and the services behind it share.

/// Envoy's cluster for every question about a request: ext_authz, rate limit, ext_proc, access log, JWKS.
pub const CONTROL: &str = "outgate";
/// Envoy's cluster for configuration and secrets: the same address, a connection of its own, so that a flood of requests
/// does not hold back a leaf.
pub const XDS: &str = "outgate_xds";

/// Cluster of the internal listener that looks into tunnels.
pub const TUNNEL: &str = "outgate_tunnel";
/// Cluster of the internal listener that looks into nothing.
pub const OPAQUE: &str = "outgate_opaque";
/// Cluster of the explicit proxy's inner copy, which captured connections go through.
pub const CAPTURED: &str = "outgate_captured";
/// Cluster without an endpoint: where everything goes that no rule covers.
pub const NOWHERE: &str = "outgate_nowhere";
/// Cluster of upstreams that speak TLS.
pub const UPSTREAM_TLS: &str = "outgate_upstream_tls";
/// The same for requests that HTTP/2 cannot carry everywhere: WebSocket.
pub const UPSTREAM_TLS_HTTP1: &str = "outgate_upstream_tls_http1";
/// Cluster of upstreams that are spoken to in clear.
pub const UPSTREAM_PLAIN: &str = "outgate_upstream_plain";
/// Cluster of upstreams whose bytes are the guest's own.
pub const UPSTREAM_TCP: &str = "outgate_upstream_tcp";

/// Listeners of the explicit proxy begin with this.
pub const LISTENER_PROXY: &str = "outgate_proxy";
/// Listeners for captured connections begin with this.
pub const LISTENER_TRANSPARENT: &str = "outgate_transparent";
/// The listener that keeps the policy's secrets asked for.
pub const SECRETS: &str = "outgate_secrets";
/// Routes of the explicit proxy: tunnels and requests in absolute form.
pub const ROUTES_PROXY: &str = "outgate_proxy";
/// Routes of requests inside TLS that was terminated.
pub const ROUTES_BUMPED: &str = "outgate_bumped";
/// Routes of requests in clear: inside tunnels, and captured.
pub const ROUTES_PLAIN: &str = "outgate_plain";

/// Where ext_authz leaves what it decided.
pub const DECISION: &str = "envoy.filters.http.ext_authz";
/// What ext_authz decided, by key. All are texts.
pub mod decision {
    /// The record's id, which refusals show.
    pub const RECORD: &str = "record";
    /// The exchange's id: unguessable, and known to Envoy and its services alone.
    pub const REQUEST: &str = "request";
    /// The exchange's id of the tunnel around it; a tunnel's is its own.
    pub const CONNECTION: &str = "connection";
    /// A tunnel's own exchange's id, once more: requests have none.
    pub const TUNNEL: &str = "tunnel";
    /// The session's id; none: nobody's.
    pub const SESSION: &str = "session";
    /// The destination's name.
    pub const HOST: &str = "host";
    /// The destination: `name:port`.
    pub const TARGET: &str = "target";
    /// The rule's id.
    pub const RULE: &str = "rule";
    /// What becomes of a tunnel's bytes.
    pub const TREATMENT: &str = "treatment";
    /// The vetted address of a request.
    pub const ADDRESS: &str = "address";
    /// The vetted address of a tunnel that nothing looks into.
    pub const TUNNEL_ADDRESS: &str = "tunnel_address";
    /// Which upstream connections a request may share.
    pub const POOL: &str = "pool";
}

/// What a filter says of itself when it asks, as gRPC metadata.
pub mod asks {
    /// Which [leg](crate::leg) it is in.
    pub const LEG: &str = "leg";
    /// What an external processor is for: [`HOLD`] or [`SCRUB`].
    pub const ROLE: &str = "role";
    /// It ends what it accompanies.
    pub const HOLD: &str = "hold";
    /// It takes the credential out of answers.
    pub const SCRUB: &str = "scrub";
}

/// Where jwt_authn leaves verified claims.
pub const CLAIMS: &str = "envoy.filters.http.jwt_authn";
/// The claims of what was presented to the proxy, among them.
pub const CLAIMS_PROXY: &str = "proxy";
/// The claims of what was presented to the destination, among them.
pub const CLAIMS_REQUEST: &str = "request";

/// Header fields with this prefix are Envoy's and ours: taken from guests, never sent to upstreams.
pub const OWN_PREFIX: &str = "x-outgate-";
/// The tunnel that a request came through, as [`STATE_CONNECTION`] says.
pub const CONNECTION_HEADER: &str = "x-outgate-connection";
/// Which secret is attached: `injections/…`, or [`INJECT_NONE`]. The rate limiter's answer to a request within limits.
pub const INJECT_HEADER: &str = "x-outgate-inject";
/// Nothing is attached, on purpose.
pub const INJECT_NONE: &str = "none";

/// Filter state: the tunnel.
pub const STATE_CONNECTION: &str = "outgate.connection";
/// Filter state: the session that the tunnel is attributed to.
pub const STATE_SESSION: &str = "outgate.session";
/// Filter state: the request that opened the tunnel.
pub const STATE_REQUEST: &str = "outgate.request";
/// Filter state: the tunnel's canonical host.
pub const STATE_HOST: &str = "outgate.host";
/// Filter state: the tunnel's canonical `host:port`.
pub const STATE_TARGET: &str = "outgate.target";
/// Filter state: what becomes of the tunnel, a word of [`crate::control::Treatment`].
pub const STATE_TREATMENT: &str = "outgate.treatment";
/// Filter state: what a pooled upstream connection belongs to.
pub const STATE_POOL: &str = "outgate.pool";
/// Filter state that Envoy itself reads: the address that a tunnel's bytes go to.
pub const STATE_ADDRESS: &str = "envoy.network.transport_socket.original_dst_address";
/// Filter state that Envoy itself reads: the name that an upstream is asked for.
pub const STATE_SERVER_NAME: &str = "envoy.network.upstream_server_name";
/// Filter state that Envoy itself reads: the name that an upstream's certificate must have.
pub const STATE_ALT_NAMES: &str = "envoy.network.upstream_subject_alt_names";

/// The filters whose settings stand in routes.
pub(super) mod filter {
    pub(crate) const STRIP: &str = "outgate.strip";
    pub(crate) const JWT: &str = "envoy.filters.http.jwt_authn";
    /// Asks for a tunnel.
    pub(crate) const AUTHZ_TUNNEL: &str = "outgate.authorize_tunnel";
    /// Asks for a request.
    pub(crate) const AUTHZ_REQUEST: &str = "outgate.authorize_request";
    pub(crate) const DECIDED_DENY: &str = "outgate.rbac.decided.deny";
    pub(crate) const DECIDED: &str = "outgate.rbac.decided";
    /// Refuses paths that two readers may take for two things; off where no path is judged.
    pub(crate) const PATH_DENY: &str = "outgate.rbac.path.deny";
    pub(crate) const PATH: &str = "outgate.rbac.path";
    pub(crate) const RULE_DENY: &str = "outgate.rbac.rule.deny";
    pub(crate) const RULE: &str = "outgate.rbac.rule";
    pub(crate) const STATE: &str = "outgate.state";
    pub(crate) const HOLD: &str = "outgate.hold";
    pub(crate) const LIMIT: &str = "outgate.limit";
    pub(crate) const INJECT: &str = "outgate.inject";
    pub(crate) const SCRUB: &str = "outgate.scrub";
    pub(crate) const ROUTER: &str = "envoy.filters.http.router";
    /// On the upstream's side.
    pub(crate) const ADDRESS: &str = "outgate.rbac.address";
    pub(crate) const CODEC: &str = "envoy.filters.http.upstream_codec";
}
