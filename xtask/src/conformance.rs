//! The conformance suite on both planes, and `docs/planes.md`, which is what came of it.

use std::fs;

use crate::{
    places::Places,
    run::{Steps, Task},
    setup,
    test::{build, nextest},
};

/// The names that `OUTGATE_CONFORMANCE_PLANE` knows, and what a step calls them.
const PLANES: [(&str, &str); 2] = [("native", "the native plane"), ("envoy", "Envoy")];

/// Which planes, and which scenarios.
pub(crate) struct Request<'a> {
    planes: Vec<(&'static str, &'static str)>,
    name: Option<&'a str>,
}

impl<'a> Request<'a> {
    /// Reads `[PLANE] [NAME]`.
    ///
    /// # Errors
    /// What is wrong with the words.
    pub(crate) fn parse(words: &[&'a str]) -> Result<Self, &'static str> {
        let known = |word: &&str| PLANES.into_iter().find(|(plane, _)| plane == word);
        match (words, words.first().and_then(known)) {
            ([_], Some(plane)) => Ok(Self::of(vec![plane], None)),
            ([_, name], Some(plane)) => Ok(Self::of(vec![plane], Some(name))),
            ([], _) => Ok(Self::of(PLANES.to_vec(), None)),
            ([name], None) => Ok(Self::of(PLANES.to_vec(), Some(name))),
            _ => Err("the planes are native and envoy; one name at most"),
        }
    }

    fn of(planes: Vec<(&'static str, &'static str)>, name: Option<&'a str>) -> Self {
        Self { planes, name }
    }
}

/// Runs the suite on both planes and compares `docs/planes.md` with what came of it.
pub(crate) fn run(places: &Places, steps: &mut Steps) {
    both(places, steps);
    steps.step("docs/planes.md", || up_to_date(places));
}

/// Sets up, builds, and runs what was asked for.
pub(crate) fn alone(places: &Places, steps: &mut Steps, request: Request<'_>) {
    if !ready(places, steps) {
        return;
    }
    for (plane, called) in request.planes {
        steps.step(&format!("conformance of {called}"), || {
            suite(places, plane, request.name)
        });
    }
}

/// Sets up, builds, runs the suite on both planes and writes `docs/planes.md`.
pub(crate) fn write_planes(places: &Places, steps: &mut Steps) {
    if ready(places, steps) {
        both(places, steps);
        steps.step("docs/planes.md", || {
            let text = planes(places)?;
            fs::write(places.root.join("docs/planes.md"), text).map_err(|error| error.to_string())
        });
    }
}

fn ready(places: &Places, steps: &mut Steps) -> bool {
    setup::for_checks(places, steps);
    steps.step("set up: Envoy", || setup::envoy(places)) && steps.step("build", || build(places))
}

fn both(places: &Places, steps: &mut Steps) {
    for (plane, called) in PLANES {
        steps.step(&format!("conformance of {called}"), || {
            suite(places, plane, None)
        });
    }
}

/// One run. What came of an earlier one is gone, also of scenarios that are not run.
fn suite(places: &Places, plane: &str, name: Option<&str>) -> Result<(), String> {
    let outcomes = places.outcomes().join(plane);
    if outcomes.exists() {
        fs::remove_dir_all(&outcomes)
            .map_err(|error| format!("{}: {error}", outcomes.display()))?;
    }
    nextest(places, "package(outgate-conformance)")
        .args(name)
        .env("OUTGATE_CONFORMANCE_PLANE", plane)
        .env("OUTGATE_CONFORMANCE_OUTCOMES", places.outcomes())
        .run()
}

/// The checked-in page is what the last runs say.
fn up_to_date(places: &Places) -> Result<(), String> {
    let file = places.root.join("docs/planes.md");
    let kept = fs::read(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    if planes(places)? == kept {
        return Ok(());
    }
    Err("docs/planes.md is not what the runs say: write it with `cargo xtask planes`".to_owned())
}

/// The page, from what the last runs left.
fn planes(places: &Places) -> Result<Vec<u8>, String> {
    Task::new(places.built("planes"), 1)
        .args([places.outcomes()])
        .output()
}
