//! A daemon that says what a test tells it to, an admin side in front of it, and a client.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::clock::{Clock, UnixMillis};
use crate::control::people::{Lookup, Person, Place};
use crate::control::view::{
    AskAgain, AskedAgain, Batch, DeadLetter, Delivery, Destination, Done, Edited, FailedDelivery,
    Failures, Listing, LookerApi, Outbox, Overview, Receiving, RejectedRow, Rows, Schedule,
    Setting, Spans, Totals,
};
use crate::control::{
    Admin, AdminSettings, AuditLog, Daemon, Filter, NamedToken, Page, Problem, Proxy, Token, Which,
    groups,
};
use crate::shutdown::{self, Trigger};

/// A search or an erasure that has found something.
fn lookup(erases: bool) -> Lookup {
    Lookup {
        id: "00000000000000aa".into(),
        erases,
        state: "done".into(),
        reference: Some(HOSTILE.into()),
        started: UnixMillis(1_000),
        finished: Some(UnixMillis(2_000)),
        read_bytes: 5,
        total_bytes: 5,
        message: "Found in one delivery.".into(),
        places: vec![Place {
            delivery: DELIVERY.into(),
            title: HOSTILE.into(),
            received: Some(UnixMillis(500)),
            waiting: 3,
            noted: Some("sent".into()),
            ..Place::default()
        }],
    }
}

/// Title and reasons that try to get out of every place that they are put into.
pub(crate) const HOSTILE: &str =
    "</script><img src=x onerror=alert(1)>\"'&\u{1b}[31m\r\ndata: {}\n\n\u{202e}evil";

/// 2^53 + 1, which a double cannot hold.
pub(crate) const EXACT: &str =
    "{\"source_request_id\":\"a\",\"user_attributes\":{\"n\":9007199254740993,\"x\":1.10}}";

pub(crate) const DELIVERY: &str = "0198f0c0000000000000000000000001";
pub(crate) const DESTINATION: &str = "d0000000000000000000000000000001";
pub(crate) const TOKEN: &str = "correct-horse-battery";

/// Of somebody who may only look.
pub(crate) const LOOKING: &str = "staple-that-only-looks";

fn named(token: &str) -> [NamedToken; 2] {
    let named = |name: &str, may_act, token: &str| NamedToken {
        name: name.into(),
        may_act,
        token: Token::new(token).unwrap(),
    };
    [named("ann", true, token), named("leo", false, LOOKING)]
}

/// Longest wait of a test for what must come at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What the daemon says, and what was asked of it.
#[derive(Default)]
pub(crate) struct Script {
    pub overview: Overview,
    pub deliveries: Vec<Delivery>,
    pub failed: Vec<FailedDelivery>,
    pub letters: Vec<DeadLetter>,
    pub rejected: Vec<RejectedRow>,
    pub problem: Option<Problem>,
    /// A dead letter that cannot be read, and why.
    pub unreadable: Option<(String, Problem)>,
    pub calls: Vec<String>,
    /// The next question whether it is alive is not answered before the other end of this goes.
    pub stuck: Option<std::sync::mpsc::Receiver<()>>,
    /// Entries in a part of a list: two, so that each list takes two parts.
    pub part: usize,
    /// The part of each list that begins here fails.
    pub breaks_at: Option<String>,
}

impl Script {
    fn part_of<T: Clone>(&self, all: &[T], page: &Page) -> Result<Listing<T>, Problem> {
        if self.breaks_at.is_some() && self.breaks_at == page.after {
            return Err(Problem::Failed("The disk failed.".into()));
        }
        let after = page.after.as_deref().unwrap_or("0").parse::<usize>();
        let skip = after.map_err(|_| Problem::Refused("No such place in the list.".into()))?;
        let end = (skip + page.limit.min(self.part)).min(all.len());
        Ok(Listing {
            items: all.get(skip..end).unwrap_or_default().to_vec(),
            next: (end < all.len()).then(|| end.to_string()),
        })
    }
}

