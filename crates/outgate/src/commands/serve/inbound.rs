//! The listeners in front of a service, as the file names them.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use anyhow::{Context, Result};
use outgate_config::{Config, Inbound};
use outgate_inbound::{Bound, InboundListener, Prepared};
use outgate_native::gateway::Gateway;
use rustls::ServerConfig;

use super::tls::server_config;

/// How often the issuers' keys are looked at.
const EVERY_MINUTE: Duration = Duration::from_secs(60);

/// All of them, in the file's order.
#[derive(Default)]
pub(super) struct Inbounds(Vec<Arc<InboundListener>>);

/// Binds their sockets; nothing is accepted yet.
///
/// # Errors
/// The first that cannot be bound.
pub(super) fn bind(config: &Config) -> Result<Vec<Bound>> {
    let bind = |it: &Inbound| Ok(Bound::new(it.listen)?);
    config.inbound.iter().map(bind).collect()
}

impl Inbounds {
    /// Opens them. Blocks on files; needs a runtime.
    ///
    /// # Errors
    /// What stands in the way.
    pub(super) fn open(gateway: &Gateway, sockets: Vec<Bound>) -> Result<Self> {
        let config = gateway.config();
        let mut opened = Vec::new();
        for (index, (socket, rules)) in sockets.into_iter().zip(&config.inbound).enumerate() {
            let tls = tls(index, rules)?;
            let core = gateway.core();
            let listener = InboundListener::open(core, socket, index, rules, tls.as_ref())?;
            gateway.spawn_until_stopped(keep_fresh(Arc::downgrade(&listener)));
            opened.push(listener);
        }
        Ok(Self(opened))
    }

    /// Makes what a new configuration needs; it has as many listeners, at the same places. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with it; then everything goes on as it was.
    pub(super) fn prepare(&self, next: &Config) -> Result<Vec<Prepared>> {
        let both = self.0.iter().zip(&next.inbound).enumerate();
        both.map(|(index, (listener, rules))| {
            Ok(listener.prepare(rules, tls(index, rules)?.as_ref())?)
        })
        .collect()
    }

    /// Judges by it from the next request on.
    pub(super) fn put_in_force(&self, prepared: Vec<Prepared>) {
        for (listener, prepared) in self.0.iter().zip(prepared) {
            listener.put_in_force(prepared);
        }
    }

    /// Where they listen.
    pub(super) fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|listener| listener.address())
    }
}

fn tls(index: usize, rules: &Inbound) -> Result<Option<Arc<ServerConfig>>> {
    let read = rules.tls.as_ref().map(server_config).transpose();
    read.with_context(|| format!("inbound[{index}].tls"))
}

/// Keys are there before the first caller is, and after a rotation before its first token.
async fn keep_fresh(listener: Weak<InboundListener>) {
    let mut minutes = tokio::time::interval(EVERY_MINUTE);
    loop {
        minutes.tick().await;
        let Some(listener) = listener.upgrade() else {
            return;
        };
        listener.refresh().await;
        for issuer in listener.issuers() {
            if let (0, Some(fault)) = (issuer.keys, &issuer.fault) {
                tracing::error!(
                    code = "issuer_unavailable",
                    issuer = %issuer.issuer,
                    "callers with this issuer's tokens are refused: {fault}"
                );
            }
        }
    }
}
