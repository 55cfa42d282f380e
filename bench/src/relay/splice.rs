//! splice(2): bytes go from one socket to the other by way of a pipe and never enter this process.

use std::{
    io,
    net::{Shutdown, TcpStream},
    thread,
};

use rustix::{
    fd::AsFd,
    io::Errno,
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

/// Of each pipe; the most that a user may ask for without a privilege.
const PIPE: usize = 1 << 20;

/// Relays both ways in two threads of their own, which end with the connections. Blocking ones: at the floor, waking
/// an event loop would be a good part of the cost.
pub(super) fn relay(
    client: tokio::net::TcpStream,
    upstream: tokio::net::TcpStream,
) -> io::Result<()> {
    let (client, upstream) = (client.into_std()?, upstream.into_std()?);
    client.set_nonblocking(false)?;
    upstream.set_nonblocking(false)?;
    let (from_client, to_client) = (client.try_clone()?, client);
    let (from_upstream, to_upstream) = (upstream.try_clone()?, upstream);
    thread::Builder::new().spawn(move || one_way(&from_client, &to_upstream))?;
    thread::Builder::new().spawn(move || one_way(&from_upstream, &to_client))?;
    Ok(())
}

/// Moves everything, then passes the end on. A failure ends both directions.
fn one_way(from: &TcpStream, to: &TcpStream) {
    if move_all(from, to).is_err() {
        let _ = from.shutdown(Shutdown::Both);
    }
    let _ = to.shutdown(Shutdown::Write);
}

fn move_all(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    let (pipe_out, pipe_in) = pipe_with(PipeFlags::CLOEXEC)?;
    // A smaller pipe works as well, if less quickly.
    let _ = fcntl_setpipe_size(&pipe_in, PIPE);
    loop {
        let mut waiting = move_some(from, &pipe_in, PIPE)?;
        if waiting == 0 {
            return Ok(());
        }
        while waiting > 0 {
            match move_some(&pipe_out, to, waiting)? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                moved => waiting -= moved,
            }
        }
    }
}

fn move_some(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    loop {
        match splice(&from, None, &to, None, most, SpliceFlags::MOVE) {
            Err(Errno::INTR) => {}
            outcome => return Ok(outcome?),
        }
    }
}
