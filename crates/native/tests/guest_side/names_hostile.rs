//! Messages that no resolver sends. Each is answered or ignored in its own right, and the next question is answered.

use std::{collections::HashSet, time::Instant};

use outgate_journey::{
    denial::DenyCode,
    record::{Entry, Verdict},
};
use outgate_native::gateway::Attribution;
use outgate_testkit::{DnsAnswer, eventually};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpStream, UdpSocket},
};

use crate::{
    dns_wire::{
        A, FORMAT_ERROR, NO_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED, header, push_question, question,
        read,
    },
    world::{ELSEWHERE, SECOND, World, framed, read_framed},
};

/// What may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    Nothing,
    Code(u8),
}

fn with(mut packet: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    packet[at] = byte;
    packet
}

fn hostile_packets() -> Vec<(&'static str, Vec<u8>, Back)> {
    let good = || question(0x4142, "a.test", A);
    let of =
        |questions: u16, body: &[u8]| [header(0x4142, [1, 0], questions), body.to_vec()].concat();
    let mut two = header(0x4142, [1, 0], 2);
    push_question(&mut two, "a.test", A, 1);
    push_question(&mut two, "n.test", A, 1);
    let class = |class| {
        let mut packet = header(0x4142, [1, 0], 1);
        push_question(&mut packet, "a.test", A, class);
        packet
    };
    let mut long_name = Vec::new();
    for _ in 0..8 {
        long_name.push(63);
        long_name.extend_from_slice(&[b'a'; 63]);
    }
    long_name.extend_from_slice(&[0, 0, 1, 0, 1]);
    let malformed = Back::Code(FORMAT_ERROR);
    let unserved = Back::Code(NOT_IMPLEMENTED);
    vec![
        ("one byte", vec![0x41], Back::Nothing),
        ("an id alone", vec![0x41, 0x42], malformed),
        ("half a header", good()[..7].to_vec(), malformed),
        ("a header that promises a question", of(1, b""), malformed),
        ("65,535 questions and none", of(65_535, b""), malformed),
        ("a label that ends nowhere", of(1, b"\x3fabc"), malformed),
        (
            "a name that points at itself",
            of(1, &[0xc0, 12, 0, 1, 0, 1]),
            malformed,
        ),
        (
            "two pointers at each other",
            of(1, &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1]),
            malformed,
        ),
        (
            "a pointer forward",
            of(1, &[0xc0, 200, 0, 1, 0, 1]),
            malformed,
        ),
        (
            "a reserved label type",
            of(1, &[0x80, 1, 0, 0, 1, 0, 1]),
            malformed,
        ),
        ("a name over 255", of(1, &long_name), malformed),
        ("a cut type", good()[..good().len() - 3].to_vec(), malformed),
        ("answers that are not there", with(good(), 7, 9), malformed),
        (
            "two OPT records",
            {
                let mut packet = crate::dns_wire::question_with_edns(0x4142, "a.test", A);
                packet[11] = 2;
                packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
                packet
            },
            malformed,
        ),
        ("no question", of(0, b""), unserved),
        ("two questions", two, unserved),
        ("class CHAOS", class(3), unserved),
        ("class HESIOD", class(4), unserved),
        ("class ANY", class(255), unserved),
        ("IQUERY", with(good(), 2, 0x09), unserved),
        ("STATUS", with(good(), 2, 0x11), unserved),
        ("NOTIFY", with(good(), 2, 0x21), unserved),
        ("UPDATE", with(good(), 2, 0x29), unserved),
        ("an unassigned opcode", with(good(), 2, 0x71), unserved),
        ("an answer", with(good(), 2, 0x81), Back::Nothing),
        (
            "an answer that refuses",
            with(with(good(), 2, 0x81), 3, 0x85),
            Back::Nothing,
        ),
    ]
}

