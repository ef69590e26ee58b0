//! A client of the admin API, for the commands that talk to a running daemon.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy;
use serde::de::DeserializeOwned;
use url::Url;

use crate::cli::web::{Web, web};
use crate::tls;

/// Where a daemon listens when nothing else is said.
const USUAL: &str = "http://127.0.0.1:8081";

/// Other address of the daemon, in the environment.
const URL_VARIABLE: &str = "LOOKER_FEED_ADMIN_URL";

/// The token, in the environment: the name that `serve` takes it by, so that one setting does.
const TOKEN_VARIABLE: &str = "LOOKER_FEED_ADMIN__TOKEN";

/// A connection, the head of an answer, and each part of its body may take so long.
const WITHIN: Duration = Duration::from_secs(10);

/// Largest answer that is held in memory. Lists of 500 entries are below it.
const LARGEST: usize = 64 << 20;

/// Which daemon is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArgument {
    /// Admin address of the daemon [default: $LOOKER_FEED_ADMIN_URL, or http://127.0.0.1:8081]
    ///
    /// A token is taken from $LOOKER_FEED_ADMIN__TOKEN.
    #[arg(long, value_name = "URL", global = true)]
    pub admin: Option<String>,
}

/// A call to the daemon failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// `--admin` or its variable holds no http address.
    #[error("`{0}` is not an address such as {USUAL}")]
    Address(String),
    /// The token cannot stand in a header.
    #[error("the token in {TOKEN_VARIABLE} holds characters that a token cannot have")]
    Token,
    /// rustls refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The connection was refused, or the name is unknown.
    #[error(
        "no daemon answers at {url}. Is `looker-feed serve` running? Another address is given \
         with --admin"
    )]
    NoDaemon {
        /// Where it was looked for.
        url: String,
        /// Why it was not found.
        source: legacy::Error,
    },
    /// It took longer than ten seconds.
    #[error("the daemon at {0} does not answer")]
    Slow(String),
    /// The connection broke.
    #[error("the connection to the daemon at {url} broke")]
    Broken {
        /// Where it led.
        url: String,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The daemon knows nothing of that name.
    #[error("{0}")]
    NotFound(String),
    /// A token is configured, and none or another was given.
    #[error("the daemon asks for its admin token: set {TOKEN_VARIABLE}")]
    Unauthorized,
    /// The daemon did not do it.
    #[error("{0}")]
    Refused(String),
    /// What answers is not a daemon of this version.
    #[error("the answer of {0} is not what a looker-feed of this version says")]
    Strange(String),
}

/// An address as people write it: without a scheme it is http.
pub fn absolute(address: &str) -> Result<Url, url::ParseError> {
    let port = |rest: &str| rest.starts_with(|c: char| c.is_ascii_digit());
    let scheme = address.split_once(':').filter(|(_, rest)| !port(rest));
    match scheme.is_some() && !address.starts_with('[') {
        true => address.parse(),
        false => format!("http://{address}").parse(),
    }
}

/// Talks to one daemon.
#[derive(Debug)]
pub struct Client {
    base: Url,
    authorization: Option<HeaderValue>,
    http: Web<Full<Bytes>>,
}

