//! The supervisor with a real Envoy: its whole life, and every way in which it ends.
//!
//! This program is three things: the tests; the supervisor of one Envoy (`supervise`), so that one can be killed; and
//! the hidden role that becomes Envoy. `OUTGATE_ENVOY` names Envoy, else it is on the PATH; without one these fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
#![allow(clippy::print_stdout, unreachable_pub)]

use std::{
    ffi::OsString,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::mpsc::{Receiver, channel},
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Trial};
use outgate_envoy::supervise::{
    AdminPlace, EnvoyBinary, Event, Expected, HELPER, Order, Ready, Setup, SuperviseError, helper,
    supervise,
};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    match words.next() {
        Some(word) if word == HELPER => helper(words),
        Some(word) if word == "supervise" => supervise_until_killed(&words.next().unwrap()),
        _ => libtest_mimic::run(&Arguments::from_args(), trials()).exit_code(),
    }
}

fn trials() -> Vec<Trial> {
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    vec![
        trial(
            "it_is_ready_when_its_sockets_are_open_and_says_where",
            it_is_ready,
        ),
        trial(
            "the_admin_interface_may_be_on_a_port_that_the_kernel_chooses",
            admin_on_tcp,
        ),
        trial("an_envoy_that_was_killed_is_started_again", crash),
        trial(
            "an_envoy_that_ends_by_itself_is_started_again",
            unexpected_end,
        ),
        trial(
            "a_configuration_that_envoy_refuses_is_refused_in_its_words",
            refused_configuration,
        ),
        trial(
            "an_envoy_that_cannot_start_is_an_error_and_is_not_tried_again",
            cannot_start,
        ),
        trial("a_stop_waits_for_nobody_when_nothing_is_open", idle_stop),
        trial("a_stop_lets_finish_what_is_open", graceful_stop),
        trial(
            "a_stop_cuts_what_is_still_open_after_the_grace_period",
            stop_after_grace,
        ),
        trial("a_second_order_does_not_wait", second_order),
        trial("a_supervisor_that_is_killed_leaves_no_envoy", no_orphan),
        trial(
            "a_control_plane_that_is_not_there_is_said_and_waited_for",
            no_control_plane,
        ),
        trial("two_supervisors_do_not_share_a_folder", one_at_a_time),
        trial(
            "a_program_that_cannot_be_supervised_is_refused",
            unusable_programs,
        ),
    ]
}

// ---- the tests ----

fn it_is_ready() {
    let run = Run::start(|_| {});
    assert!(matches!(run.event(), Event::Starting { attempt: 1, .. }));
    let ready = run.ready();
    assert_eq!(ready.proxy.len(), 1);
    assert_ne!(ready.proxy[0].port(), 0);
    assert!(ready.transparent.is_empty());
    assert_eq!(
        ready.admin,
        AdminPlace::Socket(run.folder().join("admin.sock"))
    );
    assert!(is_alive(ready.pid));
    assert!(get(ready.proxy[0]).contains("served"));
    for (name, mode) in [
        ("", 0o700),
        ("bootstrap.json", 0o600),
        ("admin.sock", 0o600),
    ] {
        let meta = std::fs::metadata(run.folder().join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o777, mode, "{name}");
    }
}

fn admin_on_tcp() {
    let run = Run::start(|setup| setup.admin = AdminPlace::Tcp("127.0.0.1:0".parse().unwrap()));
    let AdminPlace::Tcp(admin) = run.ready().admin else {
        panic!("it was asked for TCP");
    };
    assert_ne!(admin.port(), 0);
    run.order(Order::Stop);
    run.ended().unwrap();
}

fn crash() {
    let run = Run::start(|_| {});
    let first = run.ready().pid;
    kill(first, Signal::KILL);
    let (how, restart_in) = run.ended_by_itself();
    assert!(how.contains("signal 9"), "{how}");
    assert_eq!(restart_in, Duration::from_millis(100));
    assert!(matches!(run.event(), Event::Starting { attempt: 2, .. }));
    let second = run.ready();
    assert_ne!(second.pid, first);
    assert!(get(second.proxy[0]).contains("served"));
    kill(second.pid, Signal::KILL);
    assert_eq!(run.ended_by_itself().1, Duration::from_millis(200));
}

