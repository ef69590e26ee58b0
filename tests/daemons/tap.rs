//! Stands between the daemons and mParticle's stand-in, and writes down which daemon sends to which
//! account, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::de::IgnoredAny;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// See the module.
pub struct Tap {
    pub endpoint: String,
    books: Arc<Mutex<Books>>,
    /// Ends with it.
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Books {
    /// By account: who began a request, in order.
    began: BTreeMap<String, Vec<u32>>,
    /// Requests under way, by account and daemon.
    open: BTreeMap<String, BTreeMap<u32, u64>>,
    overlaps: Vec<Overlap>,
    /// By account: what came, in order.
    came: BTreeMap<String, Vec<Came>>,
}

/// A request that began while another daemon had one under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    pub account: String,
    pub pid: u32,
    pub other: u32,
}

/// A request that has come whole.
#[derive(Clone, Copy, Debug)]
pub struct Came {
    pub at: Instant,
    pub pid: u32,
    pub batches: u64,
}

impl Tap {
    /// In front of an endpoint like `http://127.0.0.1:1234/v2`.
    pub async fn before(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let books = Arc::new(Mutex::new(Books::default()));
        let far = endpoint.trim_end_matches("/v2").to_owned();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let (shared, own) = (Arc::clone(&books), address);
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Ok((near, peer)) = listener.accept().await {
                let (books, client, far) = (Arc::clone(&shared), client.clone(), far.clone());
                tokio::spawn(async move {
                    // One that has been killed since: it is as if nothing had come.
                    let Some(pid) = owner_of(peer, own).await else {
                        return;
                    };
                    let answer = service_fn(move |request| {
                        forward(
                            request,
                            pid,
                            Arc::clone(&books),
                            client.clone(),
                            far.clone(),
                        )
                    });
                    let served = hyper::server::conn::http1::Builder::new();
                    // The daemon may be killed in the middle.
                    let _ = served.serve_connection(TokioIo::new(near), answer).await;
                });
            }
        });
        Self {
            endpoint: format!("http://{address}/v2"),
            books,
            _task: task,
        }
    }

    /// Requests that began while another daemon had one under way for the same account.
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.books.lock().unwrap().overlaps.clone()
    }

    /// Who began the requests of each account, in order.
    pub fn began(&self) -> BTreeMap<String, Vec<u32>> {
        self.books.lock().unwrap().began.clone()
    }

    /// What came for each account, in order.
    pub fn came(&self) -> BTreeMap<String, Vec<Came>> {
        self.books.lock().unwrap().came.clone()
    }

    /// To how many accounts each daemon sends, the fewest first: whose request came last counts.
    pub fn spread(&self) -> Vec<usize> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for came in self.came().values() {
            if let Some(last) = came.last() {
                *counts.entry(last.pid).or_default() += 1;
            }
        }
        let mut counts: Vec<usize> = counts.into_values().collect();
        counts.sort();
        counts
    }

    /// How long the accounts of a daemon stood still until another one sent to them; `None`: some of
    /// them still do.
    pub fn stood_still(&self, pid: u32) -> Option<Vec<Duration>> {
        let came = self.came();
        let theirs = came.values().filter_map(|came| {
            let last = came.iter().rposition(|one| one.pid == pid)?;
            Some(came.get(last + 1).map(|next| next.at - came[last].at))
        });
        theirs.collect()
    }

    /// The most batches of an account that came within one second, whichever second that is.
    pub fn most_in_a_second(&self) -> u64 {
        let most = |came: &Vec<Came>| {
            let (mut from, mut sum, mut most) = (0, 0, 0);
            for one in came {
                sum += one.batches;
                while came[from].at + Duration::from_secs(1) <= one.at {
                    sum -= came[from].batches;
                    from += 1;
                }
                most = most.max(sum);
            }
            most
        };
        self.came().values().map(most).max().unwrap_or(0)
    }
}

/// A request under way: it is not any more when its answer is there, or nobody waits for it.
struct Under {
    books: Arc<Mutex<Books>>,
    account: String,
    pid: u32,
}

impl Under {
    fn new(books: Arc<Mutex<Books>>, account: String, pid: u32) -> Self {
        let mut all = books.lock().unwrap();
        let began = all.began.entry(account.clone()).or_default();
        began.push(pid);
        let open = all.open.entry(account.clone()).or_default();
        let other = open
            .iter()
            .find(|(other, count)| **other != pid && **count > 0);
        let overlap = other.map(|(other, _)| Overlap {
            account: account.clone(),
            pid,
            other: *other,
        });
        *open.entry(pid).or_default() += 1;
        all.overlaps.extend(overlap);
        drop(all);
        Self {
            books,
            account,
            pid,
        }
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        let mut all = self.books.lock().unwrap();
        let open = all.open.get_mut(&self.account);
        if let Some(count) = open.and_then(|open| open.get_mut(&self.pid)) {
            *count -= 1;
        }
    }
}

async fn forward(
    request: Request<Incoming>,
    pid: u32,
    books: Arc<Mutex<Books>>,
    client: Client<HttpConnector, Full<Bytes>>,
    far: String,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (mut head, body) = request.into_parts();
    let account = head.headers.get(AUTHORIZATION);
    let account = account.map_or("", |value| value.to_str().unwrap_or(""));
    let account = account.to_owned();
    let _under = Under::new(Arc::clone(&books), account.clone(), pid);
    let body = body.collect().await?.to_bytes();
    let batches: Vec<IgnoredAny> = serde_json::from_slice(&body)?;
    note(&books, account, pid, batches.len() as u64);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = format!("{far}{path}").parse()?;
    head.headers.remove(hyper::header::HOST);
    let reply = client
        .request(Request::from_parts(head, Full::new(body)))
        .await?;
    let (head, body) = reply.into_parts();
    let body = body.collect().await?.to_bytes();
    Ok(Response::from_parts(head, Full::new(body)))
}

fn note(books: &Mutex<Books>, account: String, pid: u32, batches: u64) {
    let mut all = books.lock().unwrap();
    let came = Came {
        at: Instant::now(),
        pid,
        batches,
    };
    all.came.entry(account).or_default().push(came);
}

/// The tables are not read in one moment, so what is not found is looked for again. With many processes
/// that takes long, and the lines to the database run on these threads too.
async fn owner_of(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    for _ in 0..50 {
        let found = tokio::task::spawn_blocking(move || owner(peer, own)).await;
        if let Some(pid) = found.expect("no panic") {
            return Some(pid);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    None
}

/// The process at the other end of a connection of this machine.
fn owner(peer: SocketAddr, own: SocketAddr) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let ends = [
        format!(":{:04X}", peer.port()),
        format!(":{:04X}", own.port()),
    ];
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = fields.get(1)?.ends_with(&ends[0]) && fields.get(2)?.ends_with(&ends[1]);
        is_it.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    let processes = std::fs::read_dir("/proc").ok()?;
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut pids = pids;
    pids.find(|pid: &u32| {
        let files = std::fs::read_dir(format!("/proc/{pid}/fd"));
        let mut links = files.into_iter().flatten().filter_map(|file| {
            let link = std::fs::read_link(file.ok()?.path()).ok()?;
            Some(link.to_string_lossy().into_owned())
        });
        links.any(|link| link == inode)
    })
}
