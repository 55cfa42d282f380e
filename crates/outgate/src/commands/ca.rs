//! `outgate ca`.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use outgate_native::clock::unix_now;
use outgate_pki::CertificateAuthority;
use serde_json::json;

use super::{operator::local_state, utc};
use crate::{
    cli::{Ca, CaAction},
    style::say,
};

pub(crate) fn run(command: Ca, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let state = local_state(&command.place, state_dir)?;
    let certificate = state.ca_certificate();
    if !certificate.exists() {
        bail!(
            "there is no CA in {}; one is made when a gateway starts with a destination that it bumps",
            state.ca().display()
        );
    }
    match command.action {
        CaAction::Show { json } => {
            let authority = CertificateAuthority::open_or_create(&state.ca(), unix_now())?;
            let (fingerprint, until) =
                (authority.fingerprint_sha256(), utc(authority.not_after().0));
            if json {
                say!(
                    "{}",
                    json!({
                        "subject": authority.subject(), "sha256": fingerprint, "not_after": until,
                        "certificate": certificate, "bundle": state.bundle(),
                    })
                );
            } else {
                say!("subject   {}", authority.subject());
                say!("SHA-256   {fingerprint}");
                say!("until     {until}");
                say!("file      {}", certificate.display());
                say!("bundle    {}", state.bundle().display());
            }
        }
        CaAction::Export { bundle, out } => {
            let source = if bundle { state.bundle() } else { certificate };
            let pem =
                std::fs::read_to_string(&source).with_context(|| source.display().to_string())?;
            match out {
                Some(file) => {
                    std::fs::write(&file, pem).with_context(|| file.display().to_string())?
                }
                None => say!("{}", pem.trim_end()),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
