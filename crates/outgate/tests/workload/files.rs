//! `outgate install` and `outgate trust`: what they write is whole, readable by others, and nothing else.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use outgate_testkit::{CommandOutput, TestCa, gateway::binary};

use super::support::outgate;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_installed_program_is_this_one_for_every_user() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("outgate");
    fs::write(&place, "an older one").unwrap();
    let run = || {
        let mut shell = Command::new("sh");
        let script = "umask 077; exec \"$0\" install \"$1\"";
        shell.args(["-c", script]).arg(binary()).arg(folder.path());
        CommandOutput::of(&mut shell)
    };
    for _ in 0..2 {
        let output = run();
        assert_eq!(output.code, Some(0), "{output:?}");
        assert_eq!(mode(&place), 0o755);
        assert!(fs::read(&place).unwrap() == fs::read(binary()).unwrap());
        assert_eq!(names(folder.path()), ["outgate"]);
    }
    let version = CommandOutput::of(Command::new(&place).arg("--version"));
    assert_eq!(version.code, Some(0), "{version:?}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let output = CommandOutput::of(&mut outgate(&["install", "/nowhere/bin"]));
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("/nowhere/bin/outgate"), "{output:?}");
}

/// `outgate trust` of this text, with these roots as the image's, and what it left in its folder.
fn trust(ca: &str, image: Option<&str>) -> (CommandOutput, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("ca.crt"), folder.path().join("out"));
    fs::create_dir(&out).unwrap();
    fs::write(&file, ca).unwrap();
    let mut command = outgate(&["trust"]);
    command.arg("--ca").arg(&file).arg("--out").arg(&out);
    if let Some(image) = image {
        let roots = folder.path().join("roots.pem");
        fs::write(&roots, image).unwrap();
        command.env("SSL_CERT_FILE", roots);
    }
    (CommandOutput::of(&mut command), folder)
}

fn blocks(text: &str) -> usize {
    text.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn the_bundle_holds_the_images_roots_and_every_certificate_of_the_ca() {
    let (old, new) = (TestCa::new("old"), TestCa::new("new"));
    let image = TestCa::new("an image's root");
    let ca = format!("old\n{}\nnew\n{}{}", old.pem(), new.pem(), new.pem());
    let (output, folder) = trust(&ca, Some(image.pem()));
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(
        output.stdout.contains("3 certificates: 2 of the CA"),
        "{output:?}"
    );
    let out = folder.path().join("out");
    assert_eq!(names(&out), ["bundle.pem", "truststore.jks"]);
    let bundle = fs::read_to_string(out.join("bundle.pem")).unwrap();
    assert_eq!(blocks(&bundle), 3);
    for root in [&old, &new, &image] {
        assert!(bundle.contains(root.pem().lines().nth(2).unwrap()));
    }
    assert_eq!(
        (
            mode(&out.join("bundle.pem")),
            mode(&out.join("truststore.jks"))
        ),
        (0o644, 0o644)
    );
    let listed = CommandOutput::of(
        Command::new("keytool")
            .args(["-list", "-storepass", "changeit", "-keystore"])
            .arg(out.join("truststore.jks")),
    );
    assert!(listed.stdout.contains("contains 3 entries"), "{listed:?}");
}

#[test]
fn the_images_own_roots_are_found_without_being_named() {
    let ca = TestCa::new("a CA");
    let (output, folder) = trust(ca.pem(), None);
    assert_eq!(output.code, Some(0), "{output:?}");
    let bundle = fs::read_to_string(folder.path().join("out/bundle.pem")).unwrap();
    assert!(blocks(&bundle) > 50, "{output:?}");
}

#[test]
fn a_variable_that_names_the_bundle_itself_names_no_roots() {
    let ca = TestCa::new("a CA");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    fs::write(&file, ca.pem()).unwrap();
    for _ in 0..2 {
        let mut command = outgate(&["trust"]);
        command
            .arg("--ca")
            .arg(&file)
            .arg("--out")
            .arg(folder.path());
        let output =
            CommandOutput::of(command.env("SSL_CERT_FILE", folder.path().join("bundle.pem")));
        assert_eq!(output.code, Some(0), "{output:?}");
        assert!(output.stdout.contains("others from /etc/"), "{output:?}");
    }
}

#[test]
fn an_image_without_roots_is_a_warning() {
    let ca = TestCa::new("a CA");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    fs::write(&file, ca.pem()).unwrap();
    // An image with nothing in /etc: the program, and the folders that are mounted.
    let script =
        "mount --bind \"$1/empty\" /etc && exec \"$0\" trust --ca \"$1/ca.crt\" --out \"$1\"";
    fs::create_dir(folder.path().join("empty")).unwrap();
    let mut command = super::network::unshare();
    command
        .args(["sh", "-ec", script])
        .arg(binary())
        .arg(folder.path());
    let output = CommandOutput::of(
        command
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR"),
    );
    // What the machine has outside /etc, such as /usr/lib/ssl, leads there too.
    assert_eq!(output.code, Some(0), "{output:?}");
    assert!(output.stderr.contains("no roots"), "{output:?}");
    let bundle = fs::read_to_string(folder.path().join("bundle.pem")).unwrap();
    assert_eq!(blocks(&bundle), 1);
}

#[test]
fn a_file_that_is_no_ca_is_an_error_and_nothing_is_written() {
    let ca = TestCa::new("a CA");
    let (certificate, key) = ca.issue_pem(&["a.test"]);
    let damaged = ca.pem().replacen("MII", "!!!", 1);
    for (text, said) in [
        (String::new(), "no certificate"),
        ("a CA, honestly".to_owned(), "no certificate"),
        (format!("{certificate}{key}"), "private key"),
        (format!("{}{damaged}", ca.pem()), "no PEM"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(),
            "no certificate",
        ),
    ] {
        let (output, folder) = trust(&text, Some(ca.pem()));
        assert_eq!(output.code, Some(1), "{said}: {output:?}");
        assert!(output.stderr.contains(said), "{said}: {output:?}");
        assert!(names(&folder.path().join("out")).is_empty());
    }
    let output = CommandOutput::of(&mut outgate(&["trust", "--ca=/nowhere", "--out=/tmp"]));
    assert_eq!(output.code, Some(1));
}
