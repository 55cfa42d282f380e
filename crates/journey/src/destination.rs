//! Stage *identify*: decides which destination the evidence names, and refuses evidence that contradicts itself.

use std::fmt::{self, Write};

use http::{HeaderMap, Uri, header::HOST, uri::Authority};

use crate::{
    denial::{Denial, DenyCode},
    name::{HostName, NameError},
    policy::Port,
};

/// What the gateway's own leg to the upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TLS (or, by an explicit rule, an opaque tunnel).
    Tunnel,
    /// Plain HTTP.
    Plain,
}

/// A canonical host and port, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    host: HostName,
    port: Port,
    transport: Transport,
}

impl Destination {
    /// The canonical name.
    #[must_use]
    pub const fn host(&self) -> &HostName {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// How it is spoken to.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// As `Host` or `:authority` say it: the port only where it is not the scheme's own (RFC 9110 section 7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        let mut text = String::with_capacity(self.host.as_str().len() + ":65535".len());
        text.push_str(self.host.as_str());
        if self.port != default_port(self) {
            // Writing to a string does not fail.
            let _ = write!(text, ":{}", self.port);
        }
        text
    }

    /// The same host and port, spoken to in clear.
    #[must_use]
    pub fn in_clear(&self) -> Self {
        Self {
            transport: Transport::Plain,
            ..self.clone()
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn parse_host(text: &str) -> Result<HostName, Denial> {
    HostName::parse(text).map_err(|error| match error {
        NameError::Malformed => DenyCode::HostInvalid.into(),
        NameError::Address => DenyCode::IpLiteral.into(),
    })
}

/// Reads `host` or `host:port`; `default` where the port is absent. No user info, no empty port.
fn parse_authority(text: &str, default: Option<Port>) -> Result<(HostName, Port), Denial> {
    if text.starts_with('[') {
        return Err(DenyCode::IpLiteral.into());
    }
    let (host, port) = match text.split_once(':') {
        Some((_, port)) if port.contains(':') => return Err(DenyCode::IpLiteral.into()),
        Some((host, port)) => (host, Some(parse_port(port)?)),
        None => (text, default),
    };
    let port =
        port.ok_or_else(|| Denial::new(DenyCode::HostInvalid).because("the port is missing"))?;
    Ok((parse_host(host)?, port))
}

fn parse_port(text: &str) -> Result<Port, Denial> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let number = if digits { text.parse().ok() } else { None };
    number
        .and_then(Port::new)
        .ok_or_else(|| Denial::new(DenyCode::HostInvalid).because("the port is not 1 to 65535"))
}

/// Reads the target of a `CONNECT` (RFC 9110 section 9.3.6): `host:port`, nothing else.
///
/// # Errors
/// [`DenyCode::HostInvalid`] or [`DenyCode::IpLiteral`].
pub fn identify_connect(target: &str) -> Result<Destination, Denial> {
    let (host, port) = parse_authority(target, None)?;
    Ok(Destination {
        host,
        port,
        transport: Transport::Tunnel,
    })
}

/// Reads an absolute-form request (RFC 9112 section 3.2.2): the target and the `Host` field must name one host.
///
/// # Errors
/// [`DenyCode::MalformedRequest`] for another scheme or user info, [`DenyCode::AuthorityMismatch`] if `Host`
/// disagrees, and what [`identify_connect`] gives.
pub fn identify_absolute_form(target: &Uri, headers: &HeaderMap) -> Result<Destination, Denial> {
    if target.scheme_str() != Some("http") {
        return Err(Denial::new(DenyCode::MalformedRequest)
            .because("an absolute-form target needs the http scheme"));
    }
    let authority = target.authority().ok_or_else(|| {
        Denial::new(DenyCode::MalformedRequest).because("the target has no authority")
    })?;
    let (host, port) = read_authority(authority, Port::HTTP)?;
    let destination = Destination {
        host,
        port,
        transport: Transport::Plain,
    };
    agree_with_host_header(&destination, headers)?;
    Ok(destination)
}

/// Reads the name in a question for addresses (RFC 1035 section 3.1, in presentation form).
///
/// # Errors
/// [`DenyCode::HostInvalid`] or [`DenyCode::IpLiteral`].
pub fn identify_name(name: &str) -> Result<HostName, Denial> {
    parse_host(name)
}

/// Reads the server name of a TLS connection that was captured on its way to some address (RFC 6066 section 3). The
/// address says nothing: the gateway dials what it resolves for the name itself. The port is the one that was dialled.
///
/// # Errors
/// [`DenyCode::ServerNameMissing`], [`DenyCode::HostInvalid`] or [`DenyCode::IpLiteral`].
pub fn identify_server_name(server_name: Option<&str>, port: Port) -> Result<Destination, Denial> {
    let server_name = server_name.ok_or(DenyCode::ServerNameMissing)?;
    Ok(Destination {
        host: parse_host(server_name)?,
        port,
        transport: Transport::Tunnel,
    })
}

/// Reads a plain request on a connection that was captured on its way to `port` of some address: its `Host` names
/// the destination (RFC 9112 section 3.2.1), or an absolute-form target that agrees with it.
///
/// # Errors
/// [`DenyCode::MalformedRequest`] without a single `Host`, [`DenyCode::AuthorityMismatch`] if it names another port,
/// and what [`identify_absolute_form`] gives.
pub fn identify_captured(
    target: &Uri,
    headers: &HeaderMap,
    port: Port,
) -> Result<Destination, Denial> {
    let destination = if target.authority().is_some() {
        identify_absolute_form(target, headers)?
    } else {
        let text = one_host_header(headers)?.ok_or_else(|| {
            Denial::new(DenyCode::MalformedRequest).because("no Host on a captured connection")
        })?;
        let (host, port) = parse_authority(text, Some(Port::HTTP))?;
        Destination {
            host,
            port,
            transport: Transport::Plain,
        }
    };
    if destination.port == port {
        Ok(destination)
    } else {
        Err(mismatch("the port of the Host field"))
    }
}

/// Names the destination that a rule of the policy stands for.
#[must_use]
pub const fn of_rule(host: HostName, port: Port) -> Destination {
    Destination {
        host,
        port,
        transport: Transport::Tunnel,
    }
}

/// A request inside a connection that was opened for `destination` must name that destination: in `:authority`
/// or the absolute target if it has one, and in `Host`. (P5: fronting.)
///
/// # Errors
/// [`DenyCode::AuthorityMismatch`], or what makes the name unreadable.
pub fn agree_with_destination(
    destination: &Destination,
    target: &Uri,
    headers: &HeaderMap,
) -> Result<(), Denial> {
    let named = target.authority();
    if let Some(authority) = named {
        if !is_spelled_as(authority.as_str(), destination) {
            let (host, port) = read_authority(authority, default_port(destination))?;
            if host != *destination.host() || port != destination.port() {
                return Err(mismatch("the target's authority"));
            }
        }
        let scheme = target.scheme_str();
        let expected = if destination.transport() == Transport::Plain {
            "http"
        } else {
            "https"
        };
        if scheme.is_some_and(|scheme| scheme != expected) {
            return Err(mismatch("the target's scheme"));
        }
    }
    if named.is_none() && !headers.contains_key(HOST) {
        return Err(Denial::new(DenyCode::MalformedRequest).because("neither Host nor :authority"));
    }
    agree_with_host_header(destination, headers)
}

/// The name in a TLS ClientHello must be the name that the tunnel was opened for.
///
/// # Errors
/// [`DenyCode::ServerNameMismatch`], or what makes the name unreadable.
pub fn agree_with_server_name(destination: &Destination, server_name: &str) -> Result<(), Denial> {
    if parse_host(server_name)? == *destination.host() {
        Ok(())
    } else {
        Err(Denial::new(DenyCode::ServerNameMismatch).because("SNI differs from the tunnel's host"))
    }
}

fn read_authority(authority: &Authority, default: Port) -> Result<(HostName, Port), Denial> {
    if authority.as_str().contains('@') {
        return Err(Denial::new(DenyCode::MalformedRequest).because("user info in the authority"));
    }
    parse_authority(authority.as_str(), Some(default))
}

/// Whether a text is the destination's canonical spelling, which needs no parsing: nearly every request's is.
fn is_spelled_as(text: &str, destination: &Destination) -> bool {
    let Some(rest) = text.strip_prefix(destination.host().as_str()) else {
        return false;
    };
    rest.is_empty() && destination.port() == default_port(destination)
}

fn one_host_header(headers: &HeaderMap) -> Result<Option<&str>, Denial> {
    let mut values = headers.get_all(HOST).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Denial::new(DenyCode::MalformedRequest).because("more than one Host"));
    }
    Ok(Some(value.to_str().map_err(|_| DenyCode::HostInvalid)?))
}

