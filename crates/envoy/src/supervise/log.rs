//! Envoy's log, read: which lines an operator must see, what they mean and what to do.
//!
//! The texts are Envoy's own and change between versions: a line that is not recognised is still a line of the log.
//! Nothing is decided by them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Level, LogLine, Notice};

/// The same notice is not told again for so long.
const QUIET: Duration = Duration::from_secs(30);
const MOST_REMEMBERED: usize = 32;
/// Texts with so many characters in common at their ends say the same.
const SAME_END: usize = 48;

/// Reads a line as [`super::flags::LOG_FORMAT`] has it; anything else was written past the logger.
pub(super) fn read(line: &str) -> LogLine {
    let parsed: Option<Value> = serde_json::from_str(line).ok();
    let field = |name: &str| parsed.as_ref()?.get(name)?.as_str();
    let whole = || Some((field("level")?, field("component")?, field("message")?));
    let (level, component, message) = whole()
        .or_else(|| without_end(line))
        .unwrap_or(("info", "", line));
    LogLine {
        level: match level {
            "trace" | "debug" => Level::Debug,
            "info" => Level::Info,
            "warning" => Level::Warning,
            _ => Level::Error,
        },
        component: component.to_owned(),
        message: clean(message),
    }
}

/// The parts of a line that was too long and has lost its end: it says first what may be in the rest.
fn without_end(line: &str) -> Option<(&str, &str, &str)> {
    let (level, rest) = line.strip_prefix(r#"{"level":""#)?.split_once('"')?;
    let (component, rest) = rest.strip_prefix(r#","component":""#)?.split_once('"')?;
    Some((level, component, rest.strip_prefix(r#","message":""#)?))
}

/// One line, with what a terminal would obey made visible.
fn clean(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\r' | '\t' => clean.push(' '),
            c if c.is_control()
                || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                clean.extend(c.escape_unicode());
            }
            c => clean.push(c),
        }
    }
    clean
}

/// Below `info`, the parts of Envoy that see no request. Filters, codecs and the router write whole header fields there,
/// the guest's token and the attached credential with them; which do changes between versions, so these alone are shown.
const SEE_NO_REQUEST: &[&str] = &[
    "admin",
    "assert",
    "conn_handler",
    "hot_restart",
    "init",
    "main",
    "runtime",
    "upstream",
];

/// Whether there may be header fields in a line.
pub(super) fn may_hold_secrets(line: &LogLine) -> bool {
    line.level < Level::Info && !SEE_NO_REQUEST.contains(&line.component.as_str())
}

/// What is told of a level at which there are.
pub(super) fn secrets_notice(are_shown: bool) -> Notice {
    if are_shown {
        return Notice {
            level: Level::Warning,
            code: "envoy_log_shows_secrets",
            text: "Envoy's log has session tokens and credentials in it at this level".to_owned(),
            remedy: "keep this log nowhere, and leave out --log-secrets as soon as you have seen what you look for",
        };
    }
    Notice {
        level: Level::Warning,
        code: "envoy_log_withheld",
        text: "what Envoy logs below info is left out where tokens and credentials may be in it"
            .to_owned(),
        remedy: "--log-secrets (before `--`) shows it; then keep the log nowhere",
    }
}

/// What a line means, where it must be seen.
pub(super) fn notice(line: &LogLine) -> Option<Notice> {
    if line.level < Level::Warning {
        return None;
    }
    let text = &line.message;
    let found = MEANINGS.iter().find(|it| it.matches(text))?;
    Some(Notice {
        level: line.level.max(found.level),
        code: found.code,
        text: text.clone(),
        remedy: found.remedy,
    })
}

struct Meaning {
    /// All of them are in the text.
    parts: &'static [&'static str],
    code: &'static str,
    level: Level,
    remedy: &'static str,
}

impl Meaning {
    fn matches(&self, text: &str) -> bool {
        self.parts.iter().all(|part| text.contains(part))
    }
}

/// The first that fits.
const MEANINGS: &[Meaning] = &[
    Meaning {
        parts: &["cannot bind"],
        code: "envoy_cannot_listen",
        level: Level::Error,
        remedy: "another program has the socket, or a port below 1024 needs CAP_NET_BIND_SERVICE: `ss -ltnp` shows who \
                 listens; then change envoy.proxy or envoy.transparent, and print the bootstrap again",
    },
    Meaning {
        parts: &["onfig for ", " rejected"],
        code: "envoy_config_rejected",
        level: Level::Error,
        remedy: "Envoy goes on with what it had. `outgate envoy bootstrap --static` and `envoy --mode validate` show the \
                 same without the network; if the text names an unknown field or extension, this Envoy is too old or built \
                 without it",
    },
    Meaning {
        parts: &["config stream", "closed", "TLS_error"],
        code: "control_plane_refused",
        level: Level::Error,
        remedy: "the certificates of this Envoy and of listen.xds do not fit: check envoy.control against listen.xds \
                 (certificate, key, client_ca, clients), and how long they are valid",
    },
    Meaning {
        parts: &["config stream", "closed"],
        code: "control_plane_unreachable",
        level: Level::Warning,
        remedy: "start `outgate serve` with this configuration, and check that listen.xds (or envoy.control) is a place \
                 that this process reaches; Envoy tries again by itself",
    },
    Meaning {
        parts: &["Jwks", "failed"],
        code: "token_keys_unreachable",
        level: Level::Warning,
        remedy: "they come from the control plane: see whether it runs. Tokens that are signed with keys that Envoy does not have are refused",
    },
    Meaning {
        parts: &["initial fetch timed out"],
        code: "control_plane_silent",
        level: Level::Error,
        remedy: "the gateway is connected and does not answer: its log says why",
    },
    Meaning {
        parts: &["Too many open files"],
        code: "envoy_out_of_files",
        level: Level::Error,
        remedy: "raise the limit of open files (`ulimit -n`, systemd: LimitNOFILE=)",
    },
];

/// Keeps a log that repeats itself from hiding the rest.
pub(super) struct Repeats(VecDeque<(Instant, &'static str, String)>);

impl Repeats {
    pub(super) fn new() -> Self {
        Self(VecDeque::new())
    }

    /// Whether this was not told a moment ago.
    pub(super) fn is_news(&mut self, notice: &Notice, now: Instant) -> bool {
        while let Some((told, ..)) = self.0.front() {
            if now.duration_since(*told) < QUIET && self.0.len() < MOST_REMEMBERED {
                break;
            }
            self.0.pop_front();
        }
        let text = gist(notice);
        let code = family(notice.code);
        let told = |(_, known, told): &(Instant, &str, String)| *known == code && *told == text;
        let is_news = !self.0.iter().any(told);
        if is_news {
            self.0.push_back((now, code, text));
        }
        is_news
    }
}

/// A control plane that is lost is not reached, either.
fn family(code: &'static str) -> &'static str {
    match code {
        "control_plane_lost" => "control_plane_unreachable",
        code => code,
    }
}

/// What makes a notice the same as another. Of a lost connection it does not matter for how long; a refusal is logged by
/// every layer that it goes through, each with its own beginning.
fn gist(notice: &Notice) -> String {
    if notice.code.starts_with("control_plane") {
        return String::new();
    }
    let skipped = notice.text.chars().count().saturating_sub(SAME_END);
    notice.text.chars().skip(skipped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: &str, message: &str) -> LogLine {
        read(
            &serde_json::json!({ "level": level, "component": "config", "message": message })
                .to_string(),
        )
    }

    #[test]
    fn lines_of_the_logger_and_lines_past_it_are_both_read() {
        let logged = line("warning", "a\u{1b}[2Jb\nc");
        assert_eq!(logged.level, Level::Warning);
        assert_eq!(logged.component, "config");
        assert_eq!(logged.message, "a\\u{1b}[2Jb c");
        let cut = read(r#"{"level":"debug","component":"http","message":"request headers comp"#);
        assert_eq!((cut.level, &*cut.component), (Level::Debug, "http"));
        assert_eq!(cut.message, "request headers comp");
        assert!(may_hold_secrets(&cut));
        let raw = read("PARSE ERROR: Argument: -l\u{7}");
        assert_eq!((raw.level, raw.component.as_str()), (Level::Info, ""));
        assert_eq!(raw.message, "PARSE ERROR: Argument: -l\\u{7}");
    }

    #[test]
    fn lines_that_may_have_header_fields_in_them_are_known() {
        let of = |level: &str, component: &str| {
            let text =
                serde_json::json!({ "level": level, "component": component, "message": "x" });
            may_hold_secrets(&read(&text.to_string()))
        };
        for component in ["http", "router", "rbac", "jwt", "ext_proc", "filter", "new"] {
            assert!(
                of("debug", component) && of("trace", component),
                "{component}"
            );
            assert!(
                !of("info", component) && !of("error", component),
                "{component}"
            );
        }
        assert!(!of("debug", "main") && !of("trace", "upstream"));
    }

    #[test]
    fn what_an_operator_must_see_has_a_code() {
        for (text, code) in [
            (
                "delta config for type.googleapis.com/envoy.config.listener.v3.Listener rejected: Error adding/updating \
                 listener(s) outgate_proxy: cannot bind '127.0.0.1:80': Permission denied",
                "envoy_cannot_listen",
            ),
            (
                "delta config for type.googleapis.com/envoy.config.cluster.v3.Cluster rejected: no such field",
                "envoy_config_rejected",
            ),
            (
                "gRPC config for type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret rejected: bad key",
                "envoy_config_rejected",
            ),
            (
                "DeltaAggregatedResources gRPC config stream to outgate_xds closed: 14, upstream connect error or \
                 disconnect/reset before headers. reset reason: connection failure",
                "control_plane_unreachable",
            ),
            (
                "DeltaAggregatedResources gRPC config stream to outgate_xds closed since 31s ago: 14, transport failure \
                 reason: TLS_error:|268435703:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER",
                "control_plane_refused",
            ),
            (
                "Jwks async fetching url=http://outgate/.well-known/jwks.json: failed",
                "token_keys_unreachable",
            ),
            (
                "gRPC config: initial fetch timed out for type.googleapis.com/envoy.config.listener.v3.Listener",
                "control_plane_silent",
            ),
        ] {
            let notice = notice(&line("warning", text)).unwrap();
            assert_eq!(notice.code, code, "{text}");
            assert!(!notice.remedy.is_empty());
        }
        assert_eq!(
            notice(&line("warning", "There is no configured limit")),
            None
        );
        assert_eq!(notice(&line("info", "cannot bind")), None);
    }

    #[test]
    fn the_same_notice_is_told_twice_a_minute() {
        let told = notice(&line("warning", "cannot bind 'a'")).unwrap();
        let other = notice(&line("warning", "cannot bind 'b'")).unwrap();
        let lost = |seconds| {
            let text = format!(
                "X gRPC config stream to outgate_xds closed since {seconds}s ago: 14, gone"
            );
            notice(&line("warning", &text)).unwrap()
        };
        let start = Instant::now();
        let mut repeats = Repeats::new();
        assert!(repeats.is_news(&told, start));
        assert!(!repeats.is_news(&told, start + QUIET / 2));
        assert!(repeats.is_news(&other, start + QUIET / 2));
        assert!(repeats.is_news(&lost(1), start));
        assert!(!repeats.is_news(&lost(2), start + QUIET / 2));
        assert!(repeats.is_news(&told, start + QUIET));
    }

    #[test]
    fn one_refusal_that_every_layer_logs_is_one_notice() {
        let why = "cannot bind '127.0.0.1:18123': Address already in use";
        let mut repeats = Repeats::new();
        let mut is_news = |text: String| {
            repeats.is_news(&notice(&line("warning", &text)).unwrap(), Instant::now())
        };
        assert!(is_news(format!("lds: listener 'a' config rejected: {why}")));
        assert!(!is_news(format!(
            "delta config for L rejected: Error adding a: {why}"
        )));
        assert!(is_news(format!(
            "listener 'a' failed: {}",
            why.replace("18123", "18124")
        )));
    }
}
