//! Requests and responses as tests write and read them.

use serde_json::Value;

/// Header fields in the order they came, duplicates kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The first value of a field, whatever the case of its name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether any field's name or value contains `text`.
    #[must_use]
    pub fn mention(&self, text: &str) -> bool {
        self.0
            .iter()
            .any(|(name, value)| name.contains(text) || value.contains(text))
    }

    pub(crate) fn from_map(map: &http::HeaderMap) -> Self {
        Self(
            map.iter()
                .map(|(name, value)| {
                    let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                    (name.as_str().to_owned(), value)
                })
                .collect(),
        )
    }
}

/// What a request carries.
#[derive(Debug, Clone, Default)]
pub enum ReqBody {
    /// Nothing.
    #[default]
    None,
    /// These bytes, with a content-length.
    Bytes(Vec<u8>),
    /// These bytes, chunked (a stream of DATA frames on HTTP/2).
    Chunked(Vec<Vec<u8>>),
    /// This many zero bytes, with a content-length.
    Zeros(u64),
    /// These bytes, chunked, and these trailer fields behind them.
    WithTrailers(Vec<u8>, Headers),
}

/// A request, independent of the way in.
#[derive(Debug, Clone)]
pub struct Req {
    /// The method.
    pub method: String,
    /// The host: of the CONNECT, of the SNI and of `Host`, unless one of these is overridden.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// Further header fields.
    pub headers: Headers,
    /// The body.
    pub body: ReqBody,
    /// `Host` or `:authority`, where it differs.
    pub authority: Option<String>,
    /// The TLS server name, where it differs.
    pub sni: Option<String>,
}

impl Req {
    /// A GET.
    #[must_use]
    pub fn get(host: &str, port: u16, path: &str) -> Self {
        Self {
            method: "GET".into(),
            host: host.into(),
            port,
            path: path.into(),
            headers: Headers::default(),
            body: ReqBody::None,
            authority: None,
            sni: None,
        }
    }

    /// Another method.
    #[must_use]
    pub fn method(mut self, method: &str) -> Self {
        self.method = method.into();
        self
    }

    /// One more header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.0.push((name.into(), value.into()));
        self
    }

    /// `Authorization: Bearer`.
    #[must_use]
    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    /// A body.
    #[must_use]
    pub fn body(mut self, body: ReqBody) -> Self {
        self.body = body;
        self
    }

    /// Another `Host` or `:authority` than the connection's.
    #[must_use]
    pub fn authority(mut self, authority: &str) -> Self {
        self.authority = Some(authority.into());
        self
    }

    /// Another SNI than the connection's.
    #[must_use]
    pub fn sni(mut self, name: &str) -> Self {
        self.sni = Some(name.into());
        self
    }

    /// `host:port`, or what overrides it.
    #[must_use]
    pub fn host_field(&self) -> String {
        self.authority
            .clone()
            .unwrap_or_else(|| format!("{}:{}", self.host, self.port))
    }
}

/// An answer, read to its end or to where it broke.
#[derive(Debug, Clone, Default)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Header fields.
    pub headers: Headers,
    /// 1xx answers before it (HTTP/1.1 only).
    pub informational: Vec<(u16, Headers)>,
    /// The body as received, content codings still on.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Headers,
    /// Whether the body ended the way its framing says.
    pub complete: bool,
}

impl Response {
    /// The reason of a denial.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.headers.get("x-deny-reason")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}