fn agree_with_host_header(destination: &Destination, headers: &HeaderMap) -> Result<(), Denial> {
    let Some(text) = one_host_header(headers)? else {
        return Ok(());
    };
    if is_spelled_as(text, destination) {
        return Ok(());
    }
    // A Host that cannot be read is a mismatch with the readable name, not a separate kind of answer.
    let (host, port) =
        parse_authority(text, Some(default_port(destination))).map_err(|denial| {
            mismatch("the Host field cannot be read").because(denial.code().as_str())
        })?;
    if host == *destination.host() && port == destination.port() {
        Ok(())
    } else {
        Err(mismatch("the Host field"))
    }
}

fn default_port(destination: &Destination) -> Port {
    match destination.transport() {
        Transport::Tunnel => Port::HTTPS,
        Transport::Plain => Port::HTTP,
    }
}

fn mismatch(what: &'static str) -> Denial {
    Denial::new(DenyCode::AuthorityMismatch).because(what)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(hosts: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for host in hosts {
            map.append(HOST, HeaderValue::from_str(host).unwrap());
        }
        map
    }

    fn code<T>(result: Result<T, Denial>) -> Option<DenyCode> {
        result.err().map(|denial| denial.code())
    }

    #[test]
    fn connect_takes_a_name_and_a_port_and_nothing_else() {
        let destination = identify_connect("API.Example.org.:443").unwrap();
        assert_eq!(destination.to_string(), "api.example.org:443");
        for (target, expected) in [
            ("a.test", DenyCode::HostInvalid),
            ("a.test:", DenyCode::HostInvalid),
            ("a.test:0", DenyCode::HostInvalid),
            ("a.test:65536", DenyCode::HostInvalid),
            ("a.test:+443", DenyCode::HostInvalid),
            ("a.test:443:443", DenyCode::IpLiteral),
            ("u@a.test:443", DenyCode::HostInvalid),
            (":443", DenyCode::HostInvalid),
            ("127.0.0.1:443", DenyCode::IpLiteral),
            ("[::1]:443", DenyCode::IpLiteral),
            ("2130706433:443", DenyCode::IpLiteral),
            ("a.test:443/", DenyCode::HostInvalid),
        ] {
            assert_eq!(code(identify_connect(target)), Some(expected), "{target}");
        }
    }

    #[test]
    fn absolute_form_and_host_must_name_one_destination() {
        for (target, hosts, expected) in [
            ("http://a.test/", &["a.test"][..], None),
            ("http://A.test./x", &["a.TEST:80"], None),
            ("http://a.test:8080/", &["a.test:8080"], None),
            ("http://a.test/", &[], None),
            (
                "http://a.test/",
                &["x.test"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "http://a.test:8080/",
                &["a.test"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "http://a.test/",
                &["a.test", "a.test"],
                Some(DenyCode::MalformedRequest),
            ),
            (
                "http://a.test/",
                &["127.0.0.1"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "https://a.test/",
                &["a.test"],
                Some(DenyCode::MalformedRequest),
            ),
            (
                "http://u:p@a.test/",
                &["a.test"],
                Some(DenyCode::MalformedRequest),
            ),
            ("/", &["a.test"], Some(DenyCode::MalformedRequest)),
        ] {
            let target: Uri = target.parse().unwrap();
            assert_eq!(
                code(identify_absolute_form(&target, &headers(hosts))),
                expected,
                "{target} {hosts:?}"
            );
        }
    }

    #[test]
    fn every_inner_request_names_the_connections_destination() {
        let destination = identify_connect("a.test:443").unwrap();
        for (target, hosts, expected) in [
            ("/x", &["a.test"][..], None),
            ("/x", &["A.TEST.:443"], None),
            ("https://a.test/x", &[], None),
            ("https://a.test/x", &["a.test"], None),
            ("/x", &[], Some(DenyCode::MalformedRequest)),
            ("/x", &["x.test"], Some(DenyCode::AuthorityMismatch)),
            ("/x", &["a.test:444"], Some(DenyCode::AuthorityMismatch)),
            (
                "/x",
                &["a.test", "a.test"],
                Some(DenyCode::MalformedRequest),
            ),
            ("/x", &["a%2etest"], Some(DenyCode::AuthorityMismatch)),
            (
                "https://x.test/",
                &["a.test"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "https://a.test/",
                &["x.test"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "http://a.test:443/",
                &["a.test"],
                Some(DenyCode::AuthorityMismatch),
            ),
            (
                "https://u@a.test/",
                &["a.test"],
                Some(DenyCode::MalformedRequest),
            ),
        ] {
            let target: Uri = target.parse().unwrap();
            let result = agree_with_destination(&destination, &target, &headers(hosts));
            assert_eq!(code(result), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn the_server_name_is_compared_canonically() {
        let destination = identify_connect("a.test:443").unwrap();
        assert!(agree_with_server_name(&destination, "A.test").is_ok());
        assert_eq!(
            code(agree_with_server_name(&destination, "x.test")),
            Some(DenyCode::ServerNameMismatch)
        );
        assert_eq!(
            code(agree_with_server_name(&destination, "127.0.0.1")),
            Some(DenyCode::IpLiteral)
        );
    }
}
