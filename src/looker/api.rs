//! The stand-in's API 4.0, as far as deliveries and previews use it, strictly by its public reference:
//! what is asked in another way than documented is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::schedules::Schedules;
use super::shape::document;
use crate::clock::UnixMillis;
use crate::sandbox::serve::{Body, HangUp, whole};

/// Calls of `run_once` in a second.
const RUNS_A_SECOND: usize = 10;
/// Fields of the Explore of System Activity that are in public use.
const FIELDS: &str = "scheduled_plan.id scheduled_plan.name scheduled_plan.run_once scheduled_job.id \
    scheduled_job.name scheduled_job.status scheduled_job.status_detail \
    scheduled_job.created_time scheduled_job.finalized_time \
    scheduled_plan.destination_addresses";

/// A user with an API key.
#[derive(Clone, Debug)]
pub struct User {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Of its key.
    pub client_id: String,
    /// Of its key.
    pub client_secret: String,
    /// Names of its permissions.
    pub permissions: BTreeSet<String>,
}

impl User {
    /// User 1, an admin who may do everything.
    pub fn admin() -> Self {
        let all = [
            "administer",
            "see_system_activity",
            "access_data",
            "see_looks",
            "explore",
        ];
        Self {
            id: 1,
            name: "Feed Bot".to_owned(),
            client_id: "client-of-the-feed".to_owned(),
            client_secret: "secret-of-the-client".to_owned(),
            permissions: all.map(str::to_owned).into(),
        }
    }
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiFault {
    /// This status, with a message as Looker has it; nothing is done.
    Status(u16),
    /// A page of HTML; nothing is done.
    Html,
    /// It is done, and the answer never comes: the connection is closed.
    LoseAnswer,
    /// It is done, and the answer comes so much later.
    Slow(Duration),
    /// Nothing is done, and the connection is closed.
    HangUp,
}

/// The API of a stand-in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Api {
    schedules: Schedules,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    users: Vec<User>,
    tokens: HashMap<String, (u64, Instant)>,
    token_lives: Duration,
    /// The action hubs: id and address.
    hubs: BTreeMap<u64, String>,
    /// Every call that is not faulty is answered so, while it is set.
    all: Option<ApiFault>,
    /// The next calls whose path holds the text.
    next: VecDeque<(String, ApiFault)>,
    /// System Activity does not know what is younger.
    activity_delay: Duration,
    runs: VecDeque<Instant>,
    calls: Vec<String>,
}

/// A call, read.
struct Call {
    method: Method,
    parts: Vec<String>,
    query: HashMap<String, String>,
    kind: String,
    body: Bytes,
    token: Option<String>,
}

type Answer = Response<Body>;

