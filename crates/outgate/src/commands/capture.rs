//! `outgate capture`: packet filter rules that leave the gateway alone a way out of this network namespace.

use std::process::ExitCode;

use anyhow::Result;

use crate::{cli::Capture, style::say};

pub(crate) fn run(capture: &Capture) -> Result<ExitCode> {
    outgate_capture::install(&outgate_capture::Capture {
        except_user: capture.except_user,
        redirect: capture.redirect,
    })?;
    say!(
        "user {} may leave, over IPv4 and IPv6; what others send is dropped",
        capture.except_user
    );
    if let Some(port) = capture.redirect {
        say!("their TCP goes to 127.0.0.1:{port} and [::1]:{port}");
    }
    Ok(ExitCode::SUCCESS)
}
