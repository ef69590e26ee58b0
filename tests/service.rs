//! Life as a service, with the real binary: what the supervisor is told, a new configuration
//! without a restart, callbacks, traces, a delivery that is cancelled, and the container's files.

mod support;

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;

use axum::Router;
use axum::extract::State;
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::config::Secret;
use looker_feed::control::view;
use looker_feed::intake;
use looker_feed::looker::Shape;
use looker_feed::model::DataType;
use looker_feed::sandbox::Fault;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use support::{Daemon, PATIENCE, SECRET, World, command, from_url};
use tokio::sync::mpsc::{Receiver, Sender, channel};

fn shape(rows: u64) -> Shape {
    Shape {
        rows,
        users: rows,
        data_type: DataType::Event,
        ..Shape::default()
    }
}

/// A daemon with a file and nothing else.
fn serve(directory: &Path, file: &str, environment: &[(&str, &str)]) -> Daemon {
    let path = directory.join("config.toml");
    std::fs::write(&path, file).unwrap();
    let log = std::fs::File::create(directory.join("log")).unwrap();
    let child = command()
        .args(["serve", "--config"])
        .arg(&path)
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    Daemon::of(child, directory)
}

fn file(directory: &Path, secret: &str, level: &str, more: &str) -> String {
    format!(
        "[intake]\nlisten = '127.0.0.1:0'\nsecret = '{secret}'\n[admin]\nlisten = '127.0.0.1:0'\n\
         [outbox]\npath = '{}'\nreserve_bytes = 0\n[log]\nlevel = '{level}'\n{more}",
        directory.join("outbox").display()
    )
}

fn key_of(secret: &str) -> String {
    intake::new_key(&Secret::new(secret.to_owned())).unwrap()
}

/// What the hub answers to one who signs in with a key.
async fn status_of(daemon: &Daemon, key: &str) -> u16 {
    let request = hyper::Request::post(daemon.hub.as_str())
        .header("authorization", format!("Token token=\"{key}\""))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    client.request(request).await.unwrap().status().as_u16()
}

