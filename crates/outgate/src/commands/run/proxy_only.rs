//! Without namespaces: the command's environment points at the gateway, and that is all. It needs its token to be let
//! out, because everybody on this machine can reach the proxy.

use std::{
    ffi::OsStr,
    io,
    os::unix::process::ExitStatusExt,
    process::{ExitStatus, Stdio},
};

use anyhow::{Context, Result};
use outgate_native::gateway::{Attribution, SessionSockets};
use outgate_sandbox::SandboxError;
use tokio::{net::TcpListener, process::Command};

use super::{
    super::process::set_limits,
    Ended, Launch,
    signals::{Signals, Stops},
    terminal::INTERRUPT,
};

pub(super) async fn run(launch: &Launch<'_>) -> Result<Ended> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("the proxy's socket")?;
    let address = listener.local_addr()?;
    let (gateway, session) = launch.start_gateway(&[address]).await?;
    let guest = launch.guest(&gateway, &session, address.to_string())?;
    gateway.serve_session(
        SessionSockets::of_proxy(listener),
        &session,
        Attribution::ByToken,
    );
    let mut signals = Signals::listen(launch.in_foreground, Stops::WithTheTerminal)?;
    let mut child = Command::new(&guest.program)
        .args(&guest.arguments)
        .env_clear()
        .envs(guest.environment)
        .stdin(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| cannot_start(&guest.program, &error))?;
    set_limits();
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            number = signals.next() => {
                let pid = child.id().and_then(|id| i32::try_from(id).ok());
                let pid = pid.and_then(rustix::process::Pid::from_raw);
                let signal = rustix::process::Signal::from_named_raw(number);
                if let (Some(pid), Some(signal)) = (pid, signal) {
                    // It may be gone by this moment.
                    let _ = rustix::process::kill_process(pid, signal);
                }
            }
        }
    };
    launch.end(&gateway, &session).await?;
    Ok(Ended {
        status: shell_status(status),
        by_interrupt: status.signal() == Some(INTERRUPT),
        refused: Vec::new(),
    })
}

fn cannot_start(program: &OsStr, error: &io::Error) -> SandboxError {
    let program = program.to_string_lossy().into_owned();
    match error.kind() {
        io::ErrorKind::NotFound => SandboxError::NotFound { program },
        _ => SandboxError::NotExecutable {
            program,
            why: error.to_string(),
        },
    }
}

fn shell_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
