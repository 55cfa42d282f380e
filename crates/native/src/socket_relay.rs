//! One direction of a tunnel whose bytes nobody looks at, from socket to socket. An idle one holds no buffer, and a bulky
//! one is carried by the kernel.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Poll, ready},
};

use bytes::BytesMut;
use outgate_journey::denial::DenyCode;
use tokio::{
    io::AsyncWriteExt,
    net::tcp::{ReadHalf, WriteHalf},
    sync::Semaphore,
};
use tokio_util::io::poll_read_buf;

use crate::relay::{BUFFER, Stopped};

/// From how many bytes on the kernel carries them: a pipe costs more than copying as many as this.
const BULKY: usize = 256 * 1024;

/// How many directions the kernel carries at once. Each has two descriptors, and a part of the pages that a user's pipes
/// may hold (16,384 by default, pipe(7)): the others are copied.
pub(crate) const MOST_PIPES: usize = 128;

/// Carries `received` and then what the reader brings, until its end; then the other end is told. `count` is asked before
/// bytes are let on.
pub(crate) async fn pump_socket(
    mut reader: ReadHalf<'_>,
    mut writer: WriteHalf<'_>,
    received: BytesMut,
    pipes: &Arc<Semaphore>,
    count: impl Fn(usize) -> Result<(), DenyCode>,
) -> Result<(), Stopped> {
    if !received.is_empty() {
        count(received.len()).map_err(Stopped::Cut)?;
        writer.write_all(&received).await?;
        drop(received);
    }
    let mut carried = 0;
    loop {
        let buffer = read(&mut reader).await?;
        if buffer.is_empty() {
            break;
        }
        count(buffer.len()).map_err(Stopped::Cut)?;
        writer.write_all(&buffer).await?;
        carried += buffer.len();
        #[cfg(target_os = "linux")]
        if carried >= BULKY {
            match pipe::Pipe::open(pipes) {
                Some(pipe) => {
                    pipe.carry(reader.as_ref(), writer.as_ref(), &count).await?;
                    break;
                }
                // There may be one later.
                None => carried = 0,
            }
        }
    }
    writer.shutdown().await?;
    Ok(())
}

/// Waits without a buffer, and reads with one. Empty at the end.
async fn read(reader: &mut ReadHalf<'_>) -> io::Result<BytesMut> {
    poll_fn(|cx| {
        ready!(reader.as_ref().poll_read_ready(cx))?;
        let mut buffer = BytesMut::with_capacity(BUFFER);
        ready!(poll_read_buf(Pin::new(&mut *reader), cx, &mut buffer))?;
        Poll::Ready(Ok(buffer))
    })
    .await
}

/// splice(2): from socket to socket by way of a pipe, without a copy in this process.
#[cfg(target_os = "linux")]
mod pipe {
    use std::{io, os::fd::OwnedFd, sync::Arc};

    use outgate_journey::denial::DenyCode;
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use tokio::{
        io::Interest,
        net::TcpStream,
        sync::{OwnedSemaphorePermit, Semaphore},
    };

    use crate::relay::Stopped;

    /// How much one holds, in bytes.
    const SIZE: usize = 256 * 1024;

    /// A pipe, empty between two calls of [`Pipe::carry`]'s loop.
    pub(super) struct Pipe {
        out: OwnedFd,
        into: OwnedFd,
        _room: OwnedSemaphorePermit,
    }

    impl Pipe {
        /// A pipe, as long as `room` has any and the kernel gives one.
        pub(super) fn open(room: &Arc<Semaphore>) -> Option<Self> {
            let room = Arc::clone(room).try_acquire_owned().ok()?;
            let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A smaller one is slower, and good.
            let _ = fcntl_setpipe_size(&into, SIZE);
            Some(Self {
                out,
                into,
                _room: room,
            })
        }

