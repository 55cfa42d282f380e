//! `launch [--hide P] [--write P] [--in P] [--port N] [--unix-sockets] [--events] [--signal N] [--kill] [--drop] -- CMD ARGS…`: a small `outgate run`,
//! whose gateway answers every TCP connection with the address that was asked for, and every datagram likewise.

use std::ffi::OsString;
use std::io::{IoSliceMut, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};
use outgate_sandbox::{
    Command, Event, Plan, UnixSockets, UserNamespaces, default_writable, prepare,
};

pub fn run(words: impl Iterator<Item = OsString>) -> ExitCode {
    // As a launcher does, in all threads: the terminal's signals are the command's.
    let mut terminal = nix::sys::signal::SigSet::empty();
    terminal.add(nix::sys::signal::Signal::SIGINT);
    terminal.add(nix::sys::signal::Signal::SIGQUIT);
    terminal.thread_block().unwrap();
    let folder = tempfile::Builder::new()
        .prefix("outgate-run-")
        .tempdir()
        .unwrap();
    std::fs::write(folder.path().join("ca.crt"), "a certificate").unwrap();
    let here = std::env::current_dir().unwrap();
    let mut plan = Plan {
        run_folder: folder.path().to_path_buf(),
        ports: vec![443, 80, 8443, 53],
        proxy_port: 0,
        hidden: vec![],
        read_only: vec![],
        shown: vec![],
        writable: default_writable(None, &here),
        unix_sockets: UnixSockets::Refused,
        user_namespaces: UserNamespaces::Refused,
        working_directory: here,
    };
    let mut words = words.peekable();
    let (mut tell, mut kill, mut leave, mut signal) = (false, false, false, None);
    while let Some(word) = words.next_if(|word| word != "--") {
        let mut path = || PathBuf::from(words.next().unwrap());
        match word.to_str().unwrap() {
            "--hide" => plan.hidden.push(path()),
            "--write" => plan.writable.push(path()),
            "--read-only" => plan.read_only.push(path()),
            "--show" => {
                let place = path();
                plan.shown
                    .push((place, PathBuf::from(words.next().unwrap())));
            }
            "--in" => plan.working_directory = path(),
            "--port" => plan.ports.push(path().to_str().unwrap().parse().unwrap()),
            "--user-namespaces" => plan.user_namespaces = UserNamespaces::Allowed,
            "--unix-sockets" => plan.unix_sockets = UnixSockets::Allowed,
            "--events" => tell = true,
            "--kill" => kill = true,
            "--drop" => leave = true,
            "--signal" => signal = Some(path().to_str().unwrap().parse::<i32>().unwrap()),
            other => panic!("{other}"),
        }
    }
    let mut words = words.skip(1);
    let program = words.next().unwrap();
    let mut environment: Vec<_> = std::env::vars_os()
        .filter(|(name, _)| name != "SECRET")
        .collect();
    environment.push(("RUN_FOLDER".into(), outgate_sandbox::RUN_FOLDER.into()));
    let command = Command {
        program,
        args: words.collect(),
        environment,
    };

    let (prepared, sockets) = match prepare(&std::env::current_exe().unwrap(), &plan) {
        Ok(made) => made,
        Err(error) => return failed(&error),
    };
    let mut command = command;
    command.environment.push((
        "PROXY_PORT".into(),
        sockets
            .proxy
            .local_addr()
            .unwrap()
            .port()
            .to_string()
            .into(),
    ));
    serve("proxy", sockets.proxy);
    sockets
        .transparent
        .into_iter()
        .for_each(|listener| serve("port", listener));
    sockets
        .dns_tcp
        .into_iter()
        .for_each(|listener| serve("dns", listener));
    sockets.dns_udp.into_iter().for_each(answer);
    if leave {
        drop(prepared);
        return ExitCode::SUCCESS;
    }
    let (running, events) = prepared.start(&command).unwrap();
    for event in events {
        if tell {
            eprintln!("{event:?}");
        }
        match event {
            Event::Started => {
                signal
                    .into_iter()
                    .for_each(|signal| running.signal(signal).unwrap());
                if kill {
                    running.kill();
                }
            }
            Event::Exited { code } => return ExitCode::from(u8::try_from(code).unwrap()),
            Event::Signalled { signal } => {
                return ExitCode::from(128 + u8::try_from(signal).unwrap());
            }
            Event::Failed(error) => return failed(&error),
            _ => {}
        }
    }
    panic!("no last event");
}

fn failed(error: &outgate_sandbox::SandboxError) -> ExitCode {
    eprintln!("{}: {error}", error.code());
    ExitCode::from(error.exit_status())
}

/// Every connection is told which socket it reached, and the address it asked for.
fn serve(kind: &'static str, listener: TcpListener) {
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let asked = stream.local_addr().unwrap();
            let _ = stream.write_all(format!("{kind} {asked}\n").as_bytes());
        }
    });
}

/// Every datagram is answered with the address it was sent to.
fn answer(socket: UdpSocket) {
    std::thread::spawn(move || {
        loop {
            let (asked, from) = receive(&socket);
            socket
                .send_to(format!("dns {asked}").as_bytes(), from)
                .unwrap();
        }
    });
}

fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 512];
    let mut space = nix::cmsg_space!(nix::libc::in6_pktinfo);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut space),
        MsgFlags::empty(),
    )
    .unwrap();
    let asked = message.cmsgs().unwrap().find_map(|control| match control {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).to_string())
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_string())
        }
        _ => None,
    });
    let from = message.address.unwrap();
    let v4 = from
        .as_sockaddr_in()
        .map(|from| SocketAddr::new(from.ip().into(), from.port()));
    let v6 = || {
        from.as_sockaddr_in6()
            .map(|from| SocketAddr::new(from.ip().into(), from.port()))
    };
    (asked.unwrap(), v4.or_else(v6).unwrap())
}
