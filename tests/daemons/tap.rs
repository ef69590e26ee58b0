//! Stands between the daemons and mParticle's stand-in, and writes down which daemon sends to which
//! account, and when.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// See the module.
pub struct Tap {
    pub endpoint: String,
    books: Arc<Mutex<Books>>,
}

#[derive(Default)]
struct Books {
    /// By account: who began a request, in order.
    began: BTreeMap<String, Vec<u32>>,
    /// Requests under way, by account and daemon.
    open: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Requests that began while another daemon had one under way.
    overlaps: Vec<String>,
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
        tokio::spawn(async move {
            while let Ok((near, peer)) = listener.accept().await {
                let (books, client, far) = (Arc::clone(&shared), client.clone(), far.clone());
                tokio::spawn(async move {
                    let pid = owner(peer, own).unwrap_or(0);
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
        }
    }

    /// Requests that began while another daemon had one under way for the same account.
    pub fn overlaps(&self) -> Vec<String> {
        self.books.lock().unwrap().overlaps.clone()
    }

    /// Who began the requests of each account, in order.
    pub fn began(&self) -> BTreeMap<String, Vec<u32>> {
        self.books.lock().unwrap().began.clone()
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
        let at = began.len();
        let open = all.open.entry(account.clone()).or_default();
        let other = open
            .iter()
            .find(|(other, count)| **other != pid && **count > 0);
        let overlap = other.map(|(other, _)| {
            format!("request {at} of {account} by {pid}, while {other} had one under way")
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
    let _under = Under::new(books, account.to_owned(), pid);
    let body = body.collect().await?.to_bytes();
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
