//! What an ext_authz call says of a request, in the journey's words. Nothing is decided here, and nothing is believed
//! but what Envoy itself says: fields that only Envoy may set are taken out of the guest's request by a filter before.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, Version, header::HOST};
use outgate_journey::denial::{Denial, DenyCode};

use super::{
    access_log::wire::{field, in_map},
    authorize::{Attributes, HttpRequest, Peer},
};
use crate::{
    leg::Leg,
    render::names::{CLAIMS, CLAIMS_PROXY, CLAIMS_REQUEST, CONNECTION_HEADER},
};

/// A request as Envoy reports it.
pub(crate) struct Evidence {
    /// The port that was dialled, on a captured connection.
    pub(crate) local_port: u16,
    pub(crate) method: Method,
    /// `:authority`, as sent.
    pub(crate) authority: String,
    /// The target, with the authority unless it is a `CONNECT`'s.
    pub(crate) target: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) version: Version,
    /// The SNI of the connection; empty: none.
    pub(crate) server_name: String,
    /// The tunnel that it arrived in.
    pub(crate) connection: Option<String>,
    /// Whose tokens Envoy has verified by itself.
    pub(crate) verified: Verified,
}

/// The sessions of the tokens of ours that Envoy verified; where it has not got our newest keys, none.
#[derive(Default)]
pub(crate) struct Verified {
    /// Of the one presented to the proxy.
    pub(crate) to_proxy: Option<String>,
    /// Of the one presented to the destination.
    pub(crate) to_destination: Option<String>,
}

impl Verified {
    /// Of an encoded `Metadata`: `Metadata.filter_metadata` (1), `Struct.fields` (1), `Value.struct_value` (5) with the
    /// claims, of which `Value.string_value` (3) of the subject.
    fn read(metadata: &[u8]) -> Self {
        let claims = in_map(metadata, 1, CLAIMS).unwrap_or_default();
        let session = |key| {
            let token = field(in_map(claims, 1, key)?, 5)?;
            let session = field(in_map(token, 1, "sub")?, 3)?;
            std::str::from_utf8(session).ok().map(str::to_owned)
        };
        Self {
            to_proxy: session(CLAIMS_PROXY),
            to_destination: session(CLAIMS_REQUEST),
        }
    }
}

impl Evidence {
    /// Reads a call's attributes.
    ///
    /// # Errors
    /// [`DenyCode::MalformedRequest`]: what the guest sent is not a request that can be judged.
    pub(crate) fn read(leg: Leg, attributes: Attributes) -> Result<Self, Denial> {
        let malformed = |why: &'static str| Denial::new(DenyCode::MalformedRequest).because(why);
        let local_port = socket(attributes.destination.as_ref()).map_or(0, |it| it.port());
        let verified = Verified::read(&attributes.metadata_context);
        let http = attributes
            .request
            .and_then(|request| request.http)
            .ok_or_else(|| malformed("no HTTP attributes"))?;
        let method = Method::from_bytes(&http.method).map_err(|_| malformed("the method"))?;
        let version = match &*http.protocol {
            b"HTTP/2" => Version::HTTP_2,
            b"HTTP/1.0" => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
        let path = std::str::from_utf8(&http.path).map_err(|_| malformed("the target"))?;
        let (mut headers, authority) = fields(&http).ok_or_else(|| malformed("a header field"))?;
        let connection = headers
            .remove(CONNECTION_HEADER)
            .and_then(|value| value.to_str().ok().map(str::to_owned));
        // Inside a tunnel HTTP/1.1 names its host in a field and HTTP/2 in the target; Envoy tells both alike.
        let own_scheme = leg.scheme();
        let scheme = std::str::from_utf8(&http.scheme).map_err(|_| malformed("the scheme"))?;
        let scheme = Some(scheme).filter(|it| !it.is_empty());
        let scheme = scheme.unwrap_or(own_scheme);
        let in_field = version < Version::HTTP_2 && scheme == own_scheme && leg.is_inner();
        let target = if in_field && method != Method::CONNECT {
            // Beside a field that the guest sent, this is one too many.
            if let Ok(value) = HeaderValue::from_str(&authority) {
                headers
                    .try_append(HOST, value)
                    .map_err(|_| malformed("too many fields"))?;
            }
            let is_path = path.starts_with('/') || path == "*";
            path.parse().ok().filter(|_| is_path)
        } else {
            target(scheme, &method, &authority, path)
        };
        let target = target.ok_or_else(|| malformed("the target"))?;
        Ok(Self {
            local_port,
            method,
            authority,
            target,
            headers,
            version,
            server_name: attributes
                .tls_session
                .map(|session| session.sni)
                .unwrap_or_default(),
            connection,
            verified,
        })
    }
}

/// The request's fields without the pseudo ones, and its authority.
fn fields(http: &HttpRequest) -> Option<(HeaderMap, String)> {
    let sent = http.header_map.as_ref().map_or(&[][..], |it| &it.headers);
    let mut headers = HeaderMap::try_with_capacity(sent.len()).ok()?;
    let mut authority = &http.host;
    for field in sent {
        if *field.key == *b":authority" {
            authority = &field.raw_value;
        } else if !field.key.starts_with(b":") {
            let name = HeaderName::from_bytes(&field.key).ok()?;
            let value = HeaderValue::from_maybe_shared(field.raw_value.clone()).ok()?;
            headers.try_append(name, value).ok()?;
        }
    }
    let authority = std::str::from_utf8(authority).ok()?.to_owned();
    Some((headers, authority))
}

/// The target as the journey reads it: a request's own host is in it, as in HTTP/2, because Envoy made one of `Host` and
/// the absolute form.
fn target(scheme: &str, method: &Method, authority: &str, path: &str) -> Option<Uri> {
    if *method == Method::CONNECT {
        return Some(Uri::from_static("/"));
    }
    let path = if path.starts_with('/') || path == "*" {
        path
    } else {
        return None;
    };
    if path == "*" {
        return Some(Uri::from_static("*"));
    }
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .ok()
}

/// Who asks, as Envoy sees it; unspecified where it does not say.
pub(crate) fn client_of(attributes: &Attributes) -> SocketAddr {
    const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    socket(attributes.source.as_ref()).unwrap_or(UNKNOWN)
}

fn socket(peer: Option<&Peer>) -> Option<SocketAddr> {
    let socket = peer?.address.as_ref()?.socket_address.as_ref()?;
    let port = u16::try_from(socket.port_value).ok()?;
    let address = std::str::from_utf8(&socket.address).ok()?;
    Some(SocketAddr::new(address.parse().ok()?, port))
}

/// Puts the authority where a request in absolute form has it in HTTP/1.1.
pub(crate) fn with_host(mut headers: HeaderMap, authority: &str) -> HeaderMap {
    if let Ok(value) = HeaderValue::from_str(authority) {
        headers.insert(HOST, value);
    }
    headers
}
