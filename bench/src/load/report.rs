//! The JSON object that a run prints. Times are microseconds unless the name says otherwise.

use serde_json::{Map, Value};

use super::{
    Outcome,
    meter::{Meter, Reading},
    tally::Tally,
};
use crate::{histogram::Histogram, processes::Usage};

/// What was counted between two readings.
pub(super) struct Measured {
    pub tally: Tally,
    pub begin: Reading,
    pub end: Reading,
    /// What only one kind of work reports.
    pub more: Map<String, Value>,
}

/// A run has failed when nothing came of it.
pub(super) fn outcome(meter: &Meter, measured: Measured) -> Outcome {
    let Measured {
        tally,
        begin,
        end,
        more,
    } = measured;
    let mut out = meter.labels.clone();
    let seconds = end.at.saturating_duration_since(begin.at).as_secs_f64();
    counts(&mut out, &tally, seconds);
    for (name, histogram) in [
        ("lat", &tally.latency),
        ("sched", &tally.scheduled),
        ("hs", &tally.handshake),
    ] {
        percentiles(&mut out, name, histogram);
    }
    let names = meter.watches.iter().map(|watch| watch.name.as_str());
    let mut ours = 0.0;
    for ((name, before), after) in names.chain(["load"]).zip(&begin.usages).zip(&end.usages) {
        ours += after.cpu - before.cpu;
        cpu(&mut out, name, before, after, &tally);
    }
    for ((watch, rest), after) in meter.watches.iter().zip(&meter.rest).zip(&end.usages) {
        memory(&mut out, &watch.name, rest, after);
    }
    machine(&mut out, &begin, &end, ours, seconds);
    for (name, after) in &end.counters {
        let before = begin.counters.get(name).and_then(Value::as_u64);
        let difference = after
            .as_u64()
            .unwrap_or(0)
            .saturating_sub(before.unwrap_or(0));
        out.insert(format!("up_{name}"), difference.into());
    }
    out.extend(more);
    let success = tally.ok > 0;
    if let Some(problem) = tally.first_error {
        out.insert("first_err".to_owned(), problem.into());
    }
    Outcome {
        text: Value::Object(out).to_string(),
        success,
    }
}

fn counts(out: &mut Map<String, Value>, tally: &Tally, seconds: f64) {
    out.insert("ok".into(), tally.ok.into());
    out.insert("err".into(), tally.err.into());
    out.insert("err_all".into(), tally.err_all.into());
    out.insert("bytes".into(), tally.bytes.into());
    put(out, "secs", seconds);
    put(out, "rps", float(tally.ok) / seconds);
    put(out, "mbps", float(tally.bytes) / 1e6 / seconds);
}

fn percentiles(out: &mut Map<String, Value>, name: &str, histogram: &Histogram) {
    if histogram.count() == 0 {
        return;
    }
    out.insert(format!("{name}_n"), histogram.count().into());
    put(out, &format!("{name}_mean_us"), histogram.mean() / 1e3);
    for (label, per_mille) in [("p50", 500), ("p90", 900), ("p99", 990), ("p999", 999)] {
        let value = float(histogram.at(per_mille)) / 1e3;
        put(out, &format!("{name}_{label}_us"), value);
    }
    put(out, &format!("{name}_max_us"), float(histogram.max()) / 1e3);
}

fn cpu(out: &mut Map<String, Value>, name: &str, before: &Usage, after: &Usage, tally: &Tally) {
    put(out, &format!("{name}_user_s"), after.user - before.user);
    put(out, &format!("{name}_sys_s"), after.system - before.system);
    let used = after.cpu - before.cpu;
    let each = used * 1e6 / float(tally.ok.max(1));
    put(out, &format!("{name}_cpu_us_per_req"), each);
    if tally.bytes > 0 {
        let gib = float(tally.bytes) / float(1 << 30);
        put(out, &format!("{name}_cpu_s_per_gib"), used / gib);
    }
}

fn memory(out: &mut Map<String, Value>, name: &str, rest: &Usage, after: &Usage) {
    for (what, value) in [
        ("rss_start_kib", rest.rss_kib),
        ("pss_start_kib", rest.pss_kib),
        ("rss_end_kib", after.rss_kib),
        ("rss_peak_kib", after.peak_kib),
        ("procs", after.processes),
        ("threads", after.threads),
    ] {
        out.insert(format!("{name}_{what}"), value.into());
    }
}

/// What else ran: cores at work in all, those of other processes, those that another machine was given.
fn machine(out: &mut Map<String, Value>, begin: &Reading, end: &Reading, ours: f64, seconds: f64) {
    let busy = end.machine.busy - begin.machine.busy;
    let stolen = end.machine.stolen - begin.machine.stolen;
    put(out, "busy_cores", busy / seconds);
    put(out, "other_cores", (busy - ours) / seconds);
    put(out, "steal_cores", stolen / seconds);
}

/// To three digits after the point; what is not a number is left out.
pub(super) fn put(out: &mut Map<String, Value>, name: &str, value: f64) {
    if value.is_finite() {
        out.insert(name.to_owned(), ((value * 1e3).round() / 1e3).into());
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
pub(super) const fn float(value: u64) -> f64 {
    value as f64
}
