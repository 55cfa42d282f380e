//! What is wanted of Outgate, as ratios within one run: they mean something on another machine, absolute numbers do not.

use super::{peers::Peer, results::Cell};

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Metric {
    /// The peer's processor time a request or event, µs.
    CpuPerRequest,
    /// The peer's processor time a GiB, s.
    CpuPerGib,
    /// Requests a second.
    Rate,
    /// The median latency beyond that of no proxy, ms.
    AddedMedian,
    /// The latency that 99 % stay below, beyond that of no proxy, ms.
    AddedTail,
    /// Resident memory of one more idle connection, KiB.
    MemoryPerConnection,
    /// From the start to the first answer, ms.
    Start,
    /// Resident memory before any load, MiB.
    MemoryAtRest,
    /// From a revocation to the end of the last stream, ms.
    LastCut,
}

impl Metric {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CpuPerRequest => "CPU µs/request",
            Self::CpuPerGib => "CPU s/GiB",
            Self::Rate => "requests/s",
            Self::AddedMedian => "p50 added, ms",
            Self::AddedTail => "p99 added, ms",
            Self::MemoryPerConnection => "KiB/connection",
            Self::Start => "start to first answer, ms",
            Self::MemoryAtRest => "MiB at rest",
            Self::LastCut => "last stream cut, ms",
        }
    }

    /// Its median over the runs of a cell; `direct` is the cell of no proxy.
    pub(crate) fn of(self, cell: &Cell<'_>, direct: Option<&Cell<'_>>) -> Option<f64> {
        let added = |key| Some(cell.median(key)? - direct?.median(key)?);
        match self {
            Self::CpuPerRequest => cell.median("px_cpu_us_per_req"),
            Self::CpuPerGib => cell.median("px_cpu_s_per_gib"),
            Self::Rate => cell.median("rps"),
            Self::AddedMedian => added(P50).map(|microseconds| microseconds / 1e3),
            Self::AddedTail => added(P99).map(|microseconds| microseconds / 1e3),
            Self::MemoryPerConnection => cell.median("px_kib_per_conn"),
            Self::Start => cell.median("ready_ms"),
            Self::MemoryAtRest => cell
                .median("px_rss_start_kib")
                .map(|kibibytes| kibibytes / 1024.0),
            Self::LastCut => cell
                .median("lat_max_us")
                .map(|microseconds| microseconds / 1e3),
        }
    }
}

/// The median of a run's latencies, counted from when a request was due, where there is a schedule.
pub(crate) const P50: &[&str] = &["sched_p50_us", "lat_p50_us"];
/// And what 99 % stay below.
pub(crate) const P99: &[&str] = &["sched_p99_us", "lat_p99_us"];

/// What is enough.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Shown; no number is set.
    Shown,
}

/// One goal of one workload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Goal {
    pub(crate) metric: Metric,
    pub(crate) peer: Peer,
    /// Divided by whose; `None`: the number itself.
    pub(crate) against: Option<Peer>,
    pub(crate) bound: Bound,
}

impl Goal {
    /// Of Outgate, at most `factor` times that of `against`.
    pub(crate) const fn below(metric: Metric, factor: f64, against: Peer) -> Self {
        Self {
            metric,
            peer: Peer::Outgate,
            against: Some(against),
            bound: Bound::AtMost(factor),
        }
    }

    /// A number that no goal is set for.
    pub(crate) const fn shown(metric: Metric, peer: Peer) -> Self {
        Self {
            metric,
            peer,
            against: None,
            bound: Bound::Shown,
        }
    }

    /// As in `CPU µs/request ÷ envoy`.
    pub(crate) fn title(&self) -> String {
        let divided = self
            .against
            .map_or_else(String::new, |peer| format!(" ÷ {}", peer.name()));
        format!("{}: {}{divided}", self.peer.name(), self.metric.title())
    }

    /// As in `≤ 0.40`.
    pub(crate) fn wanted(&self) -> String {
        match self.bound {
            Bound::AtMost(most) => format!("≤ {most:.2}"),
            Bound::AtLeast(least) => format!("≥ {least:.2}"),
            Bound::Shown => "-".to_owned(),
        }
    }

    /// What `measured` means.
    pub(crate) fn judge(&self, measured: Option<f64>) -> &'static str {
        match (self.bound, measured) {
            (Bound::Shown, _) => "-",
            (_, None) => "not measured",
            (Bound::AtMost(most), Some(value)) => met(value <= most),
            (Bound::AtLeast(least), Some(value)) => met(value >= least),
        }
    }
}

fn met(is: bool) -> &'static str {
    if is { "yes" } else { "**no**" }
}
