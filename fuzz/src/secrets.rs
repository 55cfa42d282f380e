//! What a server of secrets gives, as its client takes it. The input is a script of responses.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use outgate_envoy_proto::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::{GenericSecret, Secret, TlsCertificate, secret::Type},
    service::discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        Resource,
    },
};
use outgate_xds::{
    client::{SecretState, SecretValue},
    fuzz::Wanting,
    type_urls::{CLUSTER, SECRET},
};
use prost::Message;
use prost_types::Any;
use tokio::sync::watch;

use crate::script::Script;

/// The last two are not wanted.
const NAMES: [&str; 4] = ["a", "b", "c", ""];
const WANTED: usize = 2;
const TTL: Duration = Duration::from_secs(10);

/// Incremental: a secret is in use if and only if the last that was said of its name gives it in place, under its own
/// name, and its time has not run out. What cannot be used is refused, and takes what was there before with it.
pub fn delta_secrets(input: &[u8]) {
    let mut script = Script(input);
    let mut client = Client::new(Wanting::delta().expect("no target"));
    let first = client.wanting.first();
    let first = DeltaDiscoveryRequest::decode(&*first).expect("a request");
    assert_eq!(sorted(first.resource_names_subscribe), NAMES[..WANTED]);
    for round in 0.. {
        let Some(parts) = script.next() else { break };
        if parts == u8::MAX {
            client.run_out();
            continue;
        }
        let mut response = DeltaDiscoveryResponse {
            nonce: round.to_string(),
            type_url: SECRET.to_owned(),
            ..DeltaDiscoveryResponse::default()
        };
        let mut is_refused = Some(false);
        for _ in 0..parts % 4 {
            let (resource, is_usable) = client.resource(&mut script);
            response.resources.push(resource);
            is_refused = match (is_refused, is_usable) {
                (Some(true), _) | (_, Some(false)) => Some(true),
                (Some(false), Some(true)) => Some(false),
                (None, _) | (_, None) => None,
            };
        }
        for at in (0..NAMES.len()).filter(|at| parts & (0x10 << at) != 0) {
            response.removed_resources.push(NAMES[at].to_owned());
            client.expect(at, Stand::default());
        }
        let said = client.wanting.take(&response.encode_to_vec());
        let said = DeltaDiscoveryRequest::decode(&*said.expect("a response")).expect("a request");
        assert_eq!(said.response_nonce, response.nonce);
        assert!(is_refused.is_none_or(|it| it == said.error_detail.is_some()));
        assert!(said.resource_names_subscribe.is_empty());
        client.assert_stands();
    }
    client.assert_unasked();
}

/// State of the world: the same, and a version is accepted only if all of it can be used.
pub fn world_secrets(input: &[u8]) {
    let mut script = Script(input);
    let mut client = Client::new(Wanting::world().expect("no target"));
    client.wanting.first();
    let mut accepted = String::new();
    for round in 0.. {
        let Some(parts) = script.next() else { break };
        let mut response = DiscoveryResponse {
            nonce: round.to_string(),
            version_info: format!("v{round}"),
            type_url: SECRET.to_owned(),
            ..DiscoveryResponse::default()
        };
        let mut usable = Vec::new();
        for _ in 0..parts % 4 {
            let at = script.below(NAMES.len());
            let given = given(at, &mut script);
            usable.push(given.is_usable());
            let stand = Stand {
                given: given.value.clone(),
                version: response.version_info.clone(),
                runs_out: false,
            };
            match given.value {
                Value::OneOf(_) => client.may_be(&stand),
                _ => client.expect(at, stand),
            }
            response.resources.push(given.any);
        }
        let said = client.wanting.take(&response.encode_to_vec());
        let said = DiscoveryRequest::decode(&*said.expect("a response")).expect("a request");
        assert_eq!(said.response_nonce, response.nonce);
        assert_eq!(sorted(said.resource_names), NAMES[..WANTED]);
        if usable.iter().all(|it| *it == Some(true)) {
            assert!(said.error_detail.is_none());
        } else if usable.contains(&Some(false)) {
            assert!(said.error_detail.is_some());
        }
        if said.error_detail.is_none() {
            accepted = response.version_info;
        }
        assert_eq!(said.version_info, accepted);
        client.assert_stands();
    }
    client.assert_unasked();
}

/// What is known of a value.
#[derive(Clone, Default, Debug)]
enum Value {
    /// None; whoever asked has been told so.
    #[default]
    None,
    Is(Vec<u8>),
    /// It cannot be used.
    Unusable,
    /// If it is there, it is a part of these bytes.
    OneOf(Vec<u8>),
    Waiting,
}

/// How it is to stand with a name.
#[derive(Clone, Default)]
struct Stand {
    given: Value,
    version: String,
    runs_out: bool,
}

struct Client {
    wanting: Wanting,
    watched: Vec<watch::Receiver<SecretState>>,
    stands: BTreeMap<usize, Stand>,
}

impl Client {
    fn new(wanting: Wanting) -> Self {
        let watch = |name: &&str| wanting.want(name).expect("a name");
        let watched = NAMES[..WANTED].iter().map(watch).collect();
        let waiting = Stand {
            given: Value::Waiting,
            ..Stand::default()
        };
        Self {
            wanting,
            watched,
            stands: (0..WANTED).map(|at| (at, waiting.clone())).collect(),
        }
    }

    fn expect(&mut self, at: usize, stand: Stand) {
        if at < WANTED {
            self.stands.insert(at, stand);
        }
    }

    /// It is not known of which name this is.
    fn may_be(&mut self, stand: &Stand) {
        let Value::OneOf(bytes) = &stand.given else {
            return;
        };
        for known in self.stands.values_mut() {
            let mut either = bytes.clone();
            if let Value::Is(before) | Value::OneOf(before) = &known.given {
                either.extend(before);
            }
            known.given = Value::OneOf(either);
        }
    }

