//! The gateway as the data plane.

use std::{net::SocketAddr, process::ExitStatus, time::Duration};

use outgate_testkit::Gateway;
use serde_json::Value;

use super::{Edge, Plane};

pub(super) struct Native(pub(super) Gateway);

impl Plane for Native {
    fn proxy(&self) -> SocketAddr {
        self.0.proxy()
    }

    fn gateway(&self) -> &Gateway {
        &self.0
    }

    fn gateway_mut(&mut self) -> &mut Gateway {
        &mut self.0
    }

    fn write_config(&mut self, config: &Value) {
        self.0.write_config(config);
    }

    fn begin_stop(&self) {
        self.0.begin_stop();
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        self.0.wait(limit)
    }

    fn is_running(&mut self) -> bool {
        self.0.is_running()
    }

    fn resident_kib(&self) -> u64 {
        self.0.resident_kib()
    }

    fn edge(&mut self) -> Option<&mut Edge> {
        None
    }

    fn restart(self: Box<Self>) -> Box<dyn Plane> {
        Box::new(Self(self.0.restart()))
    }
}
