//! Outgate as a peer, with its whole chain on: the token of a session in `CONNECT` and in each request, denylist, policy,
//! limits, a credential from a file, scrubbed answers, and an audit trail in a file.
//!
//! State folder, CA and session are made by a first start, so that the start that is measured is an ordinary one.

use std::{
    fmt::Write,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    MINUTE,
    ground::{FIELD, Ground, VALUE, fill},
    peers::{Peer, Running},
    process::{Process, output},
    workload::Mode,
};

const POLICY: &str = include_str!("../../peers/outgate.yaml");
const BUMP: &str = include_str!("../../peers/outgate-bump.yaml");
/// The origin's echo comes back scrubbed, which shows that the origin saw the credential.
const SCRUBBED: &str = "[scrubbed]*";
/// How often the first start is asked for a session.
const ATTEMPTS: u32 = 200;
/// Adds a million sessions that nobody has to the denylist: what an operator's calls leave in the database.
const DENY: &str = "\
import sqlite3, sys
with sqlite3.connect(sys.argv[1]) as db:
    rows = (('session', '', 's_%026d' % n, 'bench', 'bench', 1) for n in range(1_000_000))
    db.executemany('INSERT INTO denials (kind, issuer, name, reason, denied_by, at) VALUES (?, ?, ?, ?, ?, ?)', rows)
";

/// Starts it.
///
/// # Errors
/// It cannot be configured or started.
pub(crate) fn start(
    ground: &Ground,
    folder: &Path,
    program: &Path,
    mode: Mode,
    peer: Peer,
) -> Result<Running> {
    let home = Home {
        ground,
        folder,
        program,
    };
    home.write_policy(mode, peer)?;
    let session = home.first_start()?;
    if peer == Peer::OutgateDenials {
        let mut python = Command::new("python3");
        python
            .args(["-c", DENY])
            .arg(home.state().join("outgate.db"));
        output(&mut python, MINUTE, &ground.interrupt).context("the denylist")?;
    }
    let token = fs::read_to_string(home.token())?;
    let mut load = vec![
        "--proxy-header".to_owned(),
        format!("Proxy-Authorization: Bearer {}", token.trim()),
    ];
    if mode != Mode::Pass {
        // Where the API's key would stand.
        load.extend(["--header".to_owned(), format!("{FIELD}: {}", token.trim())]);
    }
    let mut revoke = Command::new(program);
    revoke
        .args(["session", "end", &session, "--state-dir"])
        .arg(home.state());
    Ok(Running {
        roots: home.state().join("ca/ca.crt"),
        echo: (peer != Peer::OutgatePlain).then(|| format!("{FIELD}: {SCRUBBED}")),
        load,
        revoke: Some(revoke),
        since_ns: crate::clock::unix_ns(),
        process: Some(home.serve()?),
        ..Running::new(ground, "ca.pem")
    })
}

struct Home<'a> {
    ground: &'a Ground,
    folder: &'a Path,
    program: &'a Path,
}

impl Home<'_> {
    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn policy(&self) -> PathBuf {
        self.folder.join("outgate.yaml")
    }

    fn token(&self) -> PathBuf {
        self.folder.join("token")
    }

    fn write_policy(&self, mode: Mode, peer: Peer) -> Result<()> {
        let secret = self.folder.join("credential");
        fs::write(&secret, VALUE)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut words = self.ground.words();
        let attaches = mode != Mode::Pass && peer != Peer::OutgatePlain;
        let credentials = format!(
            "credentials: {{ bench: {{ from: {{ file: {} }} }} }}",
            secret.display()
        );
        words.push((
            "CREDENTIALS",
            if attaches { credentials } else { String::new() },
        ));
        words.push(("RULE", rule(mode, attaches, &words)?));
        words.push(("FURTHER", further(peer)));
        fs::write(self.policy(), fill(POLICY, &words)?)?;
        fs::create_dir(self.state())?;
        Ok(fs::set_permissions(
            self.state(),
            fs::Permissions::from_mode(0o700),
        )?)
    }

    fn serve(&self) -> Result<Process> {
        let mut command = Command::new(self.program);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.policy())
            .arg("--state-dir")
            .arg(self.state());
        Process::start(&mut command, &self.folder.join("log"))
    }

    /// Makes state and session; gives the session's id. The gateway has stopped when this returns.
    fn first_start(&self) -> Result<String> {
        let _gateway = self.serve()?;
        for attempt in 1.. {
            let mut create = Command::new(self.program);
            create
                .args(["session", "create", "--ttl", "60m", "--json", "--state-dir"])
                .arg(self.state());
            create.arg("--token-file").arg(self.token());
            match output(&mut create, MINUTE, &self.ground.interrupt) {
                Ok(printed) => return id(&printed),
                Err(problem) if attempt == ATTEMPTS => {
                    let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                    return Err(problem.context(log));
                }
                Err(_) => self.ground.interrupt.sleep(Duration::from_millis(50))?,
            }
        }
        bail!("no session")
    }
}

fn id(printed: &str) -> Result<String> {
    let session: serde_json::Value = serde_json::from_str(printed)?;
    let id = session.get("id").and_then(serde_json::Value::as_str);
    id.map(str::to_owned).context("no id of the session")
}

/// What stands below `host` and `ports`.
fn rule(mode: Mode, attaches: bool, words: &[(&'static str, String)]) -> Result<String> {
    match (mode, attaches) {
        (Mode::Pass, _) => Ok("posture: pass-through".to_owned()),
        (_, false) => Ok("posture: bump".to_owned()),
        (_, true) => fill(BUMP, words),
    }
}

/// Destinations that nobody asks for, so many that there are as many as the peer's name says.
fn further(peer: Peer) -> String {
    let count = match peer {
        Peer::Outgate10 => 9,
        Peer::Outgate100k => 99_999,
        _ => 0,
    };
    (0..count).fold(String::new(), |mut text, number| {
        // A text takes everything.
        let _ = writeln!(text, "  - host: h{number}.example.org");
        text
    })
}
