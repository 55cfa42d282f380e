//! The results file: a line of JSON for each run, and one for the machine before them.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::peers::Peer;

/// A run that lost more of the machine's cores than this to the hypervisor says nothing.
pub(crate) const MOST_STOLEN: f64 = 0.35;

/// One line.
pub(crate) type Line = Map<String, Value>;

/// Adds a line to the file.
///
/// # Errors
/// It cannot be written.
pub(crate) fn append(file: &Path, line: &Line) -> Result<()> {
    let mut out = OpenOptions::new().create(true).append(true).open(file);
    let text = serde_json::to_string(line)? + "\n";
    let written = out.as_mut().map(|out| out.write_all(text.as_bytes()));
    written
        .map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?
        .context("writing")
}

/// Whether the run was not disturbed.
pub(crate) fn is_quiet(run: &Line) -> bool {
    number(run, "steal_cores").unwrap_or(0.0) <= MOST_STOLEN
}

/// A field of a line.
pub(crate) fn number(run: &Line, key: &str) -> Option<f64> {
    run.get(key).and_then(Value::as_f64)
}

/// A text of a line.
pub(crate) fn text<'a>(run: &'a Line, key: &str) -> &'a str {
    run.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Everything that some files hold.
#[derive(Default)]
pub(crate) struct Results {
    /// What was said of machines and versions.
    pub(crate) machines: Vec<Line>,
    runs: BTreeMap<(String, String), Vec<Line>>,
    /// Runs that were left out because of the hypervisor.
    pub(crate) disturbed: usize,
}

impl Results {
    /// # Errors
    /// A file cannot be read, or a line is no JSON.
    pub(crate) fn read(files: &[impl AsRef<Path>]) -> Result<Self> {
        let mut results = Self::default();
        for file in files {
            let file = file.as_ref();
            let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
            results
                .add(&text)
                .with_context(|| file.display().to_string())?;
        }
        Ok(results)
    }

    /// Adds the lines of one file.
    ///
    /// # Errors
    /// A line is no JSON.
    pub(crate) fn add(&mut self, lines: &str) -> Result<()> {
        for line in lines.lines().filter(|line| !line.trim().is_empty()) {
            let run: Line = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let key = (
                text(&run, "workload").to_owned(),
                text(&run, "peer").to_owned(),
            );
            if key.0.is_empty() {
                self.machines.push(run);
            } else if is_quiet(&run) {
                self.runs.entry(key).or_default().push(run);
            } else {
                self.disturbed += 1;
            }
        }
        Ok(())
    }

    /// What there is of one peer under one workload.
    pub(crate) fn cell(&self, workload: &str, peer: Peer) -> Option<Cell<'_>> {
        let key = (workload.to_owned(), peer.name().to_owned());
        self.runs.get(&key).map(|runs| Cell(runs))
    }
}

/// The runs of one peer under one workload; at least one.
#[derive(Clone, Copy)]
pub(crate) struct Cell<'a>(&'a [Line]);

/// The fields to look for, the best first.
pub(crate) trait Keys {
    fn of(&self, run: &Line) -> Option<f64>;
}

impl Keys for &str {
    fn of(&self, run: &Line) -> Option<f64> {
        number(run, self)
    }
}

impl Keys for &[&str] {
    fn of(&self, run: &Line) -> Option<f64> {
        self.iter().find_map(|key| number(run, key))
    }
}

impl Cell<'_> {
    /// How many runs.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Requests that failed, of all runs.
    pub(crate) fn errors(&self) -> f64 {
        self.0
            .iter()
            .filter_map(|run| number(run, "err_all").or_else(|| number(run, "err")))
            .sum()
    }

    /// Sorted.
    pub(crate) fn values(&self, keys: impl Keys) -> Vec<f64> {
        let mut values: Vec<f64> = self.0.iter().filter_map(|run| keys.of(run)).collect();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The median; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self, keys: impl Keys) -> Option<f64> {
        let values = self.values(keys);
        let upper = values.get(values.len() / 2)?;
        let lower = values.get(values.len().checked_sub(1)? / 2)?;
        Some(f64::midpoint(*lower, *upper))
    }
}
