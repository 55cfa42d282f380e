//! `outgate session requests`: what a session asked for, and what its bodies began with. All of it was chosen by a
//! guest or an upstream, so whatever a terminal would obey is escaped.

use std::borrow::Cow;

use anyhow::Result;
use outgate_control::operator::{BodyPart, SessionRequest, SessionRequests};

use crate::{
    commands::{
        operator::print_json,
        table::{self, shown},
        utc,
    },
    style::say,
};

pub(super) fn show(found: &SessionRequests, bodies: bool, json: bool) -> Result<()> {
    if json {
        return print_json(found);
    }
    if found.kept == 0 {
        say!("nothing is kept (sessions.view.requests is 0)");
        return Ok(());
    }
    if found.requests.is_empty() {
        say!("no request of it has ended here");
        return Ok(());
    }
    table::print(
        [
            "TIME",
            "ENTRY",
            "REQUEST",
            "STATUS",
            "VERDICT",
            "CREDENTIAL",
            "OUT",
            "IN",
            "MS",
            "REQUEST ID",
        ],
        &found.requests.iter().map(row).collect::<Vec<_>>(),
    );
    if !bodies {
        return Ok(());
    }
    if found.kept_body_bytes == 0 {
        say!("no bodies are kept (sessions.view.bodies is not set)");
    }
    for request in &found.requests {
        show_body(&request.request_id, "sent", request.request_body.as_ref());
        show_body(&request.request_id, "got", request.response_body.as_ref());
    }
    Ok(())
}

fn row(request: &SessionRequest) -> [String; 10] {
    let verdict = match (&request.code, request.allowed) {
        (Some(code), true) => format!("cut: {code}"),
        (Some(code), false) => code.clone(),
        (None, _) if request.ending == "completed" => "allowed".to_owned(),
        (None, _) => format!("allowed, {}", request.ending),
    };
    [
        utc(request.time_unix_ms / 1000),
        request.entry.clone(),
        what(request),
        request.status.map(|it| it.to_string()).unwrap_or_default(),
        verdict,
        request.credential.clone().unwrap_or_default(),
        request.bytes_out.to_string(),
        request.bytes_in.to_string(),
        request.duration_ms.to_string(),
        request.request_id.clone(),
    ]
}

/// `POST api.example.org:443/v1/messages`, as far as it is known.
fn what(request: &SessionRequest) -> String {
    let method = request.method.as_deref().unwrap_or_default();
    let host = request.host.as_deref().unwrap_or("?");
    let port = request.port.map_or_else(String::new, |it| format!(":{it}"));
    let path = request.path.as_deref().unwrap_or_default();
    format!("{method} {host}{port}{path}")
        .trim_start()
        .to_owned()
}

fn show_body(request_id: &str, way: &str, body: Option<&BodyPart>) {
    let Some(body) = body.filter(|body| !body.base64.0.is_empty()) else {
        return;
    };
    let length = body.base64.0.len();
    let rest = if body.is_cut { ", and more" } else { "" };
    say!("");
    say!("{} {way} {length} bytes{rest}:", shown(request_id));
    for line in lines(&body.base64.0) {
        say!("  {line}");
    }
}

/// A body as lines that are safe to print: text as it is, anything else byte by byte.
fn lines(bytes: &[u8]) -> Vec<String> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        // A character that was cut through at the end does not make text binary.
        Err(error) if error.error_len().is_none() => {
            String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default())
        }
        Err(_) => return vec![bytes.escape_ascii().to_string()],
    };
    let safe = |line: &str| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        shown(&line.replace('\t', "    ")).into_owned()
    };
    text.split('\n').map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_moves_no_cursor() {
        assert_eq!(lines(b"a\r\n\tb"), ["a", "    b"]);
        assert_eq!(lines(b"x\x1b[2J\x07"), ["x\\u{1b}[2J\\u{7}"]);
        assert_eq!(lines(b"a\rb"), ["a\\u{d}b"]);
        assert_eq!(
            lines("ü\u{202e}x\u{9b}1m".as_bytes()),
            ["ü\\u{202e}x\\u{9b}1m"]
        );
        assert_eq!(lines(b"\xff\x1b[2J\n"), ["\\xff\\x1b[2J\\n"]);
        assert_eq!(lines("aü".as_bytes().get(..2).unwrap()), ["a"]);
    }
}
