//! The process as the system sees it, under the names that every exporter gives to these numbers. What the system does not
//! tell is left out.

use super::text::Page;

/// Adds what there is to say.
pub(super) fn show(page: &mut Page) {
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Resident memory.", bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        page.gauge(
            "process_open_fds",
            "File descriptors that are open.",
            files.count(),
        );
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if let Some(most) = limit.current {
        page.gauge(
            "process_max_fds",
            "File descriptors that may be open.",
            most,
        );
    }
}

fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
