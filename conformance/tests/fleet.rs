//! Two gateways, one of which follows the other: policy, keys and denylist come from there, and a denylist that is too
//! old draws no credential (C7).

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use outgate_conformance::{K1, Outcome, TestCa, Way, World, within};
use outgate_testkit::{
    Gateway, GatewayOptions, Guest, certs::roots_from_pem, eventually, free_port,
};
use serde_json::{Value, json};

outgate_conformance::scenarios! {
    a_follower_serves_by_the_control_planes_policy_keys_and_denylist: [C3 C7], Envoy: Elsewhere(FOLLOWERS);
    without_its_control_plane_a_follower_keeps_what_it_knows_and_stops_injecting: [C7], Envoy: Elsewhere(FOLLOWERS);
    a_gateway_that_is_not_on_the_list_is_given_nothing: [C7 I5], Envoy: Elsewhere(FOLLOWERS);
}

/// Followers are gateways; what Envoy does without its control plane is in `envoy_traps.rs`.
const FOLLOWERS: &str =
    "a follower is a native gateway; Envoy's own control plane is tried in envoy_traps";

/// A control plane (the world's gateway) and a gateway that follows it.
struct Fleet {
    world: World,
    follower: Option<Gateway>,
    config: Value,
}

fn write(folder: &Path, name: &str, (certificate, key): (String, String)) {
    fs::write(folder.join(format!("{name}.crt")), certificate).expect("space");
    fs::write(folder.join(format!("{name}.key")), key).expect("space");
}

impl Fleet {
    async fn new() -> Self {
        let port = free_port();
        let world = World::configured(move |config, places| {
            let ca = TestCa::new("the fleet's CA");
            fs::write(places.folder.join("fleet-ca.pem"), ca.pem()).expect("space");
            write(&places.folder, "control", ca.issue_pem(&["localhost"]));
            write(&places.folder, "gw-1", ca.issue_pem(&["gw-1"]));
            write(&places.folder, "gw-9", ca.issue_pem(&["gw-9"]));
            let at = |name: &str| places.folder.join(name);
            config["listen"]["control"] = json!({
                "address": format!("127.0.0.1:{port}"), "certificate": at("control.crt"), "key": at("control.key"),
                "client_ca": at("fleet-ca.pem"), "gateways": ["gw-1"]
            });
        })
        .await;
        let at = |name: &str| world.folder.path().join(name);
        let usual = &world.config;
        let config = json!({
            "version": 1,
            "listen": { "proxy": "127.0.0.1:0" },
            "credentials": usual["credentials"],
            "resolver": usual["resolver"],
            "upstream": usual["upstream"],
            "control": {
                "url": format!("https://localhost:{port}"), "ca": at("fleet-ca.pem"),
                "certificate": at("gw-1.crt"), "key": at("gw-1.key"), "max_staleness": "3s"
            }
        });
        let mut fleet = Self {
            world,
            follower: None,
            config,
        };
        fleet.start_follower();
        fleet
    }

    fn options(&self) -> GatewayOptions {
        GatewayOptions::new(self.config.clone())
            .env("K1", K1)
            .env("K2", outgate_conformance::K2)
            .log("info")
    }

    fn start_follower(&mut self) {
        self.follower = Some(Gateway::start(self.options()));
    }

    fn follower(&self) -> &Gateway {
        self.follower.as_ref().expect("a follower")
    }

    fn guest(&self) -> Guest {
        let minted = self.follower().ca_pem();
        let roots = roots_from_pem(minted.as_deref().into_iter().chain([self.world.ca.pem()]));
        Guest::new(self.follower().proxy(), roots)
    }

    async fn send(&self, host: &str, token: &str) -> Outcome {
        let req = self.world.get(Way::AbsoluteForm, host, "/").bearer(token);
        self.guest().send(Way::AbsoluteForm, &req).await
    }