#[derive(Default)]
pub(crate) struct Scripted(Mutex<Script>);

impl Scripted {
    /// One destination, one delivery, three dead letters, three rejected rows.
    pub fn new() -> Arc<Self> {
        let letter = |n: u64| DeadLetter {
            id: format!("17-{n}"),
            delivery: DELIVERY.into(),
            title: HOSTILE.into(),
            reason: format!("mParticle answered 400: {HOSTILE}"),
            attempts: 2,
            may_have_arrived: n == 2,
            first_try: UnixMillis(1_000),
            last_try: UnixMillis(2_000),
            rows: 4,
            bytes: 300,
            batch: None,
        };
        let failed = |n: u64| FailedDelivery {
            id: format!("0198f0c00000000000000000000000f{n}"),
            state: "failed".into(),
            title: HOSTILE.into(),
            link: Some("https://looker.example.com/looks/7".into()),
            received: UnixMillis(1_000 * n),
            ended: UnixMillis(1_000 * n + 500),
            reason: "cut".into(),
            passing: true,
            message: format!("The delivery broke off: {HOSTILE}"),
            rows: 3,
            bytes: 100,
            again: (n > 0).then(|| AskedAgain {
                state: "waiting".into(),
                next: Some(UnixMillis(90_000)),
                count: 1,
                most: 4,
                ..AskedAgain::default()
            }),
            ..FailedDelivery::default()
        };
        let script = Script {
            failed: (0..3).rev().map(failed).collect(),
            overview: Overview {
                version: "0.1.0".into(),
                started: UnixMillis(1_000),
                now: UnixMillis(61_000),
                ready: true,
                receiving: vec![Receiving {
                    title: HOSTILE.into(),
                    rows: 5,
                    bytes: 500,
                    since: UnixMillis(60_000),
                }],
                destinations: vec![Destination {
                    id: DESTINATION.into(),
                    label: "s2s.mparticle.com \"…1234\" \\ \n".into(),
                    state: "flowing".into(),
                    rate: 120.5,
                    limit: 270.0,
                    batches: 100,
                    rows: 1_000,
                    oldest: Some(UnixMillis(31_000)),
                    replies: [("accepted".into(), 7), ("throttled".into(), 2)].into(),
                    latency_mean_ms: 80.0,
                    latency_p99_ms: 250.0,
                    ..Destination::default()
                }],
                outbox: Outbox {
                    bytes: 10_000,
                    free_bytes: 1 << 40,
                    dead_letters: 3,
                    rejected_rows: 3,
                    cancelled_rows: 17,
                    set_aside_bytes: 77,
                    ..Outbox::default()
                },
                totals: Totals {
                    deliveries_accepted: 1,
                    rows_in: 1_200,
                    failed: [("cut".to_owned(), 2), ("columns".to_owned(), 1)].into(),
                    ..Totals::default()
                },
                failures: Failures {
                    on_record: 3,
                    for_a_person: 0,
                    since: None,
                    newest: Some(UnixMillis(2_500)),
                    changes: 4,
                },
                ask_again: AskAgain {
                    asked: 5,
                    done: 2,
                    given_up: 1,
                    called_off: 1,
                    open: [("waiting".to_owned(), 0)].into(),
                    lookers: vec![LookerApi {
                        host: "looker.example.com".into(),
                        ..LookerApi::default()
                    }],
                },
                spans: Some(Spans {
                    exported: 70,
                    dropped: 2,
                }),
                ..Overview::default()
            },
            deliveries: vec![Delivery {
                id: DELIVERY.into(),
                destination: DESTINATION.into(),
                title: HOSTILE.into(),
                link: Some("javascript:alert(1)".into()),
                received: UnixMillis(31_000),
                state: "sending".into(),
                rows_in: 1_200,
                rows: Rows {
                    delivered: 185,
                    waiting: 1_000,
                    dead: 12,
                    rejected: 3,
                    ..Rows::default()
                },
                users: 110,
                batches: 120,
                batches_delivered: 19,
                ..Delivery::default()
            }],
            letters: (0..3).map(letter).collect(),
            rejected: (1..=3)
                .map(|row| RejectedRow {
                    row,
                    reason: format!("no identity: {HOSTILE}"),
                    text: "{\"a\":{\"value\":null}}".into(),
                })
                .collect(),
            part: 2,
            ..Script::default()
        };
        Arc::new(Self(Mutex::new(script)))
    }

    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap()
    }

    fn called(&self, call: String) -> Result<MutexGuard<'_, Script>, Problem> {
        let mut script = self.script();
        script.calls.push(call);
        script.problem.clone().map_or(Ok(script), Err)
    }

    fn letters(&self, verb: &str, which: &Which) -> Result<Done, Problem> {
        let mut script = self.called(format!("{verb} {which:?}"))?;
        let before = script.letters.len();
        script.letters.retain(|letter| match which {
            Which::Ids(ids) => !ids.contains(&letter.id),
            Which::Delivery(delivery) => letter.delivery != *delivery,
            Which::Reason(reason) => groups::key(&letter.reason) != *reason,
            Which::All => false,
        });
        let changed = (before - script.letters.len()) as u64;
        done(changed, format!("{changed} batches: {verb}."))
    }

    fn steer(&self, verb: &str, destination: &str) -> Result<Done, Problem> {
        drop(self.called(format!("{verb} {destination}"))?);
        if destination != DESTINATION {
            return Err(no_such("destination"));
        }
        done(1, format!("Done: {verb}."))
    }
}

