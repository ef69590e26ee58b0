//! The drain beside a load generator that sends the same bodies, as many at once, to the same
//! stand-in without a limit. Both share the machine with the stand-in, which checks every batch.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use looker_feed::drain::{self, Drain};
use looker_feed::mparticle::client::{Account, Client, ClientSettings};
use looker_feed::sandbox::{Handle, LedgerMode, Sandbox, Settings};
use looker_feed::shutdown;
use url::Url;

use crate::kit::made::requests_of;
use crate::kit::{self, Bound, Verdict, commit, new_delivery, pairs};

/// 6,000 requests: enough that the start and the last sync weigh nothing.
const ROWS: u64 = 600_000;
const ROUNDS: usize = 9;

pub fn ratios() -> Vec<Verdict> {
    let requests = requests_of(&kit::whole(&kit::shape(ROWS)), usize::MAX);
    let bodies: Vec<Bytes> = requests
        .iter()
        .map(|batches| {
            let mut body = b"[".to_vec();
            body.extend_from_slice(&batches.join(&b','));
            body.push(b']');
            body.into()
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let (sandbox, url, _trigger) = runtime.block_on(stand_in());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let in_flight = drain::Settings::default().lane.max_in_flight;
    let mut number = 0;
    let pair = pairs(
        ROUNDS,
        || {
            number += 1;
            let home = directory.path().join(number.to_string());
            sandbox.reset();
            runtime.block_on(drained(&home, &requests, &url, &sandbox))
        },
        || {
            sandbox.reset();
            runtime.block_on(loaded(&bodies, &url, in_flight, &sandbox))
        },
    );
    println!(
        "  {} requests, {in_flight} at once: the drain sends {:.0} a second, the load generator {:.0}",
        bodies.len(),
        bodies.len() as f64 / pair.ours.as_secs_f64(),
        bodies.len() as f64 / pair.theirs.as_secs_f64(),
    );
    vec![
        Verdict::new(
            "requests a second, of a load generator's",
            pair.speed,
            Bound::AtLeast(0.7),
        )
        .noisy(pair.noise),
    ]
}

async fn stand_in() -> (Handle, Url, shutdown::Trigger) {
    let sandbox = Sandbox::bind(Settings {
        batches_per_second: None,
        ledger: LedgerMode::Counts,
        ..Settings::default()
    })
    .await
    .expect("a port");
    let url = Url::parse(&format!("http://{}/v2", sandbox.addr())).expect("a url");
    let handle = sandbox.handle();
    let (trigger, stop) = shutdown::channel();
    tokio::spawn(sandbox.run(stop));
    (handle, url, trigger)
}

/// From the moment that the drain begins until the outbox has settled everything.
async fn drained(
    home: &std::path::Path,
    requests: &[Vec<Vec<u8>>],
    url: &Url,
    sandbox: &Handle,
) -> Duration {
    let outbox = kit::outbox(home);
    let account = Account::new(url.clone(), "key".to_owned(), "secret".to_owned());
    let account = account.expect("a loopback address").encode().to_vec();
    commit(
        outbox.begin(new_delivery(1, account)).expect("room"),
        requests,
    );
    let client = Client::new(ClientSettings::default(), Account::decode).expect("TLS");
    let mut settings = drain::Settings::default();
    settings.lane.pace.batches_per_second = 0;
    let drain = Drain::new(settings, outbox.clone(), Arc::new(client)).expect("the outbox answers");
    let (trigger, stop) = shutdown::channel();
    let mut changes = outbox.subscribe();
    let start = std::time::Instant::now();
    let running = tokio::spawn(drain.run(stop));
    loop {
        changes.mark_unchanged();
        if outbox
            .deliveries(None, 1)
            .expect("the outbox answers")
            .deliveries
            .iter()
            .all(|delivery| delivery.settled)
        {
            break;
        }
        // Settling announces itself; the timeout is for what does not.
        let _ = tokio::time::timeout(Duration::from_millis(5), changes.changed()).await;
    }
    let time = start.elapsed();
    trigger.pull();
    running.await.expect("the drain ends");
    let counts = sandbox.counts();
    assert_eq!(counts.duplicates, 0, "nothing was sent twice");
    assert_eq!(counts.statuses.get(&202), Some(&(requests.len() as u64)));
    outbox.close();
    time
}

async fn loaded(bodies: &[Bytes], url: &Url, at_once: usize, sandbox: &Handle) -> Duration {
    let client: HttpClient<_, Full<Bytes>> = HttpClient::builder(TokioExecutor::new()).build_http();
    let next = Arc::new(AtomicUsize::new(0));
    let bodies: Arc<[Bytes]> = bodies.into();
    let uri = format!("{url}/bulkevents");
    let (tasks, time) = {
        let start = std::time::Instant::now();
        let tasks: Vec<_> = (0..at_once)
            .map(|_| {
                let (client, next) = (client.clone(), Arc::clone(&next));
                let (bodies, uri) = (Arc::clone(&bodies), uri.clone());
                tokio::spawn(async move {
                    while let Some(body) = bodies.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let request = hyper::Request::post(&uri)
                            .header("authorization", "Basic a2V5OnNlY3JldA==")
                            .header("content-type", "application/json")
                            .body(Full::new(body.clone()))
                            .expect("a request");
                        let reply = client.request(request).await.expect("a reply");
                        assert_eq!(reply.status(), 202);
                        reply.into_body().collect().await.expect("a whole reply");
                    }
                })
            })
            .collect();
        let mut ended = Vec::new();
        for task in tasks {
            ended.push(task.await);
        }
        (ended, start.elapsed())
    };
    assert!(tasks.iter().all(Result::is_ok), "all were sent");
    assert_eq!(
        sandbox.counts().statuses.get(&202),
        Some(&(bodies.len() as u64))
    );
    time
}
