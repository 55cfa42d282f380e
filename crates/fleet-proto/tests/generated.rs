//! The checked-in code is what its source says, and the service has no method that would change anything.

use std::{fs, path::Path};

use protox::prost_reflect::DescriptorPool;

const SOURCE: &str = "outgate/fleet/v1/fleet.proto";

#[test]
fn the_checked_in_code_is_what_the_source_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let files = protox::compile([SOURCE], [root.join("proto")]).unwrap();
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(folder.path())
        .compile_fds(files)
        .unwrap();
    let generated = fs::read_to_string(folder.path().join("outgate.fleet.v1.rs")).unwrap();
    let checked_in = root.join("src/generated.rs");
    if std::env::var_os("OUTGATE_BLESS").is_some() {
        fs::write(&checked_in, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&checked_in).unwrap() == generated,
        "src/generated.rs is not what fleet.proto generates: run this test with OUTGATE_BLESS=1"
    );
}

#[test]
fn a_gateway_can_follow_and_report_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("proto");
    let files = protox::compile([SOURCE], [root]).unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    let methods: Vec<(String, String, bool)> = pool
        .services()
        .flat_map(|service| {
            service
                .methods()
                .map(|m| {
                    (
                        m.name().to_owned(),
                        m.input().name().to_owned(),
                        m.is_client_streaming(),
                    )
                })
                .collect::<Vec<_>>()
        })
        .collect();
    let expected = [("Follow", "FollowRequest"), ("Report", "ReportRequest")];
    assert_eq!(
        methods,
        expected.map(|(name, input)| (name.to_owned(), input.to_owned(), false))
    );
    // What a report can carry is counters and a session's id: no text that would be acted on.
    let anomaly = pool
        .get_message_by_name("outgate.fleet.v1.ReportRequest")
        .unwrap();
    let fields: Vec<String> = anomaly.fields().map(|f| f.name().to_owned()).collect();
    assert_eq!(fields, ["anomalies", "lost"]);
}
