//! Services whose keys `outgate run` finds in the environment. The catalog is a file beside the code, read by the same
//! strict machinery as a policy file; a policy file can add services of its own and decides whether the catalog counts.

use outgate_journey::{
    name::HostPattern,
    policy::{
        CredentialName, DestinationLimits, Injection, InjectionForm, Port, Posture, RequestRules,
        Rule, RuleId, TokenDemand, TunnelProtocol,
    },
};

use crate::{Problems, check};

const CATALOG: &str = include_str!("../services.yaml");

/// A service: which variables hold its key, and where the key is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name: `openai`.
    pub name: String,
    /// The variables that hold its key, the one that counts most first; at least one.
    pub variables: Vec<String>,
    /// What is let out for it; at least one injects.
    pub destinations: Vec<ServiceDestination>,
}

/// One destination of a service: bumped if it injects, else passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceDestination {
    /// Which hosts.
    pub host: HostPattern,
    /// Which ports; never empty.
    pub ports: Vec<Port>,
    /// Whether a token is needed.
    pub token: TokenDemand,
    /// How the service's key is attached; `None`: not at all.
    pub form: Option<InjectionForm>,
    /// Which requests.
    pub requests: RequestRules,
}

/// The services that a configuration speaks of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Services {
    /// Whether the built-in catalog counts.
    pub known: bool,
    /// The file's own, in its order.
    pub extra: Vec<Service>,
}

/// A service with a key in the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundService {
    /// The service.
    pub service: Service,
    /// The first of its variables that is set.
    pub variable: String,
}

/// The built-in catalog.
///
/// # Errors
/// The catalog's problems, as for a policy file. A checked-in catalog has none: a test reads it.
pub fn known_services() -> Result<Vec<Service>, Problems> {
    check::parse_catalog("services.yaml", CATALOG)
}

impl Services {
    /// The file's own services, then the built-in ones where they count; of two with one name, the file's.
    ///
    /// # Errors
    /// As [`known_services`].
    pub fn all(&self) -> Result<Vec<Service>, Problems> {
        let mut all = self.extra.clone();
        if self.known {
            let is_free = |it: &Service| self.extra.iter().all(|extra| extra.name != it.name);
            all.extend(known_services()?.into_iter().filter(is_free));
        }
        Ok(all)
    }

    /// The services that have a key. `is_set` says whether a variable is set and not empty.
    ///
    /// # Errors
    /// As [`known_services`].
    pub fn find(&self, is_set: &dyn Fn(&str) -> bool) -> Result<Vec<FoundService>, Problems> {
        let found = self.all()?.into_iter();
        Ok(found
            .filter_map(|service| FoundService::of(service, is_set))
            .collect())
    }
}

impl FoundService {
    /// The service, if it has a key.
    pub(crate) fn of(service: Service, is_set: &dyn Fn(&str) -> bool) -> Option<Self> {
        let variable = service.variables.iter().find(|name| is_set(name))?.clone();
        Some(Self { service, variable })
    }
}

impl ServiceDestination {
    /// The rule that serves it, with the credential of this name; `plain` is the posture where nothing is injected.
    pub(crate) fn rule(&self, service: &str, credential: &CredentialName, plain: Posture) -> Rule {
        let injection = self.form.clone().map(|form| Injection {
            credential: credential.clone(),
            form,
            over_plaintext: false,
        });
        Rule {
            id: RuleId::new(format!("service {service}: {}", self.host)),
            host: self.host.clone(),
            ports: self.ports.clone(),
            posture: if injection.is_some() {
                Posture::Bump
            } else {
                plain
            },
            protocol: TunnelProtocol::Tls,
            plaintext: false,
            encrypted_client_hello: false,
            token: self.token,
            requests: self.requests.clone(),
            injection,
            limits: DestinationLimits::default(),
            addresses: Default::default(),
        }
    }
}
