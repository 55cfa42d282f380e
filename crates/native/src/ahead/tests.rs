use std::collections::VecDeque;

use tokio::io::AsyncReadExt;

use super::*;

/// Gives so many bytes at once as each number says, then ends; 0: nothing is there yet.
struct Source {
    rounds: VecDeque<usize>,
    next: u8,
    largest: usize,
}

impl Source {
    fn of(rounds: &[usize]) -> Self {
        Self {
            rounds: rounds.iter().copied().collect(),
            next: 0,
            largest: 0,
        }
    }
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.largest = self.largest.max(buf.remaining());
        let Some(left) = self.rounds.pop_front() else {
            return Poll::Ready(Ok(()));
        };
        if left == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let count = left.min(buf.remaining());
        for _ in 0..count {
            buf.put_slice(&[self.next]);
            self.next = self.next.wrapping_mul(5).wrapping_add(1);
        }
        if count < left {
            self.rounds.push_front(left - count);
        }
        Poll::Ready(Ok(()))
    }
}

async fn read_by(piece: usize, from: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut all = Vec::new();
    let mut room = vec![0; piece];
    loop {
        match from.read(&mut room).await.unwrap() {
            0 => return all,
            count => all.extend_from_slice(&room[..count]),
        }
    }
}

#[tokio::test]
async fn every_byte_comes_once_and_in_its_order_however_it_is_cut() {
    let rounds = [
        3, 0, 4096, 200_000, 0, 17, 0, 0, 65_536, 65_537, 1, 4095, 0, 90_000,
    ];
    let whole = read_by(rounds.iter().sum(), &mut Source::of(&rounds)).await;
    for piece in [1000, 4095, 4096, 5000, 18_000, 100_000] {
        let prefix = BytesMut::from(&b"read before"[..]);
        let mut stream = ReadAhead::new(Source::of(&rounds), prefix);
        let read = read_by(piece, &mut stream).await;
        assert!(read.strip_prefix(b"read before") == Some(&whole), "{piece}");
    }
}

#[tokio::test]
async fn only_what_comes_filled_is_read_ahead() {
    let mut bulk = ReadAhead::new(Source::of(&[100_000]), BytesMut::new());
    read_by(BULK, &mut bulk).await;
    assert_eq!(bulk.io.largest, AHEAD);
    let mut talk = ReadAhead::new(Source::of(&[100; 50]), BytesMut::new());
    read_by(BULK, &mut talk).await;
    assert_eq!(talk.io.largest, BULK);
}

#[tokio::test]
async fn a_stream_that_waits_holds_no_buffer() {
    let rest: &[&[usize]] = &[
        // All of it came: whether more is on its way is not known.
        &[100_000, 0, 0],
        &[100_000, 50, 0, 0],
    ];
    for rounds in rest {
        let mut stream = ReadAhead::new(Source::of(rounds), BytesMut::new());
        let mut room = [0; BULK];
        let mut left: usize = rounds.iter().sum();
        while left > 0 {
            left -= stream.read(&mut room).await.unwrap();
        }
        assert_eq!(stream.ahead.capacity(), 0);
        let waits = futures_util::poll!(std::pin::pin!(stream.read(&mut room)));
        assert!(waits.is_pending());
        assert_eq!(stream.ahead.capacity(), 0);
    }
}

#[tokio::test]
async fn what_is_written_goes_straight_through() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut stream = ReadAhead::new(near, BytesMut::from(&b"ahead"[..]));
    tokio::io::AsyncWriteExt::write_all(&mut stream, b"written")
        .await
        .unwrap();
    drop(stream);
    assert_eq!(read_by(10, &mut far).await, b"written");
}

#[tokio::test]
async fn a_source_without_end_lets_others_have_their_turn() {
    let mut stream = ReadAhead::new(Source::of(&[100 << 20]), BytesMut::new());
    let mut room = [0; BULK];
    let mut read = 0;
    let mut all = std::pin::pin!(async {
        loop {
            read += stream.read(&mut room).await.unwrap();
        }
    });
    let turn = futures_util::poll!(all.as_mut());
    assert!(turn.is_pending());
    // A task has 128 turns of the runtime's at once.
    assert!(read <= 130 * BULK, "{read}");
}
