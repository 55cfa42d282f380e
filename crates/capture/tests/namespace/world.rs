//! Two network namespaces, each of which is a thread's. Only what that thread starts is in it.

use std::{
    net::IpAddr,
    num::{NonZeroU16, NonZeroU32},
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, gettid, setfsuid},
};
use outgate_capture::Capture;

use crate::ways::WayOut;

/// The user that the agent runs as.
pub const AGENT: u32 = 1000;
/// The user that is let out.
pub const GATEWAY: u32 = 65532;
/// The pod's own addresses.
pub const INSIDE: [&str; 2] = ["198.51.100.1", "2001:db8::1"];
/// Those at the other end of the cable.
pub const OUTSIDE: [&str; 2] = ["198.51.100.2", "2001:db8::2"];

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace.
pub struct Network {
    works: Sender<Work>,
    thread: i32,
}

impl Network {
    /// A new one, with `lo` up.
    pub fn new() -> Self {
        let (works, todo) = channel::<Work>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET)
                .expect("these tests make network namespaces: run them as root");
            tell.send(gettid().as_raw()).unwrap();
            todo.into_iter().for_each(|work| work());
        });
        let thread = told.recv().expect("a network namespace");
        let network = Self { works, thread };
        network.ip("link set lo up");
        network
    }

    /// Does something there, as root.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = channel();
        let work = move || drop(tell.send(work()));
        self.works.send(Box::new(work)).unwrap();
        told.recv().expect("the work was done")
    }

    /// Does something there in a thread whose sockets are this user's.
    pub fn run_as<T: Send + 'static>(
        &self,
        user: u32,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let as_user = move || {
            setfsuid(Uid::from_raw(user));
            work()
        };
        self.run(move || thread::spawn(as_user).join())
            .expect("the work was done")
    }

    /// Begins something there that goes on.
    pub fn begin(&self, work: impl FnOnce() + Send + 'static) {
        self.run(move || drop(thread::spawn(work)));
    }

    /// `ip WORDS`.
    pub fn ip(&self, words: &str) {
        self.program("ip", words);
    }

    /// `PROGRAM WORDS`; what it prints.
    pub fn program(&self, program: &'static str, words: &str) -> String {
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let output = self.run(move || Command::new(program).args(words).output());
        let output = output.unwrap_or_else(|error| panic!("{program} is needed: {error}"));
        assert!(output.status.success(), "{program}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// All rules, as `nft` reads them.
    pub fn rules(&self) -> String {
        self.program("nft", "list ruleset")
    }

    /// Installs rules, as root.
    pub fn capture(&self, redirect: Option<u16>) {
        self.run(move || outgate_capture::install(&rules(GATEWAY, redirect)))
            .unwrap();
    }
}

/// What is asked for.
pub fn rules(user: u32, redirect: Option<u16>) -> Capture {
    Capture {
        except_user: NonZeroU32::new(user).unwrap(),
        redirect: redirect.map(|port| NonZeroU16::new(port).unwrap()),
    }
}

/// A pod, and what is outside.
pub fn pod() -> (Network, Network) {
    let (pod, outside) = (Network::new(), Network::new());
    pod.ip(&format!(
        "link add eth0 type veth peer name eth0 netns {}",
        outside.thread
    ));
    for network in [&pod, &outside] {
        network.run(|| {
            std::fs::write("/proc/sys/net/ipv6/conf/eth0/accept_dad", "0").unwrap();
            // Sockets for pings, which need no right.
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647").unwrap();
        });
        network.ip("link set eth0 up");
    }
    for (network, own, peer) in [(&pod, INSIDE, OUTSIDE), (&outside, OUTSIDE, INSIDE)] {
        network.ip(&format!("addr add {}/24 dev eth0", own[0]));
        network.ip(&format!("addr add {}/64 dev eth0 nodad", own[1]));
        network.ip(&format!("route add default via {}", peer[0]));
        network.ip(&format!("-6 route add default via {}", peer[1]));
    }
    let is_up = |to| pod.run(move || (0..20).any(|_| WayOut::Ping.is_open(to)));
    assert!(
        addresses(OUTSIDE).into_iter().all(is_up),
        "no packet goes through"
    );
    (pod, outside)
}

/// Addresses of both families.
pub fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}
