//! `outgate ca`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};
use outgate_native::state::StatePaths;
use outgate_pki::{CaCertificate, SuppliedCa};
use outgate_plane::clock::unix_now;
use serde_json::json;

use super::{
    operator::{local_state, named_config},
    utc,
};
use crate::{
    cli::{Ca, CaAction, Place},
    style::say,
};

pub(crate) fn run(command: Ca, state_dir: Option<PathBuf>) -> Result<ExitCode> {
    let configured = configured(&command.place, state_dir.is_some())?;
    let state = local_state(&command.place, state_dir)?;
    match command.action {
        CaAction::Show { json } => show(configured.as_deref(), &state, json)?,
        CaAction::Export { bundle, out } => {
            let pem = if bundle {
                published(&state.bundle(), &state)?
            } else {
                match configured {
                    // By the configuration, the gateway that publishes it may not have started yet.
                    Some(certificate) => SuppliedCa::trusted(&certificate, unix_now())?,
                    None => published(&state.ca_certificate(), &state)?,
                }
            };
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

/// The certificate that the named configuration supplies. A configuration with problems is none where the state folder is
/// known without it: what the gateway published is there.
fn configured(place: &Place, knows_state: bool) -> Result<Option<PathBuf>> {
    let config = match named_config(place) {
        Err(_) if knows_state => None,
        config => config?,
    };
    Ok(config
        .and_then(|config| config.ca)
        .map(|files| files.certificate))
}

fn published(file: &Path, state: &StatePaths) -> Result<String> {
    if !file.exists() {
        bail!(
            "there is no CA in {}; one is made when a gateway starts with a destination that it bumps, and one that `ca` in the \
             configuration supplies is published there when it starts",
            state.ca().display()
        );
    }
    std::fs::read_to_string(file).with_context(|| file.display().to_string())
}

fn show(configured: Option<&Path>, state: &StatePaths, as_json: bool) -> Result<()> {
    let own = state.ca_certificate();
    let certificate = configured.unwrap_or(&own);
    if configured.is_none() {
        published(certificate, state)?;
    }
    let authority = CaCertificate::load(certificate, unix_now())?;
    let (fingerprint, until) = (authority.fingerprint_sha256(), utc(authority.not_after().0));
    if as_json {
        say!(
            "{}",
            json!({
                "subject": authority.subject(), "sha256": fingerprint, "not_after": until,
                "certificate": certificate, "bundle": state.bundle(),
            })
        );
        return Ok(());
    }
    say!("subject   {}", authority.subject());
    say!("SHA-256   {fingerprint}");
    say!("until     {until}");
    say!("file      {}", certificate.display());
    say!("bundle    {}", state.bundle().display());
    Ok(())
}
