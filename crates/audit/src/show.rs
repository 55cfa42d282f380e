//! Reading a trail for people: one record, one line. Text that a guest chose is shown with everything escaped that a
//! terminal would obey. Reading is not verifying: that is [`verify`](crate::verify()).

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

use crate::{
    chain::MAX_LINE,
    text::is_unsafe_to_show,
    verify::{locate, next_bounded},
};

/// Why a record cannot be shown.
#[derive(Debug, Error)]
pub enum ShowError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The path.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The line is not a record; those after it can still be read.
    #[error("{path} line {line}: not an audit record")]
    NotARecord {
        /// The path.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
    },
}

/// Opens a trail to read it from its beginning. `path` is the audit directory or a file of records.
///
/// # Errors
/// [`ShowError::Io`].
pub fn show(path: &Path) -> Result<Records, ShowError> {
    let (path, _, _) = locate(path);
    match File::open(&path) {
        Ok(file) => Ok(Records {
            reader: BufReader::with_capacity(4 * MAX_LINE, file),
            path,
            line: 0,
            done: false,
        }),
        Err(source) => Err(ShowError::Io { path, source }),
    }
}

/// The records of a file, in order. A last line that is still being written is left out.
#[derive(Debug)]
pub struct Records {
    reader: BufReader<File>,
    path: PathBuf,
    line: u64,
    done: bool,
}

impl Iterator for Records {
    type Item = Result<ShownRecord, ShowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let mut buffer = Vec::new();
        match next_bounded(&mut self.reader, &mut buffer) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(source) => {
                self.done = true;
                return Some(Err(ShowError::Io {
                    path: self.path.clone(),
                    source,
                }));
            }
        }
        self.line += 1;
        if buffer.pop() != Some(b'\n') {
            self.done = true;
            // Too long for a line of ours, or not written to its end yet.
            return (buffer.len() >= MAX_LINE).then(|| Err(self.not_a_record()));
        }
        Some(ShownRecord::parse(buffer).ok_or_else(|| self.not_a_record()))
    }
}

impl Records {
    fn not_a_record(&self) -> ShowError {
        ShowError::NotARecord {
            path: self.path.clone(),
            line: self.line,
        }
    }
}

/// One record. `Display` is the one-line form: time, verdict, code, session, method, host, path, status, bytes; `-`
/// where there is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownRecord {
    /// The line as it stands, without its line break.
    pub raw: String,
    /// Its place in the chain.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub time_unix_ms: u64,
    /// What was decided.
    pub verdict: ShownVerdict,
    /// The deny code.
    pub code: Option<String>,
    /// Whose request.
    pub session: Option<String>,
    /// `connect` for a tunnel, `listener` for a connection that never became a request, else the method; for the log's
    /// own records, what happened.
    pub method: Option<String>,
    /// What it named, with the port if that is known.
    pub host: Option<String>,
    /// The path.
    pub path: Option<String>,
    /// The status that the client got.
    pub status: Option<u16>,
    /// Towards the upstream.
    pub bytes_out: u64,
    /// Towards the client.
    pub bytes_in: u64,
}

/// The verdict, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownVerdict {
    /// It was let out.
    Allowed,
    /// It was let out and then cut.
    Cut,
    /// It was refused.
    Denied,
    /// Not a decision: what happened to the log itself.
    Log,
}

impl ShownVerdict {
    /// The word in the one-line form.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Cut => "cut",
            Self::Denied => "denied",
            Self::Log => "log",
        }
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    seq: u64,
    #[serde(borrow)]
    record: Event<'a>,
}

#[derive(Deserialize)]
struct Event<'a> {
    time: u64,
    action_id: Option<u8>,
    activity_name: Option<String>,
    status_code: Option<String>,
    actor: Option<Actor>,
    dst_endpoint: Option<Endpoint>,
    http_request: Option<Request>,
    http_response: Option<Response>,
    traffic: Option<Traffic>,
    #[serde(borrow)]
    unmapped: Option<Unmapped<'a>>,
}

#[derive(Deserialize)]
struct Actor {
    session: Uid,
}

#[derive(Deserialize)]
struct Uid {
    uid: String,
}

