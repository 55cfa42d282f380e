//! Readings around a window: processes, the machine, the upstream's counters.

use std::{io, time::Instant};

use serde_json::{Map, Value};

use super::{
    arguments::{MeterArguments, Watch},
    connection::Connection,
    target::Target,
};
use crate::processes::{self, Depth, Machine, Usage};

pub(super) struct Meter {
    pub labels: Map<String, Value>,
    pub watches: Vec<Watch>,
    stats: Option<Target>,
    /// Before anything was sent.
    pub rest: Vec<Usage>,
}

pub(super) struct Reading {
    /// As the watches; the last is this process.
    pub usages: Vec<Usage>,
    pub machine: Machine,
    pub at: Instant,
    /// The upstream's counters; none where they were not asked for.
    pub counters: Map<String, Value>,
}

impl Meter {
    pub(super) fn new(arguments: &MeterArguments) -> Self {
        let mut labels = Map::new();
        labels.insert("peer".into(), arguments.peer.clone().into());
        labels.insert("workload".into(), arguments.workload.clone().into());
        labels.insert("rep".into(), arguments.rep.into());
        let stats = arguments.stats.as_deref().map(Target::plain);
        let mut meter = Self {
            labels,
            watches: arguments.watch.clone(),
            stats,
            rest: Vec::new(),
        };
        meter.rest = meter.usages(Depth::Full);
        meter
    }

    /// Reads what is slow first, so that the window begins right after.
    pub(super) async fn begin(&self, depth: Depth) -> anyhow::Result<Reading> {
        let counters = self.counters().await?;
        Ok(Reading {
            counters,
            ..self.read(depth)
        })
    }

    /// Reads what is slow last.
    pub(super) async fn end(&self, depth: Depth) -> anyhow::Result<Reading> {
        let reading = self.read(depth);
        let counters = self.counters().await?;
        Ok(Reading {
            counters,
            ..reading
        })
    }

    /// The processes and all that descends from them; the last is this process alone.
    pub(super) fn usages(&self, depth: Depth) -> Vec<Usage> {
        let watched = self.watches.iter();
        let mut usages: Vec<_> = watched
            .map(|watch| processes::usage(&watch.pids.0, depth))
            .collect();
        usages.push(processes::usage(&[std::process::id()], Depth::Quick));
        usages
    }

    fn read(&self, depth: Depth) -> Reading {
        Reading {
            at: Instant::now(),
            usages: self.usages(depth),
            machine: processes::machine(),
            counters: Map::new(),
        }
    }

    async fn counters(&self) -> anyhow::Result<Map<String, Value>> {
        match &self.stats {
            Some(target) => Ok(counters(target).await?),
            None => Ok(Map::new()),
        }
    }
}

async fn counters(target: &Target) -> io::Result<Map<String, Value>> {
    let (mut connection, _) = Connection::dial(target).await?;
    let mut text = Vec::new();
    connection
        .call(&mut |piece| text.extend_from_slice(piece))
        .await?;
    serde_json::from_slice(&text).map_err(io::Error::other)
}
