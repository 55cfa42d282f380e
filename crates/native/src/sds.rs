//! The servers that tell this gateway secrets: one connection to each, whatever comes from it. A configuration whose
//! certificates cannot be used is refused before anything changes; a server that cannot be reached is waited for in the
//! background, and no start or reload waits for it.

use std::{collections::HashMap, path::Path};

use aws_lc_rs::digest::{Context, SHA256};
use outgate_config::Config;
use outgate_journey::policy::{CredentialSource, PlaneAddress};
use outgate_xds::client::{Protocol, SecretClient, SecretFault, Target};
use zeroize::Zeroizing;

use crate::gateway::GatewayError;

/// What this gateway calls itself; who it is, its certificate says.
const NODE: &str = "outgate";

/// The servers that a configuration names.
#[derive(Default)]
pub(crate) struct Servers {
    known: HashMap<PlaneAddress, Server>,
    /// What is connected to in another way once this is in force: with a renewed certificate.
    renewed: Vec<(SecretClient, Target)>,
}

#[derive(Clone)]
struct Server {
    client: SecretClient,
    files: Fingerprint,
}

/// Of the files by which both sides prove who they are.
type Fingerprint = Vec<u8>;

impl Servers {
    /// The servers of a configuration. Those that were known before keep their connection and all that came over it.
    /// Blocks on files; to be called within a runtime.
    ///
    /// # Errors
    /// [`GatewayError::SecretServer`]; then nothing has changed.
    pub(crate) fn of(config: &Config, before: &Self) -> Result<Self, GatewayError> {
        let mut servers = Self::default();
        let minter = config.minter.iter().map(|minter| &minter.address);
        let sources = config.credentials.values();
        let sources = sources.filter_map(|source| match source {
            CredentialSource::Sds(sds) => Some(&sds.address),
            CredentialSource::Env(_) | CredentialSource::File(_) => None,
        });
        for address in minter.chain(sources) {
            if !servers.known.contains_key(address) {
                servers.add(address, before.known.get(address))?;
            }
        }
        Ok(servers)
    }

    fn add(&mut self, address: &PlaneAddress, before: Option<&Server>) -> Result<(), GatewayError> {
        let refused = |why: &dyn std::fmt::Display| GatewayError::SecretServer {
            address: address.to_string(),
            why: why.to_string(),
        };
        let (target, files) = target(address).map_err(|why| refused(&why))?;
        let client = match before {
            Some(before) if before.files == files => before.client.clone(),
            Some(before) => {
                // Looked at before anything is changed; it never connects.
                client(target).map_err(|fault| refused(&fault))?;
                let (target, _) = self::target(address).map_err(|why| refused(&why))?;
                self.renewed.push((before.client.clone(), target));
                before.client.clone()
            }
            None => client(target).map_err(|fault| refused(&fault))?,
        };
        self.known.insert(address.clone(), Server { client, files });
        Ok(())
    }

    /// Uses renewed certificates from here on.
    pub(crate) fn come_into_force(&mut self) {
        for (client, target) in std::mem::take(&mut self.renewed) {
            if let Err(error) = client.set_target(target) {
                tracing::error!(code = "secret_server", %error, "a renewed certificate is not used");
            }
        }
    }

    /// The way to one of them.
    pub(crate) fn client(&self, address: &PlaneAddress) -> Option<&SecretClient> {
        self.known.get(address).map(|server| &server.client)
    }
}

fn client(target: Target) -> Result<SecretClient, SecretFault> {
    SecretClient::new(target, NODE, Protocol::Auto)
}

fn target(address: &PlaneAddress) -> Result<(Target, Fingerprint), String> {
    let (host, port, ca, identity, server_name) = match address {
        PlaneAddress::Socket(path) => return Ok((Target::Unix(path.clone()), Fingerprint::new())),
        PlaneAddress::Tcp {
            host,
            port,
            ca,
            identity,
            server_name,
        } => (host, port, ca, identity, server_name),
    };
    let ca_pem = read(ca)?;
    let certificate_pem = read(&identity.certificate)?;
    let key_pem = read(&identity.key)?;
    let mut files = Context::new(&SHA256);
    for file in [&ca_pem, &certificate_pem, &key_pem] {
        files.update(&file.len().to_be_bytes());
        files.update(file);
    }
    let target = Target::Tcp {
        host: host.clone(),
        port: *port,
        server_name: server_name.clone(),
        ca_pem: ca_pem.to_vec(),
        certificate_pem: certificate_pem.to_vec(),
        key_pem,
    };
    Ok((target, files.finish().as_ref().to_vec()))
}

/// A file, wiped from memory once it was used: it may be a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Zeroizing::new(bytes))
}
