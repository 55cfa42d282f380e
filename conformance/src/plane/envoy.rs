//! Envoy as the data plane, by the same policy file: what the file says of the gateway's own proxy is said of Envoy's,
//! and the gateway becomes the control plane.

use std::{mem, net::SocketAddr, process::ExitStatus, time::Duration};

use outgate_testkit::{Envoy, Gateway, GatewayOptions, free_port};
use serde_json::{Value, json};

use super::Plane;

/// Envoy under its supervisor, and its control plane.
pub struct Edge {
    envoy: Envoy,
    control: Gateway,
    ports: Ports,
}

impl Edge {
    /// Starts both.
    ///
    /// # Panics
    /// If one does not start.
    pub(super) fn start(mut options: GatewayOptions) -> Self {
        let mut ports = Ports::default();
        options.config = ports.for_envoy(&options.config);
        let control = Gateway::start(options);
        Self {
            envoy: start_envoy(&control),
            control,
            ports,
        }
    }

    /// Envoy.
    #[must_use]
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// The control plane.
    #[must_use]
    pub fn control(&self) -> &Gateway {
        &self.control
    }

    /// The control plane.
    pub fn control_mut(&mut self) -> &mut Gateway {
        &mut self.control
    }

    /// The policy file as it is written for Envoy.
    #[must_use]
    pub fn config(&self) -> &Value {
        self.control.config()
    }
}

impl Plane for Edge {
    fn proxy(&self) -> SocketAddr {
        self.envoy.proxy()
    }

    fn gateway(&self) -> &Gateway {
        &self.control
    }

    fn gateway_mut(&mut self) -> &mut Gateway {
        &mut self.control
    }

    fn write_config(&mut self, config: &Value) {
        let config = self.ports.for_envoy(config);
        self.control.write_config(&config);
    }

    fn begin_stop(&self) {
        // What Envoy still carries needs its control plane to the end.
        self.envoy.begin_stop();
    }

    fn wait(&mut self, limit: Duration) -> ExitStatus {
        let ended = self.envoy.wait(limit);
        let control = self.control.terminate(limit);
        if ended.success() { control } else { ended }
    }

    fn is_running(&mut self) -> bool {
        self.envoy.is_running() && self.control.is_running()
    }

    fn resident_kib(&self) -> u64 {
        self.envoy.resident_kib() + self.control.resident_kib()
    }

    fn edge(&mut self) -> Option<&mut Edge> {
        Some(self)
    }

    fn restart(self: Box<Self>) -> Box<dyn Plane> {
        let Self {
            mut envoy,
            control,
            ports,
        } = *self;
        envoy.begin_stop();
        envoy.wait(Duration::from_secs(20));
        let control = control.restart();
        Box::new(Self {
            envoy: start_envoy(&control),
            control,
            ports,
        })
    }
}

fn start_envoy(control: &Gateway) -> Envoy {
    match Envoy::start(control) {
        Ok(envoy) => envoy,
        Err(output) => panic!("Envoy did not start: {output:?}"),
    }
}

/// The ports that Envoy has where the file leaves the choice to the kernel: the same ones each time it is written.
#[derive(Default)]
struct Ports(Vec<u16>);

impl Ports {
    fn for_envoy(&mut self, config: &Value) -> Value {
        let mut config = config.clone();
        let Some(listen) = config.get_mut("listen").and_then(Value::as_object_mut) else {
            return config;
        };
        let Some(mut proxy) = listen.remove("proxy") else {
            return config;
        };
        listen
            .entry("xds")
            .or_insert_with(|| json!({ "socket": "xds.sock" }));
        let each = match &mut proxy {
            Value::Array(list) => list.iter_mut().collect(),
            one => vec![one],
        };
        let mut next = 0;
        for address in each {
            let Value::String(text) = address else {
                continue;
            };
            if let Some(host) = text.strip_suffix(":0") {
                let host = host.to_owned();
                *text = format!("{host}:{}", self.nth(next));
                next += 1;
            }
        }
        // What a scenario itself says of Envoy stays.
        let mut said = mem::take(&mut config["envoy"]);
        if said.is_null() {
            said = json!({});
        }
        if said["proxy"].is_null() {
            said["proxy"] = proxy;
        }
        config["envoy"] = said;
        config
    }

    fn nth(&mut self, index: usize) -> u16 {
        while self.0.len() <= index {
            self.0.push(free_port());
        }
        self.0[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_says_the_same_of_envoy_each_time() {
        let mut ports = Ports::default();
        let config = json!({ "listen": { "proxy": "127.0.0.1:0" }, "destinations": [] });
        let first = ports.for_envoy(&config);
        assert_eq!(first["listen"], json!({ "xds": { "socket": "xds.sock" } }));
        assert_eq!(
            first["envoy"]["proxy"],
            json!(format!("127.0.0.1:{}", ports.0[0]))
        );
        assert_eq!(first, ports.for_envoy(&config));
    }

    #[test]
    fn each_of_a_list_has_a_port_and_a_chosen_one_stays() {
        let mut ports = Ports::default();
        let listen =
            json!({ "proxy": ["127.0.0.1:0", "127.0.0.1:5", "[::1]:0"], "max_connections": 9 });
        let written = ports.for_envoy(&json!({ "listen": listen, "envoy": { "scrub": false } }));
        let wanted = json!([
            format!("127.0.0.1:{}", ports.0[0]),
            "127.0.0.1:5",
            format!("[::1]:{}", ports.0[1])
        ]);
        assert_eq!(written["envoy"], json!({ "proxy": wanted, "scrub": false }));
        assert_eq!(written["listen"]["max_connections"], 9);
    }

    #[test]
    fn what_names_no_proxy_is_left_alone() {
        for config in [json!({}), json!({ "listen": { "xds": { "socket": "s" } } })] {
            assert_eq!(Ports::default().for_envoy(&config), config);
        }
    }
}
