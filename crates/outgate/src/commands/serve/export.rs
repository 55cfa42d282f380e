//! The receivers of the audit trail that the file names.

use std::path::Path;

use anyhow::Result;
use outgate_config::{Config, Export, ExportTarget};
use outgate_export::{AuditTrail, ExportConfig, Exporter, Target};
use outgate_plane::clock;

/// Starts an exporter for each, which reads the trail in `trail` and remembers in `folder` how far it got.
pub(super) fn start_exporters(
    config: &Config,
    folder: &Path,
    trail: &Path,
) -> Result<Vec<Exporter>> {
    let exports = config.audit.export.iter();
    exports
        .map(|export| {
            let trail = AuditTrail::new(trail);
            Ok(Exporter::start(
                export_config(export)?,
                folder,
                trail,
                clock::machine(),
            )?)
        })
        .collect()
}

fn export_config(export: &Export) -> Result<ExportConfig> {
    let (url, target, headers) = match &export.target {
        ExportTarget::Otlp { url, headers } => (url, Target::Otlp, headers.clone()),
        ExportTarget::Webhook { url, secret_file } => {
            let secret_file = secret_file.clone();
            (url, Target::Webhook { secret_file }, Vec::new())
        }
    };
    let mut config = ExportConfig::new(&export.name, url.as_str(), target)?;
    config.headers = headers;
    config.ca = export.ca.clone();
    Ok(config)
}
