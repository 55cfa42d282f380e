//! Starting the program, and what it meets.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use outgate_testkit::{CommandOutput, Gateway, GatewayOptions, free_port, gateway::binary};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

/// Leaves out every probe that depends on where the tests run.
pub(crate) const NOTHING: [&str; 8] = [
    "--probe",
    "public=none",
    "--probe",
    "dns=none",
    "--probe",
    "metadata=none",
    "--probe",
    "api=none",
];

/// A gateway that allows one name, on this port of loopback; 0 for any.
pub(crate) fn options(port: u16) -> GatewayOptions {
    GatewayOptions::new(json!({
        "version": 1,
        "listen": { "proxy": format!("127.0.0.1:{port}") },
        "destinations": [{ "host": "a.test" }],
    }))
    .log("info")
}

pub(crate) fn gateway() -> Gateway {
    Gateway::start(options(0))
}

/// A file with a good token of this gateway.
pub(crate) fn token(gateway: &Gateway) -> NamedTempFile {
    file(gateway.session_create().1.as_bytes())
}

pub(crate) fn file(content: &[u8]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    file
}

/// The program, without the test's own variables.
pub(crate) fn outgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

/// `outgate preflight`, for this gateway and token.
pub(crate) fn preflight(gateway: SocketAddr, token: &Path, within: &str) -> Command {
    let mut command = outgate(&["preflight"]);
    command
        .arg(format!("--gateway={gateway}"))
        .arg("--token-file")
        .arg(token)
        .arg(format!("--within={within}"));
    command
}

/// What it printed and how it ended, and how long it took.
pub(crate) fn timed(command: &mut Command) -> (CommandOutput, Duration) {
    let begin = Instant::now();
    let output = CommandOutput::of(command);
    (output, begin.elapsed())
}

/// Runs it with `--json`, and reads that.
pub(crate) fn json_of(command: &mut Command) -> (Option<i32>, Value) {
    let output = CommandOutput::of(command.arg("--json"));
    let told = serde_json::from_str(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.code, told)
}

/// The ways of a list in the JSON.
pub(crate) fn ways(told: &Value, list: &str) -> Vec<String> {
    let ways = told[list].as_array().unwrap().iter();
    ways.map(|it| it["way"].as_str().unwrap().to_owned())
        .collect()
}

/// A port of loopback on which nobody listens.
pub(crate) fn closed_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()))
}

/// Answers every datagram.
pub(crate) fn echo(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind(address).unwrap();
    let own = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((read, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..read], from);
        }
    });
    own
}

/// Accepts connections, reads what comes first, says this and closes; says nothing and keeps it open without words.
pub(crate) fn stranger(words: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let own = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            if let Some(words) = words {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(words.as_bytes());
            } else {
                kept.push(stream);
            }
        }
    });
    own
}

/// A preflight that runs beside the test; killed when dropped.
pub(crate) struct Running {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line of what it tells.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    /// How it ended, with what it said on standard error.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
