//! The benchmark beside other gateways: obtains the peers that are asked for, builds what is measured and what measures,
//! runs it, and writes the report. `bench/README.md` says what it means.

use std::{fs, path::PathBuf};

use crate::{
    dist,
    places::Places,
    run::{Steps, Task},
    setup,
};

/// Whom it measures unless told.
const PEERS: &str = "direct,relay-splice,relay-bump,outgate,envoy,hudsucker";
/// The peers that there are, as the runner calls them.
const KNOWN: [&str; 9] = [
    "direct",
    "relay-splice",
    "relay-copy",
    "relay-bump",
    "outgate",
    "envoy",
    "hudsucker",
    "squid",
    "mitmproxy",
];
const SQUID: [(&str, &str); 1] = [(
    "squid-openssl",
    "PATH=$PATH:/usr/sbin; squid -v | grep -q -e --enable-ssl-crtd",
)];
/// A whole run takes a second for everything that it starts, and there are some thousand.
const MINUTES: u64 = 300;

/// What to measure.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    peers: Vec<String>,
    /// Flags that the runner has too.
    passed_on: Vec<String>,
    /// Measures a plain release build.
    quick: bool,
}

impl Request {
    /// Reads `[--rounds N] [--seconds N] [--workloads W1,W2] [--peers envoy,squid] [--quick]`.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, String> {
        let (mut peers, mut passed_on, mut quick) = (PEERS.to_owned(), Vec::new(), false);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .ok_or_else(|| format!("{word} needs a value"))
                    .map(|value| (*value).to_owned())
            };
            match *word {
                "--quick" => quick = true,
                "--peers" => peers = value()?,
                "--rounds" | "--seconds" => {
                    let number = value()?;
                    number
                        .parse::<u32>()
                        .map_err(|_| format!("{word} needs a number"))?;
                    passed_on.extend([(*word).to_owned(), number]);
                }
                "--workloads" => passed_on.extend([(*word).to_owned(), value()?]),
                _ => return Err(format!("{word} is no flag of `bench peers`")),
            }
        }
        let peers: Vec<String> = peers.split(',').map(str::to_owned).collect();
        match peers.iter().find(|peer| !KNOWN.contains(&peer.as_str())) {
            Some(peer) => Err(format!("{peer} is none of {}", KNOWN.join(", "))),
            None => Ok(Self {
                peers,
                passed_on,
                quick,
            }),
        }
    }

    fn has(&self, peer: &str) -> bool {
        self.peers.iter().any(|each| each == peer)
    }
}

/// Obtains, builds, runs, reports.
pub(crate) fn run(places: &Places, steps: &mut Steps, request: &Request) {
    if !obtain(places, steps, request) || !build(places, steps, request) {
        return;
    }
    let folder = places.target.join("bench");
    let (results, report) = (folder.join("peers.jsonl"), folder.join("peers.md"));
    steps.step("benchmark: peers", || {
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        if results.exists() {
            fs::remove_file(&results).map_err(|error| error.to_string())?;
        }
        let runner = Task::new(runner(places), MINUTES).inside(&places.root);
        runner
            .args(["run", "--peers", &request.peers.join(",")])
            .args(&request.passed_on)
            .args(["--out"])
            .args([&results])
            .args(programs(places, request)?)
            .run()
    });
    // What was measured is reported, also if a peer failed.
    steps.step("report", || {
        let page = Task::new(runner(places), 1)
            .args(["report"])
            .args([&results])
            .output()?;
        println!("{}", String::from_utf8_lossy(&page));
        fs::write(&report, page).map_err(|error| error.to_string())?;
        println!("written to {}", report.display());
        Ok(())
    });
}

/// Installs or builds each peer that is asked for.
fn obtain(places: &Places, steps: &mut Steps, request: &Request) -> bool {
    let mut well = true;
    if request.has("envoy") {
        well &= steps.step("set up: Envoy", || setup::envoy(places));
    }
    if request.has("squid") {
        well &= steps.step("set up: squid", || setup::packages(&SQUID));
    }
    if request.has("mitmproxy") {
        well &= steps.step("set up: mitmproxy", || {
            setup::python_environment(places, "mitmproxy", "bench/peers/mitmproxy.txt")
        });
    }
    if request.has("hudsucker") {
        well &= steps.step("build: hudsucker", || {
            let build = Task::cargo(40).args(["build", "--locked", "--release", "--target-dir"]);
            build
                .args([places.target.join("peers")])
                .args(["--manifest-path"])
                .args([places.root.join("bench/peers/hudsucker/Cargo.toml")])
                .inside(&places.root)
                .run()
        });
    }
    well
}

fn build(places: &Places, steps: &mut Steps, request: &Request) -> bool {
    steps.step("build: the gateway", || {
        // What is shipped is what is measured.
        if !request.quick {
            return dist::build(places);
        }
        let task = Task::cargo(60).args(["build", "--locked", "--release"]);
        task.args(["--package", "outgate"])
            .inside(&places.root)
            .run()
    }) && steps.step("build: the runner", || dist::runner(places))
}

/// The gateway that is measured.
fn gateway(places: &Places, request: &Request) -> Result<PathBuf, String> {
    if request.quick {
        Ok(places.target.join("release/outgate"))
    } else {
        dist::program(places)
    }
}

fn runner(places: &Places) -> PathBuf {
    places.target.join("release/outgate-bench")
}

/// Where the programs of the peers are, as arguments of the runner.
fn programs(places: &Places, request: &Request) -> Result<Vec<PathBuf>, String> {
    let all = [
        ("outgate", "--outgate", gateway(places, request)?),
        ("envoy", "--envoy", places.envoy()),
        (
            "hudsucker",
            "--hudsucker",
            places.target.join("peers/release/hudsucker-peer"),
        ),
        ("squid", "--squid", PathBuf::from("/usr/sbin/squid")),
        (
            "mitmproxy",
            "--mitmdump",
            places.cache.join("mitmproxy/bin/mitmdump"),
        ),
    ];
    Ok(all
        .into_iter()
        .filter(|(peer, ..)| request.has(peer))
        .flat_map(|(_, flag, program)| [PathBuf::from(flag), program])
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_passed_on() {
        let request = Request::parse(&[
            "--rounds",
            "2",
            "--peers",
            "envoy,outgate",
            "--workloads",
            "W1,W2",
            "--quick",
        ])
        .unwrap();
        assert_eq!(request.peers, ["envoy", "outgate"]);
        assert_eq!(request.passed_on, ["--rounds", "2", "--workloads", "W1,W2"]);
        assert!(request.quick);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for words in [
            ["--peers", "nginx"].as_slice(),
            &["--rounds", "many"],
            &["--rounds"],
            &["W1"],
        ] {
            assert!(Request::parse(words).is_err(), "{words:?}");
        }
    }
}
