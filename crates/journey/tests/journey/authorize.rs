use http::Method;
use outgate_journey::{
    authorize::authorize,
    denial::DenyCode::{
        self, HeaderNotAllowed, MethodNotAllowed, PathAmbiguous, PathNotAllowed, RequestDenied,
    },
    policy::RequestRule,
};

use crate::support::{allowed, headers, policy, requests, rule};

type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<DenyCode>);

fn judge(allow: &[RequestRule], deny: &[RequestRule], cases: &[Case<'_>]) {
    let policy = policy(vec![rule("a.test", |rule| {
        rule.requests.allow = allow.to_vec();
        rule.requests.deny = deny.to_vec();
    })]);
    for (method, path, fields, expected) in cases {
        let method: Method = method.parse().unwrap();
        let result = authorize(
            allowed(&policy, "a.test:443"),
            &method,
            path,
            &headers(fields),
        );
        match result {
            Ok(permit) => {
                assert_eq!(*expected, None, "{method} {path} {fields:?}");
                assert_eq!(permit.allowed().destination().to_string(), "a.test:443");
            }
            Err(denial) => {
                assert_eq!(Some(denial.code()), *expected, "{method} {path} {fields:?}");
                assert_eq!(denial.rule().unwrap().as_str(), "rule a.test");
            }
        }
    }
}

#[test]
fn without_request_rules_every_request_passes_however_its_path_is_spelled() {
    judge(
        &[],
        &[],
        &[
            ("GET", "/", &[], None),
            ("PURGE", "/a/../%2e%2e//b", &[], None),
            ("OPTIONS", "*", &[], None),
        ],
    );
}

#[test]
fn methods_are_compared_exactly() {
    judge(
        &[requests(&["GET", "POST"], &[], &[])],
        &[],
        &[
            ("GET", "/", &[], None),
            ("POST", "/x", &[], None),
            ("get", "/", &[], Some(MethodNotAllowed)),
            ("HEAD", "/", &[], Some(MethodNotAllowed)),
            ("GETS", "/", &[], Some(MethodNotAllowed)),
        ],
    );
}

#[test]
fn paths_are_judged_and_ambiguous_ones_are_refused_only_where_they_are() {
    judge(
        &[requests(&[], &["/v1/**", "/health"], &[])],
        &[],
        &[
            ("GET", "/v1/x", &[], None),
            ("GET", "/health", &[], None),
            ("GET", "/v2/x", &[], Some(PathNotAllowed)),
            ("GET", "/V1/x", &[], Some(PathNotAllowed)),
            ("GET", "/v1/../v2", &[], Some(PathAmbiguous)),
            ("GET", "/v1/%2e%2e/v2", &[], Some(PathAmbiguous)),
            ("GET", "/v1/a%2Fb", &[], Some(PathAmbiguous)),
            ("GET", "/v1//x", &[], Some(PathAmbiguous)),
            ("GET", "/v1/x;p", &[], Some(PathAmbiguous)),
            ("OPTIONS", "*", &[], Some(PathAmbiguous)),
        ],
    );
    judge(
        &[requests(&["GET"], &[], &[])],
        &[],
        &[("GET", "/v1/../v2", &[], None)],
    );
    // A deny rule with a path judges paths as well, or its spelling would be the way around it.
    judge(
        &[],
        &[requests(&[], &["/admin/**"], &[])],
        &[
            ("GET", "/public", &[], None),
            ("GET", "/admin/x", &[], Some(RequestDenied)),
            ("GET", "/x/../admin/x", &[], Some(PathAmbiguous)),
            ("GET", "/%61dmin/x", &[], Some(PathAmbiguous)),
        ],
    );
}

#[test]
fn every_value_of_a_named_field_must_be_a_given_one() {
    judge(
        &[requests(&[], &[], &["x-mode: a|b", "x-team"])],
        &[],
        &[
            ("GET", "/", &[("x-mode", "a"), ("x-team", "any")], None),
            (
                "GET",
                "/",
                &[("x-mode", "a"), ("X-Mode", "b"), ("x-team", "")],
                None,
            ),
            (
                "GET",
                "/",
                &[("x-mode", "a"), ("x-mode", "c"), ("x-team", "any")],
                Some(HeaderNotAllowed),
            ),
            (
                "GET",
                "/",
                &[("x-mode", "c"), ("x-mode", "a"), ("x-team", "any")],
                Some(HeaderNotAllowed),
            ),
            (
                "GET",
                "/",
                &[("x-mode", "A"), ("x-team", "any")],
                Some(HeaderNotAllowed),
            ),
            (
                "GET",
                "/",
                &[("x-mode", "a, c"), ("x-team", "any")],
                Some(HeaderNotAllowed),
            ),
            ("GET", "/", &[("x-mode", "a")], Some(HeaderNotAllowed)),
            ("GET", "/", &[("x-team", "any")], Some(HeaderNotAllowed)),
            ("GET", "/", &[], Some(HeaderNotAllowed)),
        ],
    );
}

#[test]
fn deny_wins_over_allow_and_covers_only_what_meets_all_of_it() {
    judge(
        &[requests(&[], &["/v1/**"], &[])],
        &[
            requests(&["DELETE"], &[], &[]),
            requests(&["POST"], &["/v1/keys/**"], &["x-scope: admin"]),
        ],
        &[
            ("GET", "/v1/keys/1", &[], None),
            ("DELETE", "/v1/x", &[], Some(RequestDenied)),
            ("DELETE", "/v2/x", &[], Some(RequestDenied)),
            (
                "POST",
                "/v1/keys/1",
                &[("x-scope", "admin")],
                Some(RequestDenied),
            ),
            (
                "POST",
                "/v1/keys/1",
                &[("x-scope", "user"), ("x-scope", "admin")],
                Some(RequestDenied),
            ),
            ("POST", "/v1/keys/1", &[("x-scope", "user")], None),
            ("POST", "/v1/keys/1", &[], None),
            ("POST", "/v1/other", &[("x-scope", "admin")], None),
        ],
    );
}

#[test]
fn a_denial_names_what_would_have_to_change_first() {
    judge(
        &[
            requests(&["GET"], &["/a/**"], &[]),
            requests(&["POST"], &["/b/**"], &["x-mode: a"]),
        ],
        &[],
        &[
            ("GET", "/a/1", &[], None),
            ("POST", "/b/1", &[("x-mode", "a")], None),
            ("GET", "/c", &[], Some(PathNotAllowed)),
            ("POST", "/a/1", &[("x-mode", "a")], Some(MethodNotAllowed)),
            ("GET", "/b/1", &[("x-mode", "a")], Some(MethodNotAllowed)),
            ("POST", "/b/1", &[("x-mode", "b")], Some(HeaderNotAllowed)),
            ("POST", "/b/1", &[], Some(HeaderNotAllowed)),
        ],
    );
}
