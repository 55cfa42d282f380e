//! `outgate run`: one command, in a sandbox whose only exit is a gateway that lives in this process and ends with it.
//! Keys, CA and session are in memory; what remains is the audit trail.

mod ledger;
mod policy;
mod proxy_only;
mod record;
#[cfg(target_os = "linux")]
mod sandboxed;
mod signals;
mod terminal;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, Result};
use outgate_native::{
    arrival::OwnSession,
    gateway::{AuditPlace, InMemoryGateway},
};
use outgate_pki::CallersRoots;
use outgate_sandbox::{
    RUN_FOLDER, SandboxError,
    environment::{Isolation, Plan, Secret, Trust},
};
use owo_colors::OwoColorize;

use self::{
    ledger::{Ledger, Told},
    policy::RunPolicy,
    record::RunRecord,
};
use super::process::{LogTarget, hide_memory, start_log};
use crate::{
    cli::{Run, RunIsolation},
    style,
};

/// About a gigabyte of audit trail.
const MOST_RECORDS: u64 = 1_000_000;
/// What this command ends with where it is itself that failed.
const OWN_FAILURE: u8 = 125;

pub(crate) fn run(run: Run, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    hide_memory();
    match prepare_and_run(&run, state_dir) {
        Ok(status) => Ok(ExitCode::from(status)),
        Err(error) => {
            style::error(&error);
            Ok(ExitCode::from(OWN_FAILURE))
        }
    }
}

fn prepare_and_run(run: &Run, state_dir: Option<PathBuf>) -> Result<u8> {
    let policy = RunPolicy::of(run)?;
    let state = super::state(state_dir, Some(&policy.config))?;
    let record = RunRecord::create(&state, policy.config.audit_dir.as_deref())?;
    start_log(LogTarget::File(record.log_file()?));
    let ledger = Arc::new(Ledger::new(told(run)?, run.learn.is_some()));
    run.learn.as_deref().map(take_name).transpose()?;
    policy.announce(run);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let launch = Launch {
        run,
        policy: &policy,
        record: &record,
        ledger: &ledger,
        hidden: policy.hidden(&state, &run.hide)?,
        folder: record.trust_folder()?,
        in_foreground: terminal::is_in_foreground(),
    };
    let result = runtime.block_on(async {
        match run.isolation {
            #[cfg(target_os = "linux")]
            RunIsolation::Full => sandboxed::run(&launch).await,
            #[cfg(not(target_os = "linux"))]
            RunIsolation::Full => Err(SandboxError::Unavailable.into()),
            RunIsolation::ProxyOnly => proxy_only::run(&launch).await,
        }
    });
    let mut interrupted = false;
    let status = match result {
        Ok(ended) => {
            launch.finish(&ended);
            interrupted = launch.in_foreground && ended.by_interrupt;
            ended.status
        }
        Err(error) => {
            style::error(&error);
            if is_forbidden(&error) {
                say(if std::env::var_os("OUTGATE_SESSION_TOKEN").is_some() {
                    "this is inside a sandbox already, whose gateway governs: run the command directly"
                } else {
                    "--isolation proxy-only runs it without the isolation: it can then ignore the gateway"
                });
            }
            exit_status(&error)
        }
    };
    drop(launch);
    // Threads that wait for a process or a disk are not waited for.
    runtime.shutdown_background();
    if interrupted {
        terminal::end_by_interrupt();
    }
    Ok(status)
}

/// Takes the name of a file before the command runs, so that a long run is not lost at its end; never over another one.
fn take_name(path: &Path) -> Result<()> {
    File::create_new(path).map(drop).with_context(|| {
        let path = path.display();
        format!("--learn {path} cannot be made; choose a name that is free, in a folder that you can write")
    })
}

/// Puts a whole file in the place of whatever the command may have left there.
fn write_learnt(path: &Path, draft: &str) -> Result<()> {
    outgate_state::write_private_atomic(path, draft.as_bytes())
        .with_context(|| format!("--learn {}", path.display()))
}

fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(SandboxError::Forbidden { .. } | SandboxError::Unavailable)
    )
}

fn exit_status(error: &anyhow::Error) -> u8 {
    error
        .downcast_ref()
        .map_or(OWN_FAILURE, SandboxError::exit_status)
}

fn told(run: &Run) -> Result<Told> {
    Ok(match &run.log {
        None => Told::Nowhere,
        Some(None) => Told::StandardError,
        Some(Some(path)) => {
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            Told::File(
                file.with_context(|| format!("--log={}", path.display()))?
                    .into(),
            )
        }
    })
}

/// Everything that both ways of isolating need.
struct Launch<'a> {
    run: &'a Run,
    policy: &'a RunPolicy,
    record: &'a RunRecord,
    ledger: &'a Arc<Ledger>,
    /// What the command does not see.
    hidden: Vec<PathBuf>,
    /// What the command's trust is read from; nothing in it is secret.
    folder: tempfile::TempDir,
    in_foreground: bool,
}