fn unexpected_end() {
    let run = Run::start(|_| {});
    let first = run.ready().pid;
    kill(first, Signal::TERM);
    assert!(run.ended_by_itself().0.contains("exit code 0"));
    assert_ne!(run.ready().pid, first);
}

fn refused_configuration() {
    let folder = TempDir::new().unwrap();
    let bootstrap = json!({ "static_resources": { "listeners": [{ "name": "x", "filter_chains": [{ "filters": [
        { "name": "f", "typed_config": { "@type": "type.googleapis.com/envoy.no.such.Extension" } },
    ] }] }] } });
    let asked = async {
        let envoy = envoy().await;
        let good = envoy.validate(folder.path(), &served()).await;
        (good, envoy.validate(folder.path(), &bootstrap).await)
    };
    let (good, bad) = block_on(asked);
    good.unwrap();
    let error = bad.unwrap_err();
    assert_eq!(error.code(), "envoy_config_refused");
    assert!(
        error.to_string().contains("envoy.no.such.Extension"),
        "{error}"
    );
}

fn cannot_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let run = Run::start(|setup| {
        *setup.bootstrap.pointer_mut(PORT).unwrap() = json!(port);
    });
    let error = run.ended().unwrap_err();
    assert_eq!(error.code(), "envoy_not_started");
    let said = error.to_string();
    assert!(
        said.contains("exit code 1") && said.contains("cannot bind"),
        "{said}"
    );
}

fn idle_stop() {
    let run = Run::start(|setup| setup.grace = Duration::from_secs(60));
    let pid = run.ready().pid;
    let begun = Instant::now();
    run.order(Order::Stop);
    assert!(!run.stopped(), "nothing was open");
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(!is_alive(pid));
    run.ended().unwrap();
}

