//! The gateway's own resolver: the file's `resolver.hosts` first, then DNS. A mapped name is never asked for.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts},
    net::runtime::TokioRuntimeProvider,
};
use outgate_config::ResolverConfig as Settings;
use outgate_journey::{name::HostName, resolve::Resolver};

/// How long a look-up may take, all tries included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why the resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ResolverError {
    /// The system's configuration is unreadable.
    #[error(
        "the system's DNS configuration cannot be used ({0}); name servers can be given under resolver.servers"
    )]
    System(String),
}

/// Resolves names; its settings can be exchanged while it works.
pub struct GatewayResolver {
    current: ArcSwap<Current>,
}

struct Current {
    hosts: HashMap<HostName, Vec<IpAddr>>,
    dns: Option<TokioResolver>,
}

impl GatewayResolver {
    /// A resolver with these settings.
    ///
    /// # Errors
    /// [`ResolverError`].
    pub fn new(settings: &Settings) -> Result<Self, ResolverError> {
        Ok(Self {
            current: ArcSwap::from_pointee(Current::new(settings)?),
        })
    }

    /// Takes other settings over.
    ///
    /// # Errors
    /// [`ResolverError`]; then the old ones stay.
    pub fn reconfigure(&self, settings: &Settings) -> Result<(), ResolverError> {
        self.current.store(Arc::new(Current::new(settings)?));
        Ok(())
    }
}

impl Current {
    fn new(settings: &Settings) -> Result<Self, ResolverError> {
        let system = |error: &dyn std::fmt::Display| ResolverError::System(error.to_string());
        let mut builder = if settings.servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                // A machine without DNS can still reach mapped names; the others fail when they are asked for.
                Err(error) if !settings.hosts.is_empty() => {
                    tracing::warn!(%error, "no DNS configuration: only resolver.hosts is known");
                    return Ok(Self {
                        hosts: settings.hosts.clone(),
                        dns: None,
                    });
                }
                Err(error) => return Err(system(&error)),
            }
        } else {
            let servers = settings.servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        tune(builder.options_mut());
        let dns = builder.build().map_err(|error| system(&error))?;
        Ok(Self {
            hosts: settings.hosts.clone(),
            dns: Some(dns),
        })
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = address.port();
    NameServerConfig::new(address.ip(), true, vec![udp, tcp])
}

fn tune(options: &mut ResolverOpts) {
    // The name that policy covers is the name that is asked for: no search domains, no hosts file beside ours.
    options.ndots = 0;
    options.use_hosts_file = hickory_resolver::config::ResolveHosts::Never;
    options.timeout = Duration::from_secs(3);
    options.attempts = 2;
}

impl Resolver for GatewayResolver {
    async fn resolve(&self, host: &HostName) -> Result<Vec<IpAddr>, String> {
        let current = self.current.load_full();
        if let Some(addresses) = current.hosts.get(host) {
            return Ok(addresses.clone());
        }
        let Some(dns) = &current.dns else {
            return Err("no DNS configuration".to_owned());
        };
        // The final dot keeps resolvers from trying the name under other domains.
        let lookup = dns.lookup_ip(format!("{host}."));
        match tokio::time::timeout(TIMEOUT, lookup).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", TIMEOUT.as_secs())),
        }
    }
}