#[derive(Deserialize)]
struct Endpoint {
    hostname: Option<String>,
    ip: Option<String>,
    port: Option<u16>,
}

#[derive(Deserialize)]
struct Request {
    http_method: Option<String>,
    url: Option<Url>,
}

#[derive(Deserialize)]
struct Url {
    path: Option<String>,
}

#[derive(Deserialize)]
struct Response {
    code: u16,
}

#[derive(Deserialize)]
struct Traffic {
    bytes_in: u64,
    bytes_out: u64,
}

#[derive(Deserialize)]
struct Unmapped<'a> {
    #[serde(borrow)]
    entry: Option<Cow<'a, str>>,
    #[serde(borrow)]
    ending: Option<Cow<'a, str>>,
    status: Option<u16>,
}

impl ShownRecord {
    fn parse(line: Vec<u8>) -> Option<Self> {
        let raw = String::from_utf8(line).ok()?;
        let Envelope { seq, record } = serde_json::from_str(&raw).ok()?;
        let cut = record.unmapped.as_ref().and_then(|u| u.ending.as_deref()) == Some("cut");
        let verdict = match record.action_id {
            Some(1) if cut => ShownVerdict::Cut,
            Some(1) => ShownVerdict::Allowed,
            Some(_) => ShownVerdict::Denied,
            None => ShownVerdict::Log,
        };
        let entry = record
            .unmapped
            .as_ref()
            .and_then(|u| u.entry.as_deref())
            .map(str::to_owned);
        let (method, path) = match record.http_request {
            Some(request) => (request.http_method, request.url.and_then(|url| url.path)),
            None => (
                record
                    .activity_name
                    .filter(|_| verdict == ShownVerdict::Log)
                    .map(|name| name.to_lowercase().replace(' ', "-"))
                    .or(entry),
                None,
            ),
        };
        let status = record
            .http_response
            .map(|response| response.code)
            .or(record.unmapped.as_ref().and_then(|u| u.status));
        let traffic = record.traffic.unwrap_or(Traffic {
            bytes_in: 0,
            bytes_out: 0,
        });
        Some(Self {
            seq,
            time_unix_ms: record.time,
            verdict,
            code: record.status_code,
            session: record.actor.map(|actor| actor.session.uid),
            method,
            host: record.dst_endpoint.and_then(Endpoint::named),
            path,
            status,
            bytes_out: traffic.bytes_out,
            bytes_in: traffic.bytes_in,
            raw,
        })
    }

    /// The record's time as RFC 3339 in UTC, with milliseconds.
    #[must_use]
    pub fn time(&self) -> String {
        rfc3339(self.time_unix_ms)
    }
}

impl Endpoint {
    fn named(self) -> Option<String> {
        let host = self.hostname.or(self.ip)?;
        Some(match self.port {
            Some(port) => format!("{host}:{port}"),
            None => host,
        })
    }
}

impl fmt::Display for ShownRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            &self.code,
            &self.session,
            &self.method,
            &self.host,
            &self.path,
        ];
        write!(f, "{} {:<7}", self.time(), self.verdict.as_str())?;
        for word in words {
            f.write_char(' ')?;
            write_word(f, word.as_deref())?;
        }
        match self.status {
            Some(status) => write!(f, " {status}")?,
            None => f.write_str(" -")?,
        }
        write!(f, " out={} in={}", self.bytes_out, self.bytes_in)
    }
}

/// One word: a space inside would let a guest write columns of its own.
fn write_word(f: &mut fmt::Formatter<'_>, word: Option<&str>) -> fmt::Result {
    let Some(word) = word.filter(|word| !word.is_empty()) else {
        return f.write_char('-');
    };
    for c in word.chars() {
        if c == '\\' || c.is_whitespace() || is_unsafe_to_show(c) {
            write!(f, "{}", c.escape_unicode())?;
        } else {
            f.write_char(c)?;
        }
    }
    Ok(())
}

/// Days to a date: H. Hinnant's `civil_from_days`, for days since 1970 only.
fn rfc3339(unix_ms: u64) -> String {
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_790_000_000_123, "2026-09-21T14:13:20.123Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
