//! A daemon that will be killed, and somebody who reads its books until then.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use looker_feed::control::view;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;
use url::Url;

use super::support;

/// How often the books are read.
const EVERY: Duration = Duration::from_millis(40);

/// The delivered rows of each delivery: they never become fewer, whatever is killed.
pub type Books = Arc<Mutex<HashMap<String, u64>>>;

pub struct Victim {
    child: Child,
    pub hub: Url,
    pub admin: Url,
    reader: JoinHandle<u64>,
}

impl Victim {
    /// A daemon that is ready.
    pub fn start(home: &Path, endpoint: &str, settings: &[(&str, &str)], books: &Books) -> Self {
        let mut child = support::spawn(home, endpoint, settings);
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut url = || {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("a line of output");
            let url = line.trim().rsplit(' ').next().map(str::parse::<Url>);
            match url {
                Some(Ok(url)) => url,
                _ => panic!("the daemon did not start: {line:?}"),
            }
        };
        let (hub, admin) = (url(), url());
        let reader = tokio::spawn(read_books(admin.clone(), Arc::clone(books)));
        Self {
            child,
            hub,
            admin,
            reader,
        }
    }

    /// SIGTERM; the daemon goes on until it is done or killed.
    pub fn tell_to_stop(&self) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, Signal::TERM).expect("a signal");
    }

    /// SIGKILL. Returns whether it was that which ended it, and how often its books were read.
    pub async fn kill(mut self) -> (bool, u64) {
        let killed = kill(&mut self.child);
        let read = (&mut self.reader).await.expect("the books balance");
        (killed, read)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// SIGKILL; returns whether it was that which ended the child.
pub fn kill(child: &mut Child) -> bool {
    child.kill().expect("it can be killed");
    let status = child.wait().expect("it can be waited for");
    match status.signal() {
        Some(signal) => {
            assert_eq!(
                signal,
                Signal::KILL.as_raw(),
                "it ended by itself: {status}"
            );
            true
        }
        None => {
            assert!(status.success(), "it failed: {status}");
            false
        }
    }
}

/// Reads the books until nobody answers; returns how often. The only reader: of two, one could
/// come late with an older answer.
async fn read_books(admin: Url, books: Books) -> u64 {
    let mut times = 0;
    while let Some(deliveries) = deliveries(&admin).await {
        check(&deliveries, &books);
        times += 1;
        tokio::time::sleep(EVERY).await;
    }
    times
}

/// Rows in is where the rows are, and what was delivered stays delivered.
fn check(deliveries: &[view::Delivery], books: &Books) {
    let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
    for delivery in deliveries {
        let rows = &delivery.rows;
        assert_eq!(rows.total(), delivery.rows_in, "{delivery:?}");
        assert_eq!((rows.damaged, rows.dead), (0, 0), "{delivery:?}");
        let before = books.insert(delivery.id.clone(), rows.delivered);
        assert!(before <= Some(rows.delivered), "{before:?} {delivery:?}");
    }
    let listed = books
        .keys()
        .all(|id| deliveries.iter().any(|delivery| delivery.id == *id));
    assert!(listed, "a delivery is not listed any more: {books:?}");
}

/// All deliveries, or nothing when the daemon does not answer.
pub async fn deliveries(admin: &Url) -> Option<Vec<view::Delivery>> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let url = admin.join("/api/v1/deliveries?limit=500").expect("a url");
    let reply = client.get(url.as_str().parse().ok()?).await.ok()?;
    let status = reply.status();
    let body = reply.into_body().collect().await.ok()?.to_bytes();
    assert!(status.is_success(), "{status}: {body:?}");
    let listing: view::Listing<view::Delivery> =
        serde_json::from_slice(&body).expect("JSON of the documented form");
    assert_eq!(listing.next, None, "more than one page");
    Some(listing.items)
}
