//! Decides what a variable's name says about its value: a secret, a handle to a program outside, a proxy. Names are
//! judged in upper case; a name that is no text is none of these.

use std::ffi::OsStr;

/// Handles to agents, sessions and sockets of the machine outside: keys that sign, daemons that start containers,
/// editors and terminals that run commands.
const AGENTS: [&str; 25] = [
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_CONTROL",
    "GNOME_KEYRING_PID",
    "KRB5CCNAME",
    "DBUS_SESSION_BUS_ADDRESS",
    "DBUS_SYSTEM_BUS_ADDRESS",
    "DBUS_STARTER_ADDRESS",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "SESSION_MANAGER",
    "DOCKER_HOST",
    "CONTAINER_HOST",
    "BUILDKIT_HOST",
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "TMUX",
    "STY",
    "VSCODE_IPC_HOOK",
    "VSCODE_IPC_HOOK_CLI",
    "VSCODE_GIT_IPC_HANDLE",
];

/// Proxies, in any letter case, and the lists of exceptions from them.
const PROXIES: [&str; 20] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "FTP_PROXY",
    "FTPS_PROXY",
    "SOCKS_PROXY",
    "SOCKS4_PROXY",
    "SOCKS5_PROXY",
    "SOCKS_SERVER",
    "RSYNC_PROXY",
    "GRPC_PROXY",
    "WS_PROXY",
    "WSS_PROXY",
    "NO_PROXY",
    "NO_GRPC_PROXY",
    "NPM_CONFIG_PROXY",
    "NPM_CONFIG_HTTP_PROXY",
    "NPM_CONFIG_HTTPS_PROXY",
    "NPM_CONFIG_NOPROXY",
    "PIP_PROXY",
];

/// Words that make a name a secret's wherever they stand in it.
const ANYWHERE: [&str; 5] = [
    "SECRET",
    "SECRETS",
    "CREDENTIAL",
    "CREDENTIALS",
    "PASSPHRASE",
];
/// Words that make a name a secret's at its end.
const AT_END: [&str; 16] = [
    "KEY",
    "KEYS",
    "APIKEY",
    "TOKEN",
    "PASSWORD",
    "PASSWORDS",
    "PASSWD",
    "PASS",
    "PAT",
    "JWT",
    "BEARER",
    "AUTH",
    "AUTHTOKEN",
    "COOKIE",
    "COOKIES",
    "WEBHOOK",
];
/// Names without such a word.
const NAMED: [&str; 4] = ["AWS_ACCESS_KEY_ID", "MYSQL_PWD", "PGPASSFILE", "NETRC"];
/// Ends of words that are written without a gap: `PGPASSWORD`, `SSHPASS`, `MYAPIKEY`.
const RUN_TOGETHER: [&str; 6] = [
    "PASSWORD",
    "PASSWD",
    "APIKEY",
    "SSHPASS",
    "SECRETKEY",
    "ACCESSTOKEN",
];
/// Names that look like secrets and are none: fingerprints and ids of public keys.
const HARMLESS: [&str; 3] = ["GPG_KEY", "GPG_KEYS", "GPGKEY"];

fn upper(name: &OsStr) -> Option<String> {
    name.to_str().map(str::to_ascii_uppercase)
}

pub(super) fn is_agent(name: &OsStr) -> bool {
    upper(name).is_some_and(|name| AGENTS.contains(&name.as_str()))
}

pub(super) fn is_proxy(name: &OsStr) -> bool {
    upper(name).is_some_and(|name| PROXIES.contains(&name.as_str()))
}

pub(super) fn looks_secret(name: &OsStr) -> bool {
    let Some(name) = upper(name) else {
        return false;
    };
    // git's own settings; without one of the pairs it does not start.
    if HARMLESS.contains(&name.as_str()) || name.starts_with("GIT_CONFIG_KEY_") {
        return false;
    }
    if NAMED.contains(&name.as_str()) {
        return true;
    }
    // A number at the end counts the secrets: `API_KEY_2`.
    let unnumbered = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let words: Vec<&str> = unnumbered.split(['_', '-', '.']).collect();
    if words.iter().any(|word| ANYWHERE.contains(word)) {
        return true;
    }
    let Some((last, before)) = words.split_last() else {
        return false;
    };
    // A public key is for everyone.
    let is_public = before.last() == Some(&"PUBLIC") || before.last() == Some(&"PUB");
    let ends = AT_END.contains(last) || RUN_TOGETHER.iter().any(|end| last.ends_with(end));
    ends && !is_public
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_others() {
        for name in [
            "OPENAI_API_KEY",
            "openai_api_key",
            "API_KEY_2",
            "KEY1",
            "GITHUB_TOKEN",
            "TOKEN",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_ACCESS_KEY_ID",
            "CLIENT_SECRET",
            "SECRET_KEY_BASE",
            "CLIENT_SECRET_ID",
            "DB_PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "SSHPASS",
            "GITLAB_PAT",
            "AZURE_DEVOPS_EXT_PAT",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "SSH_PRIVATE_KEY",
            "KEY_PASSPHRASE",
            "npm_config__authtoken",
            "NPM_CONFIG__AUTH",
            "STRIPE-API-KEY",
            "DATABASE.PASSWORD",
        ] {
            assert!(looks_secret(name.as_ref()), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "PWD",
            "OLDPWD",
            "LANG",
            "TERM",
            "GPG_KEY",
            "GPG_TTY",
            "KEYMAP",
            "KEYBOARD_LAYOUT",
            "TOKENIZERS_PARALLELISM",
            "MAX_TOKENS_PER_RUN",
            "MAX_THINKING_TOKENS",
            "GIT_CONFIG_KEY_0",
            "SSH_CONNECTION",
            "SSH_TTY",
            "SSH_ASKPASS",
            "GIT_ASKPASS",
            "DEPLOY_PUBLIC_KEY",
            "SIGNING_PUB_KEY",
            "XDG_RUNTIME_DIR",
            "COMPASS",
            "BYPASS",
            "MONKEY",
            "AUTHOR",
            "GIT_AUTHOR_NAME",
            "PASSWORD_STORE_DIR",
            "PATTERN",
            "",
            "_",
        ] {
            assert!(!looks_secret(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn proxies_are_known_in_every_letter_case_and_go_proxy_is_none() {
        for name in [
            "http_proxy",
            "HTTPS_PROXY",
            "All_Proxy",
            "no_proxy",
            "npm_config_https_proxy",
        ] {
            assert!(is_proxy(name.as_ref()), "{name}");
        }
        for name in ["GOPROXY", "PROXY", "NODE_USE_ENV_PROXY", "HTTP_PROXY_X"] {
            assert!(!is_proxy(name.as_ref()), "{name}");
        }
    }
}