impl Client {
    /// The daemon that the command line and the environment name.
    pub fn new(argument: &DaemonArgument) -> Result<Self, ClientError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let address = argument.admin.clone().or_else(|| variable(URL_VARIABLE));
        let (address, token) = (
            address.as_deref().unwrap_or(USUAL),
            variable(TOKEN_VARIABLE),
        );
        Self::of(address, token.as_deref())
    }

    /// The daemon at `address`.
    pub fn of(address: &str, token: Option<&str>) -> Result<Self, ClientError> {
        let wrong = || ClientError::Address(address.to_owned());
        let base = absolute(address).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https")
            || !base.has_host()
            || !base.username().is_empty()
            || base.password().is_some()
        {
            return Err(wrong());
        }
        let bearer = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let mut authorization = bearer.transpose().map_err(|_| ClientError::Token)?;
        if let Some(value) = &mut authorization {
            value.set_sensitive(true);
        }
        Ok(Self {
            base,
            authorization,
            http: web(WITHIN, tls::public()?),
        })
    }

    /// `GET`, as the JSON text that came.
    ///
    /// # Errors
    /// See [`ClientError`]; the same holds for all that follow.
    pub async fn text(&self, path: &[&str], query: &[(&str, &str)]) -> Result<String, ClientError> {
        let response = self.call(Method::GET, path, query, String::new()).await?;
        self.whole(response).await
    }

    /// `GET`, read.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<T, ClientError> {
        self.read(&self.text(path, query).await?)
    }

    /// `POST` with a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &serde_json::Value,
    ) -> Result<T, ClientError> {
        let response = self.call(Method::POST, path, &[], body.to_string()).await?;
        self.read(&self.whole(response).await?)
    }

    /// `PUT` with JSON text.
    pub async fn put<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: String,
    ) -> Result<T, ClientError> {
        let response = self.call(Method::PUT, path, &[], body).await?;
        self.read(&self.whole(response).await?)
    }

    /// `GET`, handed on part by part. An error means that what came is not whole.
    pub async fn download<E>(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        mut take: impl FnMut(Bytes) -> Result<(), E>,
    ) -> Result<(), E>
    where
        E: From<ClientError>,
    {
        let mut response = self.call(Method::GET, path, query, String::new()).await?;
        while let Some(part) = self.part(response.body_mut()).await? {
            take(part)?;
        }
        Ok(())
    }

    /// JSON text as `T`.
    pub fn read<T: DeserializeOwned>(&self, text: &str) -> Result<T, ClientError> {
        serde_json::from_str(text).map_err(|_| ClientError::Strange(self.base.to_string()))
    }

    async fn call(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: String,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(["api", "v1"]);
            for part in path {
                // These two would be resolved instead of sent; nothing of ours is named so.
                if matches!(*part, "" | "." | "..") {
                    return Err(ClientError::NotFound(format!("There is no `{part}`.")));
                }
                segments.push(part);
            }
        }
        url.set_query(None);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header("x-looker-feed", "1");
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|_| ClientError::Address(self.base.to_string()))?;
        let response = tokio::time::timeout(WITHIN, self.http.request(request)).await;
        match response {
            Err(_) => Err(ClientError::Slow(self.base.to_string())),
            Ok(Err(source)) if source.is_connect() => Err(ClientError::NoDaemon {
                url: self.base.to_string(),
                source,
            }),
            Ok(Err(source)) => Err(self.broken(source)),
            Ok(Ok(response)) if response.status().is_success() => Ok(response),
            Ok(Ok(response)) => Err(self.refused(response).await),
        }
    }

    async fn refused(&self, response: Response<Incoming>) -> ClientError {
        #[derive(serde::Deserialize)]
        struct Why {
            error: String,
        }
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return ClientError::Unauthorized;
        }
        let text = match self.whole(response).await {
            Ok(text) => text,
            Err(error) => return error,
        };
        match serde_json::from_str::<Why>(&text) {
            Ok(why) if status == StatusCode::NOT_FOUND => ClientError::NotFound(why.error),
            Ok(why) => ClientError::Refused(why.error),
            Err(_) => ClientError::Strange(self.base.to_string()),
        }
    }

    async fn whole(&self, mut response: Response<Incoming>) -> Result<String, ClientError> {
        let mut bytes = Vec::new();
        while let Some(part) = self.part(response.body_mut()).await? {
            if bytes.len() + part.len() > LARGEST {
                return Err(ClientError::Strange(self.base.to_string()));
            }
            bytes.extend_from_slice(&part);
        }
        String::from_utf8(bytes).map_err(|_| ClientError::Strange(self.base.to_string()))
    }

    async fn part(&self, body: &mut Incoming) -> Result<Option<Bytes>, ClientError> {
        loop {
            let frame = tokio::time::timeout(WITHIN, body.frame()).await;
            match frame {
                Err(_) => return Err(ClientError::Slow(self.base.to_string())),
                Ok(None) => return Ok(None),
                Ok(Some(Err(source))) => return Err(self.broken(source)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    fn broken(&self, source: impl std::error::Error + Send + Sync + 'static) -> ClientError {
        ClientError::Broken {
            url: self.base.to_string(),
            source: Box::new(source),
        }
    }
}
