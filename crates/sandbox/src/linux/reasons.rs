//! A step's failure in words: which of the machine's settings forbids the isolation, and who can change it.

use std::io;

use rustix::io::Errno;

use super::FRESH_PROC;
use super::protocol::{Failure, Stage};
use crate::SandboxError;

/// What the failure means to the user.
pub(super) fn explain(failure: Failure) -> SandboxError {
    // 0 is no errno: the failure was not the kernel's.
    let errno = if (1..4096).contains(&failure.errno) {
        Errno::from_raw_os_error(failure.errno)
    } else {
        Errno::IO
    };
    let why = if failure.errno == 0 {
        "refused".to_owned()
    } else {
        reason(failure.errno)
    };
    match failure.stage {
        Stage::Stream => {
            let (stream, what) = failure.step.split_once(" is ").unwrap_or((&failure.step, "unsuitable"));
            SandboxError::Stream { stream: stream.to_owned(), what: what.to_owned() }
        }
        Stage::Start if errno == Errno::NOENT => SandboxError::NotFound { program: failure.step },
        Stage::Start if errno == Errno::LIBACC => {
            SandboxError::NotExecutable { program: failure.step, why: "its interpreter does not exist".to_owned() }
        }
        Stage::Start => SandboxError::NotExecutable { program: failure.step, why },
        Stage::Namespace if is_refusal(errno) => forbidden(&failure.step, errno, &settings()),
        Stage::Mount if failure.step == FRESH_PROC && errno == Errno::PERM => SandboxError::Forbidden {
            why: format!("cannot {FRESH_PROC}: parts of the /proc that is there are covered, as in a container"),
            how_to: "Start the container with an unmasked /proc (Docker: --security-opt systempaths=unconfined; \
                     Kubernetes: securityContext.procMount: Unmasked)"
                .to_owned(),
        },
        _ => SandboxError::Setup { step: failure.step, why },
    }
}

/// Answers of a kernel that will not have it, other than those of a fault.
fn is_refusal(errno: Errno) -> bool {
    [
        Errno::PERM,
        Errno::ACCESS,
        Errno::NOSPC,
        Errno::USERS,
        Errno::INVAL,
        Errno::NOSYS,
    ]
    .contains(&errno)
}

/// What this machine says about namespaces; `None`: it has no such setting.
struct Settings {
    unprivileged_clone: Option<String>,
    apparmor: Option<String>,
    /// Names of the limits that are 0.
    zero_limits: Vec<&'static str>,
    filtered: bool,
}

fn settings() -> Settings {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let limits = [
        "max_user_namespaces",
        "max_net_namespaces",
        "max_mnt_namespaces",
        "max_pid_namespaces",
        "max_ipc_namespaces",
    ];
    let zero =
        |name: &&str| read(&format!("/proc/sys/user/{name}")).is_some_and(|limit| limit == "0");
    Settings {
        unprivileged_clone: read("/proc/sys/kernel/unprivileged_userns_clone"),
        apparmor: read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
        zero_limits: limits.into_iter().filter(zero).collect(),
        filtered: read("/proc/self/status").is_some_and(|status| status.contains("\nSeccomp:\t2")),
    }
}

