//! URLs of servers that the gateway itself speaks to. What could be misread, or would send something in clear over a
//! network, is refused.

use std::{fmt, net::IpAddr, sync::Arc};

use http::Uri;
use outgate_journey::name::HostName;

/// Which URLs may be plain HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clear {
    /// None.
    Never,
    /// Those of a loopback address, never of a name: what a name means is not decided here.
    ToLoopback,
}

/// Why a text is no URL that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UrlFault {
    /// It has no scheme and host, or has what no server would be sent: a fragment, spaces.
    Malformed,
    /// It has a user name or a password, which do not belong in the file.
    UserInfo,
    /// Its host is neither a name nor an address.
    Host,
    /// It is plain HTTP, or of another scheme.
    NotHttps,
}

/// A URL of a server that the gateway itself speaks to: `https`, or `http` to a loopback address where the key allows
/// it; never with a user name.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WebUrl {
    text: Arc<str>,
    origin: usize,
}

impl WebUrl {
    pub(crate) fn parse(text: &str, clear: Clear) -> Result<Self, UrlFault> {
        let odd = |c: char| c == '#' || c.is_whitespace() || c.is_control();
        let uri: Uri = text.parse().map_err(|_| UrlFault::Malformed)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(UrlFault::Malformed);
        };
        if text.contains(odd) {
            return Err(UrlFault::Malformed);
        }
        if authority.as_str().contains('@') {
            return Err(UrlFault::UserInfo);
        }
        let host = authority.host();
        let has_port = authority.as_str().len() > host.len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(UrlFault::Malformed);
        }
        let address = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host)
            .parse::<IpAddr>()
            .ok();
        if address.is_none() && HostName::parse(host).is_err() {
            return Err(UrlFault::Host);
        }
        let in_clear = scheme == "http"
            && clear == Clear::ToLoopback
            && address.is_some_and(|address| address.is_loopback());
        if scheme != "https" && !in_clear {
            return Err(UrlFault::NotHttps);
        }
        let origin = scheme.len() + "://".len() + authority.as_str().len();
        // Schemes are read without regard to case; what is kept begins with the lower-case one.
        let rest = text.get(scheme.len()..).ok_or(UrlFault::Malformed)?;
        Ok(Self {
            text: format!("{scheme}{rest}").into(),
            origin,
        })
    }

    /// The whole URL.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its scheme, host and port: `https://collector.example.org:4318`.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.text.get(..self.origin).unwrap_or_default()
    }

    /// Whether it is plain HTTP, which goes to a loopback address only.
    #[must_use]
    pub fn is_plaintext(&self) -> bool {
        self.text.starts_with("http://")
    }

    /// Whether nothing stands behind the origin but at most one slash.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(self.text.get(self.origin..), Some("" | "/"))
    }

    pub(crate) fn has_query(&self) -> bool {
        self.text.contains('?')
    }
}

/// The origin alone: the path of a webhook's URL is often a secret.
impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.origin())
    }
}

impl fmt::Debug for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.origin())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_is_taken_and_plain_http_to_loopback_where_it_is_allowed() {
        use UrlFault::{Host, Malformed, NotHttps, UserInfo};
        for (text, never, to_loopback) in [
            ("https://a.example.org", None, None),
            ("HTTPS://a.example.org:9444/x?y=z", None, None),
            ("https://10.0.0.7/", None, None),
            ("https://[::1]:8443/x", None, None),
            ("http://127.0.0.1:4318/v1/logs", Some(NotHttps), None),
            ("http://[::1]/", Some(NotHttps), None),
            ("http://localhost/", Some(NotHttps), Some(NotHttps)),
            ("http://10.0.0.7/", Some(NotHttps), Some(NotHttps)),
            (
                "http://127.0.0.1.example.org/",
                Some(NotHttps),
                Some(NotHttps),
            ),
            ("ftp://a.example.org/", Some(NotHttps), Some(NotHttps)),
            ("https://u:p@a.example.org/", Some(UserInfo), Some(UserInfo)),
            ("http://u@127.0.0.1/", Some(UserInfo), Some(UserInfo)),
            ("https://a.example.org/#x", Some(Malformed), Some(Malformed)),
            ("https://a.example.org:0/", Some(Malformed), Some(Malformed)),
            ("https://a.example.org:/", Some(Malformed), Some(Malformed)),
            (
                "https://a.example.org:99999/",
                Some(Malformed),
                Some(Malformed),
            ),
            ("a.example.org", Some(Malformed), Some(Malformed)),
            ("/x", Some(Malformed), Some(Malformed)),
            ("", Some(Malformed), Some(Malformed)),
            ("https://a_b.example..org/", Some(Host), Some(Host)),
        ] {
            assert_eq!(WebUrl::parse(text, Clear::Never).err(), never, "{text}");
            assert_eq!(
                WebUrl::parse(text, Clear::ToLoopback).err(),
                to_loopback,
                "{text}"
            );
        }
    }

    #[test]
    fn a_url_is_kept_whole_and_shown_without_its_path() {
        let url = WebUrl::parse("HTTPS://a.example.org:1/hook/s3cret", Clear::Never).unwrap();
        assert_eq!(url.as_str(), "https://a.example.org:1/hook/s3cret");
        assert_eq!(url.origin(), "https://a.example.org:1");
        assert!(!format!("{url} {url:?}").contains("s3cret"));
        assert!(!url.is_bare() && !url.is_plaintext());
        let bare = WebUrl::parse("https://a.example.org/", Clear::Never).unwrap();
        assert!(bare.is_bare() && !bare.has_query());
    }
}
