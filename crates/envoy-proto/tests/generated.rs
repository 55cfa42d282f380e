//! The checked-in code and descriptors are what the sources say, and the folder holds no source that is not used.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what helps a test fails it"
)]

mod source;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use prost::Message;

use source::{compiled, home, reach, roots};

const STALE: &str = "is not what proto/ generates: run this test with OUTGATE_BLESS=1";

#[test]
fn the_checked_in_code_is_what_the_sources_generate() {
    let names: Vec<String> = roots::TYPED.iter().map(|name| (*name).to_owned()).collect();
    let files = reach::cut(&compiled(), &names);
    let secret = reach::containing(&files, roots::SECRET);
    let folder = tempfile::tempdir().unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .btree_map(".")
        .bytes(".envoy.service.ext_proc.v3")
        .skip_debug(secret)
        .include_file("mod.rs")
        .out_dir(folder.path())
        .compile_fds(files)
        .unwrap();
    let generated = contents(folder.path());
    let checked_in = home().join("src/generated");
    if blessed() {
        let _ = fs::remove_dir_all(&checked_in);
        fs::create_dir_all(&checked_in).unwrap();
        for (name, text) in &generated {
            fs::write(checked_in.join(name), text).unwrap();
        }
    }
    assert!(contents(&checked_in) == generated, "src/generated {STALE}");
}

#[test]
fn the_checked_in_descriptors_are_what_the_sources_declare() {
    let set = compiled();
    let names = reach::declared_in(&set, roots::CONFIGURATION);
    let bytes = reach::cut(&set, &names).encode_to_vec();
    let checked_in = home().join("src/json/descriptors.bin");
    if blessed() {
        fs::write(&checked_in, &bytes).unwrap();
    }
    let stale = fs::read(&checked_in).unwrap() != bytes;
    assert!(!stale, "src/json/descriptors.bin {STALE}");
}

#[test]
fn every_source_in_the_folder_is_used() {
    let set = compiled();
    let mut unused = Vec::new();
    for path in sources(&home().join("proto")) {
        let name = path.strip_prefix(home().join("proto")).unwrap();
        let used = set.file.iter().any(|file| Path::new(file.name()) == name);
        if !used {
            unused.push(path);
        }
    }
    assert_eq!(unused, Vec::<PathBuf>::new());
}

fn blessed() -> bool {
    std::env::var_os("OUTGATE_BLESS").is_some()
}

fn contents(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|kind| kind == "proto") {
            found.push(path);
        }
    }
    found
}