/// The same with a new key made from `secret`.
async fn hub_status(daemon: &Daemon, secret: &str) -> u16 {
    status_of(daemon, &key_of(secret)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_supervisor_is_told_of_readiness_life_and_the_end() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let file = file(home.path(), SECRET, "info", "");
    let socket_at = ("NOTIFY_SOCKET", path.to_str().unwrap());
    let daemon = serve(
        home.path(),
        &file,
        &[socket_at, ("WATCHDOG_USEC", "100000")],
    );
    assert!(next().starts_with("READY=1"));
    for _ in 0..3 {
        assert_eq!(next(), "WATCHDOG=1");
    }
    let (status, body) = daemon.call("GET", "/livez", "").await;
    assert_eq!((status, &body[..]), (200, &b"ok\n"[..]));
    assert!(daemon.terminate().success());
    while !next().starts_with("STOPPING=1") {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_is_taken_over_as_far_as_it_can_and_a_wrong_one_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.toml");
    let daemon = serve(home.path(), &file(home.path(), SECRET, "info", ""), &[]);
    assert_eq!(hub_status(&daemon, SECRET).await, 200);

    std::fs::write(&path, file(home.path(), "other", "info", "[nonsense]\n")).unwrap();
    daemon.hang_up();
    daemon.says("is refused, and the old one stays").await;
    assert_eq!(hub_status(&daemon, SECRET).await, 200);
    assert_eq!(hub_status(&daemon, "other").await, 403);

    let more = "[mparticle]\nbatches_per_second = 12\npod = 'eu1'\n";
    std::fs::write(&path, file(home.path(), "other", "warn", more)).unwrap();
    daemon.hang_up();
    daemon.says("it has changes that need a restart").await;
    let log = daemon.log();
    let rate = "mparticle.batches_per_second";
    for key in ["intake.secret", rate, "log.level", "[mparticle]"] {
        assert!(log.contains(key), "{key}\n{log}");
    }
    assert!(!log.contains("other") && !log.contains("[outbox]"), "{log}");
    assert_eq!(hub_status(&daemon, "other").await, 200);
    assert_eq!(hub_status(&daemon, SECRET).await, 403);
    // From here on only warnings are written: these two say nothing more of what was taken over.
    std::fs::write(&path, file(home.path(), SECRET, "warn", more)).unwrap();
    daemon.hang_up();
    let again = async || (daemon.log().matches("need a restart").count() > 1).then_some(());
    daemon.until("it is said again", again).await;
    assert_eq!(daemon.log().matches("intake.secret").count(), 1);
    assert_eq!(hub_status(&daemon, SECRET).await, 200);
    assert!(daemon.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_hosts_and_the_number_of_requests_are_changed_while_the_daemon_works() {
    let world = World::new(None).await;
    // Slow enough for requests to be seen in flight.
    world.faults([Fault::Delay { ms: 150 }]);
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("config.toml");
    let config = |secret: &str, intake: &str, hosts: &str, in_flight: u32| {
        let more = format!(
            "[looker]\nallowed_hosts = [{hosts}]\n[mparticle]\nendpoint = '{}'\n\
             max_batches_per_request = 1\nmax_in_flight = {in_flight}\n",
            world.endpoint
        );
        let text = file(home.path(), secret, "info", &more);
        text.replace("[intake]\n", &format!("[intake]\n{intake}"))
    };
    let daemon = serve(home.path(), &config(SECRET, "", "", 1), &[]);
    let (older, newer) = (key_of(SECRET), key_of("the next secret"));
    let statuses = async || {
        let [older, newer] = [&older, &newer].map(|key| status_of(&daemon, key));
        (older.await, newer.await)
    };
    let deliver = async |rows| {
        let document = world.looker.publish(shape(rows));
        let execute = from_url(document, DataType::Event);
        let key = key_of("the next secret");
        looker_feed::looker::execute(&daemon.hub, &key, execute).await
    };
    let mut reloads = 0;
    let mut reload = async |text: String, keys: &[&str]| {
        std::fs::write(&path, text).unwrap();
        daemon.hang_up();
        reloads += 1;
        // The level of the log stays, so each key is named once for each time that it changes.
        let said = async || {
            let log = daemon.log();
            let read = log.matches("reading the configuration again").count();
            (read >= reloads && keys.iter().all(|key| log.contains(key))).then_some(())
        };
        daemon.until("it is said", said).await;
    };
    assert_eq!(statuses().await, (200, 403));

    // A new secret, and the keys of the old one stay good.
    let previous = format!("previous_secrets = ['{SECRET}']\n");
    let text = config("the next secret", &previous, "", 1);
    reload(text, &["intake.previous_secrets"]).await;
    assert_eq!(statuses().await, (200, 200));
    let refused = deliver(3).await.expect("an answer");
    assert!(!refused.is_success());
    let words = refused.message().unwrap_or_default();
    assert!(words.contains("127.0.0.1"), "{words}");

    // One key is revoked, not the others of its secret; and rows may come from here.
    let nonce = older.split('/').next().unwrap();
    let revoked = format!("{previous}revoked_keys = ['{nonce}']\n");
    let text = config("the next secret", &revoked, "'127.0.0.1'", 1);
    reload(text, &["intake.revoked_keys", "looker.allowed_hosts"]).await;
    assert_eq!(statuses().await, (403, 200));
    assert_eq!(hub_status(&daemon, SECRET).await, 200);
    assert!(deliver(60).await.expect("an answer").is_success());

    // One request at a time, and then several.
    let in_flight = async || daemon.overview().await.destinations[0].in_flight;
    for _ in 0..10 {
        assert!(in_flight().await <= 1);
    }
    let text = config("the next secret", &revoked, "'127.0.0.1'", 6);
    reload(text, &["mparticle.max_in_flight"]).await;
    let more = async || (in_flight().await >= 3).then_some(());
    daemon.until("more at a time", more).await;
    assert_eq!(daemon.settled().await[0].rows.delivered, 60);
    assert!(!daemon.log().contains("need a restart"), "{}", daemon.log());
    assert!(!daemon.log().contains(nonce), "{}", daemon.log());
    assert!(daemon.terminate().success());
}

/// A collector of traces: the requests as they came.
async fn collector() -> (String, Receiver<Bytes>, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, heard) = channel(1_000);
    let take = |State(heard): State<Sender<Bytes>>, body: Bytes| async move {
        heard.send(body).await.unwrap();
    };
    let router = Router::new()
        .route("/v1/traces", axum::routing::post(take))
        .with_state(sender);
    let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, heard, server)
}

fn number(span: &Span, name: &str) -> Option<i64> {
    let attribute = span.attributes.iter().find(|one| one.key == name)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        any_value::Value::IntValue(number) => Some(*number),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_gets_the_trace_of_a_delivery_and_of_each_of_its_requests() {
    let world = World::new(None).await;
    let (url, mut heard, server) = collector().await;
    let settings = [
        ("TELEMETRY__OTLP_ENDPOINT", url.as_str()),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "10"),
    ];
    let daemon = world.daemon(&settings);
    let document = world.looker.publish(shape(45));
    daemon.accepts(document, DataType::Event).await;
    let delivery = daemon.settled().await.remove(0);
    assert_eq!(delivery.title, "Large delivery");
    assert!(daemon.terminate().success());
    server.abort();

    let mut spans = Vec::new();
    while let Ok(body) = heard.try_recv() {
        for secret in ["secret-of-it", "key-of-the-account", "Large", "@example"] {
            let held = memchr::memmem::find(&body, secret.as_bytes());
            assert_eq!(held, None, "{secret:?} is in a trace");
        }
        let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
        let resources = request.resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        spans.extend(scopes.flat_map(|scope| scope.spans));
    }
    let id = u128::from_str_radix(&delivery.id, 16)
        .unwrap()
        .to_be_bytes();
    let (own, requests): (Vec<_>, Vec<_>) = spans.into_iter().partition(|span| span.trace_id == id);
    let named = |name: &str| {
        let mut all = own.iter().filter(|span| span.name == name);
        let span = all.next();
        let span = span.unwrap_or_else(|| panic!("no span {name}: {own:?}"));
        assert!(all.next().is_none(), "{name} comes twice");
        span
    };
    let whole = named("delivery");
    assert!(whole.parent_span_id.is_empty() && whole.status.is_none());
    assert_eq!(number(whole, "looker_feed.rows"), Some(45));
    assert_eq!(number(whole, "looker_feed.batches"), Some(45));
    let mut at = whole.start_time_unix_nano;
    for stage in ["receive_decode_map", "group_encode_write", "commit"] {
        let stage = named(&format!("delivery.{stage}"));
        assert_eq!(stage.parent_span_id, whole.span_id);
        assert_eq!(stage.start_time_unix_nano, at, "{stage:?}");
        at = stage.end_time_unix_nano;
    }
    assert_eq!((own.len(), at), (4, whole.end_time_unix_nano));

    assert_eq!(requests.len(), 5);
    let mut batches = 0;
    for request in &requests {
        assert_eq!(request.name, "mparticle.request");
        let link = &request.links[0];
        assert_eq!(link.trace_id, id);
        assert_eq!(link.span_id, whole.span_id);
        assert_ne!(request.trace_id, id);
        assert_eq!(number(request, "http.response.status_code"), Some(202));
        assert_eq!(number(request, "looker_feed.attempt"), Some(1));
        batches += number(request, "looker_feed.batches").unwrap();
    }
    assert_eq!(batches, 45);
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_without_their_collector_which_is_said_once() {
    let world = World::new(None).await;
    // Bound and never listened to: nobody else gets the port, and nobody answers.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    drop(taken);
    let url = format!("http://127.0.0.1:{port}");
    let settings = [("TELEMETRY__OTLP_ENDPOINT", url.as_str())];
    let daemon = world.daemon(&settings);
    let mut dropped = 0;
    for round in 1..=3 {
        let document = world.looker.publish(shape(20));
        daemon.accepts(document, DataType::Event).await;
        assert_eq!(daemon.settled().await.len(), round);
        let counted = async || {
            let spans = daemon.overview().await.spans;
            let spans = spans.expect("a collector is configured");
            assert_eq!(spans.exported, 0);
            (spans.dropped > dropped).then_some(spans.dropped)
        };
        dropped = daemon.until("they are counted", counted).await;
    }
    let log = daemon.log();
    assert_eq!(log.matches("traces cannot be exported").count(), 1, "{log}");
    assert_eq!(world.batches().len(), 60);
    assert!(daemon.terminate().success());
}

async fn hear(State(heard): State<Sender<Value>>, body: String) {
    let message = serde_json::from_str(&body).unwrap();
    heard.send(message).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_tells_of_a_finished_delivery_and_its_address_is_not_logged() {
    let world = World::new(None).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/very-secret", listener.local_addr().unwrap());
    let (sender, mut heard) = channel(100);
    let router = Router::new().fallback(hear).with_state(sender);
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = [
        ("NOTIFY__WEBHOOK_URL", url.as_str()),
        ("LOG__LEVEL", "trace"),
    ];
    let daemon = world.daemon(&settings);
    let document = world.looker.publish(shape(200));
    daemon.accepts(document, DataType::Event).await;
    let message = tokio::time::timeout(PATIENCE, heard.recv()).await;
    let message = message.unwrap().unwrap();
    assert_eq!(message["event"], "delivery_finished");
    assert_eq!(message["delivery"]["rows"]["delivered"], 200);
    assert!(message["delivery"]["finished"].is_u64(), "{message}");
    assert!(!daemon.log().contains("very-secret"), "{}", daemon.log());
    assert!(daemon.terminate().success());
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_cancelled_delivery_is_not_sent_and_the_next_one_is() {
    let world = World::new(None).await;
    // One batch a request and two a second: the rest would take minutes.
    let settings = [
        ("MPARTICLE__BATCHES_PER_SECOND", "2"),
        ("MPARTICLE__MAX_BATCHES_PER_REQUEST", "1"),
        ("MPARTICLE__MAX_IN_FLIGHT", "1"),
    ];
    let daemon = world.daemon(&settings);
    for rows in [2_000, 1] {
        let document = world.looker.publish(shape(rows));
        daemon.accepts(document, DataType::Event).await;
    }
    let claimed = async || {
        daemon
            .deliveries()
            .await
            .pop()
            .filter(|one| one.rows.in_flight > 0)
    };
    let long = daemon.until("its requests are taken up", claimed).await;
    let cancel = format!("/api/v1/deliveries/{}/cancel", long.id);
    let (status, body) = daemon.call("POST", &cancel, "{}").await;
    let text = String::from_utf8_lossy(&body).into_owned();
    assert_eq!(status, 200, "{text}");
    let done: view::Done = serde_json::from_str(&text).unwrap();
    let deliveries = daemon.settled().await;
    let long = deliveries.last().unwrap();
    assert_eq!(long.state, "cancelled");
    // It says of how many rows it is not known yet, and the end lies between.
    let sentence = "that were being sent, those that have not gone out are cancelled too; the rest \
                    end as they do.";
    assert!(done.message.ends_with(sentence), "{}", done.message);
    let words = done.message.split(|c: char| !c.is_ascii_digit());
    let counts: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    let [batches, rows, sending] = counts[..] else {
        panic!("three counts: {}", done.message);
    };
    assert!(batches == done.changed && sending > 0, "{}", done.message);
    let cancelled = long.rows.cancelled;
    let between = (rows..=rows + sending).contains(&cancelled);
    assert!(between, "{cancelled} of {}", done.message);
    assert!(cancelled > 1_000 && long.finished.is_some(), "{long:?}");
    let next = &deliveries[0];
    assert_eq!((&*next.state, next.rows.delivered), ("done", 1));
    let arrived = world.batches().len() as u64;
    assert_eq!(arrived, long.rows.delivered + 1, "{long:?}");
    let again: view::Delivery = daemon.get(&format!("/api/v1/deliveries/{}", long.id)).await;
    assert_eq!(&again, long);
    assert!(daemon.terminate().success());
}

/// The arguments of an instruction of the Dockerfile, one entry each time that it comes.
fn instructions(dockerfile: &str, name: &str) -> Vec<String> {
    let text = dockerfile.replace("\\\n", " ");
    let lines = text.lines();
    let lines = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    words.map(|words| words.join(" ")).collect()
}

#[test]
fn the_container_is_made_of_what_is_there_and_agrees_with_the_configuration() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let dockerfile = read("Dockerfile");
    let ignored = read(".dockerignore");
    let one = |name: &str| {
        let mut all = instructions(&dockerfile, name);
        assert_eq!(all.len(), 1, "{name}: {all:?}");
        all.remove(0)
    };

    // All that the build copies is there, and reaches the engine; all that is built in is copied.
    let (inner, outer): (Vec<_>, Vec<_>) = instructions(&dockerfile, "COPY")
        .into_iter()
        .partition(|copy| copy.starts_with("--from=build "));
    let mut copied = Vec::new();
    for copy in &outer {
        let words: Vec<_> = copy.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root.join(source).exists(), "COPY {source}");
            let exception = format!("!{source}");
            assert!(ignored.lines().any(|line| line == exception), "{source}");
            copied.push((*source).to_owned());
        }
    }
    let mut open = vec![root.join("src")];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for rest in text.split("include_str!(\"").skip(1) {
            let name = rest.split('"').next().unwrap();
            let file = path.parent().unwrap().join(name).canonicalize().unwrap();
            let inside = copied.iter().any(|part| file.starts_with(root.join(part)));
            assert!(inside, "{} is built in and not copied", file.display());
        }
    }

    // One user owns what it must write, and is nobody special.
    let user = one("USER");
    let (uid, _) = user.split_once(':').expect("a user and a group");
    assert!(uid.parse::<u32>().expect("a number") >= 1000);
    let volume = one("VOLUME");
    let owned = format!("--from=build --chown={user} /outbox {volume}");
    assert!(inner.contains(&owned), "{inner:?}");
    assert!(dockerfile.contains("mkdir -m 0700 /outbox"));
    let made = read("packaging/image-root");
    assert!(made.contains(&format!("looker-feed:x:{user}::{volume}:")));

    // The binary is where it is called, and its command is one.
    let binary = "/usr/local/bin/looker-feed";
    let image = "--from=build /image /".to_owned();
    assert!(inner.contains(&image), "{inner:?}");
    assert!(made.contains(&format!("strip -o \"$root{binary}\"")));
    assert_eq!(one("ENTRYPOINT"), format!("[\"{binary}\"]"));
    assert_eq!(one("CMD"), "[\"serve\"]");
    let health = one("HEALTHCHECK");
    let command = format!("CMD [\"{binary}\", \"status\"]");
    assert!(health.ends_with(&command), "{health}");
    assert_eq!(one("STOPSIGNAL"), "SIGTERM");

    // The settings are settings, and they agree with the rest.
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let settings: Vec<(String, String)> = one("ENV")
        .split(' ')
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            (name.to_owned(), value.to_owned())
        })
        .collect();
    let of = |name: &str| {
        let name = format!("LOOKER_FEED_{name}");
        let setting = settings.iter().find(|(own, _)| *own == name);
        setting.map_or_else(|| panic!("{name} is not set"), |(_, value)| value.clone())
    };
    let loadable = settings.iter().cloned().map(|(name, value)| {
        // Only this one is opened when the configuration is read.
        let value = match &*name {
            "LOOKER_FEED_INTAKE__SECRET_FILE" => secret.display().to_string(),
            _ => value,
        };
        (name, value)
    });
    let config = looker_feed::config::load(None, loadable).unwrap();
    assert!(config.require_secret().is_ok());
    assert_eq!(config.intake.listen.port().to_string(), one("EXPOSE"));
    assert!(config.intake.listen.ip().is_unspecified());
    assert!(config.admin.listen.ip().is_loopback());
    assert!(config.outbox.path.starts_with(&volume) && config.outbox.path != Path::new(&volume));
    let key = config.seal.key_file.expect("the key has a place");
    assert!(!key.starts_with(&volume), "it lies beside what it seals");

    // The example of compose gives it what it asks for, and the time to end.
    let compose = read("config/compose-example.yml");
    for path in [of("INTAKE__SECRET_FILE"), of("SEAL__KEY_FILE")] {
        let name = path.strip_prefix("/run/secrets/").expect("their mount");
        assert!(compose.contains(&format!("target: {name}\n")), "{name}");
    }
    assert!(compose.contains(&format!("- outbox:{volume}\n")));
    assert!(compose.contains(&format!("--to feed:{}\n", one("EXPOSE"))));
    let grace = compose.split("stop_grace_period: ").nth(1).unwrap();
    let grace = humantime::parse_duration(grace.lines().next().unwrap()).unwrap();
    assert!(grace > 2 * config.shutdown.deadline);
}