    fn run_out(&mut self) {
        self.wanting.expire(Instant::now() + 2 * TTL);
        for stand in self.stands.values_mut().filter(|stand| stand.runs_out) {
            *stand = Stand::default();
        }
        self.assert_stands();
    }

    /// A resource, and whether it can be used.
    fn resource(&mut self, script: &mut Script<'_>) -> (Resource, Option<bool>) {
        let (at, how) = (script.below(NAMES.len()), script.byte());
        let version = format!("v{}", how % 4);
        let runs_out = how & 8 != 0;
        let mut resource = Resource {
            name: NAMES[at].to_owned(),
            version: version.clone(),
            ttl: runs_out.then(|| TTL.try_into().expect("a short time")),
            ..Resource::default()
        };
        if how & 16 != 0 {
            if let Some(stand) = self.stands.get_mut(&at)
                && stand.version == version
            {
                stand.runs_out = runs_out;
            }
            return (resource, Some(true));
        }
        let inner = if how & 0xe0 == 0xe0 {
            script.below(NAMES.len())
        } else {
            at
        };
        let mut given = given(inner, script);
        match given.value {
            Value::Is(_) | Value::None if inner != at => given.value = Value::Unusable,
            _ => {}
        }
        let is_usable = given.is_usable();
        resource.resource = Some(given.any);
        let stand = Stand {
            // What is refused has no version that could be used for longer.
            version: match is_usable {
                Some(false) => String::new(),
                _ => version,
            },
            given: given.value,
            runs_out,
        };
        self.expect(at, stand);
        (resource, is_usable)
    }

    fn assert_stands(&self) {
        for (at, stand) in &self.stands {
            let state = self.watched[*at].borrow();
            match (&stand.given, &*state) {
                (Value::Waiting, SecretState::Waiting)
                | (Value::None | Value::Unusable, SecretState::Absent)
                | (Value::OneOf(_), SecretState::Absent | SecretState::Waiting) => {}
                (given, SecretState::Present(secret)) => {
                    assert_eq!(&*secret.name, NAMES[*at]);
                    let value = bytes(&secret.value);
                    match given {
                        Value::Is(expected) => assert_eq!(value, *expected),
                        Value::OneOf(bytes) => assert_within(&value, bytes),
                        other => panic!("{value:?} where there is {other:?}"),
                    }
                }
                (given, state) => panic!("{state:?} where there is {given:?}"),
            }
        }
    }

    /// Nothing was kept that nobody had asked for.
    fn assert_unasked(&self) {
        let unasked = self.wanting.want(NAMES[WANTED]).expect("a name");
        assert!(matches!(*unasked.borrow(), SecretState::Waiting));
    }
}

/// A secret's message.
struct Given {
    any: Any,
    value: Value,
}

impl Given {
    fn is_usable(&self) -> Option<bool> {
        match self.value {
            Value::Unusable => Some(false),
            Value::OneOf(_) => None,
            _ => Some(true),
        }
    }
}

fn given(at: usize, script: &mut Script<'_>) -> Given {
    let (shape, bytes) = (script.byte(), script.bytes().to_vec());
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let source = |specifier| DataSource {
        specifier: Some(specifier),
        ..DataSource::default()
    };
    let generic = |specifier| {
        Some(Type::GenericSecret(GenericSecret {
            secret: Some(source(specifier)),
            ..GenericSecret::default()
        }))
    };
    let known = |bytes: Vec<u8>| match bytes.is_empty() {
        true => Value::None,
        false => Value::Is(bytes),
    };
    let (kind, value) = match shape % 8 {
        0 => (generic(Specifier::InlineBytes(bytes.clone())), known(bytes)),
        1 => (
            generic(Specifier::InlineString(text.clone())),
            known(text.into_bytes()),
        ),
        2 => (generic(Specifier::Filename(text)), Value::Unusable),
        3 => (
            generic(Specifier::EnvironmentVariable(text)),
            Value::Unusable,
        ),
        4 => {
            let certificate = TlsCertificate {
                certificate_chain: Some(source(Specifier::InlineString(text.clone()))),
                private_key: Some(source(Specifier::InlineBytes(text.clone().into_bytes()))),
                ..TlsCertificate::default()
            };
            (
                Some(Type::TlsCertificate(certificate)),
                known(text.repeat(2).into_bytes()),
            )
        }
        5 => (None, Value::Unusable),
        _ => {
            let any = Any {
                type_url: SECRET.to_owned(),
                value: bytes.clone(),
            };
            return Given {
                any,
                value: Value::OneOf(bytes),
            };
        }
    };
    let secret = Secret {
        name: NAMES[at].to_owned(),
        r#type: kind,
    };
    let is_other = shape & 0xf0 == 0xf0;
    Given {
        any: Any {
            type_url: if is_other { CLUSTER } else { SECRET }.to_owned(),
            value: secret.encode_to_vec(),
        },
        value: if is_other { Value::Unusable } else { value },
    }
}

fn bytes(value: &SecretValue) -> Vec<u8> {
    match value {
        SecretValue::Generic(bytes) => bytes.to_vec(),
        SecretValue::Certificate { chain_pem, key_pem } => {
            [chain_pem.as_bytes(), key_pem.as_bytes()].concat()
        }
    }
}

/// A chain and a key may stand apart: each byte at least was sent.
fn assert_within(value: &[u8], sent: &[u8]) {
    assert!(!value.is_empty());
    assert!(value.iter().all(|byte| sent.contains(byte)));
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort_unstable();
    names
}
