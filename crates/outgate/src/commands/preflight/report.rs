//! What is told, while it goes on and at the end: a line for what changed, and for everything that is not as it has to
//! be.

use std::{net::SocketAddr, time::Instant};

use anyhow::anyhow;
use serde_json::{Value, json};

use super::{ROUNDS, Round, ask::Contact, attempt::Finding, ways::Direct};
use crate::{
    cli::Preflight,
    style::{self, say, warn},
};

/// The rounds so far.
pub(super) struct Report {
    as_json: bool,
    gateway: SocketAddr,
    tried: usize,
    began: Instant,
    rounds: u32,
    last: Option<Round>,
    /// The last one that was not good: what to mend, if the last of all was.
    last_bad: Option<Round>,
    said: String,
}

impl Report {
    pub(super) fn new(preflight: &Preflight, tried: usize) -> Self {
        Self {
            as_json: preflight.json,
            gateway: preflight.gateway,
            tried,
            began: Instant::now(),
            rounds: 0,
            last: None,
            last_bad: None,
            said: String::new(),
        }
    }

    /// Says what a round found, if it is not what the one before found.
    pub(super) fn add(&mut self, round: Round) {
        self.rounds += 1;
        let line = self.line(&round);
        if !self.as_json && line != self.said {
            say!("round {}: {line}", self.rounds);
        }
        self.said = line;
        if round.is_good() {
            self.last = Some(round);
        } else {
            self.last = None;
            self.last_bad = Some(round);
        }
    }

    fn line(&self, round: &Round) -> String {
        let open: Vec<_> = round.bad().map(described).collect();
        let open = if open.is_empty() {
            format!("{} direct ways tried, none open", self.tried)
        } else {
            open.join(", ")
        };
        format!("gateway {}: {}; {open}", self.gateway, round.gateway)
    }

    /// Says how it ended.
    pub(super) fn finish(&self, is_proven: bool) {
        if self.as_json {
            say!("{}", self.json(is_proven));
            return;
        }
        let round = self.told(is_proven);
        for direct in round.into_iter().flat_map(Round::remarks) {
            warn(&format!(
                "{} is answered; a NetworkPolicy says nothing about ICMP, so this does not fail",
                direct.way
            ));
        }
        if is_proven {
            say!("the gateway is the only way out: {ROUNDS} rounds in a row");
            return;
        }
        for line in self.problems() {
            style::error(&anyhow!(line));
        }
    }

    /// The round to speak of: what has to be mended says more than what is good.
    fn told(&self, is_proven: bool) -> Option<&Round> {
        let bad = self.last_bad.as_ref().filter(|_| !is_proven);
        bad.or(self.last.as_ref())
    }

    fn problems(&self) -> Vec<String> {
        let Some(round) = &self.last_bad else {
            return vec![format!(
                "{ROUNDS} rounds in a row do not fit into this time ({} did): give --within more",
                self.rounds
            )];
        };
        let mut lines: Vec<_> = round.bad().map(described).collect();
        if !matches!(round.gateway, Contact::Outgate) {
            lines.push(format!("gateway {}: {}", self.gateway, round.gateway));
        }
        if self.last.is_some() {
            lines.push("the last round was good, but not the one before".to_owned());
        }
        lines
    }

    fn json(&self, is_proven: bool) -> Value {
        let round = self.told(is_proven);
        let listed = |wanted: fn(&Finding) -> bool| -> Vec<Value> {
            let bad = round.into_iter().flat_map(Round::bad);
            bad.filter(|(_, finding)| wanted(finding))
                .map(|(direct, _)| way_json(direct))
                .collect()
        };
        let remarks = round.into_iter().flat_map(Round::remarks);
        json!({
            "ok": is_proven,
            "rounds": self.rounds,
            "milliseconds": u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            "tried": self.tried,
            "gateway": {
                "address": self.gateway,
                "code": round.map(|it| it.gateway.code()),
                "message": round.map(|it| it.gateway.to_string()),
            },
            "open": listed(|finding| matches!(finding, Finding::Open)),
            "not_tried": listed(|finding| matches!(finding, Finding::NotTried(_))),
            "warnings": remarks.map(way_json).collect::<Vec<_>>(),
        })
    }
}

fn described((direct, finding): &(Direct, Finding)) -> String {
    let (way, group) = (direct.way, direct.group.name());
    match finding {
        Finding::NotTried(error) => format!("cannot be tried: {way} ({group}): {error}"),
        _ => format!("open: {way} ({group})"),
    }
}

fn way_json(direct: &Direct) -> Value {
    json!({ "way": direct.way.to_string(), "group": direct.group.name() })
}
