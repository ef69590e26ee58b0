//! What a person chooses in Looker's form, as arguments: one for each field, of the field's name, but
//! for *Send Only Changes*, which needs what a schedule delivered before. They become the form that Looker would send, so that what they mean is decided where that is read.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::cli::Failure;
use crate::intake::{self, Choices};
use crate::model::{DataType, Environment};

/// The form's fields.
#[derive(Clone, Debug, clap::Args)]
pub struct FormArguments {
    /// What the rows are: profiles of users, or events
    #[arg(long, value_enum, default_value_t = Kind::Event, value_name = "TYPE")]
    data_type: Kind,
    /// mParticle's environment: the only guard between a trial and real data
    #[arg(long, value_enum, default_value_t = Realm::Development, value_name = "ENV")]
    environment: Realm,
    /// Skip Events Already Sent
    #[arg(long, help_heading = FORM)]
    skip_sent: bool,
    /// Null Attributes [default: as configured]
    #[arg(long, value_parser = ["omit", "null", "delete"], help_heading = FORM, value_name = "CHOICE")]
    null_attributes: Option<String>,
    /// More Columns: a column and its tag, such as "calculation_1: mp_user_attribute"; can be repeated
    #[arg(long, help_heading = FORM, value_name = "COLUMN: TAG")]
    more_columns: Vec<String>,
    /// Pivoted Measures [default: as configured]
    #[arg(long, value_parser = ["refuse", "attributes", "json"], help_heading = FORM, value_name = "CHOICE")]
    pivoted_measures: Option<String>,
    /// Columns Without a Tag [default: as configured]
    #[arg(long, value_parser = ["ignore", "user_attribute", "event_attribute"], help_heading = FORM, value_name = "CHOICE")]
    untagged: Option<String>,
    /// Attribute Types [default: as configured]
    #[arg(long, value_parser = ["as_is", "typed"], help_heading = FORM, value_name = "CHOICE")]
    attribute_types: Option<String>,
    /// HTML in Values [default: as configured]
    #[arg(long, value_parser = ["keep", "strip"], help_heading = FORM, value_name = "CHOICE")]
    html: Option<String>,
    /// Historical Events [default: as configured]
    #[arg(long, value_parser = ["auto", "never", "always"], help_heading = FORM, value_name = "CHOICE")]
    historical_events: Option<String>,
    /// Data Center [default: as configured]
    #[arg(long, value_parser = ["us1", "us2", "eu1", "au1"], help_heading = FORM, value_name = "POD")]
    pod: Option<String>,
    /// Data Plan ID [default: as configured]
    #[arg(long, help_heading = FORM, value_name = "ID")]
    plan_id: Option<String>,
    /// Data Plan Version
    #[arg(long, help_heading = FORM, value_name = "NUMBER")]
    plan_version: Option<String>,
}

const FORM: &str = "Fields of Looker's form";

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
    pub fn data_type(&self) -> DataType {
        match self.data_type {
            Kind::User => DataType::User,
            Kind::Event => DataType::Event,
        }
    }

    /// mParticle's environment.
    pub fn environment(&self) -> Environment {
        match self.environment {
            Realm::Production => Environment::Production,
            Realm::Development => Environment::Development,
        }
    }

    /// The form as Looker would send it. Fields that were not given are not in it.
    pub fn params(&self) -> Value {
        let mut form = Map::new();
        form.insert("data_type".to_owned(), json!(self.data_type()));
        form.insert("environment".to_owned(), json!(self.environment()));
        if self.skip_sent {
            form.insert("skip_sent".to_owned(), json!("yes"));
        }
        if !self.more_columns.is_empty() {
            let lines = self.more_columns.join("\n");
            form.insert("more_columns".to_owned(), json!(lines));
        }
        for (name, given) in [
            ("pivoted_measures", &self.pivoted_measures),
            ("null_attributes", &self.null_attributes),
            ("untagged", &self.untagged),
            ("attribute_types", &self.attribute_types),
            ("html", &self.html),
            ("historical_events", &self.historical_events),
            ("pod", &self.pod),
            ("plan_id", &self.plan_id),
            ("plan_version", &self.plan_version),
        ] {
            if let Some(given) = given {
                form.insert(name.to_owned(), json!(given));
            }
        }
        Value::Object(form)
    }

    /// What the daemon would understand.
    ///
    /// # Errors
    /// It would refuse a field, and why.
    pub fn choices(&self) -> Result<Choices, Failure> {
        intake::choices(&self.params()).map_err(|refusal| Failure::Usage(refusal.message))
    }
}
