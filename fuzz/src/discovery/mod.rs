//! A discovery stream: requests, changes, look-ups and time in any order. The input is a script of them.

mod delta;
mod truth;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use outgate_xds::{
    Change, Lookup,
    fuzz::{Question, Serving},
    type_urls::{CLUSTER, LISTENER, ROUTE, SECRET},
};
use truth::{Answer, Truth};

use crate::script::Script;

/// The last is given by name, as secrets are, and has nothing in it.
const TYPES: [&str; 5] = [CLUSTER, LISTENER, ROUTE, SECRET, "example/unknown"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const WILDCARD: &str = "*";
/// Longer than any run that does not go round in circles.
const STEPS: usize = 1000;

/// Incremental: whatever happened, a client that hears everything ends with what there is, is told nothing twice and
/// nothing that it does not want, and is never sent a second response of a type before it had time to answer.
pub fn delta_stream(input: &[u8]) {
    Run::<delta::Model>::play(input);
}

/// State of the world: the same, and one version means one content.
pub fn world_stream(input: &[u8]) {
    Run::<world::Model>::play(input);
}

/// One request, as both protocols can say it.
struct Request {
    type_url: &'static str,
    nonce: String,
    refuses: bool,
    subscribe: Vec<String>,
    /// Said by the incremental protocol alone.
    unsubscribe: Vec<String>,
    /// What the client has from another stream.
    has: BTreeMap<String, String>,
}

/// What a server does with a request.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Taken,
    /// It answers a response that another one has followed.
    PassedOver,
    /// The stream ends.
    Refused,
}

/// What one response said: names, and the versions of those that are not gone.
struct Said {
    type_url: String,
    nonce: String,
    things: BTreeMap<String, Option<String>>,
}

/// What a client of one protocol knows.
trait Model: Default {
    fn serving(truth: Arc<Truth>) -> Serving;
    fn encode(&self, request: &Request) -> Vec<u8>;
    /// The client says this; `last_nonce` is of the last response of its type.
    fn asks(&mut self, request: &Request, last_nonce: Option<&str>) -> Verdict;
    /// A request that says no more than that a response is accepted.
    fn accepts(&self, type_url: &'static str, nonce: String) -> Request;
    /// The client hears this. `is_awaited`: the last response of a type is not answered.
    fn hears(&mut self, response: &[u8], is_awaited: &dyn Fn(&str) -> bool) -> Said;
    /// Whether a response that comes though nothing has changed says anything. A state of the world that leaves out
    /// what is wanted no more does.
    fn is_news(&mut self, response: &[u8]) -> bool;
    /// Everything has been said.
    fn assert_knows(&self, truth: &Truth);
}

struct Flight {
    nonce: String,
    since: Instant,
    things: BTreeMap<String, Option<String>>,
}

struct Run<M> {
    serving: Serving,
    truth: Arc<Truth>,
    model: M,
    now: Instant,
    nonces: BTreeSet<String>,
    last_nonce: BTreeMap<String, String>,
    flights: BTreeMap<String, Flight>,
    /// Look-ups under way, and what they found when they began.
    asked: Vec<(Question, Lookup)>,
    later: Vec<Question>,
    unannounced: Vec<Change>,
}

impl<M: Model> Run<M> {
    fn play(input: &[u8]) {
        let mut script = Script(input);
        let kind = script.next().unwrap_or_default();
        let (is_silent, has_ttl) = (kind & 1 != 0, kind & 2 != 0);
        let truth = Arc::new(Truth::new(has_ttl && !is_silent));
        let mut run = Self {
            serving: M::serving(Arc::clone(&truth)),
            truth,
            model: M::default(),
            now: Instant::now(),
            nonces: BTreeSet::new(),
            last_nonce: BTreeMap::new(),
            flights: BTreeMap::new(),
            asked: Vec::new(),
            later: Vec::new(),
            unannounced: Vec::new(),
        };
        while let Some(step) = script.next() {
            if !run.step(step, &mut script) {
                return;
            }
        }
        run.finish(is_silent);
        run.model.assert_knows(&run.truth);
        run.serving.changed(&Change::Everything);
        while run.look_up() {}
        let more = run.serving.next_response(run.now);
        let is_news = more.is_none_or(|more| run.model.is_news(&more));
        assert!(is_news, "what has not changed was said again");
    }

    /// `false`: the stream has ended.
    fn step(&mut self, step: u8, script: &mut Script<'_>) -> bool {
        match step % 8 {
            0 | 1 => return self.request(script),
            2 => self.change(script),
            3 => self.announce(),
            4 => self.ask(),
            5 => self.answer(script),
            6 => {
                self.respond();
            }
            _ => self.now += Duration::from_secs(script.byte().into()) * 5,
        }
        true
    }

    fn request(&mut self, script: &mut Script<'_>) -> bool {
        let type_url = match script.below(TYPES.len() + 1) {
            5 => "",
            at => TYPES[at],
        };
        let last = self.last_nonce.get(type_url).cloned().unwrap_or_default();
        let (nonce, refuses) = match script.below(4) {
            0 => (String::new(), false),
            1 => (last, false),
            2 => (last, true),
            _ => ("0".to_owned(), false),
        };
        let subscribe = names(script);
        let unsubscribe = names(script);
        let has = names(script).into_iter();
        self.send(&Request {
            type_url,
            nonce,
            refuses,
            subscribe,
            unsubscribe,
            has: has.map(|name| (name, "v1".to_owned())).collect(),
        })
    }

