//! `looker-feed send`: a result that lies in a file, through the running daemon, as Looker would
//! send it.
//!
//! The request is written here and not taken from the stand-in for Looker: that one is the tests'
//! own idea of what Looker does, and has to stay independent of this.

pub(super) mod follow;
pub(super) mod hub;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use url::Url;

use crate::causes::with_causes;
use crate::cli::admin::screen::escaped;
use crate::cli::client::{DaemonArgument, absolute};
use crate::cli::document::DocumentArgument;
use crate::cli::form::FormArguments;
use crate::cli::{ConfigArgument, Failure, load, runtime};
use crate::config::{Config, Secret};
use crate::control::view;
use crate::harmless::harmless;
use crate::intake;
use hub::{Hub, HubError, Request};

/// The account's secret, in the environment.
const SECRET_VARIABLE: &str = "LOOKER_FEED_API_SECRET";
/// No secret is longer.
const SECRET_BYTES: u64 = 4096;

/// Arguments of `looker-feed send`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    document: DocumentArgument,
    #[command(flatten)]
    form: FormArguments,
    /// The mParticle account's API key
    ///
    /// Its secret is taken from $LOOKER_FEED_API_SECRET.
    #[arg(long, value_name = "KEY")]
    api_key: String,
    /// Take the API secret from the first line of standard input
    #[arg(long)]
    api_secret_stdin: bool,
    /// Title of the delivery [default: the file's name]
    #[arg(long, value_name = "TEXT")]
    title: Option<String>,
    /// Address of the daemon's Action Hub [default: where the configuration says that it listens]
    ///
    /// Where the daemon serves TLS itself, its base_url: the name that its certificate is for.
    #[arg(long, value_name = "URL", value_parser = absolute)]
    hub: Option<Url>,
    /// Certificates of authorities to trust beside the public ones, as a PEM file, for a hub with a
    /// certificate of your own
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Wait until mParticle has taken everything
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigArgument,
    #[command(flatten)]
    daemon: DaemonArgument,
}

/// Sends the document and says what the daemon answers.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = load(&arguments.config)?;
    // What the daemon would refuse is known here already.
    arguments.form.choices()?;
    let key = intake::new_key(config.require_secret()?).map_err(|error| Failure::of(&error))?;
    let url = hub_url(arguments, &config)?;
    let api_secret = api_secret(arguments)?;
    let document = arguments.document.open("sent")?;
    let title = arguments.title.clone().unwrap_or_else(|| {
        let name = arguments.document.file.file_name();
        match name.filter(|_| !arguments.document.is_stdin()) {
            Some(name) => name.to_string_lossy().into_owned(),
            None => "standard input".to_owned(),
        }
    });
    let hub = Hub::new(url, &key, config.intake.keep_alive, arguments.ca.as_deref());
    let hub = hub.map_err(|error| match error {
        HubError::Tls(_) => Failure::Usage(with_causes(&error)),
        error => Failure::of(&error),
    })?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let request = Request {
            title: &title,
            api_key: &arguments.api_key,
            api_secret: &api_secret,
            form: arguments.form.params(),
        };
        let answer = hub.execute(&request, document).await;
        let answer = answer.map_err(|error| Failure::of(&error))?;
        if !answer.success {
            return Err(Failure::Other(answer.message));
        }
        let delivery = answer.delivery();
        if !arguments.json {
            println!("{}", harmless(&answer.message));
        }
        let state = match delivery.as_deref().filter(|_| arguments.wait) {
            Some(delivery) => {
                let daemon = daemon(arguments, &config);
                Some(follow::until_done(&daemon, delivery).await?)
            }
            None => None,
        };
        if arguments.json {
            let all = json!({"message": answer.message, "delivery": delivery, "state": state});
            println!("{}", escaped(&format!("{all:#}")));
        }
        Ok(match state {
            Some(state) => ended(&state, arguments.json),
            None => ExitCode::SUCCESS,
        })
    });
    // Whoever writes to standard input may take its time, and nobody waits for it any more.
    runtime.shutdown_background();
    ended
}

/// Says how the delivery ended; a success if nothing of it needs a person.
fn ended(state: &view::Delivery, quiet: bool) -> ExitCode {
    let rows = &state.rows;
    if !quiet {
        println!("{}", follow::summary(state));
    }
    let lost = rows.dead + rows.damaged + rows.cancelled + rows.waiting + rows.in_flight;
    if rows.dead > 0 {
        eprintln!(
            "looker-feed: mParticle refused rows for good: see `looker-feed dead-letters list --delivery {}`.",
            state.id
        );
    }
    if lost > 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn hub_url(arguments: &Arguments, config: &Config) -> Result<Url, Failure> {
    if let Some(url) = &arguments.hub {
        return Ok(url.clone());
    }
    let tls = config.intake.tls_cert.is_some();
    if let Some(url) = config.intake.base_url.as_ref().filter(|_| tls) {
        return Ok(url.clone());
    }
    reachable(if tls { "https" } else { "http" }, config.intake.listen).ok_or_else(|| {
        Failure::Usage(
            "The configuration leaves the hub's port to the system: say with --hub where it is."
                .to_owned(),
        )
    })
}

/// The daemon of the same configuration, unless another one is named.
fn daemon(arguments: &Arguments, config: &Config) -> DaemonArgument {
    let mut daemon = arguments.daemon.clone();
    let named = std::env::var_os("LOOKER_FEED_ADMIN_URL").is_some_and(|url| !url.is_empty());
    if daemon.admin.is_none() && !named {
        daemon.admin = reachable("http", config.admin.listen).map(String::from);
    }
    daemon
}

/// Where a server that listens so is found from this machine.
fn reachable(scheme: &str, mut listen: std::net::SocketAddr) -> Option<Url> {
    if listen.port() == 0 {
        return None;
    }
    if listen.ip().is_unspecified() {
        listen.set_ip(match listen {
            std::net::SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            std::net::SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{scheme}://{listen}").parse().ok()
}

fn api_secret(arguments: &Arguments) -> Result<Secret, Failure> {
    let secret = if arguments.api_secret_stdin {
        if arguments.document.is_stdin() {
            return Err(Failure::Usage(
                "Standard input cannot be both the document and the secret.".to_owned(),
            ));
        }
        let mut line = String::new();
        io::Read::take(io::stdin().lock(), SECRET_BYTES)
            .read_line(&mut line)
            .map_err(|error| Failure::Other(format!("Standard input cannot be read: {error}")))?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    } else {
        std::env::var(SECRET_VARIABLE).unwrap_or_default()
    };
    if secret.is_empty() {
        return Err(Failure::Usage(format!(
            "The account's API secret is missing: set {SECRET_VARIABLE}, or give it on standard input with --api-secret-stdin."
        )));
    }
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_found_where_it_listens_or_on_loopback() {
        for (listen, want) in [
            ("127.0.0.1:8080", Some("http://127.0.0.1:8080/")),
            ("10.1.2.3:81", Some("http://10.1.2.3:81/")),
            ("0.0.0.0:8080", Some("http://127.0.0.1:8080/")),
            ("[::]:8080", Some("http://[::1]:8080/")),
            ("127.0.0.1:0", None),
        ] {
            let url = reachable("http", listen.parse().unwrap());
            assert_eq!(url.as_ref().map(Url::as_str), want, "{listen}");
        }
    }
}