fn graceful_stop() {
    let run = Run::start(|setup| setup.grace = Duration::from_secs(60));
    let proxy = run.ready().proxy[0];
    let mut open = TcpStream::connect(proxy).unwrap();
    open.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n").unwrap();
    wait_until_served(proxy);
    run.order(Order::Stop);
    assert!(matches!(run.event(), Event::Stopping { .. }));
    wait_until_draining(proxy);
    open.write_all(b"\r\n").unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(
        answer.contains("served") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(!run.stopped(), "it had finished");
}

fn stop_after_grace() {
    let run = Run::start(|setup| setup.grace = Duration::from_millis(300));
    let proxy = run.ready().proxy[0];
    let _open = TcpStream::connect(proxy).unwrap();
    wait_until_served(proxy);
    run.order(Order::Stop);
    assert!(run.stopped(), "it was open");
}

fn second_order() {
    let run = Run::start(|setup| setup.grace = Duration::from_secs(60));
    let ready = run.ready();
    let _open = TcpStream::connect(ready.proxy[0]).unwrap();
    wait_until_served(ready.proxy[0]);
    let begun = Instant::now();
    run.order(Order::Stop);
    assert!(matches!(run.event(), Event::Stopping { .. }));
    run.order(Order::Stop);
    assert!(run.stopped());
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    assert!(!is_alive(ready.pid));
}

fn no_orphan() {
    let folder = TempDir::new().unwrap();
    let mut supervisor = Command::new(std::env::current_exe().unwrap())
        .arg("supervise")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(supervisor.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let pid: u32 = line.trim().parse().unwrap();
    assert!(is_alive(pid));
    supervisor.kill().unwrap();
    supervisor.wait().unwrap();
    let until = Instant::now() + PATIENCE;
    while is_alive(pid) {
        assert!(Instant::now() < until, "Envoy outlived its supervisor");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn no_control_plane() {
    let run = Run::start(|setup| {
        let socket = setup.folder.join("xds.sock");
        setup.bootstrap = dynamic(&socket);
        setup.control = Some(format!("unix:{}", socket.display()));
    });
    let begun = Instant::now();
    let Event::Starting { pid, .. } = run.event() else {
        panic!("it starts first");
    };
    loop {
        match run.event() {
            Event::Notice(notice) if notice.code == "control_plane_unreachable" => {
                assert!(notice.text.contains("xds.sock"), "{}", notice.text);
                assert!(notice.remedy.contains("outgate serve"));
                break;
            }
            Event::Ready(_) => panic!("without listeners it is not ready"),
            _ => {}
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(10));
    run.order(Order::Stop);
    run.ended().unwrap();
    assert!(!is_alive(pid));
}

fn one_at_a_time() {
    let first = Run::start(|_| {});
    let ready = first.ready();
    let second = Run::start(|setup| setup.folder = first.folder());
    assert_eq!(second.ended().unwrap_err().code(), "envoy_folder_in_use");
    assert!(is_alive(ready.pid));
    assert!(get(ready.proxy[0]).contains("served"));
}

fn unusable_programs() {
    let folder = TempDir::new().unwrap();
    let program = |name: &str, text: &str, mode: u32| {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let version = |number: &str| format!("envoy  version: 9e55/{number}/Clean/RELEASE/BoringSSL");
    let cases = [
        (folder.path().join("missing"), "envoy_unusable"),
        (program("other", "GNU bash", 0o700), "envoy_unusable"),
        (program("silent", "x", 0o600), "envoy_unusable"),
        (program("old", &version("1.39.2"), 0o700), "envoy_too_old"),
        (
            program("mighty", &version("1.40.0"), 0o4700),
            "envoy_privileged",
        ),
    ];
    for (path, code) in cases {
        let error = block_on(EnvoyBinary::find(Some(&path))).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
    let newer = program("newer", &version("1.99.0"), 0o700);
    assert!(
        block_on(EnvoyBinary::find(Some(&newer)))
            .unwrap()
            .is_newer_than_known()
    );
}

// ---- what they need ----

const PORT: &str = "/static_resources/listeners/0/address/socket_address/port_value";

/// Answers every request by itself.
fn served() -> Value {
    let hcm = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "x",
        "http_filters": [{ "name": "router", "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } }],
        "route_config": { "virtual_hosts": [{ "name": "x", "domains": ["*"], "routes": [
            { "match": { "prefix": "/" }, "direct_response": { "status": 200, "body": { "inline_string": "served" } } },
        ] }] },
    });
    json!({ "static_resources": { "listeners": [{
        "name": "outgate_proxy",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 0 } },
        "filter_chains": [{ "filters": [{ "name": "hcm", "typed_config": hcm }] }],
    }] } })
}

/// Asks a control plane for everything, and waits for ever.
fn dynamic(socket: &Path) -> Value {
    let options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    let mut cluster = json!({
        "name": "outgate_xds", "type": "STATIC",
        "load_assignment": { "cluster_name": "outgate_xds", "endpoints": [{ "lb_endpoints": [
            { "endpoint": { "address": { "pipe": { "path": socket } } } },
        ] }] },
    });
    cluster["typed_extension_protocol_options"][options] = json!({
        "@type": format!("type.googleapis.com/{options}"),
        "explicit_http_config": { "http2_protocol_options": {} },
    });
    json!({
        "node": { "id": "e", "cluster": "e" },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC", "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "outgate_xds" } }],
            },
            "lds_config": { "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" },
        },
        "static_resources": { "clusters": [cluster] },
    })
}

async fn envoy() -> EnvoyBinary {
    let named = std::env::var_os("OUTGATE_ENVOY").map(PathBuf::from);
    EnvoyBinary::find(named.as_deref())
        .await
        .unwrap_or_else(|error| panic!("these tests need Envoy; OUTGATE_ENVOY names one: {error}"))
}

