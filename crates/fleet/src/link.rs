//! One connection to the control plane: TCP, TLS and HTTP/2, together within five seconds; the other side is asked every
//! two seconds whether it is there.

use std::sync::Arc;

use http::Uri;
use outgate_mutual::{ALPN, Link, LinkSettings, connect, in_time};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use crate::{Pace, error::FleetError};

/// Where the control plane is.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) origin: Uri,
    host: String,
    port: u16,
    name: ServerName<'static>,
}

impl Address {
    /// Reads `https://host:port`.
    pub(crate) fn parse(url: &str) -> Result<Self, FleetError> {
        let uri: Uri = url.parse().map_err(|_| FleetError::Address)?;
        let plain = uri.scheme_str() == Some("https")
            && matches!(uri.path(), "" | "/")
            && uri.query().is_none()
            && uri.authority().is_some_and(|a| !a.as_str().contains('@'));
        let (Some(host), true) = (uri.host(), plain) else {
            return Err(FleetError::Address);
        };
        let port = uri.port_u16().ok_or(FleetError::Address)?;
        let host = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| FleetError::Address)?;
        let origin = format!("https://{}", uri.authority().map_or("", |a| a.as_str()));
        Ok(Self {
            origin: origin.parse().map_err(|_| FleetError::Address)?,
            host,
            port,
            name,
        })
    }
}

/// # Errors
/// What failed, for the operator.
pub(crate) async fn open(
    address: &Address,
    tls: &Arc<ClientConfig>,
    pace: &Pace,
) -> Result<Link, String> {
    let settings = LinkSettings {
        keep_alive: pace.keep_alive,
        stream_window: 256 * 1024,
        connection_window: 512 * 1024,
    };
    in_time(async {
        let stream = connect(&address.host, address.port, address.name.clone(), tls)
            .await
            .map_err(|error| error.to_string())?;
        if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
            return Err("it does not speak HTTP/2".to_owned());
        }
        let link = Link::over(stream, settings).await;
        link.map_err(|error| error.to_string())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_and_a_port_behind_tls_is_an_address() {
        for (url, origin) in [
            (
                "https://control.example.org:9444",
                Some("https://control.example.org:9444/"),
            ),
            ("https://127.0.0.1:9444/", Some("https://127.0.0.1:9444/")),
            ("https://[::1]:9444", Some("https://[::1]:9444/")),
            ("http://control.example.org:9444", None),
            ("https://control.example.org", None),
            ("https://control.example.org:9444/path", None),
            ("https://control.example.org:9444/?q", None),
            ("https://user@control.example.org:9444", None),
            ("https://:9444", None),
            ("control.example.org:9444", None),
            ("", None),
        ] {
            let parsed = Address::parse(url).ok().map(|a| a.origin.to_string());
            assert_eq!(parsed.as_deref(), origin, "{url}");
        }
    }
}
