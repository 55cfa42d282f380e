//! How a scenario is run and what came of it. Each file of `tests/` has a table: every scenario, the promises that it
//! can show to be broken, and, where a plane is expected to do something else, what and why. A scenario that differs is
//! run all the same and must fail as the table says: a table that is out of date is a failure.

use std::{
    any::Any,
    fmt::Write,
    fs,
    future::Future,
    panic::resume_unwind,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{plane::Kind, promise::Promise};

/// Bytes of stack for a scenario.
const STACK: usize = 16 << 20;

/// A scenario's place in its table.
#[derive(Debug)]
pub struct Scenario {
    /// The module of its test; the first part is the file.
    pub module: &'static str,
    /// Its function.
    pub name: &'static str,
    /// What it can show to be broken.
    pub promises: &'static [Promise],
    /// The planes that are expected to do something else.
    pub except: &'static [(Kind, Exception)],
}

/// What a plane is expected to do in place of what a scenario says.
#[derive(Debug, Clone, Copy)]
pub enum Exception {
    /// It does something else, for this reason; the scenario fails with a message that has this text.
    Differs(&'static str, &'static str),
    /// The scenario is about something that this plane does not have; it is not run.
    Elsewhere(&'static str),
}

/// What came of a scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// What it says is so.
    Holds,
    /// It is otherwise, as the table says, for this reason.
    Differs(String),
    /// It was not run: it is not about this plane, for this reason.
    Elsewhere(String),
    /// It is otherwise, and should not be.
    Fails(String),
}

/// What came of one scenario on one plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The plane.
    pub plane: Kind,
    /// The file of the scenario.
    pub theme: String,
    /// Its name.
    pub name: String,
    /// The promises that it is about.
    pub promises: Vec<Promise>,
    /// What came of it.
    pub came: Came,
}

/// The table of a file. Each line is `name: [promises]`, then what a plane is expected to do otherwise:
/// `Envoy: Differs("why", "text of the failure")` or `Native: Elsewhere("why")`; and a semicolon. A scenario that is
/// not in the table is never called, which the compiler reports.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident: [$($promise:ident)+] $(, $plane:ident: $kind:ident($($text:expr),+))*;)+) => {
        mod scenarios {
            #[allow(unused_imports, reason = "only exceptions may need what the file says")]
            use super::*;
            $(
                #[test]
                fn $name() {
                    use $crate::{plane::Kind, promise::Promise, scenario::{Exception, Scenario, run}};
                    let scenario = Scenario {
                        module: module_path!(),
                        name: stringify!($name),
                        promises: &[$(Promise::$promise,)+],
                        except: &[$((Kind::$plane, Exception::$kind($($text),+)),)*],
                    };
                    run(&scenario, super::$name);
                }
            )+
        }
    };
}

/// Runs a scenario on the plane under test, as its table says, and writes down what came of it.
///
/// # Panics
/// If the scenario fails where it should not, or does not fail where it should.
pub fn run<F: Future<Output = ()> + 'static>(scenario: &Scenario, body: fn() -> F) {
    let plane = Kind::under_test();
    let (came, panic) = scenario.try_on(plane, move || block_on(body()));
    let failed = match &came {
        Came::Holds => None,
        Came::Differs(reason) => {
            println!("differs on {}: {reason}", plane.name());
            None
        }
        Came::Elsewhere(reason) => {
            println!("not run on {}: {reason}", plane.name());
            None
        }
        Came::Fails(why) => Some(why.clone()),
    };
    scenario.outcome(plane, came).write();
    match (failed, panic) {
        (None, _) => {}
        (Some(_), Some(panic)) => resume_unwind(panic),
        (Some(why), None) => panic!("{why}"),
    }
}

fn block_on(body: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(body);
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("")
}

impl Scenario {
    /// What comes of it on a plane, and how it panicked if it did.
    fn try_on(
        &self,
        plane: Kind,
        body: impl FnOnce() + Send + 'static,
    ) -> (Came, Option<Box<dyn Any + Send>>) {
        let except = self.except.iter().find(|(kind, _)| *kind == plane);
        let except = except.map(|(_, exception)| *exception);
        if let Some(Exception::Elsewhere(reason)) = except {
            return (Came::Elsewhere(reason.into()), None);
        }
        // A long scenario is one large future, and unoptimised code moves it about on the stack.
        let thread = std::thread::Builder::new()
            .name(self.name.to_owned())
            .stack_size(STACK)
            .spawn(body)
            .expect("a thread");
        let panic = thread.join().err();
        let said = panic.as_deref().map(message);
        let came = match (except, said) {
            (None, None) => Came::Holds,
            (None, Some(said)) => Came::Fails(said.to_owned()),
            (Some(Exception::Differs(reason, text)), Some(said)) if said.contains(text) => {
                Came::Differs(reason.into())
            }
            (Some(_), Some(said)) => {
                Came::Fails(format!("it differs otherwise than its table says: {said}"))
            }
            (Some(_), None) => Came::Fails("its table says that it differs, and it holds".into()),
        };
        (came, panic)
    }

    fn outcome(&self, plane: Kind, came: Came) -> Outcome {
        Outcome {
            plane,
            theme: self.module.split("::").next().unwrap_or("").to_owned(),
            name: self.name.to_owned(),
            promises: self.promises.to_vec(),
            came,
        }
    }
}

