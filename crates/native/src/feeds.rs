//! Credentials that servers tell: each is followed for as long as the configuration names it, and the store is told what
//! becomes of it. What the server takes back, and what nobody was heard of for too long, is taken from the store at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use outgate_credential::{Contact, SourceCode, Told};
use outgate_journey::{
    policy::{CredentialName, SdsSource},
    session::{TokenFault, TokenVerifier},
};
use outgate_plane::{Core, clock::unix_now, tokens::Tokens};
use outgate_xds::client::{Secret, SecretClient, SecretState, SecretValue, SecretWatch};
use tokio_util::task::AbortOnDropHandle;

use crate::sds::Servers;

/// How often the age of a value is looked at. A lease looks for itself; this is for those who want to be told.
const LOOK: Duration = Duration::from_secs(1);

/// The credentials that are followed.
#[derive(Default)]
pub(crate) struct Feeds(HashMap<CredentialName, Feed>);

struct Feed {
    source: SdsSource,
    _following: AbortOnDropHandle<()>,
}

impl Feeds {
    /// Follows these, and no others from here on. To be called within a runtime, after the store was reconfigured.
    pub(crate) fn follow(
        &mut self,
        core: &Arc<Core>,
        servers: &Servers,
        wanted: &BTreeMap<CredentialName, SdsSource>,
    ) {
        self.0
            .retain(|name, feed| wanted.get(name) == Some(&feed.source));
        for (name, source) in wanted {
            if self.0.contains_key(name) {
                continue;
            }
            let Some(client) = servers.client(&source.address) else {
                continue;
            };
            let watch = match client.watch(&source.name) {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::error!(code = "unheard", credential = %name, %error, "credential cannot be followed");
                    continue;
                }
            };
            let following = Following {
                core: Arc::clone(core),
                name: name.clone(),
                source: source.clone(),
                client: client.clone(),
            };
            let feed = Feed {
                source: source.clone(),
                _following: AbortOnDropHandle::new(tokio::spawn(following.run(watch))),
            };
            self.0.insert(name.clone(), feed);
        }
    }
}

struct Following {
    core: Arc<Core>,
    name: CredentialName,
    source: SdsSource,
    client: SecretClient,
}

/// What the store was told last.
#[derive(Default)]
enum Last {
    #[default]
    Nothing,
    Value(Arc<Secret>),
    Stale,
    Absent,
}

impl Following {
    async fn run(self, mut watch: SecretWatch) {
        let mut last = Last::default();
        loop {
            self.look(watch.state(), &mut last);
            tokio::select! {
                _ = watch.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    fn look(&self, state: SecretState, last: &mut Last) {
        let (told, next) = match state {
            // The store knows as much already.
            SecretState::Waiting => return,
            SecretState::Absent => (Told::Nothing(SourceCode::Missing), Last::Absent),
            SecretState::Present(_) if self.is_stale() => {
                (Told::Nothing(SourceCode::Stale), Last::Stale)
            }
            SecretState::Present(secret) => (self.judge(&secret), Last::Value(secret)),
        };
        let is_known = match (&*last, &next) {
            (Last::Value(one), Last::Value(other)) => Arc::ptr_eq(one, other),
            (Last::Stale, Last::Stale) | (Last::Absent, Last::Absent) => true,
            _ => false,
        };
        if is_known {
            return;
        }
        *last = next;
        let store = &self.core.plane.credentials;
        let (change, problems) = store.tell(&self.name, &self.source, told);
        for problem in problems {
            tracing::warn!(code = problem.code.as_str(), "{problem}");
        }
        if let Some(change) = change {
            tracing::info!(credential = %change.name, change = ?change.kind, "credential changed");
        }
    }

    fn is_stale(&self) -> bool {
        let silent = self.client.silent_for();
        self.source
            .max_age
            .is_some_and(|max_age| silent.is_none_or(|silent| silent > max_age))
    }

    fn judge(&self, secret: &Secret) -> Told {
        let SecretValue::Generic(value) = &secret.value else {
            return Told::Nothing(SourceCode::NotGeneric);
        };
        if is_session_token(&self.core.plane.tokens, value) {
            return Told::Nothing(SourceCode::SessionToken);
        }
        Told::Value {
            value: value.clone(),
            contact: Arc::new(Server(self.client.clone())),
        }
    }
}

/// How a lease learns whether the server is still there.
struct Server(SecretClient);

impl Contact for Server {
    fn silent_for(&self) -> Option<Duration> {
        self.0.silent_for()
    }
}

/// Whether a value is a token of this gateway, good or expired. Sent upstream as a credential it would be given away.
pub(crate) fn is_session_token(tokens: &Tokens, value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok_and(|value| {
        matches!(
            tokens.verify(value, unix_now()),
            Ok(_) | Err(TokenFault::Expired(_))
        )
    })
}
