//! Fetching an issuer's keys. Every URL is the configuration's, or of the issuer's own origin; nothing is fetched
//! without TLS, and a redirect is no answer.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, CACHE_CONTROL},
};
use outgate_https::{Client, Response, Url};

use crate::json;

/// A set of 128 keys with their certificate chains is smaller.
pub(crate) const LONGEST_ANSWER: usize = 512 * 1024;

/// Where keys come from.
pub(crate) enum Source {
    /// The issuer's metadata, which must be of this issuer.
    Discovery {
        client: Client,
        metadata: Url,
        issuer: String,
    },
    /// A key set.
    Url { client: Client, keys: Url },
    /// A file with a key set.
    File(PathBuf),
}

/// A key set as it came.
pub(crate) struct Fetched {
    pub(crate) bytes: Bytes,
    /// How long the server says it is good for.
    pub(crate) lifetime: Option<Duration>,
}

impl Source {
    /// Fetches the key set.
    ///
    /// # Errors
    /// What to write into a log: no bytes of an answer.
    pub(crate) async fn fetch(&self) -> Result<Fetched, String> {
        match self {
            Self::Url { client, keys } => fetch_keys(client, keys).await,
            Self::Discovery {
                client,
                metadata,
                issuer,
            } => {
                let keys = discover(client, metadata, issuer).await?;
                fetch_keys(client, &keys).await
            }
            Self::File(path) => {
                let read = read_file(path.clone(), LONGEST_ANSWER).await;
                let bytes = read.map_err(|fault| fault.to_string())?;
                Ok(Fetched {
                    bytes: bytes.into(),
                    // A file is cheap to read.
                    lifetime: Some(Duration::ZERO),
                })
            }
        }
    }
}

async fn fetch_keys(client: &Client, url: &Url) -> Result<Fetched, String> {
    let answer = get(client, url).await?;
    let lifetime = lifetime(&answer.headers);
    Ok(Fetched {
        bytes: answer.body,
        lifetime,
    })
}

/// OpenID Connect Discovery 1.0 sections 3 and 4.3.
async fn discover(client: &Client, metadata: &Url, issuer: &str) -> Result<Url, String> {
    let answer = get(client, metadata).await?;
    let document = json::object(&answer.body)
        .ok_or_else(|| format!("{metadata}: not a JSON object without repeated names"))?;
    let text = |name: &str| document.get(name).and_then(serde_json::Value::as_str);
    if text("issuer") != Some(issuer) {
        return Err(format!("{metadata}: the metadata of another issuer"));
    }
    let keys = text("jwks_uri").ok_or_else(|| format!("{metadata}: no jwks_uri"))?;
    let keys = Url::parse(keys).map_err(|why| format!("{metadata}: jwks_uri: {why}"))?;
    if !keys.is_same_origin(metadata) {
        return Err(format!(
            "{metadata}: the keys are at another origin; if that is right, configure the URL {keys} itself"
        ));
    }
    Ok(keys)
}

async fn get(client: &Client, url: &Url) -> Result<Response, String> {
    let mut headers = HeaderMap::new();
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("application/json, application/jwk-set+json"),
    );
    let answer = client
        .get(url, headers)
        .await
        .map_err(|fault| fault.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("{url}: answered {}", answer.status.as_u16()));
    }
    Ok(answer)
}

/// `max-age` (RFC 9111 section 5.2.2.1), and nothing for what must not be kept.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|directive| {
            let directive = directive.trim();
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
                return Some(Duration::ZERO);
            }
            name.eq_ignore_ascii_case("max-age")
                .then(|| value.trim_matches('"').parse().ok())
                .flatten()
                .map(Duration::from_secs)
        })
        .min()
}

/// As [`read_file_now`].
pub(crate) async fn read_file(path: PathBuf, longest: usize) -> io::Result<Vec<u8>> {
    tokio::task::spawn_blocking(move || read_file_now(&path, longest)).await?
}

/// A regular file up to a length. Blocks; on a pipe it would for ever, and its reader with it. The buffer has room for
/// the whole of it from the start: it may be a secret, and one that grows leaves copies behind that nobody wipes.
pub(crate) fn read_file_now(path: &Path, longest: usize) -> io::Result<Vec<u8>> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let room = longest.saturating_add(1);
    let limit = u64::try_from(room).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(room);
    fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    if bytes.len() > longest {
        return Err(io::Error::other(format!("longer than {longest} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_lifetime_that_a_server_gives_counts() {
        for (value, expected) in [
            ("max-age=300", Some(300)),
            ("public, Max-Age=\"60\", must-revalidate", Some(60)),
            ("max-age=60, no-cache", Some(0)),
            ("no-store", Some(0)),
            ("max-age=300, max-age=20", Some(20)),
            ("max-age=-1", None),
            ("max-age=soon", None),
            ("s-maxage=5", None),
            ("public", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, value.parse().unwrap());
            assert_eq!(
                lifetime(&headers),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
    }
}
