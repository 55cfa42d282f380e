//! Sends the audit trail on: to an OpenTelemetry collector, or to a webhook.
//!
//! An [`Exporter`] decides what is sent next, when it is tried again, and when it counts as delivered. It reads the
//! trail from disk, behind a cursor that is itself on disk and moves only when the receiver has acknowledged: after
//! an outage of either side it goes on where it was. A record may arrive twice (each carries its place in the chain,
//! by which the receiver can tell), but none is left out without a log line that names it.
//!
//! It shares nothing with the gateway but the disk: one thread with a runtime of its own, and memory for one batch. A
//! receiver that is slow, gone or hostile costs a line in the log and a number in [`ExportStatus`].
//!
//! Refuses to follow redirects, to send anywhere without TLS but to this machine, and to give up: what a receiver
//! refuses is tried again until somebody mends it, and is never skipped.
//!
//! `docs/export.md` says what a receiver sees.

mod answer;
mod audit;
mod batch;
mod config;
mod cursor;
mod exporter;
mod fault;
mod otlp;
mod retry;
mod secret;
mod send;
mod shipper;
mod status;
mod trail;
mod webhook;

pub use audit::AuditTrail;
pub use config::{ExportConfig, ExportError, ExporterName, Target, Tuning};
pub use exporter::Exporter;
pub use fault::ExportCode;
pub use status::{ExportStatus, LastError};
pub use trail::{TrailFault, TrailReader, TrailRecord, TrailStart};
