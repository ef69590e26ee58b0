//! A load balancer as they come: it asks each daemon whether it is ready, and gives each connection to the
//! next one that is.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

/// Between two questions.
const EVERY: Duration = Duration::from_millis(50);

/// A daemon behind it.
#[derive(Clone, Debug)]
pub struct Backend {
    pub hub: Url,
    pub admin: Url,
}

/// See the module.
pub struct Balancer {
    pub url: Url,
    backends: Arc<Mutex<Vec<Option<Backend>>>>,
    ready: Arc<Mutex<Vec<bool>>>,
    /// They end with it.
    tasks: JoinSet<()>,
}

impl Balancer {
    /// With places for so many daemons.
    pub async fn new(places: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let backends: Arc<Mutex<Vec<Option<Backend>>>> = Arc::new(Mutex::new(vec![None; places]));
        let ready = Arc::new(Mutex::new(vec![false; places]));
        let mut tasks = JoinSet::new();
        for place in 0..places {
            let (backends, ready) = (Arc::clone(&backends), Arc::clone(&ready));
            tasks.spawn(async move {
                loop {
                    let backend = backends.lock().unwrap()[place].clone();
                    let answer = match backend {
                        Some(backend) => is_ready(&backend).await,
                        None => false,
                    };
                    ready.lock().unwrap()[place] = answer;
                    tokio::time::sleep(EVERY).await;
                }
            });
        }
        let mut balancer = Self {
            url: format!("http://{address}/").parse().expect("a url"),
            backends,
            ready,
            tasks,
        };
        let (backends, ready) = (Arc::clone(&balancer.backends), Arc::clone(&balancer.ready));
        balancer.tasks.spawn(async move {
            let mut turn = 0;
            while let Ok((near, _)) = listener.accept().await {
                turn += 1;
                let (backends, ready) = (Arc::clone(&backends), Arc::clone(&ready));
                tokio::spawn(async move {
                    let Some(mut far) = connect(&backends, &ready, turn).await else {
                        return;
                    };
                    let mut near = near;
                    // Either side may end in any way.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                });
            }
        });
        balancer
    }

    pub fn put(&self, place: usize, backend: Option<Backend>) {
        self.backends.lock().unwrap()[place] = backend;
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready
            .lock()
            .unwrap()
            .iter()
            .filter(|one| **one)
            .count()
    }

    pub fn is_ready(&self, place: usize) -> bool {
        self.ready.lock().unwrap()[place]
    }
}

/// A connection to the next one that is ready, or to another, while there is one.
async fn connect(
    backends: &Mutex<Vec<Option<Backend>>>,
    ready: &Mutex<Vec<bool>>,
    turn: usize,
) -> Option<TcpStream> {
    for _ in 0..200 {
        let mut open: Vec<Backend> = {
            let (backends, ready) = (backends.lock().unwrap(), ready.lock().unwrap());
            let both = backends.iter().zip(ready.iter());
            both.filter_map(|(backend, ready)| backend.clone().filter(|_| *ready))
                .collect()
        };
        let count = open.len().max(1);
        open.rotate_left(turn % count);
        for backend in open {
            let port = backend.hub.port().expect("a port");
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                return Some(stream);
            }
        }
        tokio::time::sleep(EVERY).await;
    }
    None
}

async fn is_ready(backend: &Backend) -> bool {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let url = backend.admin.join("/readyz").expect("a path");
    let request = client.get(url.as_str().parse().expect("a uri"));
    let answer = tokio::time::timeout(Duration::from_secs(2), request).await;
    matches!(answer, Ok(Ok(reply)) if reply.status().is_success())
}