fn forbidden(step: &str, errno: Errno, settings: &Settings) -> SandboxError {
    let (cause, how_to) = if errno == Errno::NOSPC || errno == Errno::USERS {
        match settings.zero_limits.first() {
            Some(limit) => (
                format!("the limit user.{limit} is 0"),
                format!("An administrator can raise it: sysctl -w user.{limit}=10000"),
            ),
            None => (
                "the limit on namespaces is reached, or they are nested too deep".to_owned(),
                "An administrator can raise the limits: see `sysctl -a --pattern '^user.max_'`"
                    .to_owned(),
            ),
        }
    } else if settings.unprivileged_clone.as_deref() == Some("0") {
        (
            "kernel.unprivileged_userns_clone is 0".to_owned(),
            "An administrator can allow it: sysctl -w kernel.unprivileged_userns_clone=1"
                .to_owned(),
        )
    } else if settings.apparmor.as_deref() == Some("1") {
        (
            "kernel.apparmor_restrict_unprivileged_userns is 1 and no AppArmor profile allows this program".to_owned(),
            "An administrator can add a profile for it with `userns,` (as Ubuntu has for browsers), or allow all: \
             sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
                .to_owned(),
        )
    } else if settings.filtered {
        (
            "a filter of system calls is in force, as in a container".to_owned(),
            "Start the container with one that allows unshare, clone and mount (Docker: --security-opt \
             seccomp=FILE or seccomp=unconfined, and --security-opt apparmor=unconfined)"
                .to_owned(),
        )
    } else if errno == Errno::INVAL || errno == Errno::NOSYS {
        (
            "this kernel is built without it".to_owned(),
            "A kernel with CONFIG_USER_NS and CONFIG_NET_NS is needed".to_owned(),
        )
    } else {
        (
            "a security module, a chroot or a container forbids it".to_owned(),
            "An administrator can allow unprivileged user namespaces for this user".to_owned(),
        )
    };
    SandboxError::Forbidden {
        why: format!("cannot {step}: {} ({cause})", reason(errno.raw_os_error())),
        how_to,
    }
}

/// The kernel's word without the number that the standard library adds.
pub(super) fn reason(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            unprivileged_clone: None,
            apparmor: None,
            zero_limits: vec![],
            filtered: false,
        }
    }

    fn said(errno: Errno, settings: &Settings) -> String {
        forbidden("make namespaces", errno, settings).to_string()
    }

    #[test]
    fn each_setting_that_forbids_it_is_named() {
        for (errno, settings, word) in [
            (
                Errno::NOSPC,
                Settings {
                    zero_limits: vec!["max_user_namespaces"],
                    ..settings()
                },
                "user.max_user_namespaces=10000",
            ),
            (Errno::NOSPC, settings(), "limit on namespaces is reached"),
            (
                Errno::PERM,
                Settings {
                    unprivileged_clone: Some("0".into()),
                    ..settings()
                },
                "kernel.unprivileged_userns_clone=1",
            ),
            (
                Errno::ACCESS,
                Settings {
                    apparmor: Some("1".into()),
                    ..settings()
                },
                "AppArmor profile",
            ),
            (
                Errno::PERM,
                Settings {
                    filtered: true,
                    ..settings()
                },
                "seccomp=unconfined",
            ),
            (Errno::INVAL, settings(), "CONFIG_USER_NS"),
            (Errno::PERM, settings(), "security module"),
        ] {
            let text = said(errno, &settings);
            assert!(text.contains(word), "{errno:?}: {text}");
        }
    }

    #[test]
    fn failures_are_told_apart() {
        let code = |stage, step: &str, errno: Errno| {
            explain(Failure {
                stage,
                step: step.into(),
                errno: errno.raw_os_error(),
            })
            .code()
        };
        assert_eq!(code(Stage::Start, "x", Errno::NOENT), "command_not_found");
        assert_eq!(
            code(Stage::Start, "x", Errno::ACCESS),
            "command_not_executable"
        );
        assert_eq!(
            code(Stage::Namespace, "make namespaces", Errno::PERM),
            "isolation_forbidden"
        );
        assert_eq!(
            code(Stage::Namespace, "make namespaces", Errno::NOMEM),
            "sandbox_setup_failed"
        );
        assert_eq!(
            code(Stage::Mount, FRESH_PROC, Errno::PERM),
            "isolation_forbidden"
        );
        assert_eq!(
            code(Stage::Mount, "hide /x", Errno::PERM),
            "sandbox_setup_failed"
        );
        assert_eq!(
            code(Stage::Network, "listen", Errno::ADDRINUSE),
            "sandbox_setup_failed"
        );
        assert_eq!(
            code(Stage::Stream, "input is a folder", Errno::IO),
            "stream_not_allowed"
        );
        let failure = Failure {
            stage: Stage::Namespace,
            step: "do it".into(),
            errno: 0,
        };
        assert_eq!(explain(failure).to_string(), "cannot do it: refused");
    }
}
