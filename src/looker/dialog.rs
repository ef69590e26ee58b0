//! Looker's scheduling dialog, as far as an action hub has a part in it: whether the action is offered
//! for a query, and its form, which is asked for when the dialog opens and again whenever an
//! `interactive` field changes.
//!
//! Strict, as Looker's Action API documents it: what a hub says that is not documented is an error here.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::execute::{Answer, ExecuteError, post};

/// What a person brings to the dialog.
#[derive(Clone, Debug, Default)]
pub struct Person {
    /// The tags of each column of the query.
    pub columns: Vec<Vec<String>>,
    /// The action's settings, as Looker's administrator entered them.
    pub settings: BTreeMap<String, String>,
    /// The person's user attributes in Looker.
    pub user_attributes: BTreeMap<String, String>,
    /// What a schedule that is opened again was saved with.
    pub saved: BTreeMap<String, String>,
}

/// The dialog, open.
#[derive(Debug)]
pub struct Dialog {
    form_url: Url,
    token: String,
    settings: BTreeMap<String, String>,
    fields: Vec<FormField>,
    values: BTreeMap<String, String>,
    error: Option<String>,
}

/// Why a person cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DialogError {
    /// Looker does not show the action as a destination.
    #[error("Looker does not offer the action: {0}")]
    NotOffered(String),
    /// What the hub said is not what Looker's Action API documents.
    #[error("the hub's answer is not as documented: {0}")]
    Contract(String),
    /// The hub did not answer.
    #[error(transparent)]
    Call(#[from] ExecuteError),
    /// The form has no such field, or the field no such option, or it must be filled in.
    #[error("the form cannot be filled in like that: {0}")]
    Form(String),
    /// The form itself says that it cannot work.
    #[error("{0}")]
    Said(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    #[serde(rename = "label")]
    _label: String,
    integrations: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    name: String,
    #[serde(rename = "label")]
    _label: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    #[serde(rename = "icon_data_uri")]
    _icon: Option<String>,
    url: String,
    form_url: Option<String>,
    #[serde(rename = "token_url")]
    _token_url: Option<String>,
    #[serde(default)]
    params: Vec<Param>,
    #[serde(default)]
    required_fields: Vec<RequiredField>,
    supported_action_types: Vec<String>,
    #[serde(rename = "supported_formats")]
    _formats: Option<Vec<String>>,
    #[serde(rename = "supported_formattings")]
    _formattings: Option<Vec<String>>,
    #[serde(rename = "supported_visualization_formattings")]
    _visualizations: Option<Vec<String>>,
    #[serde(rename = "supported_download_settings")]
    _downloads: Vec<String>,
    #[serde(rename = "uses_oauth")]
    _uses_oauth: bool,
    #[serde(rename = "delegate_oauth", default)]
    _delegates_oauth: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Param {
    name: String,
    label: String,
    #[serde(rename = "description")]
    _description: Option<String>,
    user_attribute_name: Option<String>,
    #[serde(default)]
    required: bool,
    #[serde(rename = "sensitive", default)]
    _sensitive: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RequiredField {
    tag: Option<String>,
    any_tag: Option<Vec<String>>,
    all_tags: Option<Vec<String>>,
}

impl RequiredField {
    fn is_met_by(&self, tags: &[String]) -> bool {
        match self {
            Self {
                any_tag: Some(any), ..
            } => any.iter().any(|tag| tags.contains(tag)),
            Self {
                all_tags: Some(all),
                ..
            } => all.iter().all(|tag| tags.contains(tag)),
            Self { tag: Some(tag), .. } => tags.contains(tag),
            _ => true,
        }
    }
}

/// A field of the form.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FormField {
    /// Its name in `form_params`.
    pub name: String,
    /// What a person reads.
    pub label: Option<String>,
    /// What a person reads below it.
    pub description: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    default: Option<String>,
    #[serde(default)]
    interactive: bool,
    #[serde(default)]
    required: bool,
    options: Option<Vec<FormOption>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FormOption {
    name: String,
    #[serde(rename = "label")]
    _label: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    fields: Vec<FormField>,
    error: Option<String>,
}

impl FormField {
    fn offers(&self, value: &str) -> bool {
        let options = self.options.iter().flatten();
        self.options.is_none() || options.map(|option| &option.name).any(|name| name == value)
    }

    fn check(&self) -> Result<(), DialogError> {
        let wrong = |why: &str| Err(DialogError::Contract(format!("field {}: {why}", self.name)));
        match (self.kind.as_deref(), &self.options) {
            (Some("select"), Some(options)) if !options.is_empty() => {}
            (Some("select"), _) => return wrong("a select has options"),
            (None | Some("text" | "string" | "textarea"), None) => {}
            (_, Some(_)) => return wrong("only a select has options"),
            (Some(_), None) => return wrong("the type is none"),
        }
        match &self.default {
            Some(default) if !self.offers(default) => wrong("the default is no option"),
            _ => Ok(()),
        }
    }
}

impl Dialog {
    /// Opens the dialog for a query: asks the hub for its listing, and, if Looker would offer the action,
    /// for its form.
    pub async fn open(hub: &Url, token: &str, person: &Person) -> Result<Self, DialogError> {
        let listing: Listing = read(ask(hub, token, None).await?.json())?;
        let mut actions = listing.integrations.into_iter();
        let action = actions.find(|action| action.name == "mparticle");
        let action = action.ok_or_else(|| DialogError::Contract("no action".to_owned()))?;
        if !action.supported_action_types.contains(&"query".to_owned()) {
            return Err(DialogError::NotOffered("it takes no queries".to_owned()));
        }
        for required in &action.required_fields {
            let met = |tags: &Vec<String>| required.is_met_by(tags);
            if !person.columns.iter().any(met) {
                let why = "no column has a tag that it requires";
                return Err(DialogError::NotOffered(why.to_owned()));
            }
        }
        let mut settings = BTreeMap::new();
        for param in action.params {
            let value = match &param.user_attribute_name {
                Some(attribute) => person.user_attributes.get(attribute),
                None => person.settings.get(&param.name),
            };
            match value.filter(|value| !value.is_empty()) {
                Some(value) => {
                    settings.insert(param.name, value.clone());
                }
                None if param.required => {
                    let why = format!("{} has no value", param.label);
                    return Err(DialogError::NotOffered(why));
                }
                None => {}
            }
        }
        let absolute = |url: &str| {
            let wrong = |error| DialogError::Contract(format!("no absolute url: {error}"));
            Url::parse(url).map_err(wrong)
        };
        absolute(&action.url)?;
        let form_url = action.form_url.unwrap_or_default();
        let mut dialog = Self {
            form_url: absolute(&form_url)?,
            token: token.to_owned(),
            settings,
            fields: Vec::new(),
            values: person.saved.clone(),
            error: None,
        };
        dialog.ask().await?;
        Ok(dialog)
    }

    /// The fields that are shown.
    pub fn fields(&self) -> impl Iterator<Item = &FormField> {
        self.fields.iter()
    }

    /// What the form says against what has been filled in.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The action's settings, which go with every request.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Fills a field in.
    ///
    /// # Errors
    /// It is not shown, or does not offer that; or the hub was asked again, and failed.
    pub async fn fill(&mut self, name: &str, value: &str) -> Result<(), DialogError> {
        let field = self.fields.iter().find(|field| field.name == name);
        let Some(field) = field else {
            return Err(DialogError::Form(format!("there is no field {name}")));
        };
        if !field.offers(value) {
            return Err(DialogError::Form(format!("{name} does not offer {value}")));
        }
        let interactive = field.interactive;
        self.values.insert(name.to_owned(), value.to_owned());
        match interactive {
            true => self.ask().await,
            false => Ok(()),
        }
    }

    /// What is saved with the schedule.
    ///
    /// # Errors
    /// A required field is empty, or the form says that it cannot work.
    pub fn save(&self) -> Result<BTreeMap<String, String>, DialogError> {
        if let Some(error) = &self.error {
            return Err(DialogError::Said(error.clone()));
        }
        let has_value = |name: &String| self.values.get(name).is_some_and(|text| !text.is_empty());
        let mut required = self.fields.iter().filter(|field| field.required);
        match required.find(|field| !has_value(&field.name)) {
            Some(field) => Err(DialogError::Form(format!("{} is required", field.name))),
            None => Ok(self.values.clone()),
        }
    }

    /// Asks for the form. Values of fields that are not shown any more are dropped.
    async fn ask(&mut self) -> Result<(), DialogError> {
        let body = match self.values.is_empty() {
            true => None,
            false => Some(json!({
                "type": "query", "scheduled_plan": null, "attachment": null,
                "data": self.settings, "form_params": self.values,
            })),
        };
        let answer = ask(&self.form_url, &self.token, body).await?;
        let form: Form = match answer.json() {
            Value::Array(fields) => read(json!({"fields": fields}))?,
            form => read(form)?,
        };
        let mut values = BTreeMap::new();
        for field in &form.fields {
            field.check()?;
            let value = self.values.remove(&field.name).or(field.default.clone());
            if let Some(value) = value.filter(|value| field.offers(value))
                && values.insert(field.name.clone(), value).is_some()
            {
                return Err(DialogError::Contract(format!("two fields {}", field.name)));
            }
        }
        self.values = values;
        self.fields = form.fields;
        self.error = form.error;
        Ok(())
    }
}

/// Posts as Looker does; without a body an empty one.
async fn ask(url: &Url, token: &str, body: Option<Value>) -> Result<Answer, DialogError> {
    let body = body.map(|body| Bytes::from(body.to_string()));
    let answer = post(url, token, &[], body.into_iter()).await?;
    match answer.status {
        200 => Ok(answer),
        status => Err(DialogError::Contract(format!("status {status}"))),
    }
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, DialogError> {
    T::deserialize(answer).map_err(|error| DialogError::Contract(error.to_string()))
}
