//! `outgate preflight`: in a workload's place, before it starts, proves that the gateway is its only way out, and ends
//! with a failure otherwise.
//!
//! A round asks the gateway first and then tries every way that has to be closed, all at once. Only a round in which
//! the gateway answers says anything: before a pod's network is there, every way is closed. Two good rounds in a row
//! count, because a plugin may enforce a policy a while after a pod began, or let go of it when it starts anew.

mod ask;
mod attempt;
mod report;
mod ways;

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
    time::{sleep, timeout_at},
};

use self::{
    ask::{Contact, ask},
    attempt::{Capture, Finding, attempt},
    report::Report,
    ways::Direct,
};
use super::block_on;
use crate::cli::{Preflight, WayKind};

/// How many good rounds in a row are enough.
const ROUNDS: u32 = 2;
/// Between two rounds.
const PAUSE: Duration = Duration::from_secs(1);
/// A year, in seconds: a time that no clock overflows by.
const LONGEST: u64 = 31_536_000;

pub(crate) fn run(preflight: &Preflight) -> Result<ExitCode> {
    let plan = Plan::of(preflight)?;
    let mut report = Report::new(preflight, plan.ways.len());
    let is_proven = block_on(async {
        // As process 1 of a container it would not end by a signal that it does not handle.
        let (mut stop, mut interrupt) = (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        );
        tokio::select! {
            is_proven = plan.watch(&mut report) => Ok(is_proven),
            _ = stop.recv() => bail!("stopped before anything was proven"),
            _ = interrupt.recv() => bail!("stopped before anything was proven"),
        }
    })?;
    report.finish(is_proven);
    Ok(if is_proven {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is asked, tried and waited for.
struct Plan {
    gateway: SocketAddr,
    token_file: PathBuf,
    ways: Vec<Direct>,
    probe_limit: Duration,
    capture: Capture,
    within: Duration,
}

/// What one round found.
struct Round {
    gateway: Contact,
    /// In the order of the plan, without what is closed.
    not_closed: Vec<(Direct, Finding)>,
}

impl Round {
    /// Whether it speaks for starting the workload.
    fn is_good(&self) -> bool {
        matches!(self.gateway, Contact::Outgate) && self.bad().next().is_none()
    }

    /// The ways that have to be closed and are not, or that could not be tried.
    fn bad(&self) -> impl Iterator<Item = &(Direct, Finding)> {
        self.not_closed.iter().filter(|(it, _)| !is_remark(it))
    }

    /// The ways that only deserve a word.
    fn remarks(&self) -> impl Iterator<Item = &Direct> {
        let open = self.not_closed.iter();
        open.filter(|(it, finding)| is_remark(it) && matches!(finding, Finding::Open))
            .map(|(it, _)| it)
    }
}

/// A NetworkPolicy says nothing about ICMP, so most clusters could never start a workload that waited for it.
fn is_remark(direct: &Direct) -> bool {
    direct.way.kind == WayKind::Icmp
}

impl Plan {
    fn of(preflight: &Preflight) -> Result<Self> {
        let ways = ways::of_this_place(&preflight.probe)?;
        if ways.iter().all(is_remark) {
            bail!("every probe was left out: there is nothing that this could prove");
        }
        let probe_limit = Duration::from_secs(preflight.timeout);
        if probe_limit.is_zero() {
            bail!("--timeout has to be a second at least: what is not waited for looks closed");
        }
        Ok(Self {
            gateway: preflight.gateway,
            token_file: preflight.token_file.clone(),
            ways,
            probe_limit,
            capture: if preflight.captured {
                Capture::ByGateway
            } else {
                Capture::None
            },
            within: Duration::from_secs(preflight.within.min(LONGEST)),
        })
    }

    /// Goes round until it is proven, or the time is over. A round that is cut short counts for nothing: a probe that
    /// was not waited for would look closed.
    async fn watch(&self, report: &mut Report) -> bool {
        let end = Instant::now() + self.within;
        let mut in_a_row = 0;
        while let Ok(round) = timeout_at(end.into(), self.round()).await {
            in_a_row = if round.is_good() { in_a_row + 1 } else { 0 };
            report.add(round);
            if in_a_row == ROUNDS {
                return true;
            }
            if timeout_at(end.into(), sleep(PAUSE)).await.is_err() {
                break;
            }
        }
        false
    }

    async fn round(&self) -> Round {
        let gateway = ask(self.gateway, &self.token_file).await;
        let mut attempts = JoinSet::new();
        for (at, direct) in self.ways.iter().enumerate() {
            let (way, limit, capture) = (direct.way, self.probe_limit, self.capture);
            attempts.spawn(async move { (at, attempt(way, limit, capture).await) });
        }
        let mut found = attempts.join_all().await;
        found.sort_unstable_by_key(|(at, _)| *at);
        let open = found.into_iter().filter_map(|(at, finding)| {
            let direct = self.ways.get(at)?;
            (!matches!(finding, Finding::Closed)).then_some((*direct, finding))
        });
        Round {
            gateway,
            not_closed: open.collect(),
        }
    }
}
