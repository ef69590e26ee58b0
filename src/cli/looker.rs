//! `looker-feed looker status`: whether a Looker can be asked again, as whom, and what will not work.

use std::process::ExitCode;

use crate::app::{self, Certificates};
use crate::causes::with_causes;
use crate::cli::{ConfigArgument, Failure, load, runtime};
use crate::config::Config;
use crate::harmless::harmless;
use crate::looker_api::LookerApi;

/// Arguments of `looker-feed looker`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Log in to each Looker of [looker.api]; say as whom, and what will not work
    Status(ConfigArgument),
}

/// Runs a command about Looker's API. The exit code is 0 if every Looker can be asked.
pub fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let Action::Status(config) = &arguments.action;
    let config = load(config)?;
    let apis = apis(&config)?;
    if apis.is_empty() {
        return Err(Failure::Usage(none_configured()));
    }
    Ok(match runtime()?.block_on(check(&apis)) {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// The clients of all Lookers that are configured.
pub fn apis(config: &Config) -> Result<Vec<LookerApi>, Failure> {
    let certificates = Certificates::load(config);
    let certificates = certificates.map_err(|error| Failure::Usage(with_causes(&error)))?;
    Ok(app::looker_apis(config, certificates.looker_apis()))
}

/// The one Looker that is meant: by its section's name or its host, or the only one.
pub fn one(config: &Config, wanted: Option<&str>) -> Result<LookerApi, Failure> {
    let names = config.looker.api.instances.iter();
    let names = names.map(|one| one.name.clone());
    let all: Vec<_> = names.zip(apis(config)?).collect();
    let hosts: Vec<_> = all.iter().map(|(_, api)| api.host().to_owned()).collect();
    let mut fitting = all.into_iter().filter(|(name, api)| match wanted {
        None => true,
        Some(wanted) => name == wanted || api.is_at(wanted),
    });
    let hosts = hosts.join(", ");
    let said = match (fitting.next(), fitting.next()) {
        (Some((_, api)), None) => return Ok(api),
        (None, _) if hosts.is_empty() => none_configured(),
        (None, _) => format!("There is no such Looker in [looker.api]; there are {hosts}."),
        (Some(_), Some(_)) => format!(
            "There are several Lookers in [looker.api]: choose one of {hosts} with --looker."
        ),
    };
    Err(Failure::Usage(said))
}

/// Asks each and prints a paragraph of each. Whether all could be asked.
pub async fn check(apis: &[LookerApi]) -> bool {
    let mut fine = true;
    for api in apis {
        match api.rights().await {
            Ok(rights) => {
                let user = &rights.user;
                let (name, id) = (harmless(&user.name), harmless(&user.id));
                println!("{}: logged in as {name} (user {id}).", api.host());
                for sentence in rights.shortcomings() {
                    println!("  {sentence}");
                }
            }
            Err(error) => {
                fine = false;
                println!("{}: {}.", api.host(), harmless(&with_causes(&error)));
            }
        }
        api.log_out().await;
    }
    fine
}

fn none_configured() -> String {
    "No Looker can be asked: [looker.api] in the configuration needs `url`, `client_id` and `client_secret`."
        .to_owned()
}