    /// Waits until a request through the follower is answered as `wanted` says: `Ok` or a reason.
    async fn until(&self, host: &str, token: &str, wanted: Result<(), &str>) -> Duration {
        let begin = Instant::now();
        let mut last = None;
        while begin.elapsed() < Duration::from_secs(15) {
            let outcome = self.send(host, token).await;
            let seen = outcome
                .reason()
                .map_or(Ok(()), |reason| Err(reason.to_owned()));
            if seen.as_ref().map_err(String::as_str)
                == wanted.as_ref().map_err(|it| *it).map(|()| &())
            {
                return begin.elapsed();
            }
            last = Some(outcome);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!(
            "{host}: never {wanted:?}; {last:?}; the follower says:\n{}",
            self.follower().stderr()
        );
    }
}

async fn a_follower_serves_by_the_control_planes_policy_keys_and_denylist() {
    let mut fleet = Fleet::new().await;
    let (id, token) = fleet.world.session();
    fleet.until("a.test", &token, Ok(())).await;
    let seen = fleet.world.plain.last();
    assert!(
        seen.mentions(K1),
        "the follower's own copy of the credential is attached"
    );

    // It issues nothing itself.
    let created = fleet.follower().command(&["session", "create"]);
    assert_ne!(created.code, Some(0), "{created:?}");
    assert!(
        created.stderr.contains("follows_control_plane"),
        "{created:?}"
    );

    // An open stream on the follower is cut by an end at the control plane.
    let req = fleet
        .world
        .get(Way::AbsoluteForm, "a.test", "/sse?n=1000&every_ms=20")
        .bearer(&token);
    let mut channel = fleet
        .guest()
        .open(Way::AbsoluteForm, &req)
        .await
        .expect("a connection");
    let mut stream = channel.start(&req).await.expect("a head");
    stream.next().await.expect("an event");
    fleet.world.plane().session_end(&id);
    let begin = Instant::now();
    within(5, "the cut", async {
        while let Ok(Some(_)) = stream.next().await {}
    })
    .await;
    assert!(
        begin.elapsed() < Duration::from_secs(1),
        "{:?}",
        begin.elapsed()
    );
    fleet.until("a.test", &token, Err("session_revoked")).await;

    // A change of the policy arrives, and one that the follower cannot load changes nothing there.
    let (_, token) = fleet.world.session();
    fleet.until("n.test", &token, Ok(())).await;
    let mut narrower = fleet.world.config.clone();
    let destinations = narrower["destinations"].as_array_mut().expect("a list");
    destinations.retain(|one| one["host"] != "n.test");
    fleet.world.plane_mut().write_config(&narrower);
    fleet
        .until("n.test", &token, Err("destination_not_allowed"))
        .await;
    let mut unknown = narrower.clone();
    unknown["credentials"]["extra"] = json!({ "from": { "env": "K1" } });
    unknown["destinations"]
        .as_array_mut()
        .expect("a list")
        .push(
            json!({ "host": "x.test", "inject": { "credential": "extra", "header": "x-api-key" } }),
        );
    fleet.world.plane_mut().write_config(&unknown);
    let refused = eventually(Duration::from_secs(8), || {
        let told = fleet.follower().stderr();
        told.contains("unknown_credential").then_some(())
    });
    assert!(refused.await.is_some(), "{}", fleet.follower().stderr());
    fleet.until("a.test", &token, Ok(())).await;

    // A fresh signing key is known in time.
    fleet.world.operate(&["keys", "rotate"]);
    let (_, after) = fleet.world.session();
    fleet.until("a.test", &after, Ok(())).await;
}

async fn without_its_control_plane_a_follower_keeps_what_it_knows_and_stops_injecting() {
    let mut fleet = Fleet::new().await;
    let (_, token) = fleet.world.session();
    let (ended, ended_token) = fleet.world.session();
    fleet.until("a.test", &token, Ok(())).await;
    fleet.world.plane().session_end(&ended);
    fleet
        .until("a.test", &ended_token, Err("session_revoked"))
        .await;

    // The control plane goes away: nothing changes at first, and then credentials are held back, and nothing else.
    fleet.world.plane().begin_stop();
    fleet.world.plane_mut().wait(Duration::from_secs(20));
    let stale = fleet.until("a.test", &token, Err("denylist_stale")).await;
    assert!(stale < Duration::from_secs(8), "{stale:?}");
    assert_eq!(fleet.send("n.test", &token).await.answered().status, 200);
    assert_eq!(
        fleet.send("n.test", &ended_token).await.reason(),
        Some("session_revoked")
    );

    // A follower that restarts alone knows as much, and draws nothing either.
    let follower = fleet.follower.take().expect("a follower").restart();
    fleet.follower = Some(follower);
    assert_eq!(
        fleet.send("n.test", &ended_token).await.reason(),
        Some("session_revoked")
    );
    assert_eq!(fleet.send("n.test", &token).await.answered().status, 200);
    assert_eq!(
        fleet.send("a.test", &token).await.reason(),
        Some("denylist_stale")
    );

    fleet.world.restart();
    fleet.until("a.test", &token, Ok(())).await;
}

async fn a_gateway_that_is_not_on_the_list_is_given_nothing() {
    let mut fleet = Fleet::new().await;
    let (_, token) = fleet.world.session();
    let at = |name: &str| fleet.world.folder.path().join(name);
    fleet.config["control"]["certificate"] = json!(at("gw-9.crt"));
    fleet.config["control"]["key"] = json!(at("gw-9.key"));
    fleet.follower = None;
    fleet.start_follower();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let outcome = fleet.send("n.test", &token).await;
    assert_eq!(
        outcome.reason(),
        Some("destination_not_allowed"),
        "{outcome:?}"
    );
}
