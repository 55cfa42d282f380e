//! Issuers that live for one test: real keys, real signatures, a real TLS server that tells what it was asked.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard},
    time::Duration,
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use outgate_clock::{Clock, FakeClock};
use outgate_issuer::{IssuerConfig, IssuerState, Issuers, KeySource, Timing};
use outgate_journey::session::{TokenClaims, TokenFault, TokenVerifier, UnixSeconds};
use outgate_testkit::TestCa;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "../../../https/tests/support/mod.rs"]
mod web;

use web::{Body, Route, Server, whole};

pub(crate) const NOW: u64 = 1_790_000_000;
pub(crate) const AUDIENCE: &str = "outgate";

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A private key, and the name that its issuer gives it.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) material: Material,
}

pub(crate) enum Material {
    Rsa(&'static RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// Two, because making one takes long.
static RSA: LazyLock<[RsaKeyPair; 2]> =
    LazyLock::new(|| std::array::from_fn(|_| RsaKeyPair::generate(KeySize::Rsa2048).unwrap()));

impl Signer {
    pub(crate) fn rsa(kid: &str, which: usize) -> Self {
        Self::of(kid, Material::Rsa(&RSA[which]))
    }

    pub(crate) fn p256(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        Self::of(kid, Material::P256(key))
    }

    pub(crate) fn p384(kid: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        Self::of(kid, Material::P384(key))
    }

    pub(crate) fn ed25519(kid: &str) -> Self {
        Self::of(kid, Material::Ed25519(Ed25519KeyPair::generate().unwrap()))
    }

    fn of(kid: &str, material: Material) -> Self {
        Self {
            kid: kid.to_owned(),
            material,
        }
    }

    pub(crate) fn usual_algorithm(&self) -> &'static str {
        match &self.material {
            Material::Rsa(_) => "RS256",
            Material::P256(_) => "ES256",
            Material::P384(_) => "ES384",
            Material::Ed25519(_) => "EdDSA",
        }
    }

    /// `n` and `e` of the RSAPublicKey of RFC 8017 for 2048 bits and 65537: its layout is fixed.
    pub(crate) fn rsa_numbers(&self) -> (Vec<u8>, Vec<u8>) {
        let Material::Rsa(pair) = &self.material else {
            panic!("not an RSA key");
        };
        let der = pair.public_key().as_ref();
        assert_eq!(der.len(), 270);
        (der[9..265].to_vec(), der[267..].to_vec())
    }

    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match &self.material {
            Material::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Material::P256(pair) | Material::P384(pair) => pair.public_key().as_ref().to_vec(),
            Material::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn jwk(&self) -> Value {
        let public = self.public_bytes();
        let mut jwk = match &self.material {
            Material::Rsa(_) => {
                let (n, e) = self.rsa_numbers();
                json!({ "kty": "RSA", "n": b64(n), "e": b64(e) })
            }
            Material::P256(_) => {
                json!({ "kty": "EC", "crv": "P-256", "x": b64(&public[1..33]), "y": b64(&public[33..]) })
            }
            Material::P384(_) => {
                json!({ "kty": "EC", "crv": "P-384", "x": b64(&public[1..49]), "y": b64(&public[49..]) })
            }
            Material::Ed25519(_) => json!({ "kty": "OKP", "crv": "Ed25519", "x": b64(public) }),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    pub(crate) fn header(&self) -> Value {
        json!({ "alg": self.usual_algorithm(), "typ": "JWT", "kid": self.kid })
    }

    /// A token as an honest issuer would make it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", b64(header), b64(claims));
        let parsed: Value = serde_json::from_str(header).unwrap_or_default();
        let signature = self.signature(parsed["alg"].as_str().unwrap_or(""), message.as_bytes());
        format!("{message}.{}", b64(signature))
    }

    /// By the algorithm named, or, where the key cannot do that, by its usual one.
    pub(crate) fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.material {
            Material::Rsa(pair) => {
                let encoding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "RS384" => &RSA_PKCS1_SHA384,
                    "RS512" => &RSA_PKCS1_SHA512,
                    "PS256" => &RSA_PSS_SHA256,
                    "PS384" => &RSA_PSS_SHA384,
                    "PS512" => &RSA_PSS_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
            Material::P256(pair) | Material::P384(pair) => {
                pair.sign(&random, message).unwrap().as_ref().to_vec()
            }
            Material::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }
}

pub(crate) fn jwks<'a>(signers: impl IntoIterator<Item = &'a Signer>) -> Value {
    json!({ "keys": signers.into_iter().map(Signer::jwk).collect::<Vec<_>>() })
}

/// Claims that are good at [`NOW`].
pub(crate) fn claims(issuer: &str) -> Value {
    json!({
        "iss": issuer, "aud": AUDIENCE, "sub": "agent-7", "jti": "t-1",
        "iat": NOW - 60, "nbf": NOW - 60, "exp": NOW + 600,
    })
}

/// The value with one member set, or, for `null`, taken out.
pub(crate) fn with(mut value: Value, name: &str, member: impl Into<Value>) -> Value {
    match member.into() {
        Value::Null => drop(value.as_object_mut().unwrap().remove(name)),
        member => value[name] = member,
    }
    value
}

pub(crate) fn clock() -> Arc<FakeClock> {
    Arc::new(FakeClock::at(UnixSeconds(NOW)))
}

/// What a refusal says; an expired token's claims aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Invalid(&'static str),
    Expired,
}

pub(crate) fn verify(
    issuers: &Issuers,
    token: &str,
    now: u64,
) -> Result<Arc<TokenClaims>, Refusal> {
    issuers
        .verify(token, UnixSeconds(now))
        .map_err(|fault| match fault {
            TokenFault::Invalid(why) => Refusal::Invalid(why),
            TokenFault::Expired(_) => Refusal::Expired,
        })
}

/// As the gateway does it: prepare, then verify, at the time of the clock.
pub(crate) async fn present(
    issuers: &Issuers,
    clock: &FakeClock,
    token: &str,
) -> Result<Arc<TokenClaims>, Refusal> {
    let now = clock.unix();
    issuers.prepare(token, now).await;
    verify(issuers, token, now.0)
}

/// An issuer whose keys are in a file, so that nothing need be fetched.
pub(crate) struct FileIssuer {
    pub(crate) dir: TempDir,
    pub(crate) config: IssuerConfig,
}

impl FileIssuer {
    pub(crate) fn new(name: &str, keys: &Value) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("keys.json");
        std::fs::write(&path, keys.to_string()).unwrap();
        let config = IssuerConfig {
            keys: KeySource::JwksFile(path),
            ..IssuerConfig::new(name, AUDIENCE)
        };
        Self { dir, config }
    }

    pub(crate) fn issuers(&self) -> Issuers {
        Issuers::new(vec![self.config.clone()], clock()).unwrap()
    }
}

/// How a web server answers at one of its paths.
#[derive(Clone)]
pub(crate) enum Reply {
    Json(Value),
    Text(StatusCode, String),
    /// To this place.
    Redirect(String),
    /// With this `Cache-Control`.
    Cached(Value, &'static str),
    /// After this long.
    Late(Duration, Value),
    /// Never.
    Silence,
}

/// A web server whose answers a test changes while it runs.
pub(crate) struct Idp {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    replies: Mutex<Vec<(String, Reply)>>,
    asked: Mutex<Vec<Request<Bytes>>>,
}

impl Idp {
    pub(crate) async fn start() -> Self {
        let (ca, dir) = (TestCa::new("the issuer's CA"), TempDir::new().unwrap());
        std::fs::write(dir.path().join("ca.pem"), ca.pem()).unwrap();
        let told = Arc::new(Told::default());
        let server = Server::start(&ca, &["h2", "http/1.1"], Told::route(&told)).await;
        Self { server, dir, told }
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub(crate) fn issuer(&self) -> String {
        self.server.url("")
    }

    pub(crate) fn set(&self, path: &str, reply: Reply) {
        let mut replies = self.told.replies.lock().unwrap();
        replies.retain(|(known, _)| known != path);
        replies.push((path.to_owned(), reply));
    }

    /// Metadata that lead to `/jwks`, and these keys there.
    pub(crate) fn publish<'a>(&self, signers: impl IntoIterator<Item = &'a Signer>) {
        self.set(
            "/.well-known/openid-configuration",
            Reply::Json(self.metadata()),
        );
        self.set("/jwks", Reply::Json(jwks(signers)));
    }

