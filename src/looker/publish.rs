//! Documents at one-time urls, and the ways in which a download can go wrong.

use std::collections::HashMap;
use std::io;
use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, future, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use url::Url;

use super::shape::{Shape, document};
use crate::sandbox::serve::{Body, HangUp, whole};

/// Length of the secret part of a download url, as Looker has it.
const TOKEN: usize = 40;

const DOWNLOADS: &str = "/downloads/";

/// What goes wrong with a download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection is cut after so many bytes.
    CutAfter(u64),
    /// Nothing comes after so many bytes, for as long as the client waits.
    StallAfter(u64),
    /// The body ends in order after so many bytes, so that only the JSON is cut short.
    EndAfter(u64),
    /// Status 200 and a page of HTML, as proxies and login forms answer.
    Html,
    /// This status and a short text; the url is spent.
    Status(u16),
    /// Status 200 and no body.
    Empty,
    /// All of it, in pieces of so many bytes with a pause before each.
    Slow {
        /// Bytes of a piece; 0 is taken as 1.
        bytes: usize,
        /// Pause before each piece.
        pause: Duration,
    },
}

/// Publishes documents at a [`Looker`](super::Looker). Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publisher {
    base: Url,
    /// Urls not yet fetched: only as many as the process itself publishes.
    downloads: Arc<Mutex<HashMap<String, Download>>>,
}

#[derive(Clone, Debug)]
struct Download {
    content: Content,
    failure: Option<Failure>,
}

#[derive(Clone, Debug)]
enum Content {
    Generated(Shape),
    Given(Arc<[Bytes]>),
}

impl Publisher {
    /// For a server at `base`.
    pub(super) fn new(base: Url) -> Self {
        Self {
            base,
            downloads: Arc::default(),
        }
    }

    /// Where the server listens, as a url with the path `/`.
    pub fn base(&self) -> &Url {
        &self.base
    }

    /// A url `http://<address>/downloads/<40 characters>` that gives a generated document once;
    /// the second time it is 404.
    pub fn publish(&self, shape: Shape) -> Url {
        self.add(Content::Generated(shape), None)
    }

    /// The same for a document that is there already.
    pub fn publish_bytes(&self, document: impl Into<Bytes>) -> Url {
        self.add(Content::whole(document), None)
    }

    /// The same for one that is there in chunks.
    pub fn publish_chunks(&self, document: Arc<[Bytes]>) -> Url {
        self.add(Content::Given(document), None)
    }

    /// A url that goes wrong; `document` is what it would have been.
    pub fn publish_failing(&self, document: impl Into<Bytes>, failure: Failure) -> Url {
        self.add(Content::whole(document), Some(failure))
    }

    /// The same for a generated document.
    pub fn publish_failing_shape(&self, shape: Shape, failure: Failure) -> Url {
        self.add(Content::Generated(shape), Some(failure))
    }

    /// Whether the url has not been fetched yet.
    pub fn is_unspent(&self, url: &Url) -> bool {
        let token = url.path().strip_prefix(DOWNLOADS);
        token.is_some_and(|token| self.downloads().contains_key(token))
    }

    fn add(&self, content: Content, failure: Option<Failure>) -> Url {
        let letters = iter::repeat_with(fastrand::alphanumeric);
        let token: String = letters.take(TOKEN).collect();
        let mut url = self.base.clone();
        url.set_path(&format!("{DOWNLOADS}{token}"));
        let download = Download { content, failure };
        self.downloads().insert(token, download);
        url
    }

    fn downloads(&self) -> MutexGuard<'_, HashMap<String, Download>> {
        let downloads = self.downloads.lock();
        downloads.unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn answer(&self, request: &Request<Incoming>) -> Result<Response<Body>, HangUp> {
        let path = request.uri().path();
        if request.method() != Method::GET {
            let status = StatusCode::METHOD_NOT_ALLOWED;
            let said = whole("Only GET is known here.\n");
            return Ok(reply(status, "text/plain", said));
        }
        let token = path.strip_prefix(DOWNLOADS);
        let Some(download) = token.and_then(|token| self.downloads().remove(token)) else {
            let gone = "There is no such download, or it has been fetched already.\n";
            return Ok(reply(StatusCode::NOT_FOUND, "text/plain", whole(gone)));
        };
        Ok(download.reply())
    }
}

impl Download {
    fn reply(self) -> Response<Body> {
        const JSON: &str = "application/json";
        let chunks = self.content.chunks().map(Ok);
        let body = match self.failure {
            None => body(chunks),
            Some(Failure::EndAfter(bytes)) => body(cut(chunks, bytes)),
            Some(Failure::CutAfter(bytes)) => body(cut(chunks, bytes).chain(broken())),
            Some(Failure::StallAfter(bytes)) => body(cut(chunks, bytes).chain(stream::pending())),
            Some(Failure::Slow { bytes, pause }) => body(slow(chunks, bytes.max(1), pause)),
            Some(Failure::Empty) => whole(Bytes::new()),
            Some(Failure::Html) => {
                let page = "<!DOCTYPE html><html><body><h1>Please log in</h1></body></html>\n";
                return reply(StatusCode::OK, "text/html; charset=utf-8", whole(page));
            }
            Some(Failure::Status(status)) => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                return reply(status, "text/plain", whole("The query failed.\n"));
            }
        };
        reply(StatusCode::OK, JSON, body)
    }
}

impl Content {
    fn whole(document: impl Into<Bytes>) -> Self {
        Self::Given([document.into()].into())
    }

    fn chunks(self) -> impl Stream<Item = Bytes> + Send + 'static {
        match self {
            Self::Generated(shape) => stream::iter(document(&shape)).left_stream(),
            Self::Given(chunks) => {
                let given = (0..chunks.len()).map(move |at| chunks[at].clone());
                stream::iter(given.filter(|chunk| !chunk.is_empty())).right_stream()
            }
        }
    }
}

fn body(chunks: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
    StreamBody::new(chunks.map(|chunk| chunk.map(Frame::data))).boxed_unsync()
}

/// The first `bytes` bytes.
fn cut(
    chunks: impl Stream<Item = io::Result<Bytes>> + Send,
    bytes: u64,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    chunks.scan(bytes, |left, chunk| {
        let kept = chunk.map(|chunk| {
            let length = usize::try_from(*left).unwrap_or(usize::MAX);
            let kept = chunk.slice(..chunk.len().min(length));
            *left -= kept.len() as u64;
            kept
        });
        let ended = matches!(&kept, Ok(kept) if kept.is_empty());
        future::ready((!ended).then_some(kept))
    })
}

/// An error, after the server has had a turn to write what came before: an error at once would
/// take the bytes before it along.
fn broken() -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::once(async {
        tokio::task::yield_now().await;
        Err(io::Error::other("cut on purpose"))
    })
}

fn slow(
    chunks: impl Stream<Item = io::Result<Bytes>> + Send,
    bytes: usize,
    pause: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    chunks
        .flat_map(move |chunk| {
            let mut chunk = chunk.unwrap_or_default();
            let pieces = iter::from_fn(move || {
                let piece = chunk.split_to(bytes.min(chunk.len()));
                (!piece.is_empty()).then_some(Ok(piece))
            });
            stream::iter(pieces)
        })
        .then(move |piece| async move {
            tokio::time::sleep(pause).await;
            piece
        })
}

pub(super) fn reply(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