async fn setup(folder: &Path) -> Setup {
    let folder = folder.join("envoy");
    Setup {
        binary: envoy().await,
        helper: std::env::current_exe().unwrap(),
        admin: AdminPlace::Socket(folder.join("admin.sock")),
        folder,
        bootstrap: served(),
        proxy: Expected {
            prefix: "outgate_proxy".to_owned(),
            count: 1,
        },
        transparent: Expected {
            prefix: "outgate_transparent".to_owned(),
            count: 0,
        },
        control: None,
        concurrency: 1,
        grace: Duration::from_secs(5),
        further: Vec::new(),
        log_secrets: false,
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// A supervisor on a thread of its own.
struct Run {
    folder: TempDir,
    events: Receiver<Event>,
    orders: tokio::sync::mpsc::Sender<Order>,
    result: Receiver<Result<(), SuperviseError>>,
}

impl Run {
    fn start(change: impl FnOnce(&mut Setup)) -> Self {
        let folder = TempDir::new().unwrap();
        let mut setup = block_on(setup(folder.path()));
        change(&mut setup);
        let (event, events) = channel();
        let (orders, mut ordered) = tokio::sync::mpsc::channel(4);
        let (end, result) = channel();
        std::thread::spawn(move || {
            let mut tell = |happened| drop(event.send(happened));
            let _ = end.send(block_on(supervise(&setup, &mut ordered, &mut tell)));
        });
        Self {
            folder,
            events,
            orders,
            result,
        }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("envoy")
    }

    /// The next that is not a line of the log.
    fn event(&self) -> Event {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(Event::Log(_)) => {}
                Ok(event) => return event,
                Err(error) => panic!("{error}: {:?}", self.result.try_recv()),
            }
        }
    }

    fn ready(&self) -> Ready {
        loop {
            match self.event() {
                Event::Ready(ready) => return ready,
                Event::Starting { .. } | Event::Notice(_) => {}
                event => panic!("not ready: {event:?}"),
            }
        }
    }

    fn ended_by_itself(&self) -> (String, Duration) {
        match self.event() {
            Event::Ended {
                how, restart_in, ..
            } => (how, restart_in),
            event => panic!("it has not ended: {event:?}"),
        }
    }

    fn order(&self, order: Order) {
        self.orders.blocking_send(order).unwrap();
    }

    /// Whether something was cut when it stopped.
    fn stopped(&self) -> bool {
        loop {
            match self.event() {
                Event::Stopped { cut } => return cut,
                Event::Stopping { .. } | Event::Notice(_) => {}
                event => panic!("it has not stopped: {event:?}"),
            }
        }
    }

    fn ended(&self) -> Result<(), SuperviseError> {
        self.result.recv_timeout(PATIENCE).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Its folder stays until Envoy is gone.
        let _ = self.orders.blocking_send(Order::Kill);
        let _ = self.result.recv_timeout(PATIENCE);
    }
}

/// The role of a supervisor that is killed: says which process its Envoy is.
fn supervise_until_killed(folder: &OsString) -> ExitCode {
    block_on(async {
        let setup = setup(Path::new(folder)).await;
        let (_orders, mut ordered) = tokio::sync::mpsc::channel(1);
        let mut tell = |event| {
            if let Event::Ready(ready) = event {
                println!("{}", ready.pid);
            }
        };
        supervise(&setup, &mut ordered, &mut tell).await.unwrap();
    });
    ExitCode::SUCCESS
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.cast_signed()).unwrap()
}

fn kill(number: u32, signal: Signal) {
    kill_process(pid(number), signal).unwrap();
}

/// A zombie of somebody who does not reap has ended, too.
fn is_alive(number: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{number}/stat"));
    test_kill_process(pid(number)).is_ok() && !stat.is_ok_and(|it| it.contains(") Z "))
}

fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What was connected before is accepted when this comes back: the queue is in order, and there is one worker.
fn wait_until_served(address: SocketAddr) {
    assert!(get(address).contains("served"));
}

/// Clients that would stay are asked to leave, and when Envoy's own time for that is over, new ones are refused.
fn wait_until_draining(address: SocketAddr) {
    let until = Instant::now() + PATIENCE;
    while matches!(asked_to_leave(address), Ok(false)) {
        assert!(Instant::now() < until, "it does not drain");
    }
}

fn asked_to_leave(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"served") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&answer).contains("connection: close"))
}