#[tokio::test]
async fn a_message_that_is_no_question_is_refused_or_ignored_and_never_looked_up() {
    for attribution in [Attribution::BySocket, Attribution::ByToken] {
        let world = World::new(attribution).await;
        for (what, packet, back) in hostile_packets() {
            let context = format!("{attribution:?} {what}");
            let mark = world.mark();
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            socket.connect((ELSEWHERE, world.names)).await.unwrap();
            socket.send(&packet).await.unwrap();
            let mut buffer = [0; 4096];
            // A record is written when the message was judged; its answer is on its way then.
            let record = world.record(mark, &context, |_| true).await;
            assert_eq!(record.entry, Entry::Dns, "{context}");
            assert_eq!(
                record.verdict,
                Verdict::Denied(DenyCode::MalformedRequest),
                "{context}"
            );
            match back {
                Back::Nothing => {
                    let silence = tokio::time::timeout(SECOND / 10, socket.recv(&mut buffer)).await;
                    assert!(silence.is_err(), "{context}: answered");
                }
                Back::Code(code) => {
                    let length = tokio::time::timeout(SECOND, socket.recv(&mut buffer)).await;
                    let answer = read(&buffer[..length.expect(&context).unwrap()]);
                    assert!(answer.is_answer, "{context}");
                    assert_eq!(
                        (answer.id, answer.code, answer.records),
                        (0x4142, code, 0),
                        "{context}"
                    );
                }
            }
            world.assert_nothing_looked_up(mark, &context);
        }
        let answer = world
            .ask(&question(1, "a.test", A))
            .await
            .expect("it still answers");
        assert_eq!(read(&answer).code, NO_ERROR);
        world.finish().await;
    }
}

#[tokio::test]
async fn an_answer_is_never_answered_however_broken_it_is() {
    let world = World::new(Attribution::BySocket).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((ELSEWHERE, world.names)).await.unwrap();
    let mark = world.mark();
    let mut sent = 0;
    for (_, packet, _) in hostile_packets() {
        if packet.len() > 2 {
            let flags = packet[2] | 0x80;
            socket.send(&with(packet, 2, flags)).await.unwrap();
            sent += 1;
        }
    }
    let judged = eventually(3 * SECOND, || {
        (world.records_since(mark).len() == sent).then_some(())
    });
    assert!(
        judged.await.is_some(),
        "{sent} sent, {:#?}",
        world.records_since(mark)
    );
    let mut buffer = [0; 512];
    let answer = tokio::time::timeout(SECOND / 4, socket.recv(&mut buffer)).await;
    assert!(
        answer.is_err(),
        "two servers that do this never end: {buffer:?}"
    );
    world.finish().await;
}

