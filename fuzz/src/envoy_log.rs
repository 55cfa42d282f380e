//! Lines of Envoy's log, which repeats what guests and upstreams send.

use std::time::{Duration, Instant};

use supervise::{Level, LogLine, Notice};

/// Their reader, compiled here by itself: the crate that it is a private part of has all of a gateway's dependencies.
#[path = "../../crates/envoy/src/supervise"]
mod supervise {
    #[allow(dead_code, reason = "most of it happens to a process")]
    mod event;
    #[allow(dead_code, reason = "what is told at the start is made of no line")]
    mod log;

    pub(super) use event::{Level, LogLine, Notice};

    /// In events that no line makes.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(super) struct AdminPlace;

    pub(super) fn read(line: &str) -> LogLine {
        log::read(line)
    }

    pub(super) fn notice(line: &LogLine) -> Option<Notice> {
        log::notice(line)
    }

    pub(super) fn may_hold_secrets(line: &LogLine) -> bool {
        log::may_hold_secrets(line)
    }

    pub(super) fn is_news_again(
        notice: &Notice,
        first: super::Instant,
        then: super::Instant,
    ) -> bool {
        let mut repeats = log::Repeats::new();
        assert!(repeats.is_news(notice, first), "nothing was told before");
        repeats.is_news(notice, then)
    }
}

/// Whatever a line says, it stays one line that a terminal does not obey; what Envoy's logger wrote keeps its level and
/// its part, so that what may hold a secret is known; and a notice says what the line says, with what to do.
pub fn envoy_log(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    assert_read(&supervise::read(&text));

    let (how, message) = match text.split_once('|') {
        Some((how, message)) => (how.bytes().map(usize::from).sum(), message),
        None => (0, &*text),
    };
    let levels = ["trace", "debug", "info", "warning", "error", "critical"];
    let parts = ["http", "router", "ext_proc", "main", "config", ""];
    let (level, part) = (levels[how % 6], parts[how / 6 % 6]);
    let line = as_envoy_writes(level, part, message);
    assert_read(&line);
    assert_eq!(line.component, part);
    assert_eq!(line.level < Level::Info, how % 6 < 2);
    assert_eq!(line.level >= Level::Warning, how % 6 > 2);
    assert_eq!(
        supervise::may_hold_secrets(&line),
        how % 6 < 2 && part != "main"
    );
    let printable = |c: &char| c.is_ascii_graphic();
    let (said, kept): (String, String) = (
        message.chars().filter(printable).collect(),
        line.message.chars().filter(printable).collect(),
    );
    assert!(kept.len() >= said.len(), "something was left out");

    let again = as_envoy_writes(level, part, &line.message);
    assert_eq!(again, line, "what was made safe is not as it was");
}

fn as_envoy_writes(level: &str, component: &str, message: &str) -> LogLine {
    let line = serde_json::json!({ "level": level, "component": component, "message": message });
    supervise::read(&line.to_string())
}

fn assert_read(line: &LogLine) {
    let is_plain = |c: char| {
        !c.is_control() && !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(line.message.chars().all(is_plain), "{line:?}");
    let Some(notice) = supervise::notice(line) else {
        return;
    };
    assert_notice(line, &notice);
}

fn assert_notice(line: &LogLine, notice: &Notice) {
    assert!(line.level >= Level::Warning && notice.level >= line.level);
    assert_eq!(notice.text, line.message);
    assert!(!notice.code.is_empty() && !notice.remedy.is_empty());
    let first = Instant::now();
    let soon = first + Duration::from_secs(1);
    assert!(!supervise::is_news_again(notice, first, soon));
    let later = first + Duration::from_secs(60);
    assert!(supervise::is_news_again(notice, first, later));
}
