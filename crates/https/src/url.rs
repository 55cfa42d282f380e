//! Where a call goes. Refuses what two readers could read in two ways: a user part, a fragment, a missing host, bytes
//! outside of printable ASCII.

use std::{fmt, net::IpAddr};

use http::{Uri, uri::Scheme};

const LONGEST: usize = 8 * 1024;

/// An absolute `https://` or `http://` URL. What is sent for the latter decides [`crate::Settings::plaintext_loopback`].
#[derive(Clone, PartialEq, Eq)]
pub struct Url(Uri);

/// Why a text is no URL to call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Not the grammar of RFC 3986, or longer than 8 KiB.
    #[error("not a URL")]
    Malformed,
    /// Neither `https` nor `http`, or no scheme.
    #[error("the URL does not begin with https://")]
    Scheme,
    /// `https://name:password@host`.
    #[error("the URL holds a user name")]
    UserInfo,
    /// `https://host/#part`.
    #[error("the URL holds a fragment")]
    Fragment,
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`UrlError`].
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        if text.len() > LONGEST || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(UrlError::Malformed);
        }
        // `Uri` drops a fragment in silence.
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let uri: Uri = text.parse().map_err(|_| UrlError::Malformed)?;
        if uri.scheme() != Some(&Scheme::HTTPS) && uri.scheme() != Some(&Scheme::HTTP) {
            return Err(UrlError::Scheme);
        }
        let authority = uri.authority().ok_or(UrlError::Malformed)?;
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        // A port that is empty or too large leaves text behind the host that is no port.
        let port = authority.as_str().get(authority.host().len()..);
        let port_is_good = match port {
            Some("") => true,
            Some(_) => authority.port_u16().is_some_and(|port| port != 0),
            None => false,
        };
        if authority.host().is_empty() || !port_is_good {
            return Err(UrlError::Malformed);
        }
        Ok(Self(uri))
    }

    /// The host as written, an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    /// The port, written or the scheme's.
    #[must_use]
    pub fn port(&self) -> u16 {
        let of_scheme = if self.is_https() { 443 } else { 80 };
        self.0.port_u16().unwrap_or(of_scheme)
    }

    /// Whether TLS is spoken.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// Whether both are of one origin (RFC 6454): scheme, host without regard to case, port.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        self.is_https() == other.is_https()
            && self.host().eq_ignore_ascii_case(other.host())
            && self.port() == other.port()
    }

    /// Whether it is an address of this machine: of 127.0.0.0/8, or `::1`. Never a name: what a name means is decided by
    /// whoever answers for it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host();
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let address = bare.unwrap_or(host).parse::<IpAddr>();
        address.is_ok_and(|address| address.is_loopback())
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.0
    }
}

/// Without the query, which may hold a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let authority = self.0.authority().map_or("", |found| found.as_str());
        write!(f, "{scheme}://{authority}{}", self.0.path())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Url({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_reading_is_a_url() {
        for (text, host, port) in [
            ("https://idp.example.org", "idp.example.org", 443),
            (
                "https://idp.example.org:8443/a/b?c=d",
                "idp.example.org",
                8443,
            ),
            ("https://[::1]:1/", "[::1]", 1),
            ("http://127.0.0.1/", "127.0.0.1", 80),
            ("HTTPS://IDP.example.org/", "IDP.example.org", 443),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port()), (host, port), "{text}");
        }
    }

    #[test]
    fn what_has_several_readings_is_none() {
        let long = format!("https://idp.example.org/{}", "a".repeat(LONGEST));
        for (text, fault) in [
            ("", UrlError::Malformed),
            ("idp.example.org", UrlError::Scheme),
            ("/path", UrlError::Scheme),
            ("ftp://idp.example.org/", UrlError::Scheme),
            ("file:///etc/passwd", UrlError::Malformed),
            ("https://", UrlError::Malformed),
            ("https:///path", UrlError::Malformed),
            ("https://:443/", UrlError::Malformed),
            ("https://user@idp.example.org/", UrlError::UserInfo),
            ("https://idp.example.org@evil.test/", UrlError::UserInfo),
            ("https://idp.example.org/#f", UrlError::Fragment),
            ("https://idp.example.org\\@evil.test/", UrlError::Malformed),
            ("https://idp.example.org/a b", UrlError::Malformed),
            ("https://idp.example.org/\r\nx: y", UrlError::Malformed),
            ("https://idp.example.org:0/", UrlError::Malformed),
            ("https://idp.example.org:/", UrlError::Malformed),
            ("https://idp.example.org:65536/", UrlError::Malformed),
            ("https://idp.example.org:https/", UrlError::Malformed),
            ("https://bücher.example/", UrlError::Malformed),
            (long.as_str(), UrlError::Malformed),
        ] {
            assert_eq!(
                Url::parse(text).map(|url| url.to_string()).err(),
                Some(fault),
                "{text}"
            );
        }
    }

    #[test]
    fn a_query_is_never_shown() {
        let url = Url::parse("https://hooks.example.org/in?key=hunter2").unwrap();
        assert_eq!(url.to_string(), "https://hooks.example.org/in");
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = Url::parse("https://idp.example.org/a").unwrap();
        for (text, same) in [
            ("https://IDP.example.org:443/b", true),
            ("https://idp.example.org:444/a", false),
            ("http://idp.example.org:443/a", false),
            ("https://idp.example.org.evil.test/a", false),
        ] {
            assert_eq!(
                origin.is_same_origin(&Url::parse(text).unwrap()),
                same,
                "{text}"
            );
        }
    }

    #[test]
    fn loopback_is_this_machine_alone() {
        for (text, loopback) in [
            ("http://127.0.0.1:1/", true),
            ("http://127.9.9.9/", true),
            ("http://[::1]/", true),
            ("http://localhost/", false),
            ("http://localhost.evil.test/", false),
            ("http://127.0.0.1.evil.test/", false),
            ("http://0.0.0.0/", false),
            ("http://10.0.0.1/", false),
            ("http://[::ffff:10.0.0.1]/", false),
        ] {
            assert_eq!(Url::parse(text).unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