    pub(crate) fn metadata(&self) -> Value {
        json!({ "issuer": self.issuer(), "jwks_uri": self.server.url("/jwks") })
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Vec<Request<Bytes>>> {
        self.told.asked.lock().unwrap()
    }

    pub(crate) fn count(&self, path: &str) -> usize {
        let is_it = |request: &&Request<Bytes>| request.uri().path() == path;
        self.asked().iter().filter(is_it).count()
    }

    pub(crate) fn config(&self) -> IssuerConfig {
        IssuerConfig {
            ca: Some(self.ca()),
            ..IssuerConfig::new(&self.issuer(), AUDIENCE)
        }
    }

    pub(crate) fn issuers(&self, clock: &Arc<FakeClock>) -> Issuers {
        patient(vec![self.config()], clock, 5000)
    }
}

/// Issuers that wait for so many milliseconds.
pub(crate) fn patient(configs: Vec<IssuerConfig>, clock: &Arc<FakeClock>, wait: u64) -> Issuers {
    let timing = Timing {
        wait: Duration::from_millis(wait),
        call: Duration::from_millis(wait),
    };
    Issuers::with_timing(configs, Arc::clone(clock) as Arc<dyn Clock>, timing).unwrap()
}

pub(crate) fn state(issuers: &Issuers) -> IssuerState {
    issuers.states().remove(0)
}

impl Told {
    fn route(told: &Arc<Self>) -> Route {
        let told = Arc::clone(told);
        Arc::new(move |request| {
            let told = Arc::clone(&told);
            Box::pin(async move {
                let path = request.uri().path().to_owned();
                let reply = told.reply(&path);
                told.asked.lock().unwrap().push(request);
                answer(reply).await
            })
        })
    }

    fn reply(&self, path: &str) -> Option<Reply> {
        let replies = self.replies.lock().unwrap();
        let found = replies.iter().find(|(known, _)| known == path);
        found.map(|(_, reply)| reply.clone())
    }
}

async fn answer(reply: Option<Reply>) -> Response<Body> {
    let json = |value: Value| Response::new(whole(value.to_string()));
    match reply {
        None => status(StatusCode::NOT_FOUND, ""),
        Some(Reply::Json(value)) => json(value),
        Some(Reply::Text(code, text)) => status(code, &text),
        Some(Reply::Redirect(place)) => {
            let mut answer = status(StatusCode::FOUND, "");
            answer
                .headers_mut()
                .insert("location", place.parse().unwrap());
            answer
        }
        Some(Reply::Cached(value, control)) => {
            let mut answer = json(value);
            answer
                .headers_mut()
                .insert("cache-control", control.parse().unwrap());
            answer
        }
        Some(Reply::Late(delay, value)) => {
            tokio::time::sleep(delay).await;
            json(value)
        }
        Some(Reply::Silence) => std::future::pending().await,
    }
}

fn status(code: StatusCode, text: &str) -> Response<Body> {
    let mut answer = Response::new(whole(text.to_owned()));
    *answer.status_mut() = code;
    answer
}
