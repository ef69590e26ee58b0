//! What a person chooses in Looker's form, as arguments.

use clap::ValueEnum;

use crate::model::{DataType, Environment};

/// The form's two fields.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct FormArguments {
    /// What the rows are: profiles of users, or events
    #[arg(long, value_enum, default_value_t = Kind::Event, value_name = "TYPE")]
    data_type: Kind,
    /// mParticle's environment: the only guard between a trial and real data
    #[arg(long, value_enum, default_value_t = Realm::Development, value_name = "ENV")]
    environment: Realm,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    #[value(alias = "user_data")]
    User,
    #[value(alias = "event_data")]
    Event,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Realm {
    Production,
    Development,
}

impl FormArguments {
    /// Profiles or events.
    pub fn data_type(self) -> DataType {
        match self.data_type {
            Kind::User => DataType::User,
            Kind::Event => DataType::Event,
        }
    }

    /// mParticle's environment.
    pub fn environment(self) -> Environment {
        match self.environment {
            Realm::Production => Environment::Production,
            Realm::Development => Environment::Development,
        }
    }
}
