//! What a request makes the gateway do, counted instead of timed, against the checked-in `bench/instructions/baseline.txt`.

use std::{fmt::Write as _, fs, path::Path};

use crate::{
    places::Places,
    run::{Steps, Task},
    setup, test,
};

/// So much more of an optimiser's or a machine's making is no regression. Twice the same build differs by 0.1 %.
const TOLERANCE: f64 = 1.03;
/// What valgrind counts: a part of the work at each call.
const COUNTED: &str = "outgate_instructions::counted";
/// Flags of a processor by which libraries choose their code.
const CHOOSING: [&str; 8] = [
    "adx",
    "aes",
    "avx2",
    "bmi2",
    "erms",
    "fsrm",
    "pclmulqdq",
    "sha_ni",
];

/// What one request of a part takes.
#[derive(Debug, PartialEq)]
struct Cost {
    part: String,
    instructions: u64,
    allocations: f64,
}

/// Sets up, builds, counts, and compares, or writes what was counted as the new baseline.
pub(crate) fn alone(places: &Places, steps: &mut Steps, bless: bool) {
    setup::for_checks(places, steps);
    // As the tests are built: with other features it is another program.
    let built = steps.step("build", || test::build(places));
    if built && bless {
        steps.step("new baseline", || {
            let text = written(&machine(places)?, &counted(places)?);
            print!("{text}");
            fs::write(baseline(places), text).map_err(|error| error.to_string())
        });
    } else if built {
        run(places, steps);
    }
}

/// Counts and compares. The program is built.
pub(crate) fn run(places: &Places, steps: &mut Steps) {
    let mut note = None;
    steps.step("instructions", || {
        let path = baseline(places);
        let text = fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let (made_on, before) = read(&text)?;
        let (here, now) = (machine(places)?, counted(places)?);
        let alike = made_on == here;
        if !alike {
            note = Some(format!(
                "instructions are shown, not held against the baseline, which is of {made_on}; this is {here}"
            ));
        }
        print!("{}", compared(&before, &now));
        let problems = problems(&before, &now, alike);
        if problems.is_empty() {
            return Ok(());
        }
        Err(format!(
            "{}; if it has to be so: cargo xtask instructions --bless",
            problems.join(", ")
        ))
    });
    if let Some(note) = note {
        steps.note(note);
    }
}

fn baseline(places: &Places) -> std::path::PathBuf {
    places.root.join("bench/instructions/baseline.txt")
}

/// The compiler and the processor, as far as numbers depend on them.
fn machine(places: &Places) -> Result<String, String> {
    let compiler = Task::new("rustc", 1)
        .args(["--version"])
        .inside(&places.root);
    let compiler = String::from_utf8_lossy(&compiler.output()?)
        .trim()
        .to_owned();
    let processor = fs::read_to_string("/proc/cpuinfo").map_err(|error| error.to_string())?;
    let flags = processor.lines().find(|line| line.starts_with("flags"));
    let flags: Vec<&str> = flags.unwrap_or("").split_whitespace().collect();
    let mut machine = format!("{compiler}, {}", std::env::consts::ARCH);
    for flag in CHOOSING.iter().filter(|flag| flags.contains(flag)) {
        // Writing to a string does not fail.
        let _ = write!(machine, " {flag}");
    }
    Ok(machine)
}

fn counted(places: &Places) -> Result<Vec<Cost>, String> {
    let folder = places.target.join("instructions");
    // What an earlier run left would be taken for this one's.
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let out = folder.join("callgrind");
    let printed = Task::new("valgrind", 10)
        .args(["--quiet", "--tool=callgrind"])
        .args([
            format!("--toggle-collect={COUNTED}"),
            format!("--dump-before={COUNTED}"),
            format!("--callgrind-out-file={}", out.display()),
        ])
        .args([places.built("outgate-instructions")])
        .output()?;
    let printed = String::from_utf8_lossy(&printed).into_owned();
    let lines: Vec<&str> = printed.lines().collect();
    let mut costs = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        // The first dump is of before the first part, and what comes last is in the file without a number.
        let dump = if index + 1 == lines.len() {
            out.clone()
        } else {
            folder.join(format!("callgrind.{}", index + 2))
        };
        costs.push(cost(line, total(&dump)?)?);
    }
    Ok(costs)
}

/// Of a line of the program: a part, its requests, their allocations.
fn cost(line: &str, instructions: u64) -> Result<Cost, String> {
    let odd = || format!("not a part, its requests and their allocations: {line:?}");
    let mut words = line.split(' ');
    let part = words.next().ok_or_else(odd)?.to_owned();
    let mut number = || words.next()?.parse::<u32>().ok();
    let (requests, allocations) = (number().ok_or_else(odd)?, number().ok_or_else(odd)?);
    Ok(Cost {
        part,
        instructions: instructions / u64::from(requests.max(1)),
        allocations: f64::from(allocations) / f64::from(requests.max(1)),
    })
}

