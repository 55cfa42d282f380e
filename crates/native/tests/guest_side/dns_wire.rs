//! DNS messages by hand (RFC 1035 section 4), for what a library would neither send nor show.

use std::net::IpAddr;

pub(crate) const A: u16 = 1;
pub(crate) const AAAA: u16 = 28;

pub(crate) const NO_ERROR: u8 = 0;
pub(crate) const FORMAT_ERROR: u8 = 1;
pub(crate) const SERVER_FAILURE: u8 = 2;
pub(crate) const NO_SUCH_NAME: u8 = 3;
pub(crate) const NOT_IMPLEMENTED: u8 = 4;
pub(crate) const REFUSED: u8 = 5;

/// A standard question of class IN that asks for recursion.
pub(crate) fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = header(id, [1, 0], 1);
    push_question(&mut out, name, kind, 1);
    out
}

/// The same with EDNS (RFC 6891), so that the answer may carry a reason.
pub(crate) fn question_with_edns(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut out = question(id, name, kind);
    out[11] = 1;
    // The root, OPT, 1232 bytes, no flags, no options.
    out.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    out
}

/// A header alone, with so many questions announced.
pub(crate) fn header(id: u16, flags: [u8; 2], questions: u16) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&flags);
    out.extend_from_slice(&questions.to_be_bytes());
    out.extend_from_slice(&[0; 6]);
    out
}

pub(crate) fn push_question(out: &mut Vec<u8>, name: &str, kind: u16, class: u16) {
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&class.to_be_bytes());
}

/// An answer, as far as a test looks at it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: u16,
    pub(crate) is_answer: bool,
    pub(crate) recursion_available: bool,
    pub(crate) code: u8,
    /// As written, letter case kept.
    pub(crate) name: String,
    /// Whatever the answer section holds.
    pub(crate) addresses: Vec<IpAddr>,
    /// Of the answer section.
    pub(crate) longest_ttl: u32,
    /// Records of every section but OPT.
    pub(crate) records: usize,
    /// The Extended DNS Error (RFC 8914).
    pub(crate) reason: Option<(u16, String)>,
}

/// Reads an answer.
///
/// # Panics
/// If it is none.
pub(crate) fn read(bytes: &[u8]) -> Answer {
    let number = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let mut answer = Answer {
        id: number(0),
        is_answer: bytes[2] & 0x80 != 0,
        recursion_available: bytes[3] & 0x80 != 0,
        code: bytes[3] & 0xf,
        name: String::new(),
        addresses: Vec::new(),
        longest_ttl: 0,
        records: 0,
        reason: None,
    };
    let mut at = 12;
    for _ in 0..number(4) {
        (answer.name, at) = read_name(bytes, at);
        at += 4;
    }
    for index in 0..number(6) + number(8) + number(10) {
        (_, at) = read_name(bytes, at);
        let (kind, length) = (number(at), usize::from(number(at + 8)));
        let ttl = u32::from_be_bytes(bytes[at + 4..at + 8].try_into().unwrap());
        let data = &bytes[at + 10..at + 10 + length];
        at += 10 + length;
        if kind == 41 {
            if let [0, 15, _, _, high, low, text @ ..] = data {
                let text = String::from_utf8_lossy(text).into_owned();
                answer.reason = Some((u16::from_be_bytes([*high, *low]), text));
            }
            continue;
        }
        answer.records += 1;
        if index < number(6) {
            answer.longest_ttl = answer.longest_ttl.max(ttl);
            match kind {
                A => answer
                    .addresses
                    .push(IpAddr::from(<[u8; 4]>::try_from(data).unwrap())),
                AAAA => answer
                    .addresses
                    .push(IpAddr::from(<[u8; 16]>::try_from(data).unwrap())),
                other => panic!("a record of type {other}"),
            }
        }
    }
    assert_eq!(at, bytes.len(), "bytes behind the message");
    answer
}

fn read_name(bytes: &[u8], mut at: usize) -> (String, usize) {
    let (mut labels, mut end) = (Vec::new(), None);
    loop {
        match bytes[at] {
            0 => return (labels.join("."), end.unwrap_or(at + 1)),
            pointer if pointer & 0xc0 == 0xc0 => {
                end = end.or(Some(at + 2));
                at = usize::from(pointer & 0x3f) << 8 | usize::from(bytes[at + 1]);
            }
            length => {
                let label = &bytes[at + 1..=at + usize::from(length)];
                labels.push(String::from_utf8_lossy(label).into_owned());
                at += 1 + usize::from(length);
            }
        }
    }
}
