//! Names for any number of destinations: every question for an IPv4 address is answered 127.0.0.1, others with nothing,
//! and with how long that is so (RFC 2308, section 2.2): without, resolvers ask again.

use std::sync::Arc;

use tokio::net::UdpSocket;

use super::counters::Counters;

const HEADER: usize = 12;
/// A record type and class: A, IN.
const ADDRESS: [u8; 4] = [0, 1, 0, 1];

pub(super) async fn serve(socket: UdpSocket, counters: Arc<Counters>) {
    let mut buffer = [0; 1500];
    loop {
        // An error is about an earlier answer that nobody took.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        counters.dns.add();
        if let Some(answer) = buffer.get(..length).and_then(answer) {
            let _ = socket.send_to(&answer, from).await;
        }
    }
}

/// The answer to a message with one question (RFC 1035, section 4.1); `None` to anything else.
fn answer(message: &[u8]) -> Option<Vec<u8>> {
    let id = message.get(..2)?;
    let question = question(message)?;
    let is_address = question.ends_with(&ADDRESS);
    let mut out = id.to_vec();
    // An authoritative answer without error, recursion available; one question; a record, or that there is none.
    let (answers, authorities) = if is_address { (1, 0) } else { (0, 1) };
    out.extend([0x85, 0x80, 0, 1, 0, answers, 0, authorities, 0, 0]);
    out.extend(question);
    // The name of the question.
    out.extend([0xc0, 12]);
    if is_address {
        // Good for 60 s, four bytes.
        out.extend(ADDRESS);
        out.extend([0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    } else {
        // SOA, IN, for 60 s: the root as both names, a serial number, and four times 60 s.
        out.extend([0, 6, 0, 1, 0, 0, 0, 60, 0, 22, 0, 0, 0, 0, 0, 1]);
        out.extend([0, 0, 0, 60].repeat(4));
    }
    Some(out)
}

/// The name, type and class that are asked for.
fn question(message: &[u8]) -> Option<&[u8]> {
    let body = message.get(HEADER..)?;
    let mut end = 0;
    loop {
        let length = usize::from(*body.get(end)?);
        end += length + 1;
        if length == 0 {
            return body.get(..end + 4);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for `a.test` of this type.
    fn ask(kind: u8) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(b"\x01a\x04test\0");
        message.extend([0, kind, 0, 1]);
        message
    }

    #[test]
    fn an_address_is_loopback_and_another_question_has_no_records() {
        let found = answer(&ask(1)).unwrap();
        assert_eq!(&found[..8], &[7, 9, 0x85, 0x80, 0, 1, 0, 1]);
        assert!(found.ends_with(&[0, 4, 127, 0, 0, 1]));
        let none = answer(&ask(28)).unwrap();
        assert_eq!((none[7], none[9]), (0, 1));
        assert!(none.ends_with(&[0, 0, 0, 60]));
    }

    #[test]
    fn a_message_that_is_cut_short_has_no_answer() {
        let whole = ask(1);
        for length in 0..whole.len() {
            assert!(answer(&whole[..length]).is_none(), "{length}");
        }
    }
}
