//! One question and its answer. The journey judges the name; what it lets out is answered with addresses alone.

use std::{net::IpAddr, sync::Arc};

use hickory_resolver::proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        DNSClass, Name, RData, Record, RecordType,
        rdata::{A, AAAA, opt::EdnsOption},
    },
};
use outgate_journey::{
    denial::{Denial, DenyCode, Fault},
    gate::{judge_name, resolve_name},
    record::Entry,
};

use outgate_plane::trail::Trail;

use crate::{arrival::Arrival, shared::Shared};

/// Seconds. Short, because the gateway resolves again when the name is connected to.
const TTL: u32 = 30;
/// More addresses than anybody tries, and few enough for every packet.
const MOST_ADDRESSES: usize = 8;
/// RFC 1035 section 4.2.1, where the question says nothing else.
const UDP_ANSWER: usize = 512;
/// RFC 6891 section 6.2.5 recommends no more.
const EDNS_ANSWER: u16 = 1232;
/// RFC 8914 section 5: Extended DNS Error.
const EXTENDED_ERROR: u16 = 15;
/// RFC 8914 section 4.16: blocked by policy.
const BLOCKED: [u8; 2] = [0, 15];

/// How the question came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Udp,
    Tcp,
}

/// Answers one message; `None` where it is none that could be answered.
pub(super) async fn answer(
    shared: &Arc<Shared>,
    arrival: &Arrival,
    message: &[u8],
    over: Over,
) -> Option<Vec<u8>> {
    let mut trail = arrival.begin_trail(shared, Entry::Dns);
    // Two servers that answer each other's answers never end (RFC 1035 section 4.1.1: QR).
    let is_answer = message.get(2).is_some_and(|flags| flags & 0x80 != 0);
    let Ok(question) = Message::from_vec(message) else {
        trail.deny(&Denial::new(DenyCode::MalformedRequest).because("not a DNS message"));
        if is_answer {
            return None;
        }
        let id = message.first_chunk().map(|id| u16::from_be_bytes(*id))?;
        let error = Message::error_msg(id, OpCode::Query, ResponseCode::FormErr);
        return error.to_vec().ok();
    };
    if is_answer {
        trail.deny(&Denial::new(DenyCode::MalformedRequest).because("a DNS answer"));
        return None;
    }
    let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
    answer.metadata.recursion_desired = question.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(EDNS_ANSWER);
        answer.edns = Some(edns);
    }
    match (question.metadata.op_code, question.queries.as_slice()) {
        (OpCode::Query, [query]) if query.query_class() == DNSClass::IN => {
            answer.add_query(query.clone());
            trail.note_name(query.name().to_ascii().trim_end_matches('.'));
            match addresses(shared, arrival, query, &mut trail).await {
                Ok(addresses) => {
                    answer.add_answers(records(query.name(), query.query_type(), &addresses));
                    trail.complete();
                }
                Err(denial) => {
                    trail.deny(&denial);
                    refuse(&mut answer, &denial);
                }
            }
        }
        _ => {
            trail.deny(&Denial::new(DenyCode::MalformedRequest).because("not one IN question"));
            answer.metadata.response_code = ResponseCode::NotImp;
        }
    }
    let most = match (over, &question.edns) {
        (Over::Tcp, _) => usize::from(u16::MAX),
        (Over::Udp, None) => UDP_ANSWER,
        (Over::Udp, Some(edns)) => usize::from(edns.max_payload().clamp(512, EDNS_ANSWER)),
    };
    let bytes = answer.to_vec().ok()?;
    if bytes.len() > most {
        return answer.truncate().to_vec().ok();
    }
    Some(bytes)
}

/// The journey of a question.
async fn addresses(
    shared: &Arc<Shared>,
    arrival: &Arrival,
    query: &Query,
    trail: &mut Trail,
) -> Result<Vec<IpAddr>, Denial> {
    let live = shared.live();
    let name = query.name().to_ascii();
    let pass = {
        let token = arrival.listener_token();
        judge_name(&shared.plane, &live.policy, &name, &token.beside(None)).await?
    };
    if let Some(session) = pass.session() {
        trail.note_session(session);
    }
    let addresses = match query.query_type() {
        RecordType::A | RecordType::AAAA => {
            tokio::select! {
                resolved = resolve_name(&shared.plane, &live.policy, &pass) => resolved?,
                () = shared.stopping.cancelled() => return Err(DenyCode::ShuttingDown.into()),
            }
        }
        _ => Vec::new(),
    };
    trail.allow(pass.rule().map_or("", |rule| rule.as_str()));
    Ok(addresses)
}

fn records(name: &Name, kind: RecordType, addresses: &[IpAddr]) -> Vec<Record> {
    let data = addresses
        .iter()
        .filter_map(move |address| match (address, kind) {
            (IpAddr::V4(v4), RecordType::A) => Some(RData::A(A(*v4))),
            (IpAddr::V6(v6), RecordType::AAAA) => Some(RData::AAAA(AAAA(*v6))),
            _ => None,
        });
    data.take(MOST_ADDRESSES)
        .map(|data| Record::from_rdata(name.clone(), TTL, data))
        .collect()
}

/// A name that policy refuses does not exist here, so that nobody asks again; whoever understands RFC 8914 is told why.
fn refuse(answer: &mut Message, denial: &Denial) {
    answer.metadata.response_code = match (denial.code(), denial.code().status()) {
        (_, 401) | (DenyCode::SessionRevoked | DenyCode::SessionMismatch, _) => {
            ResponseCode::Refused
        }
        (code, _) if matches!(code.fault(), Fault::Policy | Fault::Client) => {
            ResponseCode::NXDomain
        }
        _ => ResponseCode::ServFail,
    };
    if let Some(edns) = &mut answer.edns {
        let mut text = BLOCKED.to_vec();
        text.extend_from_slice(denial.code().as_str().as_bytes());
        edns.options_mut()
            .insert(EdnsOption::Unknown(EXTENDED_ERROR, text));
    }
}