#[tokio::test]
async fn a_huge_packet_is_cut_and_an_empty_one_ignored() {
    let world = World::new(Attribution::BySocket).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((ELSEWHERE, world.names)).await.unwrap();
    socket.send(&[]).await.unwrap();
    let noise: Vec<u8> = (0..60_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for size in [513, 4096, 4097, 60_000] {
        let _ = socket.send(&noise[..size]).await;
    }
    let answer = world
        .ask(&question(1, "a.test", A))
        .await
        .expect("it still answers");
    assert_eq!(read(&answer).code, NO_ERROR);
    world.finish().await;
}

#[tokio::test]
async fn questions_on_one_tcp_connection_are_answered_one_after_the_other() {
    let world = World::new(Attribution::BySocket).await;
    let mut stream = TcpStream::connect(world.names_tcp).await.unwrap();
    let mut all = Vec::new();
    for id in 0..100 {
        let name = if is_listed(id) { "a.test" } else { "x.test" };
        all.extend(framed(&question(id, name, A)));
    }
    let mark = world.mark();
    stream.write_all(&all).await.unwrap();
    for id in 0..100 {
        let answer = read(&read_framed(&mut stream).await.unwrap());
        let code = if is_listed(id) {
            NO_ERROR
        } else {
            NO_SUCH_NAME
        };
        assert_eq!((answer.id, answer.code), (id, code));
    }
    assert_eq!(world.records_since(mark).len(), 100);
    // One byte at a time.
    let slow = framed(&question(500, "a.test", A));
    for byte in &slow {
        stream.write_all(std::slice::from_ref(byte)).await.unwrap();
        tokio::time::sleep(SECOND / 200).await;
    }
    assert_eq!(read(&read_framed(&mut stream).await.unwrap()).id, 500);
    // The largest message there is, of nothing.
    stream.write_all(&framed(&[0; 65_535])).await.unwrap();
    assert_eq!(
        read(&read_framed(&mut stream).await.unwrap()).code,
        NOT_IMPLEMENTED
    );
    stream
        .write_all(&framed(&question(501, "a.test", A)))
        .await
        .unwrap();
    assert_eq!(read(&read_framed(&mut stream).await.unwrap()).id, 501);
    // A length of nothing is no message: the connection ends.
    stream.write_all(&[0, 0]).await.unwrap();
    assert_eq!(read_framed(&mut stream).await, None);
    world.finish().await;
}

#[tokio::test]
async fn a_tcp_connection_that_says_nothing_more_is_closed_in_ten_seconds() {
    let world = World::new(Attribution::BySocket).await;
    let mut idle = TcpStream::connect(world.names_tcp).await.unwrap();
    let mut half = TcpStream::connect(world.names_tcp).await.unwrap();
    half.write_all(&framed(&question(1, "a.test", A))[..9])
        .await
        .unwrap();
    let begin = Instant::now();
    for stream in [&mut idle, &mut half] {
        let (said, closed) = outgate_testkit::raw::drain(stream, 12 * SECOND).await;
        assert!(said.is_empty() && closed);
    }
    assert!(
        (9 * SECOND..12 * SECOND).contains(&begin.elapsed()),
        "{:?}",
        begin.elapsed()
    );
    world.finish().await;
}

#[tokio::test]
async fn a_flood_is_answered_or_dropped_and_then_it_is_over() {
    let world = World::new(Attribution::BySocket).await;
    let mark = world.mark();
    let sockets = four_clients(&world).await;
    for id in 0..500 {
        for socket in &sockets {
            let _ = socket
                .send(&question(
                    id,
                    if is_listed(id) { "a.test" } else { "x.test" },
                    A,
                ))
                .await;
        }
    }
    let answer = eventually(5 * SECOND, || {
        (!world.records_since(mark).is_empty()).then_some(())
    })
    .await;
    assert!(answer.is_some());
    let mut buffer = [0; 512];
    let mut answered = 0;
    for socket in &sockets {
        while let Ok(Ok(length)) = tokio::time::timeout(SECOND / 4, socket.recv(&mut buffer)).await
        {
            let answer = read(&buffer[..length]);
            let code = if is_listed(answer.id) {
                NO_ERROR
            } else {
                NO_SUCH_NAME
            };
            assert_eq!(answer.code, code);
            answered += 1;
        }
    }
    assert!(answered > 0);
    let records = world.records_since(mark);
    assert!(
        records.len() >= answered,
        "{} records of {answered} answers",
        records.len()
    );
    let answer = world
        .ask(&question(1, "a.test", A))
        .await
        .expect("it answers again");
    assert_eq!(read(&answer).code, NO_ERROR);
    world.finish().await;
}

async fn four_clients(world: &World) -> Vec<UdpSocket> {
    let mut sockets = Vec::new();
    for _ in 0..4 {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect((ELSEWHERE, world.names)).await.unwrap();
        sockets.push(socket);
    }
    sockets
}

#[tokio::test]
async fn no_more_than_256_questions_are_looked_up_at_once() {
    let world = World::new(Attribution::BySocket).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect((ELSEWHERE, world.names)).await.unwrap();
    let names: Vec<_> = (0..400)
        .map(|number| format!("n{number}.wild.test"))
        .collect();
    for (id, name) in names.iter().enumerate() {
        world.dns.set(name, DnsAnswer::Silent);
        socket.send(&question(id as u16, name, A)).await.unwrap();
        // The kernel drops what waits too long; that is not what is tested here.
        if id % 20 == 0 {
            tokio::time::sleep(SECOND / 100).await;
        }
    }
    let asked = || {
        world
            .dns
            .queries()
            .into_iter()
            .map(|(name, _)| name)
            .collect::<HashSet<_>>()
            .len()
    };
    let full = eventually(3 * SECOND, || (asked() >= 256).then_some(())).await;
    assert!(full.is_some(), "{}", asked());
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(asked(), 256);
    drop(world);
}

/// Every other question of a flood is for a listed name.
fn is_listed(id: u16) -> bool {
    id.is_multiple_of(2)
}
