//! Where others connect, and the control plane that this gateway follows, as written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    form::{DurationText, HttpsText, OneOrMany},
    plane::FilePlaneDoor,
};

/// Where guests connect, and where operators, other gateways and data planes do.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["proxy"]}, {"required": ["transparent"]}, {"required": ["control"]}, {"required": ["xds"]}, {"required": ["minter"]}]))]
pub(crate) struct FileListen {
    /// Address and port of the proxy, one or a list: `127.0.0.1:8080`. Port 0 lets the system choose.
    /// May be left out beside `transparent`, `control`, `xds` and `minter`.
    pub(crate) proxy: Option<OneOrMany<String>>,
    /// Address and port for captured connections, one or a list: `127.0.0.1:15001`. They arrive where a packet filter
    /// of this machine redirects them, as `outgate capture` does. Linux.
    pub(crate) transparent: Option<OneOrMany<String>>,
    /// Address and port where counts can be read, one or a list: `127.0.0.1:9090`. `GET /metrics` in the text format of
    /// Prometheus, in clear, by whoever can connect.
    pub(crate) metrics: Option<OneOrMany<String>>,
    /// Connections open at once. Default 10000.
    #[schemars(range(min = 1))]
    pub(crate) max_connections: Option<u32>,
    /// Where operators connect, over HTTPS. Without it there is only the socket in the state directory.
    pub(crate) operator: Option<FileOperatorListen>,
    /// Where gateways connect that follow this one, over mutual TLS.
    pub(crate) control: Option<FileControlListen>,
    /// Where data planes connect: Envoys, and other clients of the Secret Discovery Service. `outgate serve` is their
    /// control plane.
    pub(crate) xds: Option<FilePlaneDoor>,
    /// Where those connect that want leaves. `outgate minter` opens it, `outgate serve` does not.
    pub(crate) minter: Option<FilePlaneDoor>,
}

/// Where operators connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileOperatorListen {
    /// Address and port: `127.0.0.1:9443`.
    pub(crate) address: String,
    /// A PEM file with the certificate and its chain, relative to this file's folder.
    pub(crate) certificate: String,
    /// A PEM file with the certificate's private key.
    pub(crate) key: String,
}

/// Where gateways connect that follow this one.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileControlListen {
    /// Address and port: `127.0.0.1:9444`.
    pub(crate) address: String,
    /// A PEM file with the certificate and its chain, relative to this file's folder.
    pub(crate) certificate: String,
    /// A PEM file with the certificate's private key.
    pub(crate) key: String,
    /// A PEM file with the root certificates of the gateways. It should vouch for nobody else.
    pub(crate) client_ca: String,
    /// The gateways that may follow, by a name in their certificates, one or a list. Default: all that `client_ca`
    /// vouches for.
    pub(crate) gateways: Option<OneOrMany<String>>,
}

/// The control plane that this gateway follows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FileControl {
    /// Where it listens: `https://control.example.org:9444`.
    pub(crate) url: HttpsText,
    /// A PEM file with the root certificates of the control plane, relative to this file's folder.
    pub(crate) ca: String,
    /// A PEM file with this gateway's certificate and its chain.
    pub(crate) certificate: String,
    /// A PEM file with the certificate's private key.
    pub(crate) key: String,
    /// How old the denylist may be before no credential is attached any more, 1s to 10m. Default 60s.
    pub(crate) max_staleness: Option<DurationText>,
}
