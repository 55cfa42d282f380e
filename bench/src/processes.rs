//! CPU and memory of processes and all that descends from them, and of the machine, from `/proc` and the CPU clocks.
//!
//! What cannot be read counts as nothing: a process may end between being listed and being read.

use std::{
    collections::{HashMap, HashSet},
    fs,
    str::FromStr,
};

/// One reading of a group of processes. CPU is in seconds since they started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User time, in ticks of 10 ms.
    pub user: f64,
    /// System time, in ticks of 10 ms.
    pub system: f64,
    /// Both, to the nanosecond but for descendants that have ended.
    pub cpu: f64,
    /// Resident memory.
    pub rss_kib: u64,
    /// The sum of the most that each process has had resident since it started.
    pub peak_kib: u64,
    /// Resident memory, of which pages that n processes share count 1/n. Zero in a quick reading.
    pub pss_kib: u64,
    pub processes: u64,
    pub threads: u64,
    /// Open descriptors. Zero in a quick reading.
    pub descriptors: u64,
}

/// How much a reading costs the machine that is being measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    Quick,
    /// Walks page tables for the shared memory.
    Full,
}

/// CPU seconds of the whole machine since it started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Machine {
    /// At work for somebody.
    pub busy: f64,
    /// Taken by the hypervisor for another machine.
    pub stolen: f64,
}

/// Reads `roots` and all that descends from them.
pub(crate) fn usage(roots: &[u32], depth: Depth) -> Usage {
    let mut usage = Usage::default();
    for pid in family(roots) {
        if let Some(stat) = Stat::read(pid) {
            usage.add(pid, &stat, depth);
        }
    }
    usage
}

/// Whether a process still runs; one that ended and was not waited for does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    Stat::read(pid).is_some_and(|stat| !matches!(stat.text(0), "Z" | "X"))
}

/// Reads the whole machine.
pub(crate) fn machine() -> Machine {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let times: Vec<f64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_ascii_whitespace()
        .skip(1)
        .filter_map(|ticks| ticks.parse().ok())
        .collect();
    let [user, nice, system, _idle, _wait, irq, softirq, stolen, ..] = times.as_slice() else {
        return Machine::default();
    };
    Machine {
        busy: (user + nice + system + irq + softirq) / ticks_per_second(),
        stolen: stolen / ticks_per_second(),
    }
}

impl Usage {
    fn add(&mut self, pid: u32, stat: &Stat, depth: Depth) {
        let [user, system, ended_user, ended_system] = [11, 12, 13, 14].map(|at| stat.seconds(at));
        // What a child used moves to its parent when it has been waited for.
        self.user += user + ended_user;
        self.system += system + ended_system;
        self.cpu += cpu_clock(pid).unwrap_or(user + system) + ended_user + ended_system;
        self.threads += stat.number::<u64>(17);
        self.processes += 1;
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: u64 = field(&statm, 1);
        self.rss_kib += pages * (rustix::param::page_size() as u64) / 1024;
        self.peak_kib += kib(&format!("/proc/{pid}/status"), "VmHWM:");
        if depth == Depth::Full {
            self.pss_kib += kib(&format!("/proc/{pid}/smaps_rollup"), "Pss:");
            self.descriptors +=
                fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64);
        }
    }
}

/// `/proc/PID/stat` after the name, which may hold anything: field 0 is the state, 1 the parent.
struct Stat(String);

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(") ")
            .map(|(_, rest)| Self(rest.to_owned()))
    }

    fn text(&self, at: usize) -> &str {
        self.0.split(' ').nth(at).unwrap_or_default()
    }

    fn number<T: FromStr + Default>(&self, at: usize) -> T {
        self.text(at).trim().parse().unwrap_or_default()
    }

    fn seconds(&self, at: usize) -> f64 {
        self.number::<f64>(at) / ticks_per_second()
    }
}

/// `roots` and all that descends from them, each once.
fn family(roots: &[u32]) -> HashSet<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    for pid in pids {
        if let Some(stat) = Stat::read(pid) {
            children.entry(stat.number(1)).or_default().push(pid);
        }
    }
    let mut found = HashSet::new();
    let mut waiting = roots.to_vec();
    while let Some(pid) = waiting.pop() {
        if found.insert(pid) {
            waiting.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found
}

/// The CPU time of all threads of a process, those that ended among them.
#[cfg(target_os = "linux")]
#[expect(clippy::cast_precision_loss, reason = "a figure to print")]
fn cpu_clock(pid: u32) -> Option<f64> {
    use nix::{time::clock_getcpuclockid, unistd::Pid};
    let pid = Pid::from_raw(i32::try_from(pid).ok()?);
    let used = clock_getcpuclockid(pid).ok()?.now().ok()?;
    Some(used.tv_sec() as f64 + used.tv_nsec() as f64 / 1e9)
}

#[cfg(not(target_os = "linux"))]
fn cpu_clock(_pid: u32) -> Option<f64> {
    None
}

/// The value of the line that begins with `name`, in KiB.
fn kib(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    field(line.unwrap_or_default(), 0)
}

fn field(text: &str, at: usize) -> u64 {
    let word = text.split_ascii_whitespace().nth(at);
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "a hundred, everywhere")]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn work_of_a_process_and_of_its_child_is_counted() {
        let own = std::process::id();
        let before = usage(&[own], Depth::Full);
        let child = std::process::Command::new("sleep").arg("30").spawn();
        let mut child = child.unwrap();
        let with_child = usage(&[own], Depth::Full);
        assert!(with_child.processes > before.processes, "{with_child:?}");
        assert!(is_alive(child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!is_alive(child.id()));
        let mut sum = 0_u64;
        while usage(&[own], Depth::Quick).cpu - before.cpu < 0.02 {
            sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(7));
        }
        assert!(before.rss_kib > 0 && before.pss_kib > 0 && before.descriptors > 0);
        assert!(machine().busy > 0.0);
    }
}
