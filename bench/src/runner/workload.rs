//! The workloads: what each asks of a peer, how the load generator makes it, and what is wanted of Outgate.

use super::{
    goal::{
        Bound, Goal,
        Metric::{
            AddedMedian, AddedTail, CpuPerGib, CpuPerRequest, LastCut, MemoryAtRest,
            MemoryPerConnection, Rate, Start,
        },
    },
    peers::{
        Peer::{
            self, Envoy, Hudsucker, Outgate, Outgate10, Outgate100k, OutgateDenials, OutgatePlain,
            RelaySplice,
        },
        Skill,
    },
};

/// How the client goes through the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// TLS ends at the peer: the client trusts the peer's CA alone, and the origin has to see the injected field.
    Bump,
    /// A bump with a name that the peer has not seen before, for every connection.
    Mint,
    /// TLS ends at the origin: the client trusts the origin's CA alone, and the origin must not see the field.
    Pass,
}

/// What a run gives, and which columns show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Requests,
    Bulk,
    Latency,
    Memory,
    Start,
    Cut,
}

/// A kind of load.
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) mode: Mode,
    /// What a peer has to be able to do beyond that.
    pub(crate) skill: Option<Skill>,
    pub(crate) shape: Shape,
    /// Arguments of the load generator; `{s}` are the seconds of a run.
    pub(crate) load: &'static str,
    /// Whom it is for; empty: for all that are asked for and can.
    pub(crate) only: &'static [Peer],
    pub(crate) goals: &'static [Goal],
}

impl Workload {
    const fn new(
        name: &'static str,
        title: &'static str,
        load: &'static str,
        goals: &'static [Goal],
    ) -> Self {
        let (mode, skill, shape) = (Mode::Bump, None, Shape::Requests);
        Self {
            name,
            title,
            mode,
            skill,
            shape,
            load,
            only: &[],
            goals,
        }
    }

    const fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    const fn needs(mut self, skill: Skill) -> Self {
        self.skill = Some(skill);
        self
    }

    const fn shape(mut self, shape: Shape) -> Self {
        self.shape = shape;
        self
    }

    const fn only(mut self, peers: &'static [Peer]) -> Self {
        self.only = peers;
        self
    }

    /// Whom of `asked` it runs on. Outgate's variants stand for Outgate where a workload names them.
    pub(crate) fn peers(&self, asked: &[Peer]) -> Vec<Peer> {
        let named = |peer: &Peer| asked.contains(if is_variant(*peer) { &Outgate } else { peer });
        if !self.only.is_empty() {
            return self.only.iter().copied().filter(named).collect();
        }
        let can = |peer: &&Peer| {
            let base = match self.mode {
                Mode::Bump => Skill::Bump,
                Mode::Mint => Skill::Mint,
                Mode::Pass => Skill::Pass,
            };
            peer.can(base) && self.skill.is_none_or(|skill| peer.can(skill))
        };
        let mut peers: Vec<Peer> = asked.iter().filter(can).copied().collect();
        // A goal of the workload speaks of a variant.
        let variants = self
            .goals
            .iter()
            .map(|goal| goal.peer)
            .filter(|peer| is_variant(*peer));
        peers.extend(variants.filter(|peer| named(peer) && !asked.contains(peer)));
        peers
    }

    /// The load generator's arguments for runs of so many seconds.
    pub(crate) fn load(&self, seconds: u32) -> Vec<String> {
        let text = self.load.replace("{s}", &seconds.to_string());
        text.split_whitespace().map(str::to_owned).collect()
    }
}

fn is_variant(peer: Peer) -> bool {
    matches!(
        peer,
        Outgate10 | Outgate100k | OutgateDenials | OutgatePlain
    )
}