    fn send(&mut self, request: &Request) -> bool {
        let last = self.last_nonce.get(request.type_url).map(String::as_str);
        let verdict = match request.type_url {
            "" => Verdict::Refused,
            _ => self.model.asks(request, last),
        };
        let bytes = self.model.encode(request);
        let taken = self.serving.take(&bytes);
        assert_eq!(
            taken.is_err(),
            verdict == Verdict::Refused,
            "{taken:?} where it is to be {verdict:?}"
        );
        let answered = self.flights.get(request.type_url);
        let answers = verdict != Verdict::PassedOver
            && answered.is_some_and(|flight| flight.nonce == request.nonce);
        if answers && let Some(flight) = self.flights.remove(request.type_url) {
            let expected = Answer {
                type_url: request.type_url.to_owned(),
                things: flight.things,
                is_accepted: !request.refuses,
            };
            if taken.is_ok() {
                assert_eq!(self.truth.answers(), [expected]);
            }
        } else {
            assert_eq!(self.truth.answers(), [], "nothing was answered");
        }
        taken.is_ok()
    }

    fn change(&mut self, script: &mut Script<'_>) {
        let type_url = TYPES[script.below(4)];
        let name = NAMES[script.below(NAMES.len())];
        self.truth.set(type_url, name, script.byte() % 8);
        let change = match script.below(4) {
            0 => Change::Everything,
            1 => Change::Type(type_url),
            how => {
                let change = Change::One(type_url, name.into());
                if how == 2 {
                    return self.unannounced.push(change);
                }
                change
            }
        };
        self.serving.changed(&change);
    }

    fn announce(&mut self) {
        for change in self.unannounced.drain(..) {
            self.serving.changed(&change);
        }
    }

    /// All look-ups that are due begin, in an order that is the same each time.
    fn ask(&mut self) {
        let questions = std::iter::from_fn(|| self.serving.next_question());
        let mut questions: Vec<Question> = questions.collect();
        questions.sort_by(|a, b| (a.type_url(), a.name()).cmp(&(b.type_url(), b.name())));
        for question in questions {
            let found = self.truth.find(question.type_url(), question.name());
            self.asked.push((question, found));
        }
    }

    fn answer(&mut self, script: &mut Script<'_>) {
        let at = script.byte();
        if self.asked.is_empty() {
            if let Some(question) = self.later.pop() {
                self.serving.ask_again(&question);
            }
            return;
        }
        let (question, found) = self.asked.remove(usize::from(at >> 2) % self.asked.len());
        match at % 4 {
            0 => {
                self.serving.answered(&question, Lookup::Later);
                self.later.push(question);
            }
            1 => {
                let found = self.truth.find(question.type_url(), question.name());
                self.serving.answered(&question, found);
            }
            _ => self.serving.answered(&question, found),
        }
    }

    /// Whether there was something to say.
    fn respond(&mut self) -> bool {
        let Some(response) = self.serving.next_response(self.now) else {
            let wake = self.serving.wake_at(self.now);
            assert!(
                wake.is_none_or(|at| at > self.now),
                "the stream would spin: it is to wake at a time that has come"
            );
            return false;
        };
        let (flights, now) = (&self.flights, self.now);
        let is_awaited = |type_url: &str| {
            let flight = flights.get(type_url);
            flight.is_some_and(|flight| now < flight.since + Serving::ANSWERING)
        };
        let said = self.model.hears(&response, &is_awaited);
        assert!(!is_awaited(&said.type_url), "{}", said.type_url);
        assert!(self.nonces.insert(said.nonce.clone()), "a nonce came twice");
        let last = (said.type_url.clone(), said.nonce.clone());
        self.last_nonce.extend([last]);
        let flight = Flight {
            nonce: said.nonce,
            since: now,
            things: said.things,
        };
        self.flights.insert(said.type_url, flight);
        true
    }

    /// Whether there was a name to look up, or one that had been.
    fn look_up(&mut self) -> bool {
        for question in std::mem::take(&mut self.later) {
            self.serving.ask_again(&question);
        }
        self.ask();
        if self.asked.is_empty() {
            return false;
        }
        let (question, found) = self.asked.remove(0);
        self.serving.answered(&question, found);
        true
    }

    /// All that is under way ends well, and the client answers everything; or nothing, and time passes.
    fn finish(&mut self, is_silent: bool) {
        self.announce();
        for _ in 0..STEPS {
            if !is_silent {
                self.accept_all();
            }
            if self.look_up() || self.respond() {
                continue;
            }
            let wake = self.serving.wake_at(self.now);
            match wake.filter(|at| *at <= self.now + Serving::ANSWERING) {
                Some(at) if is_silent || self.truth.has_no_ttl() => self.now = at,
                _ => return,
            }
        }
        panic!("the stream does not come to rest");
    }

    fn accept_all(&mut self) {
        for type_url in TYPES {
            if let Some(flight) = self.flights.get(type_url) {
                let request = self.model.accepts(type_url, flight.nonce.clone());
                assert!(self.send(&request), "an answer ended the stream");
            }
        }
    }
}

/// A bit for each; the highest two, together, are for names that there cannot be.
fn names(script: &mut Script<'_>) -> Vec<String> {
    let bits = script.byte();
    let known = NAMES.into_iter().chain([WILDCARD]).enumerate();
    let known = known.filter(|(at, _)| bits & (1 << at) != 0);
    let mut names: Vec<String> = known.map(|(_, name)| name.to_owned()).collect();
    match bits >> 5 {
        0b110 => names.push(String::new()),
        0b111 => names.push("x".repeat(513)),
        _ => {}
    }
    names
}

fn is_name(name: &str) -> bool {
    (1..=512).contains(&name.len())
}

fn is_whole(type_url: &str) -> bool {
    [CLUSTER, LISTENER, ROUTE].contains(&type_url)
}
