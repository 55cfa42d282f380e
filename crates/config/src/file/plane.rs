//! Data planes in other processes, as written: doors for them, the minter, Envoy, and servers of secrets.

use schemars::JsonSchema;
use serde::Deserialize;

use super::form::{DurationText, OneOrMany};

/// Where data planes connect, or those that want leaves: `socket`, or `address` with mutual TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["socket"]}, {"required": ["address", "certificate", "key", "client_ca"]}],
    "dependentRequired" = {
        "address": ["certificate", "key", "client_ca"], "certificate": ["address"], "key": ["address"],
        "client_ca": ["address"], "clients": ["address"]
    }
))]
pub(crate) struct FilePlaneDoor {
    /// A Unix socket, relative to this file's folder, for the gateway's own user. Its folder must exist.
    pub(crate) socket: Option<String>,
    /// Address and port, with mutual TLS: `127.0.0.1:18000`.
    pub(crate) address: Option<String>,
    /// With `address`: a PEM file with the certificate and its chain, relative to this file's folder.
    pub(crate) certificate: Option<String>,
    /// With `address`: a PEM file with the certificate's private key.
    pub(crate) key: Option<String>,
    /// With `address`: a PEM file with the root certificates of the clients. It should vouch for nobody else.
    pub(crate) client_ca: Option<String>,
    /// With `address`: who may connect, by a name in their certificates, one or a list. Default: all that `client_ca`
    /// vouches for.
    pub(crate) clients: Option<OneOrMany<String>>,
}

/// Another process that stamps the leaves and alone holds the CA's key (`outgate minter`): `socket`, or `address` with
/// mutual TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["socket"]}, {"required": ["address", "ca", "certificate", "key"]}],
    "dependentRequired" = {
        "address": ["ca", "certificate", "key"], "ca": ["address"], "certificate": ["address"], "key": ["address"],
        "server_name": ["address"]
    }
))]
pub(crate) struct FileMinter {
    /// Its Unix socket, relative to this file's folder.
    pub(crate) socket: Option<String>,
    /// Its host and port: `minter.example.org:9445`.
    pub(crate) address: Option<String>,
    /// With `address`: a PEM file with the root certificates of the minter's door, relative to this file's folder.
    pub(crate) ca: Option<String>,
    /// With `address`: a PEM file with this gateway's certificate and its chain.
    pub(crate) certificate: Option<String>,
    /// With `address`: a PEM file with the certificate's private key.
    pub(crate) key: Option<String>,
    /// With `address`: the name in the certificate of the minter's door. Default: the host.
    pub(crate) server_name: Option<String>,
    /// A PEM file with the certificate of the CA that signs the leaves, which guests trust.
    pub(crate) leaf_ca: String,
}

/// What Envoy's rendered configuration says.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("anyOf" = [{"required": ["proxy"]}, {"required": ["transparent"]}]))]
pub(crate) struct FileEnvoy {
    /// Address and port of Envoy's explicit proxy, one or a list: `127.0.0.1:8080`.
    pub(crate) proxy: Option<OneOrMany<String>>,
    /// Address and port of Envoy's listener for captured connections, one or a list.
    pub(crate) transparent: Option<OneOrMany<String>>,
    /// Envoy's administration interface. Default: none.
    pub(crate) admin: Option<FileEnvoyAdmin>,
    /// How Envoy reaches `listen.xds`. Default: by its `socket`.
    pub(crate) control: Option<FileEnvoyControl>,
    /// Whether answers of destinations that inject go through the gateway, to lose the credential. Default true.
    pub(crate) scrub: Option<bool>,
}

/// Envoy's administration interface: `address` or `socket`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{"required": ["address"]}, {"required": ["socket"]}]))]
pub(crate) struct FileEnvoyAdmin {
    /// Address and port: `127.0.0.1:9901`.
    pub(crate) address: Option<String>,
    /// A Unix socket, relative to this file's folder.
    pub(crate) socket: Option<String>,
}

/// How Envoy reaches `listen.xds`, with paths of Envoy's machine: `socket`, or `address` with mutual TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["socket"]}, {"required": ["address", "ca", "certificate", "key"]}],
    "dependentRequired" = {
        "address": ["ca", "certificate", "key"], "ca": ["address"], "certificate": ["address"], "key": ["address"],
        "server_name": ["address"]
    }
))]
pub(crate) struct FileEnvoyControl {
    /// The Unix socket, relative to this file's folder.
    pub(crate) socket: Option<String>,
    /// Host and port: `control.example.org:18000`.
    pub(crate) address: Option<String>,
    /// With `address`: a PEM file with the root certificates of `listen.xds`, relative to this file's folder.
    pub(crate) ca: Option<String>,
    /// With `address`: a PEM file with Envoy's certificate and its chain.
    pub(crate) certificate: Option<String>,
    /// With `address`: a PEM file with the certificate's private key.
    pub(crate) key: Option<String>,
    /// With `address`: the name in the certificate of `listen.xds`. Default: the host.
    pub(crate) server_name: Option<String>,
}

/// A generic secret on a server that speaks Envoy's Secret Discovery Service: `socket`, or `address` with mutual TLS.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["socket"]}, {"required": ["address", "ca", "certificate", "key"]}],
    "dependentRequired" = {
        "address": ["ca", "certificate", "key"], "ca": ["address"], "certificate": ["address"], "key": ["address"],
        "server_name": ["address"]
    }
))]
pub(crate) struct FileSds {
    /// The server's Unix socket, relative to this file's folder.
    pub(crate) socket: Option<String>,
    /// The server's host and port: `vault.example.org:8443`.
    pub(crate) address: Option<String>,
    /// With `address`: a PEM file with the root certificates of the server, relative to this file's folder.
    pub(crate) ca: Option<String>,
    /// With `address`: a PEM file with this gateway's certificate and its chain.
    pub(crate) certificate: Option<String>,
    /// With `address`: a PEM file with the certificate's private key.
    pub(crate) key: Option<String>,
    /// With `address`: the name in the server's certificate. Default: the host.
    pub(crate) server_name: Option<String>,
    /// The secret's name on the server.
    pub(crate) name: String,
    /// How long a value is good for after it last came from the server, 1s to 24h. Default: until the server takes it
    /// back.
    pub(crate) max_age: Option<DurationText>,
}

/// The keys that say where a server is: the same wherever this gateway, or Envoy, is a client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WrittenAddress<'f> {
    pub(crate) socket: Option<&'f String>,
    pub(crate) address: Option<&'f String>,
    pub(crate) ca: Option<&'f String>,
    pub(crate) certificate: Option<&'f String>,
    pub(crate) key: Option<&'f String>,
    pub(crate) server_name: Option<&'f String>,
}

macro_rules! written_address {
    ($($name:ident),*) => {
        $(impl $name {
            pub(crate) const fn place(&self) -> WrittenAddress<'_> {
                WrittenAddress {
                    socket: self.socket.as_ref(),
                    address: self.address.as_ref(),
                    ca: self.ca.as_ref(),
                    certificate: self.certificate.as_ref(),
                    key: self.key.as_ref(),
                    server_name: self.server_name.as_ref(),
                }
            }
        })*
    };
}

written_address!(FileMinter, FileEnvoyControl, FileSds);
