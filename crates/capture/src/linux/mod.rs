//! Writes the rules, and reads them back.

mod attribute;
mod expression;
mod rules;
mod socket;

use crate::{Capture, CaptureError, TABLE};

use self::{
    attribute::{Attribute, find},
    rules::{CHAIN_TABLE, RULE_CHAIN, RULE_TABLE, TABLE_NAME, Table},
    socket::{Kind, Netfilter},
};

pub(crate) fn install(capture: &Capture) -> Result<(), CaptureError> {
    let netfilter = Netfilter::open().map_err(CaptureError::NoNetfilter)?;
    let table = Table::of(capture);
    netfilter
        .commit(&replacement(&table))
        .map_err(|source| CaptureError::Refused { source })?;
    check(&netfilter, &table).map_err(CaptureError::NotAsWritten)
}

/// The table is made so that it can be deleted in any case; the kernel does all of this at one moment, so that there is
/// none at which the rules are not there.
fn replacement(table: &Table) -> Vec<(Kind, Vec<Attribute>)> {
    let named = || vec![Attribute::text(TABLE_NAME, TABLE)];
    let mut batch = vec![(Kind::NewTable, named()), (Kind::DeleteTable, named())];
    batch.push((Kind::NewTable, Table::attributes()));
    for chain in &table.chains {
        batch.push((Kind::NewChain, chain.attributes()));
    }
    for chain in &table.chains {
        let rules = chain.rules.iter();
        batch.extend(rules.map(|rule| (Kind::NewRule, rule.attributes(chain.name))));
    }
    batch
}

/// Whether the table in the kernel is this one: every chain, every rule, in this order, and nothing else.
fn check(netfilter: &Netfilter, table: &Table) -> Result<(), String> {
    let list = |kind, owner| {
        let all = netfilter
            .list(kind)
            .map_err(|error| format!("they cannot be read back: {error}"))?;
        let ours = |message: &Vec<u8>| find(message, owner) == Some(name(TABLE).as_slice());
        Ok::<_, String>(all.into_iter().filter(ours).collect::<Vec<_>>())
    };
    let tables = list(Kind::GetTable, TABLE_NAME)?;
    same("tables", &tables, &[Table::attributes()])?;
    let chains = list(Kind::GetChain, CHAIN_TABLE)?;
    let written: Vec<_> = table.chains.iter().map(rules::Chain::attributes).collect();
    same("chains", &chains, &written)?;
    let rules = list(Kind::GetRule, RULE_TABLE)?;
    for chain in &table.chains {
        let is_in = |rule: &&Vec<u8>| find(rule, RULE_CHAIN) == Some(name(chain.name).as_slice());
        let read: Vec<_> = rules.iter().filter(is_in).cloned().collect();
        let written: Vec<_> = chain
            .rules
            .iter()
            .map(|rule| rule.attributes(chain.name))
            .collect();
        same(&format!("rules of {}", chain.name), &read, &written)?;
    }
    Ok(())
}

fn same(what: &str, read: &[Vec<u8>], written: &[Vec<Attribute>]) -> Result<(), String> {
    if read.len() != written.len() {
        let (read, written) = (read.len(), written.len());
        return Err(format!("{what}: {read} were read back, {written} written"));
    }
    let differs = |(read, written): (&Vec<u8>, &Vec<Attribute>)| {
        written.iter().any(|attribute| !attribute.is_in(read))
    };
    match read.iter().zip(written).position(differs) {
        Some(at) => Err(format!("{what}: number {} is another one", at + 1)),
        None => Ok(()),
    }
}

fn name(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use nix::sched::{CloneFlags, unshare};

    use super::*;

    fn capture(user: u32, redirect: Option<u16>) -> Capture {
        Capture {
            except_user: NonZeroU32::new(user).unwrap(),
            redirect: redirect.map(|port| NonZeroU16::new(port).unwrap()),
        }
    }

    /// A test has a thread of its own, which gets a network of its own.
    fn alone() -> Netfilter {
        unshare(CloneFlags::CLONE_NEWNET)
            .expect("this test makes a network namespace: run it as root");
        Netfilter::open().unwrap()
    }

    #[test]
    fn what_is_read_back_is_held_to_every_detail() {
        let netfilter = alone();
        let wanted = capture(65532, Some(15001));
        let is_as_written = |other: &Capture| check(&netfilter, &Table::of(other));
        assert_eq!(
            is_as_written(&wanted).unwrap_err(),
            "tables: 0 were read back, 1 written"
        );
        install(&wanted).unwrap();
        is_as_written(&wanted).unwrap();
        for other in [
            capture(65533, Some(15001)),
            capture(65532, Some(15002)),
            capture(65532, None),
        ] {
            is_as_written(&other).unwrap_err();
        }
        let rule = |text: &str| {
            let words = text.split(' ');
            let status = std::process::Command::new("nft").args(words).status();
            assert!(status.expect("nft is needed").success(), "{text}");
        };
        rule("insert rule inet outgate_capture output accept");
        let added = is_as_written(&wanted).unwrap_err();
        assert_eq!(added, "rules of output: 11 were read back, 10 written");
        install(&wanted).unwrap();
        rule("add chain inet outgate_capture output { policy accept; }");
        let opened = is_as_written(&wanted).unwrap_err();
        assert_eq!(opened, "chains: number 1 is another one");
        install(&wanted).unwrap();
        rule("add table inet outgate_capture { flags dormant; }");
        let asleep = is_as_written(&wanted).unwrap_err();
        assert_eq!(asleep, "tables: number 1 is another one");
    }

    #[test]
    fn a_batch_whose_last_part_is_refused_changes_nothing() {
        let netfilter = alone();
        let before = capture(65532, Some(15001));
        install(&before).unwrap();
        let mut batch = replacement(&Table::of(&capture(1, None)));
        let nowhere = rules::Rule::of([]).attributes("no_such_chain");
        batch.push((Kind::NewRule, nowhere));
        let refused = netfilter.commit(&batch).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::NotFound);
        check(&netfilter, &Table::of(&before)).unwrap();
    }
}
