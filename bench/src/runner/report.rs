//! The report: Markdown, from the lines of results files.

use std::fmt::Write;

use super::{
    goal::{Metric, P50, P99},
    peers::Peer::{self, Direct, Envoy, Hudsucker},
    results::{Cell, Keys, MOST_STOLEN, Results, text},
    workload::{Shape, WORKLOADS, Workload},
};
use clap::ValueEnum;

/// The whole page.
pub(crate) fn write(results: &Results) -> String {
    let mut page = String::from("# Outgate beside other gateways\n\n");
    for machine in &results.machines {
        for key in ["machine", "date", "commit", "versions"] {
            let _ = writeln!(page, "- {key}: {}", text(machine, key));
        }
        page.push('\n');
    }
    let _ = writeln!(
        page,
        "Medians (smallest–largest). CPU is the time of the peer's processes, user and system. Compare ratios within a \
         table. Runs left out because more than {MOST_STOLEN} cores were stolen from the machine: {}.\n",
        results.disturbed
    );
    for workload in WORKLOADS {
        section(&mut page, results, workload);
    }
    goals(&mut page, results);
    page
}

/// One workload's table, if there is anything to show.
fn section(page: &mut String, results: &Results, workload: &Workload) {
    let row = |peer: &Peer| Some((*peer, results.cell(workload.name, *peer)?));
    let cells: Vec<(Peer, Cell<'_>)> = Peer::value_variants().iter().filter_map(row).collect();
    if cells.is_empty() {
        return;
    }
    let _ = writeln!(page, "## {}: {}\n", workload.name, workload.title);
    let columns = columns(workload.shape);
    let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
    let _ = writeln!(page, "| peer | runs | {} |", titles.join(" | "));
    let _ = writeln!(page, "|---|---:|{}", "---:|".repeat(titles.len()));
    let find = |wanted| {
        cells
            .iter()
            .find(|(peer, _)| *peer == wanted)
            .map(|(_, cell)| *cell)
    };
    for (peer, cell) in &cells {
        let mut runs = cell.count().to_string();
        if cell.errors() > 0.0 {
            let _ = write!(runs, " ({} errors)", cell.errors());
        }
        let shown: Vec<String> = columns
            .iter()
            .map(|column| column.show(cell, &find))
            .collect();
        let _ = writeln!(page, "| {} | {runs} | {} |", peer.name(), shown.join(" | "));
    }
    page.push('\n');
}

/// Goal, measured, met.
fn goals(page: &mut String, results: &Results) {
    page.push_str(
        "## Goals\n\n| workload | what | goal | measured | met |\n|---|---|---:|---:|---|\n",
    );
    for workload in WORKLOADS {
        for goal in workload.goals {
            let direct = results.cell(workload.name, Direct);
            let value = |peer| {
                goal.metric
                    .of(&results.cell(workload.name, peer)?, direct.as_ref())
            };
            let measured = match goal.against {
                None => value(goal.peer),
                Some(other) => value(goal.peer).and_then(|ours| divide(ours, value(other)?)),
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} |",
                workload.name,
                goal.title(),
                goal.wanted(),
                measured.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}")),
                goal.judge(measured)
            );
        }
    }
}

/// A ratio that means something.
fn divide(value: f64, by: f64) -> Option<f64> {
    (by > 0.0).then(|| value / by)
}

/// A column of a table.
struct Column {
    title: &'static str,
    what: What,
}

#[derive(Clone, Copy)]
enum What {
    /// A field, divided.
    Field(&'static [&'static str], f64),
    /// A metric that needs more than the row.
    Of(Metric),
    /// A metric as a ratio to that of a peer.
    Ratio(Metric, Peer),
}

impl Column {
    fn show<'a>(&self, cell: &Cell<'a>, find: &impl Fn(Peer) -> Option<Cell<'a>>) -> String {
        let direct = find(Direct);
        let shown = match self.what {
            What::Field(keys, divisor) => spread(cell, keys, divisor),
            What::Of(metric) => metric.of(cell, direct.as_ref()).map(short),
            What::Ratio(metric, peer) => metric.of(cell, direct.as_ref()).and_then(|value| {
                let by = metric.of(&find(peer)?, direct.as_ref())?;
                divide(value, by).map(|ratio| format!("{ratio:.2}"))
            }),
        };
        shown.unwrap_or_else(|| "-".to_owned())
    }
}

fn spread(cell: &Cell<'_>, keys: impl Keys + Copy, divisor: f64) -> Option<String> {
    let values = cell.values(keys);
    let median = short(cell.median(keys)? / divisor);
    match (values.as_slice(), values.first(), values.last()) {
        ([_], ..) => Some(median),
        (_, Some(least), Some(most)) => Some(format!(
            "{median} ({}–{})",
            short(least / divisor),
            short(most / divisor)
        )),
        _ => None,
    }
}