impl Api {
    pub(super) fn new(schedules: Schedules) -> Self {
        let state = State {
            users: vec![User::admin()],
            tokens: HashMap::new(),
            token_lives: Duration::from_secs(3600),
            hubs: BTreeMap::new(),
            all: None,
            next: VecDeque::new(),
            activity_delay: Duration::ZERO,
            runs: VecDeque::new(),
            calls: Vec::new(),
        };
        Self {
            schedules,
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The schedules behind it.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// Puts a user in the place of the one with its id.
    pub fn put_user(&self, user: User) {
        let mut state = self.state();
        state.users.retain(|one| one.id != user.id);
        state.users.push(user);
    }

    /// Adds an action hub, under which schedules deliver: the first is theirs.
    pub fn put_hub(&self, id: u64, url: &str) {
        self.state().hubs.insert(id, url.to_owned());
    }

    /// Tokens live so long from now on.
    pub fn let_tokens_live(&self, lives: Duration) {
        self.state().token_lives = lives;
    }

    /// Forgets all tokens, as a restart does.
    pub fn forget_tokens(&self) {
        self.state().tokens.clear();
    }

    /// Every call goes wrong so, until it is set to `None`.
    pub fn fail_all(&self, fault: Option<ApiFault>) {
        self.state().all = fault;
    }

    /// The next call whose path holds `part` goes wrong.
    pub fn fail_next(&self, part: &str, fault: ApiFault) {
        self.state().next.push_back((part.to_owned(), fault));
    }

    /// System Activity is so much behind.
    pub fn delay_activity(&self, delay: Duration) {
        self.state().activity_delay = delay;
    }

    /// Method and path of every call so far.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.clone()
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Result<Answer, HangUp> {
        let Some(call) = Call::read(request).await else {
            return Err(HangUp);
        };
        let path = call.parts.join("/");
        let fault = {
            let mut state = self.state();
            state.calls.push(format!("{} {path}", call.method));
            let at = state.next.iter().position(|(part, _)| path.contains(part));
            match at.and_then(|at| state.next.remove(at)) {
                Some((_, fault)) => Some(fault),
                None => state.all,
            }
        };
        match fault {
            None => Ok(self.carry_out(&call)),
            Some(ApiFault::HangUp) => Err(HangUp),
            Some(ApiFault::Html) => {
                let mut page = Response::new(whole("<html><body>Please log in</body></html>"));
                page.headers_mut().insert(
                    CONTENT_TYPE,
                    hyper::header::HeaderValue::from_static("text/html"),
                );
                Ok(page)
            }
            Some(ApiFault::Status(status)) => {
                let mut answer = refuse(status, "It went wrong on purpose.");
                if status == 429 {
                    let seconds = hyper::header::HeaderValue::from_static("1");
                    answer.headers_mut().insert(RETRY_AFTER, seconds);
                }
                Ok(answer)
            }
            Some(ApiFault::LoseAnswer) => {
                let _ = self.carry_out(&call);
                Err(HangUp)
            }
            Some(ApiFault::Slow(pause)) => {
                let answer = self.carry_out(&call);
                tokio::time::sleep(pause).await;
                Ok(answer)
            }
        }
    }

    fn carry_out(&self, call: &Call) -> Answer {
        let parts: Vec<&str> = call.parts.iter().map(String::as_str).collect();
        if let (&Method::POST, ["login"]) = (&call.method, &parts[..]) {
            return self.log_in(call);
        }
        let Some(user) = self.user_of(call) else {
            return refuse(401, "Requires authentication.");
        };
        match (call.method.as_str(), &parts[..]) {
            ("DELETE", ["logout"]) => {
                if let Some(token) = &call.token {
                    self.state().tokens.remove(token);
                }
                let mut answer = Response::new(whole(""));
                *answer.status_mut() = StatusCode::NO_CONTENT;
                answer
            }
            ("GET", ["user"]) => {
                reply(&json!({"id": user.id.to_string(), "display_name": user.name}))
            }
            ("GET", ["users", id, "roles"]) if **id == user.id.to_string() => reply(&json!([{
                "id": "2", "name": "A role",
                "permission_set": {"id": "3", "permissions": user.permissions},
            }])),
            ("GET", ["integration_hubs"]) if user.may("administer") => {
                let state = self.state();
                let hubs = state.hubs.iter();
                let hubs = hubs
                    .map(|(id, url)| json!({"id": id.to_string(), "url": url, "label": "A hub"}));
                reply(&Value::Array(hubs.collect()))
            }
            ("GET", ["integration_hubs"]) => refuse(403, "Forbidden."),
            ("GET", ["scheduled_plans", id]) => self.plan(id),
            ("POST", ["scheduled_plans", id, "run_once"]) => self.run_once(&user, id, call),
            ("POST", ["queries", "run", "json"]) => self.activity(&user, call),
            ("GET", ["looks", id, "run", "json_detail"]) => {
                self.result(&user, "see_looks", id, call)
            }
            ("GET", ["queries", id, "run", "json_detail"]) => {
                self.result(&user, "access_data", id, call)
            }
            ("GET", ["queries", "slug", slug]) => match slug.strip_prefix("slug") {
                Some(id) => reply(&json!({"id": id, "slug": slug})),
                None => not_found(),
            },
            ("GET", ["lookml_models", "shop", "explores", "orders"]) => explore(),
            _ => not_found(),
        }
    }

    fn log_in(&self, call: &Call) -> Answer {
        // In the query it would stand in every log on the way.
        if !call.query.is_empty() || call.kind != "application/x-www-form-urlencoded" {
            return refuse(400, "client_id and client_secret belong into the form.");
        }
        let form: HashMap<String, String> = url::form_urlencoded::parse(&call.body)
            .into_owned()
            .collect();
        let mut state = self.state();
        let user = state.users.iter().find(|user| {
            form.get("client_id") == Some(&user.client_id)
                && form.get("client_secret") == Some(&user.client_secret)
        });
        let Some(id) = user.map(|user| user.id) else {
            return not_found();
        };
        let token = format!("{:032x}", fastrand::u128(..));
        let lives = state.token_lives;
        state
            .tokens
            .insert(token.clone(), (id, Instant::now() + lives));
        reply(&json!({
            "access_token": token, "token_type": "Bearer", "expires_in": lives.as_secs(),
        }))
    }

    fn user_of(&self, call: &Call) -> Option<User> {
        let state = self.state();
        let (id, until) = state.tokens.get(call.token.as_ref()?)?;
        let users = state.users.iter().find(|user| user.id == *id);
        users.filter(|_| *until > Instant::now()).cloned()
    }

    fn plan(&self, id: &str) -> Answer {
        let Some(known) = id.parse().ok().and_then(|id| self.schedules.known(id)) else {
            return not_found();
        };
        reply(&json!({
            "id": id, "name": known.schedule.title, "enabled": known.schedule.enabled,
            "run_once": known.run_once, "user_id": known.schedule.owner.to_string(),
        }))
    }

    fn run_once(&self, user: &User, id: &str, call: &Call) -> Answer {
        let body: Result<Value, _> = serde_json::from_slice(&call.body);
        if call.kind != "application/json" || !body.is_ok_and(|body| body.is_object()) {
            return refuse(422, "The body must be a JSON object.");
        }
        {
            let mut state = self.state();
            let now = Instant::now();
            state
                .runs
                .retain(|at| now.duration_since(*at) < Duration::from_secs(1));
            if state.runs.len() >= RUNS_A_SECOND {
                return refuse(429, "Too many requests.");
            }
            state.runs.push_back(now);
        }
        let id: Option<u64> = id.parse().ok();
        let Some(known) = id.and_then(|id| self.schedules.known(id)) else {
            return not_found();
        };
        if known.schedule.owner != user.id && !user.may("administer") {
            return refuse(403, "Forbidden.");
        }
        let Some(copy) = id.and_then(|id| self.schedules.copy(id)) else {
            return not_found();
        };
        self.schedules.start(copy);
        reply(&json!({
            "id": copy.to_string(), "name": known.schedule.title, "enabled": true, "run_once": true,
        }))
    }

    fn activity(&self, user: &User, call: &Call) -> Answer {
        let Ok(body) = serde_json::from_slice::<Value>(&call.body) else {
            return refuse(400, "The body is not JSON.");
        };
        if body["model"] != "system__activity" || body["view"] != "scheduled_plan" {
            return not_found();
        }
        if !user.may("see_system_activity") {
            return refuse(403, "Forbidden.");
        }
        let fields = body["fields"].as_array().into_iter().flatten();
        let fields: Vec<&str> = fields.filter_map(Value::as_str).collect();
        if fields.is_empty()
            || fields
                .iter()
                .any(|field| !FIELDS.split(' ').any(|known| known == *field))
        {
            return refuse(422, "There is no such field.");
        }
        let window = body["filters"]["scheduled_job.created_date"].as_str();
        let hours = window.and_then(|text| text.strip_suffix(" hours")?.parse::<u64>().ok());
        let (Some(hours), Some("UTC")) = (hours, body["query_timezone"].as_str()) else {
            return refuse(422, "The filter or the time zone is missing.");
        };
        let state = self.state();
        let now = UnixMillis::now().0;
        let known = now.saturating_sub(state.activity_delay.as_millis() as u64);
        let oldest = now.saturating_sub(hours * 3_600_000);
        let hub = state.hubs.keys().next().copied().unwrap_or(1);
        drop(state);
        let jobs = self.schedules.jobs().into_iter().rev();
        let seen = jobs.filter(|job| job.created.0 >= oldest && job.created.0 <= known);
        let rows = seen.map(|job| {
            let known_plan = self.schedules.known(job.plan);
            let title = known_plan.map(|plan| plan.schedule.title);
            let ended = job.ended.filter(|(at, _)| at.0 <= known);
            let status = match ended {
                None => "in_progress",
                Some((_, true)) => "success",
                Some((_, false)) => "failure",
            };
            let all = json!({
                "scheduled_plan.id": job.plan, "scheduled_plan.name": title,
                "scheduled_plan.run_once": if job.plan == job.original { "No" } else { "Yes" },
                "scheduled_job.id": job.id, "scheduled_job.name": title,
                "scheduled_job.status": status, "scheduled_job.status_detail": null,
                "scheduled_job.created_time": time(job.created),
                "scheduled_job.finalized_time": ended.map(|(at, _)| time(at)),
                "scheduled_plan.destination_addresses": format!("{hub}::mparticle"),
            });
            let asked = fields.iter();
            let asked = asked.map(|field| ((*field).to_owned(), all[*field].clone()));
            Value::Object(asked.collect())
        });
        reply(&Value::Array(rows.collect()))
    }

    fn result(&self, user: &User, permission: &str, id: &str, call: &Call) -> Answer {
        if !user.may("access_data") || !user.may(permission) {
            return refuse(403, "Forbidden.");
        }
        let limit: Option<u64> = call.query.get("limit").and_then(|text| text.parse().ok());
        let shape = self.schedules.shape_of(id.parse().unwrap_or_default());
        let Some(mut shape) = shape else {
            return not_found();
        };
        shape.rows = shape.rows.min(limit.unwrap_or(5_000));
        let text: Vec<u8> = document(&shape).flatten().collect();
        answer(200, text)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl User {
    fn may(&self, permission: &str) -> bool {
        self.permissions.contains(permission)
    }
}

impl Call {
    async fn read(request: Request<Incoming>) -> Option<Self> {
        let (head, body) = request.into_parts();
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let token = header(AUTHORIZATION).and_then(|value| value.strip_prefix("token "));
        let url = url::Url::parse(&format!("http://looker{}", head.uri)).ok()?;
        let parts = url.path().strip_prefix("/api/4.0/")?.split('/');
        Some(Self {
            parts: parts.map(str::to_owned).collect(),
            query: url.query_pairs().into_owned().collect(),
            kind: header(CONTENT_TYPE).unwrap_or_default().to_owned(),
            token: token.map(str::to_owned),
            method: head.method,
            body: body.collect().await.ok()?.to_bytes(),
        })
    }
}

/// An Explore with a tag of another system and a misspelt one.
fn explore() -> Answer {
    let field = |name: &str, tags: &[&str]| json!({"name": name, "label": name, "tags": tags, "hidden": false});
    reply(&json!({"fields": {
        "dimensions": [
            field("users.id", &["mp_customer_id"]),
            field("users.email", &["email", "mp_email"]),
            field("users.plan", &["mp_user_atribute"]),
            field("orders.note", &["braze_id"]),
            field("orders.status", &[]),
        ],
        "measures": [field("orders.total", &["mp_custom_attribute"])],
    }}))
}

fn time(at: UnixMillis) -> String {
    let at = std::time::UNIX_EPOCH + Duration::from_millis(at.0);
    let text = humantime::format_rfc3339_seconds(at).to_string();
    text.replace('T', " ").trim_end_matches('Z').to_owned()
}

fn reply(value: &Value) -> Answer {
    answer(200, value.to_string())
}

fn not_found() -> Answer {
    refuse(404, "Not found")
}

fn refuse(status: u16, message: &str) -> Answer {
    let body =
        json!({"message": message, "documentation_url": "https://cloud.google.com/looker/docs"});
    answer(status, body.to_string())
}

fn answer(status: u16, body: impl Into<Bytes>) -> Answer {
    let status = StatusCode::from_u16(status);
    let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    super::publish::reply(status, "application/json", whole(body))
}