/// How the command ended.
struct Ended {
    status: u8,
    /// Whether it was the signal of `^C`.
    by_interrupt: bool,
    /// What the namespace refused without the gateway's seeing it.
    refused: Vec<String>,
}

/// The command as it is started.
struct Guest {
    program: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl Launch<'_> {
    /// Starts the gateway and the session; blocks on files.
    async fn start_gateway(
        &self,
        listeners: &[std::net::SocketAddr],
    ) -> Result<(Arc<InMemoryGateway>, Arc<OwnSession>)> {
        let ledger = Arc::clone(self.ledger);
        let gateway = InMemoryGateway::start(
            self.policy.config.clone(),
            AuditPlace {
                folder: self.record.audit(),
                most_records: MOST_RECORDS,
            },
            listeners,
            Box::new(move |record| ledger.note(record)),
        )?;
        let labels = BTreeMap::from([("command".to_owned(), "run".to_owned())]);
        let session = gateway.begin_session(labels).await?;
        Ok((Arc::new(gateway), session))
    }

    /// The command with the session's token in place of every secret.
    fn guest(
        &self,
        gateway: &InMemoryGateway,
        session: &OwnSession,
        proxy: String,
    ) -> Result<Guest> {
        let trust = gateway
            .ca_certificate()
            .map(|ca| self.write_trust(ca))
            .transpose()?;
        let plan = Plan {
            proxy,
            token: Secret::new(session.token().expose().as_bytes()),
            token_variables: self.policy.token_variables(),
            secrets: self.policy.secrets(),
            secret_variables: self.policy.secret_variables(),
            trust,
            isolation: match self.run.isolation {
                RunIsolation::Full => Isolation::Full,
                RunIsolation::ProxyOnly => Isolation::ProxyOnly,
            },
            keep: self.run.keep_env.clone(),
        };
        let environment = plan.environment(std::env::vars_os());
        let (mut words, replaced) = plan.arguments(self.run.command.iter().cloned());
        if !self.run.quiet {
            environment.notes.lines().iter().for_each(|note| say(note));
            if replaced > 0 {
                say("a key in the command's arguments: the session token took its place");
            }
        }
        let arguments = words.split_off(1.min(words.len()));
        Ok(Guest {
            program: words.pop().context("there is no command")?,
            arguments,
            environment: environment.variables,
        })
    }

    /// The files by which the command trusts the CA, where it sees them.
    fn write_trust(&self, ca: &str) -> Result<Trust> {
        let named = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let callers = CallersRoots {
            ssl_cert_file: named("SSL_CERT_FILE").map(PathBuf::from),
            node_extra_ca_certs: named("NODE_EXTRA_CA_CERTS").map(PathBuf::from),
        };
        let files = outgate_pki::write_trust(self.folder.path(), ca, &callers)?;
        let seen = |path: PathBuf| match (self.run.isolation, path.file_name()) {
            (RunIsolation::Full, Some(name)) => Path::new(RUN_FOLDER).join(name),
            _ => path,
        };
        Ok(Trust {
            ca: seen(files.ca),
            bundle: seen(files.bundle.path),
            truststore: Some(seen(files.truststore)),
        })
    }

    /// Ends the session and the gateway; then every record is on disk.
    async fn end(&self, gateway: &InMemoryGateway, session: &OwnSession) -> Result<()> {
        gateway.end_session(session).await?;
        Ok(gateway.stop().await?)
    }

    /// Writes what was learnt, somewhere: a long run must not have been for nothing.
    fn keep_learnt(&self, path: &Path, draft: &str) {
        let mut path = path.to_owned();
        if let Err(error) = write_learnt(&path, draft) {
            style::error(&error);
            path = self.record.learnt();
            if let Err(error) = write_learnt(&path, draft) {
                return style::error(&error);
            }
        }
        let path = path.display();
        say(&format!(
            "learnt  {path}: read it, then `outgate run --config {path} -- …`"
        ));
    }

    /// Writes what was learnt, and sums up.
    fn finish(&self, ended: &Ended) {
        let draft = self.ledger.draft(&self.policy.config);
        if let (Some(path), Some(draft)) = (&self.run.learn, draft) {
            self.keep_learnt(path, &draft);
        }
        if self.run.quiet {
            return;
        }
        let summary = self.ledger.summary(&self.policy.config);
        summary.lines().for_each(say);
        ended.refused.iter().for_each(|line| say(line));
        if !summary.is_empty() {
            say(&format!("records {}", self.record.audit().display()));
        }
    }
}

/// The paths as the helper, which is in another folder, has to have them.
fn absolute(paths: impl IntoIterator<Item = impl AsRef<Path>>) -> Result<Vec<PathBuf>> {
    let paths = paths.into_iter().map(|path| {
        let path = path.as_ref();
        std::path::absolute(path).with_context(|| path.display().to_string())
    });
    paths.collect()
}

/// Says something about the run. Standard output is the command's alone.
fn say(line: &str) {
    anstream::eprintln!("{} {line}", "outgate:".dimmed());
}
