//! The deny codes are a public format: the page that lists them says what the code says.

use outgate_journey::denial::{DenyCode, Fault};

fn table() -> String {
    let rows = DenyCode::ALL.iter().map(|code| {
        let fault = match code.fault() {
            Fault::Client => "client",
            Fault::Policy => "policy",
            Fault::Upstream => "upstream",
            Fault::Gateway => "gateway",
        };
        let (status, message, remedy) = (code.status(), code.message(), code.remedy());
        format!("| `{code}` | {status} | {fault} | {message} | {remedy} |\n")
    });
    let head =
        "| code | status | whose fault | what happened | what to do |\n|---|---|---|---|---|\n";
    head.to_owned() + &rows.collect::<String>()
}

#[test]
fn the_page_of_deny_codes_lists_each_of_them_as_it_is() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/denials.md");
    let text = std::fs::read_to_string(page).unwrap();
    assert!(
        text.contains(&table()),
        "docs/denials.md must hold this table:\n{}",
        table()
    );
}
