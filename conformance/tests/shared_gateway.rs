//! Two agents of one cluster behind one gateway: each has its own policy, credential and budget, by what its own
//! token claims, and neither has anything of the other's.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeySize, PublicKeyComponents},
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use outgate_conformance::{K1, K2, Way, World, record};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    each_agent_has_the_policy_and_the_credential_of_its_service_account: [S1 P1 I3];
    one_agents_budget_is_not_the_others: [S6];
    what_no_policy_is_for_has_no_session: [S1 S4];
    records_say_which_agent_it_was_and_ending_one_leaves_the_other: [A1 C3];
    an_entry_that_leaves_the_file_leaves_its_agent_nothing: [S1];
}

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The cluster's signing keys: service-account tokens are signed with one or the other.
struct Cluster {
    rsa: RsaKeyPair,
    ecdsa: EcdsaKeyPair,
}

impl Cluster {
    fn new() -> Self {
        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            ecdsa,
        }
    }

    fn jwks(&self) -> Value {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = PublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let point = self.ecdsa.public_key().as_ref();
        json!({ "keys": [
            { "kty": "RSA", "kid": "r", "use": "sig", "alg": "RS256", "n": b64(&public.n), "e": b64(&public.e) },
            { "kty": "EC", "kid": "e", "use": "sig", "alg": "ES256", "crv": "P-256",
              "x": b64(&point[1..33]), "y": b64(&point[33..]) },
        ] })
    }

    /// A service-account token as a cluster projects it into a pod. Those of `search` are signed with ES256.
    #[expect(
        clippy::disallowed_methods,
        reason = "a cluster has the time of the machine, as the gateway has"
    )]
    fn token(&self, namespace: &str, account: &str, pod: &str) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time")
            .as_secs();
        let claims = json!({
            "iss": ISSUER, "aud": ["outgate"], "iat": now, "nbf": now, "exp": now + 600,
            "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "kubernetes.io": { "namespace": namespace, "pod": { "name": pod, "uid": pod },
                               "serviceaccount": { "name": account, "uid": "u" } },
        });
        let is_rsa = account != "search";
        let (alg, kid) = if is_rsa {
            ("RS256", "r")
        } else {
            ("ES256", "e")
        };
        let header = json!({ "alg": alg, "kid": kid });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let message = format!("{}.{}", part(&header), part(&claims));
        let random = SystemRandom::new();
        let signature = if is_rsa {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            self.rsa
                .sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    message.as_bytes(),
                    &mut signature,
                )
                .expect("a signature");
            signature
        } else {
            let signature = self.ecdsa.sign(&random, message.as_bytes());
            signature.expect("a signature").as_ref().to_vec()
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// A gateway for `team-a/coding`, which has `a.test` and its credential, and `team-b/search`, which has `b.test`.
async fn world(cluster: &Cluster) -> World {
    let jwks = cluster.jwks().to_string();
    World::configured(move |config, places| {
        let file = places.folder.join("jwks.json");
        fs::write(&file, jwks).expect("space");
        config["policies"] = json!({
            "coding": { "destinations": ["a.test", "pass.test"], "limits": { "requests": "5/min" } },
            "search": { "destinations": ["b.test"], "limits": { "requests": "50/min" } },
        });
        config["sessions"] = json!({ "issuers": [{
            "issuer": ISSUER, "audience": "outgate", "jwks_file": file,
            "session_claim": "kubernetes.io.pod.uid",
            "policies": {
                "claim": ["kubernetes.io.namespace", "kubernetes.io.serviceaccount.name"],
                "map": { "team-a/coding": "coding", "team-b/search": "search" },
            },
        }] });
    })
    .await
}

async fn each_agent_has_the_policy_and_the_credential_of_its_service_account() {
    let cluster = Cluster::new();
    let world = world(&cluster).await;
    let coding = cluster.token("team-a", "coding", "pod-a");
    let search = cluster.token("team-b", "search", "pod-b");
    // What goes to b.test in clear carries no credential: its rule does not say so.
    for way in [Way::TunnelH1, Way::TunnelH2] {
        for (token, own, other, header, secret) in [
            (&coding, "a.test", "b.test", "x-api-key", K1),
            (&search, "b.test", "a.test", "authorization", K2),
        ] {
            let guest = world.guest().with_proxy_token(token);
            let req = world.get(way, own, "/echo").bearer(token);
            assert_eq!(
                guest.send(way, &req).await.answered().status,
                200,
                "{way:?} {own}"
            );
            let seen = world.origin(way).last();
            let sent = seen.headers.get(header).expect("a credential");
            assert!(sent.ends_with(secret), "{way:?} {own}");
            assert!(!seen.mentions(token), "{way:?} {own}");
            let mark = world.mark();
            let req = world.get(way, other, "/echo").bearer(token);
            let outcome = guest.send(way, &req).await;
            world.assert_denied(
                mark,
                &outcome,
                "destination_not_allowed",
                &format!("{way:?} {other}"),
            );
        }
        // A tunnel of one that carries the other's token is neither's.
        let mark = world.mark();
        let req = world.get(way, "a.test", "/echo").bearer(&coding);
        let outcome = world
            .guest()
            .with_proxy_token(&search)
            .send(way, &req)
            .await;
        world.assert_denied(
            mark,
            &outcome,
            "destination_not_allowed",
            &format!("{way:?}"),
        );
        let mark = world.mark();
        let req = world.get(way, "a.test", "/echo").bearer(&search);
        let outcome = world
            .guest()
            .with_proxy_token(&coding)
            .send(way, &req)
            .await;
        world.assert_denied(mark, &outcome, "session_mismatch", &format!("{way:?}"));
    }
}

async fn one_agents_budget_is_not_the_others() {
    let cluster = Cluster::new();
    let world = world(&cluster).await;
    let coding = cluster.token("team-a", "coding", "pod-a");
    let way = Way::AbsoluteForm;
    let ask = async |token: &str, host: &str| {
        let req = world.get(way, host, "/echo").bearer(token);
        world.guest().send(way, &req).await
    };
    for _ in 0..5 {
        assert_eq!(ask(&coding, "a.test").await.answered().status, 200);
    }
    let mark = world.mark();
    let outcome = ask(&coding, "a.test").await;
    world.assert_denied(mark, &outcome, "rate_limited", "its own budget");
    let search = cluster.token("team-b", "search", "pod-b");
    let mark = world.mark();
    let outcome = ask(&search, "b.test").await;
    let why = "its rule is for TLS; it came as far as that";
    world.assert_denied(mark, &outcome, "credential_over_plaintext", why);
    let way = Way::TunnelH1;
    let req = world.get(way, "b.test", "/echo").bearer(&search);
    let guest = world.guest().with_proxy_token(&search);
    for _ in 0..10 {
        assert_eq!(
            guest.send(way, &req).await.answered().status,
            200,
            "the other's budget"
        );
    }
}

async fn what_no_policy_is_for_has_no_session() {
    let cluster = Cluster::new();
    let world = world(&cluster).await;
    for (namespace, account) in [
        // Another account of the same namespace, and the same account of another.
        ("team-a", "search"),
        ("team-b", "coding"),
        ("team-a", "default"),
        ("team-a/coding", ""),
        ("", "team-a/coding"),
    ] {
        let token = cluster.token(namespace, account, "pod-x");
        for way in Way::ALL {
            let mark = world.mark();
            let req = world.get(way, "a.test", "/echo").bearer(&token);
            let outcome = world.guest().with_proxy_token(&token).send(way, &req).await;
            let context = format!("{way:?} {namespace} {account}");
            world.assert_denied(mark, &outcome, "token_invalid", &context);
        }
    }
    let list: Value =
        serde_json::from_str(&world.operate(&["session", "list", "--json"])).expect("JSON");
    assert_eq!(list["sessions"], json!([]), "nobody has begun one");
}

async fn records_say_which_agent_it_was_and_ending_one_leaves_the_other() {
    let cluster = Cluster::new();
    let world = world(&cluster).await;
    let way = Way::TunnelH1;
    let mut sessions = Vec::new();
    for (namespace, account, host) in [
        ("team-a", "coding", "a.test"),
        ("team-b", "search", "b.test"),
    ] {
        // The same pod name in two namespaces, and no two sessions in one.
        let token = cluster.token(namespace, account, "pod-0");
        let mark = world.mark();
        let req = world.get(way, host, "/echo").bearer(&token);
        let guest = world.guest().with_proxy_token(&token);
        assert_eq!(guest.send(way, &req).await.answered().status, 200, "{host}");
        let records = world.until_recorded(mark, host, |one| record::injected(one).is_some());
        let id = record::find(&records[0], "uid").cloned();
        let listed: Value =
            serde_json::from_str(&world.operate(&["session", "list", "--json"])).expect("JSON");
        let own = listed["sessions"].as_array().expect("a list").iter();
        let own: Vec<_> = own.filter(|one| one["policy"] == account).collect();
        assert_eq!(own.len(), 1, "{listed}");
        let session = own[0]["id"].as_str().expect("an id").to_owned();
        assert!(
            record::names(&records[0], &session),
            "{id:?}: {:?}",
            records[0]
        );
        sessions.push((session, token, host));
    }
    assert_ne!(sessions[0].0, sessions[1].0);
    world.operate(&["session", "end", &sessions[0].0]);
    let mark = world.mark();
    let (_, token, host) = &sessions[0];
    let req = world.get(way, host, "/echo").bearer(token);
    let outcome = world.guest().with_proxy_token(token).send(way, &req).await;
    world.assert_denied(mark, &outcome, "session_revoked", "the one that was ended");
    let (_, token, host) = &sessions[1];
    let req = world.get(way, host, "/echo").bearer(token);
    let guest = world.guest().with_proxy_token(token);
    assert_eq!(
        guest.send(way, &req).await.answered().status,
        200,
        "the other one"
    );
}

async fn an_entry_that_leaves_the_file_leaves_its_agent_nothing() {
    let cluster = Cluster::new();
    let mut world = world(&cluster).await;
    let coding = cluster.token("team-a", "coding", "pod-a");
    let way = Way::AbsoluteForm;
    let req = world.get(way, "a.test", "/echo").bearer(&coding);
    assert_eq!(world.guest().send(way, &req).await.answered().status, 200);
    let mut config = world.config.clone();
    config["sessions"]["issuers"][0]["policies"]["map"] = json!({ "team-b/search": "search" });
    world.plane_mut().write_config(&config);
    world.until_logged("configuration taken over").await;
    let mark = world.mark();
    let outcome = world.guest().send(way, &req).await;
    world.assert_denied(
        mark,
        &outcome,
        "token_invalid",
        "no entry is for it any more",
    );
}