/// Three digits that count.
fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn columns(shape: Shape) -> Vec<Column> {
    const MIB: f64 = 1024.0;
    let field = |title, keys, divisor| Column {
        title,
        what: What::Field(keys, divisor),
    };
    let ratio = |title, metric, peer| Column {
        title,
        what: What::Ratio(metric, peer),
    };
    let cpu = |title, key, metric| {
        vec![
            field(title, key, 1.0),
            ratio("÷ envoy", metric, Envoy),
            ratio("÷ hudsucker", metric, Hudsucker),
        ]
    };
    let per_request = |title| cpu(title, &["px_cpu_us_per_req"], Metric::CpuPerRequest);
    let latencies = || vec![field("p50 ms", P50, 1e3), field("p99 ms", P99, 1e3)];
    let peak = || field("peak MiB", &["px_rss_peak_kib"], MIB);
    let mut columns = Vec::new();
    match shape {
        Shape::Requests => {
            columns.extend([
                field("requests/s", &["rps"], 1.0),
                ratio("÷ envoy", Metric::Rate, Envoy),
            ]);
            columns.extend(per_request("CPU µs/request"));
            columns.extend(latencies());
            columns.extend([field("MiB at rest", &["px_rss_start_kib"], MIB), peak()]);
        }
        Shape::Bulk => {
            columns.push(field("MB/s", &["mbps"], 1.0));
            columns.extend(cpu("CPU s/GiB", &["px_cpu_s_per_gib"], Metric::CpuPerGib));
            columns.push(peak());
        }
        Shape::Latency => {
            columns.extend(latencies());
            columns.push(Column {
                title: "p50 added",
                what: What::Of(Metric::AddedMedian),
            });
            columns.push(Column {
                title: "p99 added",
                what: What::Of(Metric::AddedTail),
            });
            columns.extend(per_request("CPU µs/request or event"));
        }
        Shape::Memory => {
            columns.push(field("connections", &["ok"], 1.0));
            columns.extend(cpu(
                "KiB each",
                &["px_kib_per_conn"],
                Metric::MemoryPerConnection,
            ));
            columns.extend([
                field("MiB", &["px_rss_end_kib"], MIB),
                field("files", &["px_fds"], 1.0),
            ]);
        }
        Shape::Start => {
            columns.extend(cpu(
                "start to first answer, ms",
                &["ready_ms"],
                Metric::Start,
            ));
            columns.extend([
                field("MiB at rest", &["px_rss_start_kib"], MIB),
                field("program, MiB", &["program_bytes"], MIB * 1024.0),
            ]);
        }
        Shape::Cut => columns.extend([
            field("streams", &["streams"], 1.0),
            field("half of them cut, ms", &["lat_p50_us"], 1e3),
            field("last cut, ms", &["lat_max_us"], 1e3),
        ]),
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rounds of W1, W6 and W8, one of them disturbed, with numbers that are easy to divide.
    const LINES: &str = include_str!("fixture.jsonl");

    fn page() -> String {
        let mut results = Results::default();
        results.add(LINES).unwrap();
        write(&results)
    }

    fn line<'a>(page: &'a str, begins: &str) -> &'a str {
        let mut found = page.lines().filter(|line| line.starts_with(begins));
        let first = found
            .next()
            .unwrap_or_else(|| panic!("no line {begins:?} in\n{page}"));
        assert_eq!(found.next(), None, "{begins}");
        first
    }

    #[test]
    fn a_row_has_medians_spreads_and_ratios() {
        // 40 and 60 µs against 200 and 100 of the two; 3,000 requests/s against 1,500.
        assert_eq!(
            line(&page(), "| outgate | 2 | 3000"),
            "| outgate | 2 | 3000 (2000–4000) | 2.00 | 50.0 (40.0–60.0) | 0.25 | 0.50 | 1.50 (1.00–2.00) | 9.00 \
             (8.00–10.0) | - | - |"
        );
    }

    #[test]
    fn a_disturbed_run_is_left_out_and_counted() {
        let page = page();
        assert!(page.contains("stolen from the machine: 1."), "{page}");
        assert!(line(&page, "| envoy | 1 (2 errors) | 1500").contains("| 200 |"));
    }

    #[test]
    fn goals_are_judged_by_ratios_of_medians() {
        let page = page();
        for wanted in [
            "| W1 | outgate: CPU µs/request ÷ envoy | ≤ 0.40 | 0.25 | yes |",
            "| W1 | outgate: CPU µs/request ÷ hudsucker | ≤ 1.00 | 0.50 | yes |",
            "| W1 | outgate: requests/s ÷ envoy | ≥ 1.70 | 2.00 | yes |",
            // 0.7 ms added to 0.3, against 1.0.
            "| W6 | outgate: p50 added, ms ÷ envoy | ≤ 0.35 | 0.70 | **no** |",
            "| W8 | outgate: start to first answer, ms ÷ envoy | ≤ 0.50 | 0.50 | yes |",
            "| W8 | outgate: MiB at rest | ≤ 12.00 | 12.50 | **no** |",
            "| W2 | outgate: CPU µs/request ÷ envoy | ≤ 0.45 | - | not measured |",
            "| cut | outgate: last stream cut, ms | - | - | - |",
        ] {
            assert_eq!(line(&page, wanted), wanted);
        }
    }

    #[test]
    fn the_page_says_what_was_measured_on_what() {
        let page = page();
        assert_eq!(
            line(&page, "- machine"),
            "- machine: a processor, 2 cores, Linux 6.1"
        );
        assert_eq!(
            line(&page, "- versions"),
            "- versions: outgate 0.1.0, envoy 1.40.0"
        );
    }
}
