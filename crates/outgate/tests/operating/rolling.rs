//! Two gateways that are stopped and started again one after the other, under clients that keep their connections: whoever
//! tries again where a connection is refused sees nothing of it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use outgate_testkit::{
    Channel, Gateway, GatewayOptions, Guest, Outcome, Req, Way, certs::roots_from_pem, free_port,
};

use super::support::Upstreams;

/// How a client uses its connections.
#[derive(Debug, Clone, Copy)]
struct Habit {
    way: Way,
    keeps: bool,
    thinks: Duration,
}

/// A client of both gateways, which prefers the one that it was served by last.
struct Client {
    guests: Vec<Guest>,
    req: Req,
    habit: Habit,
    channel: Option<Channel>,
    last: usize,
}

impl Client {
    /// A connection to a gateway that takes one.
    async fn channel(&mut self) -> Result<Channel, Outcome> {
        if let Some(mut channel) = self.channel.take() {
            // As every client does before it sends on a connection of HTTP/2.
            let is_usable = match &mut channel {
                Channel::H2(send) => send.clone().ready().await.is_ok(),
                Channel::H1 { .. } => true,
            };
            if is_usable {
                return Ok(channel);
            }
        }
        for _ in 0..200 {
            for turn in 0..self.guests.len() {
                let at = (self.last + turn) % self.guests.len();
                match self.guests[at].open(self.habit.way, &self.req).await {
                    Err(Outcome::Closed(error))
                        if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(other) => return Err(other),
                    Ok(channel) => {
                        self.last = at;
                        return Ok(channel);
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(Outcome::Closed(io::ErrorKind::ConnectionRefused.into()))
    }

    async fn ask(&mut self) -> Result<(), String> {
        let habit = self.habit;
        let failed = |outcome: &Outcome| format!("{habit:?}: {outcome:?}");
        let mut channel = self.channel().await.map_err(|outcome| failed(&outcome))?;
        let mut outcome = channel.send(&self.req).await;
        if was_not_taken(&outcome) {
            channel = self.channel().await.map_err(|outcome| failed(&outcome))?;
            outcome = channel.send(&self.req).await;
        }
        let Outcome::Answered(answer) = &outcome else {
            return Err(failed(&outcome));
        };
        if answer.status != 200 || !answer.complete {
            return Err(failed(&outcome));
        }
        let is_last = answer.headers.get("connection") == Some("close");
        self.channel = Some(channel).filter(|_| self.habit.keeps && !is_last);
        Ok(())
    }
}

/// Whether a connection that is being closed in order did not take the request any more: clients send it again on
/// another (RFC 9113 section 6.8).
fn was_not_taken(outcome: &Outcome) -> bool {
    let Outcome::Closed(error) = outcome else {
        return false;
    };
    format!("{error:?}").contains("NO_ERROR, Remote")
}

fn habits() -> Vec<Habit> {
    let ways = [Way::AbsoluteForm, Way::TunnelH1, Way::TunnelH2];
    let thinks = [0, 7, 400].map(Duration::from_millis);
    let keeps = ways.into_iter().flat_map(|way| {
        thinks.map(|thinks| Habit {
            way,
            keeps: true,
            thinks,
        })
    });
    let once = [Way::AbsoluteForm, Way::TunnelH1].map(|way| Habit {
        way,
        keeps: false,
        thinks: Duration::ZERO,
    });
    keeps.chain(once).collect()
}

fn gateway(upstreams: &Upstreams, port: u16) -> Gateway {
    let config = upstreams.config(&SocketAddr::from(([127, 0, 0, 1], port)).to_string());
    Gateway::start(GatewayOptions::new(config).log("info"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_is_not_noticed_by_clients_that_keep_connections() {
    let upstreams = Upstreams::new().await;
    let gateways = [
        gateway(&upstreams, free_port()),
        gateway(&upstreams, free_port()),
    ];
    let roots: Vec<String> = gateways.iter().filter_map(Gateway::ca_pem).collect();
    let roots = roots_from_pem(roots.iter().map(String::as_str));
    let guests = gateways
        .iter()
        .map(|it| Guest::new(it.proxy(), roots.clone()));
    let guests: Vec<_> = guests.collect();
    let (over, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients = habits().into_iter().enumerate().map(|(number, habit)| {
        let origin = match habit.way {
            Way::AbsoluteForm => &upstreams.plain,
            _ => &upstreams.tls,
        };
        let mut client = Client {
            guests: guests.clone(),
            req: Req::get("a.test", origin.port(), "/"),
            habit,
            channel: None,
            last: number % 2,
        };
        let (over, served) = (Arc::clone(&over), Arc::clone(&served));
        tokio::spawn(async move {
            while !over.load(Ordering::Relaxed) {
                client.ask().await?;
                served.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(habit.thinks).await;
            }
            Ok::<_, String>(())
        })
    });
    let clients: Vec<_> = clients.collect();
    let mut gateways = Vec::from(gateways);
    for _ in 0..2 {
        for at in 0..gateways.len() {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let gateway = gateways.remove(at);
            let restarted = tokio::task::spawn_blocking(move || gateway.restart()).await;
            gateways.insert(at, restarted.unwrap());
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap().unwrap();
    }
    assert!(served.load(Ordering::Relaxed) > 500);
}
