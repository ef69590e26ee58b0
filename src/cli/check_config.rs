//! `looker-feed check-config`: whether a daemon could start with this configuration.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::fs::Access;

use crate::app::{Certificates, load_keys, shared_settings};
use crate::causes::with_causes;
use crate::cli::{ConfigArgument, Failure, load, looker, runtime};
use crate::config::{Config, OutboxBackend, Secret};
use crate::outbox::postgres::{self, Server};

/// File systems of the kernel's own, in which nothing can be kept: proc, sysfs, cgroup2, devpts and
/// debugfs. (`linux/magic.h`)
const NO_FILES: [u64; 5] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x1cd1, 0x6462_6720];

/// Arguments of `looker-feed check-config`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// Connect to the database of a shared outbox, and log in to the Lookers of [looker.api]; changes nothing
    #[arg(long)]
    online: bool,
}

/// Says so, or everything that stands against it.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = load(&arguments.config)?;
    let against = against(&config);
    match against.as_slice() {
        [] => {}
        // As `serve` would say it.
        [why] => return Err(Failure::Usage(why.clone())),
        several => {
            let lines: Vec<_> = several.iter().map(|why| format!("\n- {why}")).collect();
            let lines = lines.concat();
            let said = format!("`serve` cannot start with this configuration:{lines}");
            return Err(Failure::Usage(said));
        }
    }
    println!(
        "The configuration is valid: Looker is served at {}, the outbox is {}, requests go to {}.",
        config.intake.listen,
        outbox(&config),
        config.mparticle.base_address(),
    );
    if !arguments.online {
        return Ok(ExitCode::SUCCESS);
    }
    if config.outbox.backend == OutboxBackend::Postgres {
        look_at_database(&config)?;
    }
    let apis = looker::apis(&config)?;
    if apis.is_empty() {
        println!(
            "No Looker can be asked again for what failed: there is no API key in [looker.api]."
        );
    }
    Ok(match runtime()?.block_on(looker::check(&apis)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Where the outbox is, for people.
fn outbox(config: &Config) -> String {
    match server(config) {
        Some(Ok(server)) => format!("the database {server}"),
        _ => config.outbox.path.display().to_string(),
    }
}

/// The server of a shared outbox.
fn server(config: &Config) -> Option<Result<Server, postgres::ServerError>> {
    let settings = &config.outbox;
    let url = settings.url.as_ref()?.expose();
    let password = settings.password.as_ref().map(Secret::expose);
    Some(Server::parse(url, password))
}

/// Says what the database of a shared outbox is, and whether a daemon could use it.
fn look_at_database(config: &Config) -> Result<(), Failure> {
    let (keys, _) = load_keys(config).map_err(|error| Failure::of(&error))?;
    let settings = shared_settings(config, keys).map_err(|error| Failure::of(&error))?;
    let (server, allowed) = (settings.server.to_string(), settings.allow_unreplicated);
    let probed = postgres::probe(&settings).map_err(|error| Failure::of(&error))?;
    println!(
        "The database {server} is {}. {}",
        probed.facts,
        match probed.tables {
            true => "The outbox's tables are there, and the key is the one in use.",
            false => "The outbox's tables are not there; `serve` makes them.",
        }
    );
    if !probed.facts.is_replicated() && !allowed {
        return Err(Failure::Other(
            "The database does not wait for a synchronous standby when it commits, so `serve` would take no deliveries: set synchronous_standby_names there, or outbox.allow_unreplicated = true if its disk is replicated by other means.".to_owned(),
        ));
    }
    Ok(())
}

fn against(config: &Config) -> Vec<String> {
    let mut against = Vec::new();
    if let Err(missing) = config.require_secret() {
        against.push(missing.to_string());
    }
    if let Err(error) = Certificates::load(config) {
        against.push(with_causes(&error));
    }
    if let Some(Err(error)) = server(config) {
        let why = with_causes(&error);
        against.push(format!("`outbox.url` cannot be used: {why}"));
    }
    if let Err(why) = can_keep_files(&config.outbox.path) {
        against.push(format!(
            "`outbox.path` is {}, and nothing can be kept there: {why}",
            config.outbox.path.display()
        ));
    }
    against
}

/// Whether the directory could be made, or written if it is there. Nothing is tried: to look changes
/// nothing.
fn can_keep_files(directory: &Path) -> Result<(), String> {
    let (there, is_it) = nearest(directory);
    let shown = there.display();
    let seen = std::fs::metadata(&there).map_err(|error| format!("{shown}: {error}"))?;
    if !seen.is_dir() {
        return Err(format!("{shown} is no directory"));
    }
    let statfs = rustix::fs::statfs(&there).map_err(|error| format!("{shown}: {error}"))?;
    if NO_FILES.contains(&(statfs.f_type as u64)) {
        return Err(format!("{shown} belongs to the kernel and takes no files"));
    }
    let needed = Access::WRITE_OK | Access::EXEC_OK;
    rustix::fs::access(&there, needed).map_err(|error| match is_it {
        true => format!("it cannot be written ({error})"),
        false => format!("it is not there, and {shown} cannot be written ({error})"),
    })
}

/// The directory itself, or what is there above it; whether it is the directory itself.
fn nearest(directory: &Path) -> (PathBuf, bool) {
    let whole = std::path::absolute(directory).unwrap_or(directory.to_owned());
    let above = whole.ancestors();
    let mut there = above.filter(|path| path.symlink_metadata().is_ok());
    let there = there.next().unwrap_or(Path::new("/")).to_owned();
    let is_it = there == whole;
    (there, is_it)
}
