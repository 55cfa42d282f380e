//! What a listener goes by at one moment: replaced as one when the file changes.

use std::sync::Arc;

use outgate_config::{CallerIssuer, Inbound, IssuerKeys};
use outgate_issuer::{Algorithm, IssuerConfig, IssuerError, KeySource, OperatorTokens};
use outgate_journey::policy::RuleId;
use outgate_plane::{Live, clock};
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use crate::service::Service;

/// What a configuration needs here, read and made; in force once it is put in.
pub struct Prepared {
    rule: RuleId,
    rules: Inbound,
    tokens: OperatorTokens,
    tls: Option<TlsAcceptor>,
}

pub(crate) struct State {
    /// The listener's place in the file, as records and refusals name it: callers are not told where the service is.
    pub(crate) rule: RuleId,
    pub(crate) rules: Inbound,
    pub(crate) tokens: OperatorTokens,
    pub(crate) service: Service,
    pub(crate) tls: Option<TlsAcceptor>,
}

impl Prepared {
    /// Reads the issuers' files, which blocks; asks nobody.
    pub(crate) fn new(
        index: usize,
        rules: &Inbound,
        tls: Option<&Arc<ServerConfig>>,
        before: Option<&State>,
    ) -> Result<Self, IssuerError> {
        let issuers = rules.issuers.iter().map(issuer).collect();
        let tokens = match before {
            Some(before) => before.tokens.replaced(issuers)?,
            None => OperatorTokens::new(issuers, clock::machine())?,
        };
        Ok(Self {
            rule: RuleId::new(format!("inbound[{index}]")),
            rules: rules.clone(),
            tokens,
            tls: tls.map(acceptor),
        })
    }

    /// With connections that are verified as the policy of the moment says.
    pub(crate) fn into_state(self, live: &Live) -> State {
        let Self {
            rule,
            rules,
            tokens,
            tls,
        } = self;
        State {
            service: Service::new(&rules.to, live),
            rule,
            rules,
            tokens,
            tls,
        }
    }
}

fn acceptor(tls: &Arc<ServerConfig>) -> TlsAcceptor {
    let mut tls = ServerConfig::clone(tls);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // A replayed request would reach the service twice.
    tls.max_early_data_size = 0;
    TlsAcceptor::from(Arc::new(tls))
}

fn issuer(trusted: &CallerIssuer) -> IssuerConfig {
    let algorithms = trusted.algorithms.iter();
    IssuerConfig {
        audiences: trusted.audiences.clone(),
        keys: match &trusted.keys {
            IssuerKeys::Discovery => KeySource::Discovery,
            IssuerKeys::Url(url) => KeySource::JwksUrl(url.as_str().to_owned()),
            IssuerKeys::File(path) => KeySource::JwksFile(path.clone()),
        },
        algorithms: algorithms
            .filter_map(|it| Algorithm::parse(it.as_str()))
            .collect(),
        session_claim: trusted.subject_claim.clone(),
        ca: trusted.ca.clone(),
        ..IssuerConfig::new(&trusted.issuer, "")
    }
}