fn total(dump: &Path) -> Result<u64, String> {
    let text = fs::read_to_string(dump).map_err(|error| format!("{}: {error}", dump.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    match total.map(str::parse) {
        // A name that valgrind does not find counts nothing, and would never be too much.
        Some(Ok(total)) if total > 0 => Ok(total),
        _ => Err(format!("{}: nothing was counted", dump.display())),
    }
}

fn written(machine: &str, costs: &[Cost]) -> String {
    let mut text = format!(
        "# Of one request: the part, instructions, allocations. Written by `cargo xtask instructions --bless`.\n# {machine}\n"
    );
    for Cost {
        part,
        instructions,
        allocations,
    } in costs
    {
        let _ = writeln!(text, "{part} {instructions} {allocations:.1}");
    }
    text
}

/// The machine of a baseline, and its costs.
fn read(text: &str) -> Result<(String, Vec<Cost>), String> {
    let mut machine = String::new();
    let mut costs = Vec::new();
    for line in text.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            comment.clone_into(&mut machine);
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        let [part, instructions, allocations] = words.as_slice() else {
            return Err(format!("the baseline has an odd line: {line:?}"));
        };
        costs.push(Cost {
            part: (*part).to_owned(),
            instructions: instructions.parse().map_err(|_| format!("odd: {line:?}"))?,
            allocations: allocations.parse().map_err(|_| format!("odd: {line:?}"))?,
        });
    }
    Ok((machine, costs))
}

fn compared(before: &[Cost], now: &[Cost]) -> String {
    let mut text =
        String::from("of one request        instructions   before  allocations   before\n");
    for cost in now {
        let old = before.iter().find(|old| old.part == cost.part);
        let _ = writeln!(
            text,
            "{:<20} {:>13} {:>8} {:>12.1} {:>8}",
            cost.part,
            cost.instructions,
            old.map_or("-".to_owned(), |old| old.instructions.to_string()),
            cost.allocations,
            old.map_or("-".to_owned(), |old| format!("{:.1}", old.allocations)),
        );
    }
    text
}

/// What is more than before. Instructions count only where `alike` says that compiler and processor are the same.
fn problems(before: &[Cost], now: &[Cost], alike: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for old in before {
        let Some(cost) = now.iter().find(|cost| cost.part == old.part) else {
            problems.push(format!("{}: not counted", old.part));
            continue;
        };
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let ratio = cost.instructions as f64 / old.instructions as f64;
        if alike && ratio > TOLERANCE {
            problems.push(format!(
                "{}: {:.1} % more instructions",
                old.part,
                (ratio - 1.0) * 100.0
            ));
        }
        if cost.allocations > (old.allocations * TOLERANCE).max(old.allocations + 1.0) {
            problems.push(format!(
                "{}: {:.1} allocations, {:.1} before",
                old.part, cost.allocations, old.allocations
            ));
        }
    }
    let new = now
        .iter()
        .filter(|cost| !before.iter().any(|old| old.part == cost.part));
    problems.extend(new.map(|cost| format!("{}: not in the baseline", cost.part)));
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(part: &str, instructions: u64, allocations: f64) -> Cost {
        Cost {
            part: part.to_owned(),
            instructions,
            allocations,
        }
    }

    #[test]
    fn a_baseline_is_read_as_it_was_written() {
        let costs = vec![
            cost("clear", 1_200_000, 58.3),
            cost("refused", 650_000, 51.0),
        ];
        let text = written("rustc 1.95.0, x86_64 aes", &costs);
        assert_eq!(
            read(&text),
            Ok(("rustc 1.95.0, x86_64 aes".to_owned(), costs))
        );
        assert!(read("clear 1200000").is_err());
        assert!(read("clear many 3").is_err());
    }

    #[test]
    fn more_is_a_problem_and_less_is_not() {
        let before = [cost("clear", 1_000_000, 58.0)];
        let said = |now: &[Cost], alike| problems(&before, now, alike).join("; ");
        assert_eq!(said(&[cost("clear", 1_020_000, 58.9)], true), "");
        assert_eq!(said(&[cost("clear", 500_000, 20.0)], true), "");
        assert_eq!(
            said(&[cost("clear", 1_040_000, 58.0)], true),
            "clear: 4.0 % more instructions"
        );
        assert_eq!(said(&[cost("clear", 1_040_000, 58.0)], false), "");
        assert_eq!(
            said(&[cost("clear", 1_000_000, 61.0)], false),
            "clear: 61.0 allocations, 58.0 before"
        );
        assert_eq!(
            said(&[cost("bumped", 1, 1.0)], true),
            "clear: not counted; bumped: not in the baseline"
        );
    }

    #[test]
    fn a_line_of_the_program_is_shared_out_over_its_requests() {
        assert_eq!(
            super::cost("clear 50 2900", 60_000_000),
            Ok(cost("clear", 1_200_000, 58.0))
        );
        for odd in ["", "clear", "clear 50", "clear fifty 2900"] {
            assert!(super::cost(odd, 1).is_err(), "{odd:?}");
        }
    }
}
