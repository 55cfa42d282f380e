//! The gateway whose work is counted, with the whole chain on: token, denylist, policy, limits, injection, scrubbing,
//! audit trail.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use outgate_config::Config;
use outgate_native::gateway::{Attribution, AuditPlace, InMemoryGateway, SessionSockets};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::others::{Upstreams, Way};

/// A gateway and the folder of its files.
pub(crate) struct Running {
    gateway: InMemoryGateway,
    /// Where its clients find it.
    pub(crate) way: Way,
    _folder: TempDir,
}

impl Running {
    /// Starts it, for these upstreams.
    pub(crate) async fn start(upstreams: &Upstreams) -> Self {
        let folder = tempfile::tempdir().expect("a temp folder");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = listener.local_addr().expect("bound");
        let audit = AuditPlace {
            folder: folder.path().join("audit"),
            most_records: u64::MAX,
        };
        let config = config(upstreams, folder.path());
        let gateway = InMemoryGateway::start(config, audit, &[proxy], Box::new(|_| {}));
        let gateway = gateway.expect("a gateway");
        let session = gateway.begin_session(BTreeMap::new()).await;
        let session = session.expect("a session");
        let sockets = SessionSockets::of_proxy(listener);
        gateway.serve_session(sockets, &session, Attribution::ByToken);
        Self {
            way: Way {
                proxy,
                ca: gateway.ca_certificate().expect("a CA").to_owned(),
                token: session.token().expose().to_owned(),
            },
            gateway,
            _folder: folder,
        }
    }

    /// Stops it.
    pub(crate) async fn stop(self) {
        self.gateway.stop().await.expect("its records are on disk");
    }
}

fn config(upstreams: &Upstreams, folder: &Path) -> Config {
    write(&folder.join("upstreams.pem"), &upstreams.ca);
    write(&folder.join("key"), "k1-live-Q7f3vN0pXz2LrT8wYb5e");
    let (tls, clear) = (upstreams.tls.port(), upstreams.clear.port());
    let text = json!({
        "version": 1,
        "listen": { "proxy": "127.0.0.1:0" },
        "credentials": { "key": { "from": { "file": "key" } } },
        "destinations": [
            { "host": "a.test", "ports": [tls, clear], "plaintext": true,
              "allow": [{ "methods": ["GET"], "paths": ["/", "/v1/**"] }],
              "inject": { "credential": "key", "header": "x-api-key", "over_plaintext": true } },
            { "host": "pass.test", "ports": [tls] },
        ],
        "sessions": { "limits": { "requests": "1000000/s" } },
        "resolver": {
            "hosts": { "a.test": "127.0.0.1", "pass.test": "127.0.0.1" },
            "allow": ["127.0.0.1/32"],
        },
        "upstream": { "roots": "none", "extra_roots": ["upstreams.pem"] },
        // Valgrind takes fifty times as long.
        "timeouts": { "head": "1m", "handshake": "1m", "connect": "1m", "drain": "100ms" },
    });
    Config::parse("instructions.json", &text.to_string(), folder)
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("space");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("own file");
}