fn done(changed: u64, message: String) -> Result<Done, Problem> {
    Ok(Done { changed, message })
}

fn no_such(what: &str) -> Problem {
    Problem::Unknown(format!("There is no such {what}."))
}

impl Daemon for Scripted {
    fn alive(&self) -> Result<(), Problem> {
        let script = self.called("alive".into()).ok();
        let stuck = script.and_then(|mut script| script.stuck.take());
        if let Some(stuck) = stuck {
            let _ = stuck.recv();
        }
        self.script().problem.clone().map_or(Ok(()), Err)
    }

    fn now(&self) -> UnixMillis {
        self.script().overview.now
    }

    fn overview(&self) -> Overview {
        self.script().overview.clone()
    }

    fn deliveries(&self, filter: &Filter, page: &Page) -> Result<Listing<Delivery>, Problem> {
        let script = self.called(format!("deliveries {}", page.limit))?;
        let mut admitted = script.deliveries.clone();
        admitted.retain(|delivery| filter.admits(delivery));
        script.part_of(&admitted, page)
    }

    fn on_record(
        &self,
        visit: &mut dyn FnMut(Delivery) -> Result<ControlFlow<()>, Problem>,
    ) -> Result<(), Problem> {
        let all = self.called("on_record".into())?.deliveries.clone();
        for delivery in all {
            if visit(delivery)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    fn failed_deliveries(
        &self,
        filter: &Filter,
        page: &Page,
    ) -> Result<Listing<FailedDelivery>, Problem> {
        let script = self.called(format!("failed_deliveries {}", page.limit))?;
        let mut admitted = script.failed.clone();
        admitted.retain(|failed| filter.admits_failed(failed));
        script.part_of(&admitted, page)
    }

    fn failed_delivery(&self, id: &str) -> Result<FailedDelivery, Problem> {
        let script = self.called(format!("failed_delivery {id}"))?;
        let found = script.failed.iter().find(|one| one.id == id);
        found.cloned().ok_or_else(|| no_such("delivery"))
    }

    fn ask_again(&self, id: &str) -> Result<Done, Problem> {
        drop(self.called(format!("ask_again {id}"))?);
        self.failed_delivery(id)?;
        done(1, "Looker is asked.".into())
    }

    fn do_not_ask(&self, id: &str) -> Result<Done, Problem> {
        drop(self.called(format!("do_not_ask {id}"))?);
        self.failed_delivery(id)?;
        done(1, "Looker is not asked.".into())
    }

    fn schedules(&self) -> Result<Vec<Schedule>, Problem> {
        let script = self.called("schedules".into())?;
        let schedules = script.deliveries.iter().map(|delivery| Schedule {
            title: delivery.title.clone(),
            deliveries: 1,
            newest: delivery.received,
        });
        Ok(schedules.collect())
    }

    fn delivery(&self, id: &str) -> Result<Delivery, Problem> {
        let script = self.called(format!("delivery {id}"))?;
        let found = script.deliveries.iter().find(|delivery| delivery.id == id);
        found.cloned().ok_or_else(|| no_such("delivery"))
    }

    fn rejected(&self, delivery: &str, page: &Page) -> Result<Listing<RejectedRow>, Problem> {
        self.delivery(delivery)?;
        let script = self.script();
        script.part_of(&script.rejected, page)
    }

    fn dead_letters(
        &self,
        delivery: Option<&str>,
        page: &Page,
    ) -> Result<Listing<DeadLetter>, Problem> {
        let script = self.called(format!("dead_letters {delivery:?}"))?;
        let mut letters = script.letters.clone();
        letters.retain(|letter| delivery.is_none_or(|id| letter.delivery == id));
        script.part_of(&letters, page)
    }

    fn dead_letter(&self, id: &str) -> Result<DeadLetter, Problem> {
        let script = self.called(format!("dead_letter {id}"))?;
        if let Some((unreadable, problem)) = &script.unreadable
            && unreadable == id
        {
            return Err(problem.clone());
        }
        let found = script.letters.iter().find(|letter| letter.id == id);
        let mut letter = found.cloned().ok_or_else(|| no_such("dead letter"))?;
        letter.batch = Some(Batch::from_text(EXACT.into()).unwrap());
        Ok(letter)
    }

    fn edit(&self, id: &str, batch: &str, take_chance: bool) -> Result<Edited, Problem> {
        let mut script = self.called(format!("edit {id} {batch} {take_chance}"))?;
        let found = script.letters.iter_mut().find(|letter| letter.id == id);
        let letter = found.ok_or_else(|| no_such("letter"))?;
        if batch == EXACT {
            return Ok(Edited {
                changed: 0,
                id: id.into(),
                message: "Nothing has changed.".into(),
            });
        }
        letter.id = format!("18-{id}");
        Ok(Edited {
            changed: 1,
            id: letter.id.clone(),
            message: format!("Now it is {}.", letter.id),
        })
    }

    fn replay(&self, which: &Which) -> Result<Done, Problem> {
        self.letters("replay", which)
    }

    fn discard(&self, which: &Which) -> Result<Done, Problem> {
        self.letters("discard", which)
    }

    fn cancel(&self, delivery: &str) -> Result<Done, Problem> {
        let mut script = self.called(format!("cancel {delivery}"))?;
        let found = script.deliveries.iter_mut().find(|one| one.id == delivery);
        let one = found.ok_or_else(|| no_such("delivery"))?;
        let changed = std::mem::take(&mut one.rows.waiting);
        one.rows.cancelled += changed;
        done(changed, format!("{changed} rows: cancelled."))
    }

    fn release(&self, delivery: &str) -> Result<Done, Problem> {
        let mut script = self.called(format!("release {delivery}"))?;
        let found = script.deliveries.iter_mut().find(|one| one.id == delivery);
        let one = found.ok_or_else(|| no_such("delivery"))?;
        let changed = u64::from(std::mem::take(&mut one.held));
        done(changed, format!("{changed} released."))
    }

    fn find(&self, person: &Person) -> Result<Lookup, Problem> {
        drop(self.called(format!("find {}", person.identities.len()))?);
        Ok(lookup(false))
    }

    fn erase(&self, person: &Person) -> Result<Lookup, Problem> {
        drop(self.called(format!("erase {}", person.identities.len()))?);
        Ok(lookup(true))
    }

    fn lookups(&self) -> Result<Vec<Lookup>, Problem> {
        drop(self.called("lookups".to_owned())?);
        Ok(vec![lookup(true), lookup(false)])
    }

    fn lookup(&self, id: &str) -> Result<Lookup, Problem> {
        drop(self.called(format!("lookup {id}"))?);
        Ok(lookup(false))
    }

    fn pause(&self, destination: &str) -> Result<Done, Problem> {
        self.steer("pause", destination)
    }

    fn resume(&self, destination: &str) -> Result<Done, Problem> {
        self.steer("resume", destination)
    }

    fn retry_now(&self, destination: &str) -> Result<Done, Problem> {
        self.steer("retry", destination)
    }
}

/// An admin side that answers.
pub(crate) struct Running {
    pub addr: SocketAddr,
    pub daemon: Arc<Scripted>,
    trigger: Trigger,
    task: JoinHandle<()>,
    /// Where the audit log is.
    _folder: tempfile::TempDir,
}

impl Running {
    /// Short, since one test waits for it to pass; none of the others stops reading.
    pub const WRITE_TIMEOUT: Duration = Duration::from_millis(500);

    pub async fn start() -> Self {
        Self::with(None).await
    }

    pub async fn with(token: Option<&str>) -> Self {
        Self::behind(token, None).await
    }

    /// Behind a proxy.
    pub async fn behind(token: Option<&str>, proxy: Option<Proxy>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (audit, clock) = (folder.path().join("outbox.audit"), Clock::default());
        let daemon = Scripted::new();
        let admin = Admin::bind(AdminSettings {
            listen: "127.0.0.1:0".parse().unwrap(),
            tokens: token.into_iter().flat_map(named).collect(),
            hosts: vec!["feed.example.com".into()],
            write_timeout: Self::WRITE_TIMEOUT,
            history: None,
            audit: Some(AuditLog::new(audit, clock.clone())),
            proxy,
            clock,
            configuration: vec![Setting {
                key: "admin.token".into(),
                secret: true,
                changed: true,
                source: "the environment variable LOOKER_FEED_ADMIN__TOKEN".into(),
                ..Setting::default()
            }],
        });
        let admin = admin.await.unwrap();
        let (trigger, shutdown) = shutdown::channel();
        Self {
            addr: admin.addr(),
            task: tokio::spawn(admin.run(daemon.clone(), shutdown)),
            daemon,
            trigger,
            _folder: folder,
        }
    }

    /// Stops it; fails the test when a task hangs.
    pub async fn stop(self) {
        self.trigger.pull();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .expect("the admin side stops")
            .unwrap();
    }

    /// Sends a request and returns the answer with its body unread.
    pub async fn open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Response<Incoming> {
        self.try_open(method, target, headers, body).await.unwrap()
    }

    /// The same, for an answer that may be cut before its head is out.
    pub async fn try_open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> hyper::Result<Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(target);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.addr.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Full::new(Bytes::from(body.to_owned())))
            .unwrap();
        let stream = TcpStream::connect(self.addr).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        tokio::time::timeout(PATIENCE, sender.send_request(request))
            .await
            .expect("an answer comes")
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (u16, String) {
        let response = self.open(method, target, headers, body).await;
        let status = response.status().as_u16();
        let body = tokio::time::timeout(PATIENCE, response.into_body().collect()).await;
        let bytes = body.expect("the answer ends").unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    pub async fn get(&self, target: &str) -> (u16, String) {
        self.ask("GET", target, &[], "").await
    }

    /// An answer of 200 to a `GET`.
    pub async fn read<T: serde::de::DeserializeOwned>(&self, target: &str) -> T {
        let (status, text) = self.get(target).await;
        assert_eq!(status, 200, "{target}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A changing call as a program makes it.
    pub async fn post(&self, target: &str, body: &str) -> (u16, String) {
        self.ask("POST", target, &[("x-looker-feed", "1")], body)
            .await
    }
}
