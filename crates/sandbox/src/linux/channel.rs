//! A stream of frames between two of our processes, with file descriptors beside them.
//!
//! Both ends run the same program, and the command never holds one. Lengths are bounded all the same, so that a
//! process gone wrong ends with an error instead of with the machine's memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// More than any environment the kernel lets a process have.
const MAX_FRAME: usize = 64 << 20;
/// Descriptors in one message; the kernel's own limit is 253.
pub(super) const MAX_DESCRIPTORS: usize = 128;

/// One end.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    received: VecDeque<OwnedFd>,
}

impl Channel {
    /// Two connected ends, closed on exec.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((Self::from(ours), theirs.into()))
    }

    /// A second handle on the same end. Descriptors that were received stay with the first.
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self::from(self.stream.try_clone()?))
    }

    /// How long [`Self::receive`] waits; `None` is for ever.
    pub(super) fn patience(&self, limit: Option<Duration>) -> io::Result<()> {
        self.stream.set_read_timeout(limit)
    }

    /// Tells the other end that nothing more comes.
    pub(super) fn finish(&self) {
        // It fails only if the other end is gone already.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Sends a frame, and up to [`MAX_DESCRIPTORS`] descriptors with its first byte.
    pub(super) fn send(&self, frame: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let length = u32::try_from(frame.len())
            .map_err(|_| too_long())?
            .to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(too_long());
        }
        let sent = retry(|| {
            sendmsg(
                &self.stream,
                &[IoSlice::new(&length)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        let mut stream = &self.stream;
        stream.write_all(length.get(sent..).unwrap_or_default())?;
        stream.write_all(frame)
    }

    /// The next frame; `None` once the other end has closed. Descriptors that came with it wait in [`Self::take`].
    pub(super) fn receive(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            return Ok(None);
        }
        let length = usize::try_from(u32::from_le_bytes(length)).map_err(|_| too_long())?;
        if length > MAX_FRAME {
            return Err(too_long());
        }
        let mut frame = vec![0; length];
        if !self.fill(&mut frame)? && length > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(frame))
    }

    /// The oldest descriptor that was received and not yet taken.
    pub(super) fn take(&mut self) -> io::Result<OwnedFd> {
        self.received
            .pop_front()
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
    }

    /// `false`: the stream ended before the first byte.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        let mut done = 0;
        while done < buffer.len() {
            let rest = buffer.get_mut(done..).unwrap_or_default();
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            // Close-on-exec from the first moment: no descriptor may survive into the command.
            let flags = RecvFlags::CMSG_CLOEXEC;
            let message = retry(|| {
                recvmsg(
                    &self.stream,
                    &mut [IoSliceMut::new(rest)],
                    &mut control,
                    flags,
                )
            })?;
            for ancillary in control.drain() {
                if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
                    self.received.extend(descriptors);
                }
            }
            match message.bytes {
                0 if done == 0 => return Ok(false),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => done += read,
            }
        }
        Ok(true)
    }
}

impl From<UnixStream> for Channel {
    fn from(stream: UnixStream) -> Self {
        Self {
            stream,
            received: VecDeque::new(),
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame is too long")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn frames_and_descriptors_arrive_in_order() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut theirs = Channel::from(UnixStream::from(theirs));
        let (mut reader, writer) = io::pipe().unwrap();
        ours.send(b"first", &[]).unwrap();
        ours.send(b"", &[writer.as_fd()]).unwrap();
        drop((ours, writer));
        assert_eq!(theirs.receive().unwrap().unwrap(), b"first");
        assert!(theirs.take().is_err(), "a descriptor came before its frame");
        assert_eq!(theirs.receive().unwrap().unwrap(), b"");
        io::PipeWriter::from(theirs.take().unwrap())
            .write_all(b"through")
            .unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "through");
        assert!(theirs.receive().unwrap().is_none());
    }

    #[test]
    fn half_a_frame_and_a_boundless_frame_are_errors() {
        for bytes in [&[5, 0, 0, 0, 1][..], &[5, 0], &[255, 255, 255, 255]] {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(bytes).unwrap();
            drop(ours);
            assert!(Channel::from(theirs).receive().is_err(), "{bytes:?}");
        }
    }
}