        /// Carries until the reader's end.
        pub(super) async fn carry(
            &self,
            reader: &TcpStream,
            writer: &TcpStream,
            count: impl Fn(usize) -> Result<(), DenyCode>,
        ) -> Result<(), Stopped> {
            loop {
                let fill = || moved(splice(reader, None, &self.into, None, SIZE, flags()));
                let mut held = reader.async_io(Interest::READABLE, fill).await?;
                if held == 0 {
                    return Ok(());
                }
                count(held).map_err(Stopped::Cut)?;
                while held > 0 {
                    let drain = || moved(splice(&self.out, None, writer, None, held, flags()));
                    match writer.async_io(Interest::WRITABLE, drain).await? {
                        0 => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                        count => held -= count,
                    }
                }
            }
        }
    }

    const fn flags() -> SpliceFlags {
        SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK)
    }

    fn moved(result: rustix::io::Result<usize>) -> io::Result<usize> {
        result.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{
        io::AsyncReadExt,
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// More than the kernel begins with, and no multiple of what a pipe holds.
    const MUCH: usize = 5 * 1024 * 1024 + 123;

    async fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = TcpStream::connect(listener.local_addr().unwrap());
        let (there, here) = tokio::join!(there, listener.accept());
        (there.unwrap(), here.unwrap().0)
    }

    fn bytes() -> Vec<u8> {
        (0..=250).cycle().take(MUCH).collect()
    }

    fn pipes(count: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(count))
    }

    /// Sends `MUCH` bytes through one direction. What arrived, what was counted, and how it ended.
    async fn carried(room: &Arc<Semaphore>, limit: usize) -> (Vec<u8>, usize, Result<(), Stopped>) {
        let (mut guest, mut from) = connection().await;
        let (mut to, mut upstream) = connection().await;
        let counted = AtomicUsize::new(0);
        let carry = async {
            let (reader, _) = from.split();
            let (_, writer) = to.split();
            let received = BytesMut::from(&b"first"[..]);
            let count = |bytes| match counted.fetch_add(bytes, Ordering::Relaxed) {
                before if before + bytes > limit => Err(DenyCode::BytesLimit),
                _ => Ok(()),
            };
            let ended = pump_socket(reader, writer, received, room, count).await;
            drop((from, to));
            ended
        };
        let send = async {
            let _ = guest.write_all(&bytes()).await;
            let _ = guest.shutdown().await;
        };
        let receive = async {
            let mut all = Vec::new();
            let _ = upstream.read_to_end(&mut all).await;
            all
        };
        let (ended, (), all) = tokio::join!(carry, send, receive);
        (all, counted.load(Ordering::Relaxed), ended)
    }

    #[tokio::test]
    async fn a_bulky_direction_is_carried_whole_by_the_kernel_and_without_it() {
        let expected = [b"first".to_vec(), bytes()].concat();
        for room in [pipes(1), pipes(0)] {
            let (all, counted, ended) = carried(&room, usize::MAX).await;
            assert!(ended.is_ok());
            assert!(all == expected, "{} bytes", all.len());
            assert_eq!(counted, expected.len());
        }
    }

    #[tokio::test]
    async fn a_pipe_is_used_and_given_back() {
        let room = pipes(1);
        let watched = Arc::clone(&room);
        let seen = async {
            while watched.available_permits() == 1 {
                tokio::task::yield_now().await;
            }
        };
        let carry = carried(&room, usize::MAX);
        let (.., ended) = tokio::join!(seen, carry).1;
        assert!(ended.is_ok());
        assert_eq!(room.available_permits(), 1);
    }

    #[tokio::test]
    async fn nothing_is_let_on_beyond_the_budget() {
        const LIMIT: usize = 2 * 1024 * 1024;
        for room in [pipes(1), pipes(0)] {
            let (all, _, ended) = carried(&room, LIMIT).await;
            assert!(matches!(ended, Err(Stopped::Cut(DenyCode::BytesLimit))));
            assert!(all.len() <= LIMIT, "{} bytes", all.len());
        }
    }
}