/// All of them, in the order of the report.
pub(crate) const WORKLOADS: &[Workload] = &[
    Workload::new(
        "W1",
        "bump, kept-alive, 1 KiB answers, 32 connections",
        "--conc 32 --duration {s}",
        &[
            Goal::below(CpuPerRequest, 0.40, Envoy),
            Goal::below(CpuPerRequest, 1.0, Hudsucker),
            Goal { metric: Rate, peer: Outgate, against: Some(Envoy), bound: Bound::AtLeast(1.7) },
        ],
    ),
    Workload::new(
        "W1h",
        "the same, HTTP/2 on the client's side",
        "--h2 --conc 32 --duration {s}",
        &[Goal::below(CpuPerRequest, 0.45, Envoy), Goal::below(CpuPerRequest, 1.0, Hudsucker)],
    )
    .needs(Skill::Http2),
    Workload::new(
        "W2",
        "bump, a connection and a full handshake for each request, 16 at a time",
        "--new-conn --conc 16 --duration {s}",
        &[Goal::below(CpuPerRequest, 0.45, Envoy)],
    ),
    Workload::new(
        "W2r",
        "the same, the client offers to resume",
        "--new-conn --resume --conc 16 --duration {s}",
        &[Goal::below(CpuPerRequest, 0.35, Envoy)],
    ),
    Workload::new(
        "W2p",
        "pass-through, a tunnel for each request, 16 at a time",
        "--new-conn --conc 16 --duration {s}",
        &[Goal::below(CpuPerRequest, 0.60, Envoy)],
    )
    .mode(Mode::Pass),
    Workload::new(
        "W3",
        "bump, a new name for each connection, 8 at a time",
        "--new-conn --conc 8 --duration {s}",
        &[Goal::below(CpuPerRequest, 0.60, Hudsucker)],
    )
    .mode(Mode::Mint),
    Workload::new(
        "W4",
        "pass-through, 4 × 256 MiB down",
        "--conc 4 --count 4 --path /b/268435456 --buf 262144 --max-secs 90",
        &[Goal::below(CpuPerGib, 0.22, Envoy), Goal::below(CpuPerGib, 1.2, RelaySplice)],
    )
    .mode(Mode::Pass)
    .shape(Shape::Bulk),
    Workload::new(
        "W5",
        "bump, 2 × 256 MiB down",
        "--conc 2 --count 2 --path /b/268435456 --buf 262144 --max-secs 90",
        &[
            Goal::below(CpuPerGib, 0.85, Envoy),
            Goal { metric: CpuPerGib, peer: OutgatePlain, against: Some(Envoy), bound: Bound::AtMost(0.78) },
        ],
    )
    .shape(Shape::Bulk),
    Workload::new(
        "W6",
        "bump, 200 requests a second on a schedule",
        "--conc 16 --rate 200 --duration 5",
        &[Goal::below(AddedMedian, 0.35, Envoy)],
    )
    .shape(Shape::Latency),
    Workload::new(
        "SSE",
        "bump, 8 event streams of 20 events a second",
        "--sse --conc 8 --path /sse?n=40&ms=50",
        &[Goal::below(CpuPerRequest, 0.60, Envoy)],
    )
    .shape(Shape::Latency),
    Workload::new(
        "WS",
        "bump, WebSocket messages there and back, 8 connections",
        "--ws --conc 8 --duration {s}",
        &[Goal::shown(CpuPerRequest, Outgate)],
    )
    .needs(Skill::WebSocket)
    .shape(Shape::Latency),
    Workload::new(
        "W7",
        "bump, 2,000 idle connections after a request each",
        "--idle 2000 --conc 16 --max-secs 90",
        &[Goal::below(MemoryPerConnection, 0.35, Envoy)],
    )
    .shape(Shape::Memory),
    Workload::new(
        "W7x",
        "bump, 10,000 idle connections",
        "--idle 10000 --conc 16 --max-secs 110",
        &[Goal::below(MemoryPerConnection, 0.35, Envoy)],
    )
    .shape(Shape::Memory),
    Workload::new(
        "W8",
        "start, and memory at rest",
        "--conc 1 --count 1 --path /b/64",
        &[
            Goal::below(Start, 0.5, Envoy),
            Goal { metric: MemoryAtRest, peer: Outgate, against: None, bound: Bound::AtMost(12.0) },
        ],
    )
    .shape(Shape::Start),
    Workload::new(
        "sizes",
        "Outgate alone, W1 with a small and a large policy, and with 1,000,000 entries in the denylist",
        "--conc 32 --duration {s}",
        &[
            Goal { metric: CpuPerRequest, peer: Outgate100k, against: Some(Outgate10), bound: Bound::Shown },
            Goal { metric: CpuPerRequest, peer: OutgateDenials, against: Some(Outgate10), bound: Bound::Shown },
            Goal::shown(MemoryAtRest, Outgate100k),
            Goal::shown(MemoryAtRest, OutgateDenials),
        ],
    )
    .only(&[Outgate10, Outgate100k, OutgateDenials]),
    Workload::new(
        "streams",
        "Outgate alone, 1,000 event streams of 2 events a second",
        "--sse --conc 1000 --path /sse?n=20&ms=500 --max-secs 90",
        &[Goal::shown(AddedTail, Outgate), Goal::shown(CpuPerRequest, Outgate)],
    )
    .shape(Shape::Latency)
    .only(&[Peer::Direct, Outgate]),
    Workload::new(
        "cut",
        "Outgate alone, 1,000 event streams cut by one revocation",
        "--cut --conc 1000 --path /sse?n=600&ms=500 --max-secs 90",
        &[Goal::shown(LastCut, Outgate)],
    )
    .shape(Shape::Cut)
    .only(&[Outgate]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str) -> &'static Workload {
        WORKLOADS
            .iter()
            .find(|workload| workload.name == name)
            .unwrap()
    }

    #[test]
    fn every_workload_has_a_name_of_its_own_and_names_its_goal() {
        for workload in WORKLOADS {
            assert!(!workload.goals.is_empty(), "{}", workload.name);
            assert_eq!(find(workload.name).title, workload.title);
        }
    }

    #[test]
    fn whom_a_goal_speaks_of_can_run_its_workload() {
        for workload in WORKLOADS {
            for goal in workload.goals {
                for peer in [Some(goal.peer), goal.against].into_iter().flatten() {
                    let asked = [peer, Peer::Outgate];
                    assert!(
                        workload.peers(&asked).contains(&peer),
                        "{} {}",
                        workload.name,
                        peer.name()
                    );
                }
            }
        }
    }

    #[test]
    fn a_peer_runs_what_it_can() {
        let peers = |name| find(name).peers(&[Peer::Direct, Envoy, Hudsucker]);
        assert_eq!(peers("W1"), [Peer::Direct, Envoy, Hudsucker]);
        assert_eq!(peers("W3"), [Peer::Direct, Hudsucker]);
        assert_eq!(peers("cut"), []);
        assert_eq!(
            find("W5").peers(&[Envoy, Outgate]),
            [Envoy, Outgate, OutgatePlain]
        );
        assert_eq!(find("W1").load(3), ["--conc", "32", "--duration", "3"]);
    }
}
