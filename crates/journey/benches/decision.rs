//! What a decision costs, whatever the number of destinations: the policy's part alone, and everything that the
//! gate does for a connection and for a request, with a token that the plane knows already.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark that cannot start should stop"
)]

use std::{
    collections::HashSet,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    task::{Context, Poll, Waker},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method, Uri};
use outgate_journey::{
    address::DenySet,
    destination::{Destination, identify_connect},
    gate::{Plane, RequestEvidence, judge_connection, judge_request},
    inject::{AuditGate, CredentialFault, Credentials},
    limit::{Exceeded, Limits},
    name::{HostName, HostPattern},
    path::PathPattern,
    policy::{
        CredentialName, DestinationLimits, Injection, InjectionForm, Policy, Port, Posture,
        RequestRule, RequestRules, Rule, RuleId, SessionBounds, SessionLimits, TokenDemand,
        TunnelProtocol,
    },
    resolve::Resolver,
    session::{
        Denylist, Session, SessionEnd, SessionId, Terms, TokenClaims, TokenFault, TokenOrigin,
        TokenVerifier, UnixSeconds, presented_to_proxy,
    },
};

/// As long as a real token, and like one in shape.
const TOKEN: &str = concat!(
    "eyJhbGciOiJFZERTQSIsImtpZCI6ImsxIn0.",
    "eyJpc3MiOiJvdXRnYXRlIiwiYXVkIjoib3V0Z2F0ZSIsInN1YiI6InMxIiwiZXhwIjoxNzkwMDAwMDAwfQ.",
    "c2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlc2lnbmF0dXJlcw"
);

/// A plane whose own parts cost next to nothing.
struct BarePlane {
    claims: Arc<TokenClaims>,
    ended: HashSet<SessionId>,
}

impl TokenVerifier for BarePlane {
    fn verify(&self, token: &str, _: UnixSeconds) -> Result<Arc<TokenClaims>, TokenFault> {
        if token == TOKEN {
            Ok(Arc::clone(&self.claims))
        } else {
            Err(TokenFault::Invalid("unknown"))
        }
    }
}

impl Denylist for BarePlane {
    fn standing(&self, claims: &TokenClaims) -> Result<Option<Arc<SessionLimits>>, SessionEnd> {
        if self.ended.contains(&claims.session) {
            return Err(SessionEnd::Ended);
        }
        Ok(None)
    }
}

impl Limits for BarePlane {
    type Slot = ();

    fn admit_connection(
        &self,
        _: &Session,
        _: &Destination,
        _: &SessionBounds,
    ) -> Result<(), Exceeded> {
        Ok(())
    }

    fn admit_request(&self, _: &Session, _: &Rule, _: &SessionBounds) -> Result<(), Exceeded> {
        Ok(())
    }
}

impl Resolver for BarePlane {
    async fn resolve(&self, _: &HostName) -> Result<Vec<IpAddr>, String> {
        Ok(vec![Ipv4Addr::new(93, 184, 216, 34).into()])
    }
}

impl Credentials for BarePlane {
    type Lease = ();

    fn lease(&self, _: &CredentialName) -> Result<(), CredentialFault> {
        Ok(())
    }
}

impl AuditGate for BarePlane {
    fn is_writable(&self) -> bool {
        true
    }
}

impl Plane for BarePlane {
    type Tokens = Self;
    type Denylist = Self;
    type Limits = Self;
    type Resolver = Self;
    type Credentials = Self;
    type Audit = Self;

    fn tokens(&self) -> &Self {
        self
    }
    fn denylist(&self) -> &Self {
        self
    }
    fn limits(&self) -> &Self {
        self
    }
    fn resolver(&self) -> &Self {
        self
    }
    fn credentials(&self) -> &Self {
        self
    }
    fn audit(&self) -> &Self {
        self
    }
    fn now(&self) -> UnixSeconds {
        UnixSeconds(1_780_000_000)
    }
}

