//! What a gateway tells of itself in numbers. No label holds what a guest said, nor who one is: hosts, paths and sessions
//! stand in the audit trail alone, and the number of lines is bounded by the configuration.

mod process;
mod server;
mod text;

use std::{
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use anyhow::Result;
use outgate_export::{ExportStatus, Exporter};
use outgate_journey::inject::AuditGate;
use outgate_plane::counts::Counts;
use tokio_util::sync::CancellationToken;

pub(super) use self::server::Bound;
use self::text::{Kind, Page};
use super::{core::Core, ready::waits_for};

/// Serves the page on these listeners, until it is told to stop.
///
/// # Errors
/// If the runtime takes no more sockets.
pub(super) fn serve(core: &Arc<Core>, bound: Bound, stop: &CancellationToken) -> Result<()> {
    let core = Arc::downgrade(core);
    let source: server::Source = Arc::new(move || page(&core));
    bound.serve(&source, stop)
}

fn page(core: &Weak<Core>) -> String {
    let Some(core) = core.upgrade() else {
        return String::new();
    };
    let mut page = Page::default();
    let version = env!("CARGO_PKG_VERSION");
    page.family("outgate_build_info", Kind::Gauge, "Which version runs.")
        .sample(&[("version", version)], 1);
    page.flag(
        "outgate_ready",
        "Whether the gateway should be given new work.",
        waits_for(&core).is_empty(),
    );
    exchanges(&mut page, &core.gateway.core().counts);
    state(&mut page, &core);
    certificates(&mut page, &core);
    audit(&mut page, &core);
    policy(&mut page, &core);
    others(&mut page, &core);
    process::show(&mut page);
    page.finish()
}

fn exchanges(page: &mut Page, counts: &Counts) {
    let mut family = page.family(
        "outgate_requests_total",
        Kind::Counter,
        "Requests, connections and names that were asked for, by what became of them.",
    );
    for (asked, outcome, count) in counts.exchanges() {
        let labels = [
            ("asked", asked.as_str()),
            ("verdict", outcome.verdict()),
            ("code", outcome.code()),
        ];
        family.sample(&labels, count);
    }
    let (out, back) = counts.bytes();
    let mut family = page.family(
        "outgate_bytes_total",
        Kind::Counter,
        "Bytes of exchanges that are over: out to upstreams, in to guests.",
    );
    family.sample(&[("direction", "out")], out);
    family.sample(&[("direction", "in")], back);
    page.counter(
        "outgate_credentials_attached_total",
        "Requests that a credential was attached to.",
        counts.injected(),
    );
    page.counter(
        "outgate_credentials_scrubbed_total",
        "Times that a credential was taken out of an answer.",
        counts.scrubbed(),
    );
}

fn state(page: &mut Page, core: &Core) {
    page.gauge(
        "outgate_connections_open",
        "Connections of guests that are open.",
        core.gateway.open_connections(),
    );
    page.gauge(
        "outgate_connections_limit",
        "Connections of guests that may be open.",
        core.gateway.config().listen.max_connections,
    );
    page.gauge(
        "outgate_sessions_live",
        "Sessions that are live.",
        core.sessions.count_live(),
    );
    page.gauge(
        "outgate_denylist_entries",
        "Entries of the denylist.",
        core.sessions.count_denied(),
    );
    page.flag(
        "outgate_kill_switch",
        "Whether the kill switch is on.",
        core.sessions.kill_switch().is_some(),
    );
}

fn certificates(page: &mut Page, core: &Core) {
    page.counter(
        "outgate_leaves_minted_total",
        "Leaves that this process minted.",
        outgate_pki::leaves_minted(),
    );
    if let Some(end) = core.gateway.ca_not_after() {
        page.gauge(
            "outgate_ca_not_after_timestamp_seconds",
            "When the CA expires.",
            end.0,
        );
    }
}

fn audit(page: &mut Page, core: &Core) {
    page.counter(
        "outgate_audit_records_total",
        "Records that were accepted.",
        core.audit.accepted(),
    );
    page.gauge(
        "outgate_audit_records_pending",
        "Records that are not on disk yet.",
        core.audit.pending(),
    );
    page.flag(
        "outgate_audit_writable",
        "Whether the audit trail can be written.",
        core.audit.is_writable(),
    );
    let exporters = core.exporters.lock();
    let exporters = exporters.unwrap_or_else(PoisonError::into_inner);
    let exports: Vec<_> = exporters.iter().map(Exporter::status).collect();
    drop(exporters);
    if !exports.is_empty() {
        show_exports(page, &exports);
    }
}

fn show_exports(page: &mut Page, exports: &[ExportStatus]) {
    type Number = fn(&ExportStatus) -> u64;
    let families: [(&'static str, Kind, &str, Number); 5] = [
        (
            "outgate_export_records_pending",
            Kind::Gauge,
            "Records on disk that the receiver has not acknowledged.",
            |it| it.pending,
        ),
        (
            "outgate_export_behind",
            Kind::Gauge,
            "Whether a record has been waiting for too long.",
            |it| u64::from(it.behind),
        ),
        (
            "outgate_export_records_rejected_total",
            Kind::Counter,
            "Records that the receiver refused for good, over restarts as well.",
            |it| it.rejected,
        ),
        (
            "outgate_export_records_missing_total",
            Kind::Counter,
            "Records that were gone from disk before they were sent, over restarts as well.",
            |it| it.missing,
        ),
        (
            "outgate_export_last_success_timestamp_seconds",
            Kind::Gauge,
            "When the receiver last acknowledged; 0: never since the start.",
            |it| it.last_success.unwrap_or(0),
        ),
    ];
    for (name, kind, about, number) in families {
        let mut family = page.family(name, kind, about);
        for export in exports {
            family.sample(&[("exporter", &export.name)], number(export));
        }
    }
}

fn policy(page: &mut Page, core: &Core) {
    let live = core.gateway.core().live();
    page.gauge(
        "outgate_policy_version",
        "Policies that came into force since the start.",
        live.number,
    );
    page.gauge(
        "outgate_policy_since_timestamp_seconds",
        "When the policy came into force.",
        core.reloads.in_force_since(),
    );
    page.counter(
        "outgate_policy_refused_total",
        "Configurations and policies that were not taken over.",
        core.reloads.refused(),
    );
    page.flag(
        "outgate_policy_last_reload_successful",
        "Whether the last one was taken over.",
        core.reloads.went_well(),
    );
}

/// The gateway's own counterparts.
fn others(page: &mut Page, core: &Core) {
    if let Some(follower) = &core.follower {
        let (status, config) = (follower.status(), core.gateway.config());
        let bound = config.control.as_ref().map(|control| control.max_staleness);
        page.flag(
            "outgate_control_plane_connected",
            "Whether the control plane is heard.",
            status.borrow().connected,
        );
        page.gauge(
            "outgate_control_plane_policy_version",
            "The control plane's number of the policy in force; 0: none yet.",
            status.borrow().policy.unwrap_or(0),
        );
        page.gauge(
            "outgate_denylist_age_seconds",
            "How long ago the denylist was known to be current; +Inf: never.",
            follower
                .freshness()
                .last_heard()
                .map_or_else(|| "+Inf".to_owned(), |age| age.as_secs_f64().to_string()),
        );
        page.gauge(
            "outgate_denylist_max_age_seconds",
            "From this age on no credential is attached.",
            bound.unwrap_or(Duration::ZERO).as_secs_f64(),
        );
    }
    if let Some(fleet) = core.fleet.get() {
        page.gauge(
            "outgate_followers",
            "Gateways that follow this one at this moment.",
            fleet.followers().len(),
        );
    }
    if let Some(planes) = core.planes.get() {
        let connected = planes.nodes().iter().filter(|it| it.streams > 0).count();
        page.gauge(
            "outgate_data_planes",
            "Data planes that are connected.",
            connected,
        );
    }
}