impl Outcome {
    /// Writes it to the folder that `OUTGATE_CONFORMANCE_OUTCOMES` names, if it does.
    fn write(&self) {
        let Some(folder) = std::env::var_os("OUTGATE_CONFORMANCE_OUTCOMES") else {
            return;
        };
        let folder = PathBuf::from(folder).join(self.plane.name());
        fs::create_dir_all(&folder).expect("a folder for outcomes");
        let file = folder.join(format!("{}.{}.json", self.theme, self.name));
        fs::write(file, self.to_json().to_string()).expect("space");
    }

    fn to_json(&self) -> Value {
        let (came, why) = match &self.came {
            Came::Holds => ("pass", None),
            Came::Differs(why) => ("differs", Some(why)),
            Came::Elsewhere(why) => ("elsewhere", Some(why)),
            Came::Fails(why) => ("fail", Some(why)),
        };
        let promises: Vec<_> = self.promises.iter().map(|promise| promise.id()).collect();
        json!({
            "plane": self.plane.name(), "theme": self.theme, "scenario": self.name,
            "promises": promises, "outcome": came, "reason": why,
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let why = text("reason").unwrap_or_default();
        let promises = value["promises"].as_array()?.iter();
        let known = |id: &Value| {
            let mut all = Promise::ALL.iter().copied();
            all.find(|promise| Some(promise.id()) == id.as_str())
        };
        Some(Self {
            plane: Kind::named(value["plane"].as_str()?)?,
            theme: text("theme")?,
            name: text("scenario")?,
            promises: promises.map(known).collect::<Option<_>>()?,
            came: match value["outcome"].as_str()? {
                "pass" => Came::Holds,
                "differs" => Came::Differs(why),
                "elsewhere" => Came::Elsewhere(why),
                "fail" => Came::Fails(why),
                _ => return None,
            },
        })
    }
}

/// Every outcome that the last runs left in a folder, sorted.
///
/// # Errors
/// What cannot be read.
pub fn outcomes(folder: &Path) -> Result<Vec<Outcome>, String> {
    let mut found = Vec::new();
    let mut problems = String::new();
    for plane in Kind::ALL {
        for entry in fs::read_dir(folder.join(plane.name()))
            .into_iter()
            .flatten()
            .flatten()
        {
            let path = entry.path();
            let text = fs::read_to_string(&path).unwrap_or_default();
            let value = serde_json::from_str(&text).ok();
            match value.as_ref().and_then(Outcome::from_json) {
                Some(outcome) => found.push(outcome),
                None => {
                    let _ = writeln!(problems, "{} is no outcome", path.display());
                }
            }
        }
    }
    found.sort_by(|a, b| (&a.theme, &a.name).cmp(&(&b.theme, &b.name)));
    if problems.is_empty() {
        Ok(found)
    } else {
        Err(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Outcome> {
        let came = [
            Came::Holds,
            Came::Differs("why".into()),
            Came::Elsewhere("why".into()),
            Came::Fails("why".into()),
        ];
        let outcome = |came| Outcome {
            plane: Kind::Envoy,
            theme: "theme".into(),
            name: "name".into(),
            promises: vec![Promise::P1, Promise::A4],
            came,
        };
        came.map(outcome).to_vec()
    }

    #[test]
    fn an_outcome_is_read_as_it_was_written() {
        for outcome in all() {
            assert_eq!(Outcome::from_json(&outcome.to_json()), Some(outcome));
        }
    }

    #[test]
    fn an_unknown_word_is_no_outcome() {
        for (key, value) in [
            ("plane", json!("another")),
            ("promises", json!(["P1", "Z9"])),
            ("outcome", json!("skipped")),
        ] {
            let mut written = all()[0].to_json();
            written[key] = value;
            assert_eq!(Outcome::from_json(&written), None, "{written}");
        }
    }

    #[test]
    fn an_exception_must_come_true() {
        const DIFFERS: &[(Kind, Exception)] =
            &[(Kind::Envoy, Exception::Differs("why", "as expected"))];
        const NOT_RUN: &[(Kind, Exception)] = &[(Kind::Envoy, Exception::Elsewhere("why"))];
        let why = || "why".to_owned();
        let fails = |why: &str| Came::Fails(why.to_owned());
        let expected: fn() = || panic!("it is {} expected", "as");
        let fault: fn() = || panic!("a fault");
        for (except, body, wanted) in [
            (&[][..], (|| {}) as fn(), Came::Holds),
            (&[], fault, fails("a fault")),
            (DIFFERS, expected, Came::Differs(why())),
            (
                DIFFERS,
                fault,
                fails("it differs otherwise than its table says: a fault"),
            ),
            (
                DIFFERS,
                || {},
                fails("its table says that it differs, and it holds"),
            ),
            (NOT_RUN, fault, Came::Elsewhere(why())),
        ] {
            let scenario = Scenario {
                module: "theme::scenarios",
                name: "name",
                promises: &[Promise::P1],
                except,
            };
            assert_eq!(scenario.try_on(Kind::Envoy, body).0, wanted);
            if !except.is_empty() {
                let (native, _) = scenario.try_on(Kind::Native, || {});
                assert_eq!(native, Came::Holds, "it is about Envoy alone");
            }
        }
    }
}
