//! `docs/planes.md`: promise by promise, what the last run of the suite showed on each plane.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    plane::Kind,
    promise::Promise,
    scenario::{Came, Outcome},
};

const HEAD: &str = "\
# The two planes

Promise by promise, what the [conformance suite](conformance.md) showed on each data plane: the gateway itself (native),
and Envoy with the gateway as its control plane. A number is how many scenarios try the promise; one scenario may try
several.

This page is written by `cargo xtask planes` from what came of the runs. A difference is listed in the table of the
scenario's file with its reason, and the run fails both when a scenario differs that is not listed and when a listed one
does not differ.

";

/// Writes the page.
///
/// # Errors
/// Every scenario that was not run on each plane, or that failed.
pub fn write(outcomes: &[Outcome]) -> Result<String, String> {
    check(outcomes)?;
    let mut page = HEAD.to_owned();
    page.push_str("| promise | | native | Envoy |\n|---|---|---|---|\n");
    for promise in Promise::ALL {
        let [native, envoy] = Kind::ALL.map(|plane| cell(outcomes, *promise, plane));
        let _ = writeln!(
            page,
            "| {} | {} | {native} | {envoy} |",
            promise.id(),
            promise.title()
        );
    }
    page.push_str("\n## Where they differ\n\n");
    page.push_str(&list(outcomes, |came| match came {
        Came::Differs(reason) => Some(reason),
        _ => None,
    }));
    page.push_str("\n## What only one of them has\n\n");
    page.push_str(&list(outcomes, |came| match came {
        Came::Elsewhere(reason) => Some(reason),
        _ => None,
    }));
    Ok(page)
}

fn check(outcomes: &[Outcome]) -> Result<(), String> {
    let mut seen: BTreeMap<_, Vec<Kind>> = BTreeMap::new();
    let mut problems = String::new();
    for outcome in outcomes {
        let scenario = (&outcome.theme, &outcome.name);
        seen.entry(scenario).or_default().push(outcome.plane);
        if let Came::Fails(why) = &outcome.came {
            let (theme, name, plane) = (&outcome.theme, &outcome.name, outcome.plane.name());
            let _ = writeln!(problems, "{theme}: {name} failed on {plane}: {why}");
        }
    }
    for ((theme, name), planes) in seen {
        for plane in Kind::ALL.iter().filter(|plane| !planes.contains(plane)) {
            let _ = writeln!(problems, "{theme}: {name} was not run on {}", plane.name());
        }
    }
    if outcomes.is_empty() {
        problems.push_str("there are no outcomes: run the suite on both planes\n");
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// What is to be said of a promise on a plane.
fn cell(outcomes: &[Outcome], promise: Promise, plane: Kind) -> String {
    let about = |outcome: &&Outcome| outcome.plane == plane && outcome.promises.contains(&promise);
    let (mut holds, mut differs) = (0, 0);
    for outcome in outcomes.iter().filter(about) {
        match outcome.came {
            Came::Holds => holds += 1,
            Came::Differs(_) | Came::Fails(_) => differs += 1,
            Came::Elsewhere(_) => {}
        }
    }
    match (holds, differs) {
        (0, 0) => "not tried".to_owned(),
        (holds, 0) => format!("holds ({holds})"),
        (0, differs) => format!("differs ({differs})"),
        (holds, differs) => format!("holds ({holds}), differs ({differs})"),
    }
}

/// A line for each reason and plane, with every scenario that has it.
fn list(outcomes: &[Outcome], reason: impl Fn(&Came) -> Option<&String>) -> String {
    let mut lines: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for outcome in outcomes {
        if let Some(why) = reason(&outcome.came) {
            let plane = Kind::ALL.iter().position(|plane| *plane == outcome.plane);
            lines.entry((plane, why)).or_default().push(outcome);
        }
    }
    if lines.is_empty() {
        return "Nothing.\n".to_owned();
    }
    let mut text = "| plane | why | scenarios (promises) |\n|---|---|---|\n".to_owned();
    for ((_, why), scenarios) in lines {
        let plane = match scenarios[0].plane {
            Kind::Native => "native",
            Kind::Envoy => "Envoy",
        };
        let named: Vec<_> = scenarios.iter().map(|outcome| named(outcome)).collect();
        let _ = writeln!(text, "| {plane} | {why} | {} |", named.join("; "));
    }
    text
}

fn named(outcome: &Outcome) -> String {
    let promises: Vec<_> = outcome.promises.iter().map(|one| one.id()).collect();
    let sentence = outcome.name.replace('_', " ");
    format!("{}: *{sentence}* ({})", outcome.theme, promises.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(plane: Kind, name: &str, promise: Promise, came: Came) -> Outcome {
        Outcome {
            plane,
            theme: "theme".into(),
            name: name.into(),
            promises: vec![promise],
            came,
        }
    }

    #[test]
    fn the_page_says_what_holds_what_differs_and_what_is_not_there() {
        let page = write(&[
            outcome(Kind::Native, "one_thing", Promise::P1, Came::Holds),
            outcome(
                Kind::Envoy,
                "one_thing",
                Promise::P1,
                Came::Differs("it is so".into()),
            ),
            outcome(
                Kind::Native,
                "two",
                Promise::P2,
                Came::Elsewhere("no such thing".into()),
            ),
            outcome(Kind::Envoy, "two", Promise::P2, Came::Holds),
        ])
        .expect("a page");
        let line = |start: &str| {
            page.lines()
                .find(|line| line.starts_with(start))
                .expect("a line")
        };
        assert!(
            line("| P1 ").ends_with("| holds (1) | differs (1) |"),
            "{page}"
        );
        assert!(
            line("| P2 ").ends_with("| not tried | holds (1) |"),
            "{page}"
        );
        assert!(
            page.contains("| Envoy | it is so | theme: *one thing* (P1) |"),
            "{page}"
        );
        assert!(
            page.contains("| native | no such thing | theme: *two* (P2) |"),
            "{page}"
        );
    }

    #[test]
    fn there_is_no_page_of_a_failure_or_of_half_a_run() {
        let holds = |plane| outcome(plane, "one", Promise::P1, Came::Holds);
        let fails = outcome(
            Kind::Envoy,
            "one",
            Promise::P1,
            Came::Fails("a fault".into()),
        );
        assert!(write(&[holds(Kind::Native), holds(Kind::Envoy)]).is_ok());
        for (outcomes, said) in [
            (vec![], "there are no outcomes"),
            (vec![holds(Kind::Native)], "one was not run on envoy"),
            (
                vec![holds(Kind::Native), fails],
                "one failed on envoy: a fault",
            ),
        ] {
            let problem = write(&outcomes).expect_err(said);
            assert!(problem.contains(said), "{problem}");
        }
    }
}
