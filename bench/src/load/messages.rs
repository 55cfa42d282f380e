//! WebSocket messages, each after the echo of the one before.

use std::{io, sync::Arc, time::Instant};

use bytes::{Bytes, BytesMut};

use super::{
    Outcome,
    arguments::WorkArguments,
    h1::H1,
    meter::Meter,
    pace::{Pace, Turn},
    report,
    tally::Recorder,
    target::Target,
    window,
};
use crate::{clock, frames, upstream::Repeated};

/// A browser's is new for each frame, against caches that would take a message for a request. Here is no cache, and a
/// constant costs nothing.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

struct Load {
    target: Target,
    recorder: Recorder,
    pace: Pace,
    message: Bytes,
}

pub(super) async fn run(
    work: &WorkArguments,
    target: Target,
    meter: &Meter,
) -> anyhow::Result<Outcome> {
    let message = Repeated::new(work.message).take().unwrap_or_default();
    anyhow::ensure!(
        message.len() as u64 == work.message,
        "--message is at most 65,536"
    );
    let load = Arc::new(Load {
        target,
        recorder: Recorder::default(),
        pace: Pace::new(work)?,
        message,
    });
    let start = || window::workers(work.conc, &load, worker);
    let measured = window::measure(work, meter, &load.recorder, start).await?;
    Ok(report::outcome(meter, measured))
}

/// A connection that fails is not replaced: its messages are missed in the count.
async fn worker(load: Arc<Load>) {
    if let Err(problem) = load.converse().await {
        load.recorder.error(&problem);
    }
}

impl Load {
    async fn converse(&self) -> io::Result<()> {
        let mut wire = self.upgrade().await?;
        let mut out = BytesMut::new();
        while let Some(turn) = self.pace.turn().await {
            let begun = Instant::now();
            out.clear();
            frames::write(&mut out, frames::TEXT, &self.message, Some(MASK));
            wire.write(&out).await?;
            let (opcode, echo) = loop {
                match frames::read(wire.arrived())? {
                    Some(frame) => break frame,
                    None => wire.fill().await?,
                }
            };
            if opcode != frames::TEXT || echo != self.message {
                return Err(io::Error::other("not the message that was sent"));
            }
            let bytes = echo.len() as u64;
            self.recorder.ok(bytes, clock::as_ns(begun.elapsed()));
            if let Turn::Due(due) = turn {
                self.recorder.scheduled(clock::as_ns(due.elapsed()));
            }
        }
        out.clear();
        frames::write(&mut out, frames::CLOSE, &[], Some(MASK));
        wire.write(&out).await
    }

    async fn upgrade(&self) -> io::Result<H1> {
        let number = self.target.number();
        let begun = Instant::now();
        let stream = self.target.open(number).await?;
        self.recorder.handshake(clock::as_ns(begun.elapsed()));
        let mut wire = H1::new(stream, self.target.buffer);
        let upgrade = format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n",
            frames::KEY
        );
        let request = self.target.h1_request(number, &upgrade);
        wire.send(&request, Repeated::new(0)).await?;
        match wire.head().await?.status {
            101 => Ok(wire),
            status => Err(io::Error::other(format!("WebSocket: status {status}"))),
        }
    }
}
