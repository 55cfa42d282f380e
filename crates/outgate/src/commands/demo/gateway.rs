//! The demo's gateway: this very binary, run as a user would run it.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use outgate_control::{
    client::OperatorClient,
    operator::{CreateSession, CreatedSession},
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{HOST, Story, api::DemoApi};

const READY_WITHIN: Duration = Duration::from_secs(20);

/// A running gateway.
pub(crate) struct DemoGateway {
    child: Child,
    proxy: String,
    ca: String,
    operator: OperatorClient,
}

impl DemoGateway {
    pub(crate) async fn start(folder: &Path, api: &DemoApi) -> Result<Self> {
        let config = folder.join("outgate.yaml");
        std::fs::write(folder.join("api-ca.pem"), api.certificate_pem())?;
        std::fs::write(&config, configuration(api.port()))?;
        let log = std::fs::File::create(folder.join("gateway.log"))?;
        let mut child = Command::new(std::env::current_exe().context("this binary's path")?)
            .args(["serve", "--json", "--config"])
            .arg(&config)
            .arg("--state-dir")
            .arg(folder.join("state"))
            .env("DEMO_API_KEY", api.key())
            .env_remove("OUTGATE_STATE_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("the gateway cannot be started")?;
        let output = child.stdout.take().context("the gateway's output")?;
        let mut lines = BufReader::new(output).lines();
        let line = tokio::time::timeout(READY_WITHIN, lines.next_line())
            .await
            .context("the gateway is not ready")??;
        let Some(line) = line else {
            bail!(
                "the gateway did not start:\n{}",
                std::fs::read_to_string(folder.join("gateway.log"))?
            );
        };
        let ready: serde_json::Value =
            serde_json::from_str(&line).context("the gateway's first line")?;
        let read = |pointer: &str| {
            ready
                .pointer(pointer)
                .and_then(serde_json::Value::as_str)
                .map(str::to_owned)
        };
        let proxy = read("/proxy/0").context("the gateway's address")?;
        let ca = std::fs::read_to_string(read("/ca").context("the gateway's CA")?)?;
        let operator = OperatorClient::new(Path::new(
            &read("/operator").context("the operator's socket")?,
        ));
        Ok(Self {
            child,
            proxy,
            ca,
            operator,
        })
    }

    pub(crate) fn proxy(&self) -> &str {
        &self.proxy
    }

    pub(crate) fn ca_pem(&self) -> &str {
        &self.ca
    }

    pub(crate) async fn create_session(&self) -> Result<CreatedSession> {
        let labels = [("purpose".to_owned(), "demo".to_owned())].into();
        Ok(self
            .operator
            .create(&CreateSession {
                labels,
                ..CreateSession::default()
            })
            .await?)
    }

    pub(crate) async fn end_session(&self, id: &str) -> Result<()> {
        Ok(self.operator.end(id).await?)
    }

    /// Stops it as an operator would.
    pub(crate) async fn stop(mut self, story: &mut Story) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw);
        rustix::process::kill_process(
            pid.context("the gateway is gone")?,
            rustix::process::Signal::TERM,
        )?;
        let status = tokio::time::timeout(READY_WITHIN, self.child.wait())
            .await
            .context("the gateway does not stop")??;
        if !status.success() {
            story.expect(
                false,
                &format!("the gateway ended with {status}"),
                "it stops cleanly",
            );
        }
        Ok(())
    }
}

fn configuration(port: u16) -> String {
    format!(
        "version: 1
listen: {{ proxy: 127.0.0.1:0 }}
credentials:
  demo: {{ from: {{ env: DEMO_API_KEY }} }}
destinations:
  - host: {HOST}
    ports: [{port}]
    inject: {{ credential: demo, header: x-api-key }}
    allow: [{{ methods: [GET], paths: [/v1/**] }}]
resolver: {{ hosts: {{ {HOST}: 127.0.0.1 }}, allow: [127.0.0.1] }}
upstream: {{ roots: none, extra_roots: [api-ca.pem] }}
"
    )
}