fn rule(number: usize, host: &str) -> Rule {
    Rule {
        id: RuleId::new(format!("destinations[{number}] {host}")),
        host: HostPattern::parse(host).unwrap(),
        ports: vec![Port::HTTPS],
        posture: Posture::Bump,
        protocol: TunnelProtocol::Tls,
        plaintext: false,
        encrypted_client_hello: false,
        token: TokenDemand::Required,
        requests: RequestRules {
            allow: vec![RequestRule {
                methods: vec![Method::GET, Method::POST],
                paths: vec![PathPattern::parse("/v1/**").unwrap()],
                headers: Vec::new(),
            }],
            deny: Vec::new(),
        },
        injection: Some(Injection {
            credential: CredentialName::new("key"),
            form: InjectionForm::Header {
                name: http::header::AUTHORIZATION,
                prefix: "Bearer ".to_owned(),
                suffix: String::new(),
            },
            over_plaintext: false,
        }),
        limits: DestinationLimits::default(),
        addresses: Default::default(),
    }
}

/// Half of the destinations are exact names, half are wildcards.
fn policy(destinations: usize) -> Policy {
    let rules = (0..destinations)
        .map(|number| match number % 2 {
            0 => rule(number, &format!("api{number}.example.org")),
            _ => rule(number, &format!("*.tenant{number}.example.net")),
        })
        .collect();
    Policy::new(
        rules,
        DenySet::default(),
        SessionLimits::default(),
        Vec::new(),
    )
}

fn request_headers(host: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", host.to_owned()),
        ("authorization", format!("Bearer {TOKEN}")),
        ("accept", "application/json".to_owned()),
        ("content-type", "application/json".to_owned()),
        ("user-agent", "agent/1.0".to_owned()),
    ] {
        headers.insert(name, HeaderValue::from_str(&value).unwrap());
    }
    headers
}

/// Runs a future that never waits.
fn finished<F: Future>(future: F) -> F::Output {
    match std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing in the journey waits by itself"),
    }
}

fn decision(c: &mut Criterion) {
    let plane = BarePlane {
        claims: Arc::new(TokenClaims {
            session: SessionId::parse("s1").unwrap(),
            token_id: "t1".into(),
            expires: UnixSeconds(1_790_000_000),
            terms: Terms::default(),
            origin: TokenOrigin::Own,
        }),
        ended: HashSet::from([SessionId::parse("s0").unwrap()]),
    };
    let target = Uri::from_static("/v1/messages?stream=true");
    for destinations in [10, 1_000, 100_000] {
        let policy = policy(destinations);
        let middle = destinations / 2 / 2 * 2;
        for (case, host) in [
            ("exact", format!("api{middle}.example.org")),
            ("wildcard", format!("x.tenant{}.example.net", middle + 1)),
            ("miss", "unlisted.example.com".to_owned()),
        ] {
            let to = identify_connect(&format!("{host}:443")).unwrap();
            assert_eq!(policy.allow(to.clone()).is_ok(), case != "miss");
            let headers = request_headers(&host);
            let mut proxy = HeaderMap::new();
            let value = HeaderValue::from_str(&format!("Bearer {TOKEN}")).unwrap();
            proxy.insert(http::header::PROXY_AUTHORIZATION, value);
            let request = RequestEvidence {
                destination: &to,
                attributed: None,
                method: &Method::POST,
                target: &target,
                headers: &headers,
            };
            let bench = |name: &str| BenchmarkId::new(format!("{name} {case}"), destinations);
            let mut group = c.benchmark_group("decision");
            group.bench_function(bench("policy"), |b| {
                b.iter(|| policy.allow(black_box(to.clone())).is_ok());
            });
            group.bench_function(bench("connection"), |b| {
                b.iter(|| {
                    let presented = presented_to_proxy(black_box(&proxy));
                    finished(judge_connection(&plane, &policy, to.clone(), &presented)).is_ok()
                });
            });
            group.bench_function(bench("request"), |b| {
                b.iter(|| finished(judge_request(&plane, &policy, black_box(&request))).is_ok());
            });
            group.finish();
        }
    }
}

criterion_group!(benches, decision);
criterion_main!(benches);
