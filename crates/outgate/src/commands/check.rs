//! `outgate check`.

use std::process::ExitCode;

use anyhow::Result;
use outgate_config::Config;
use serde_json::json;

use super::destinations;
use crate::{
    cli::ConfigFile,
    style::{say, warn},
};

pub(crate) fn run(file: &ConfigFile) -> Result<ExitCode> {
    match Config::load(&file.config) {
        Ok(config) => {
            if file.json {
                say!(
                    "{}",
                    json!({ "ok": true, "destinations": config.policy.len(), "warnings": config.warnings })
                );
            } else {
                for warning in &config.warnings {
                    warn(&format!(
                        "{}:{}: {}: {}; {}",
                        file.config.display(),
                        warning.line,
                        warning.key,
                        warning.message,
                        warning.help
                    ));
                }
                let ca = if config.needs_ca() {
                    "a CA is used"
                } else {
                    "no CA"
                };
                say!(
                    "{}: ok, {}, {ca}",
                    file.config.display(),
                    destinations(config.policy.len())
                );
            }
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            if file.json {
                say!("{}", json!({ "ok": false, "problems": problems }));
            } else {
                anstream::eprintln!("{problems}");
            }
            Ok(ExitCode::FAILURE)
        }
    }
}
