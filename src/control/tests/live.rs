//! Live events, the history, and the estimates made of it.

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::scripted::{DESTINATION, HOSTILE, PATIENCE, Running};
use crate::clock::UnixMillis;
use crate::control::estimate;
use crate::control::history::{Range, Recorder};
use crate::control::kept;
use crate::control::shared::LISTENERS;
use crate::control::speeds::Speeds;
use crate::control::view::{Delivery, Destination, Overview, Pulse, Rows};

/// Reads events off an answer.
struct Reader {
    body: Incoming,
    text: String,
}

impl Reader {
    async fn open(admin: &Running) -> Self {
        let response = admin.open("GET", "/api/v1/events", &[], "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// `None`: the stream has ended.
    async fn next(&mut self) -> Option<Pulse> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let data = event.strip_prefix("event: pulse\ndata: ").unwrap();
                assert!(!data.contains(['\n', '\r']), "{data}");
                let pulse = serde_json::from_str(data).unwrap();
                self.text = rest.to_owned();
                return Some(pulse);
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await;
            let frame = frame.expect("an event comes")?.unwrap();
            let bytes = frame.into_data().unwrap();
            self.text += std::str::from_utf8(&bytes).unwrap();
        }
    }
}

#[tokio::test]
async fn a_live_page_hears_the_numbers_change() {
    let admin = Running::start().await;
    let mut reader = Reader::open(&admin).await;
    let first = reader.next().await.unwrap();
    assert_eq!(first.overview.totals.rows_in, 1_200);
    assert_eq!(first.deliveries[0].title, HOSTILE);
    assert_eq!(first.problem, None);

    admin.daemon.script().overview.totals.rows_in = 5_000;
    loop {
        let pulse = reader.next().await.unwrap();
        if pulse.overview.totals.rows_in == 5_000 {
            break;
        }
    }
    let problem = crate::control::Problem::Failed("The disk failed.".into());
    admin.daemon.script().problem = Some(problem);
    loop {
        let pulse = reader.next().await.unwrap();
        if let Some(problem) = pulse.problem {
            assert_eq!(problem, "The disk failed.");
            assert_eq!(pulse.overview.totals.rows_in, 5_000);
            break;
        }
    }
    // The end of the daemon is an orderly end of the stream.
    admin.stop().await;
    while reader.next().await.is_some() {}
}

#[tokio::test]
async fn live_pages_are_bounded_and_a_closed_one_makes_room() {
    let admin = Running::start().await;
    let mut readers = Vec::new();
    for _ in 0..LISTENERS {
        readers.push(Reader::open(&admin).await);
    }
    let (status, text) = admin.get("/api/v1/events").await;
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("live pages are open already"), "{text}");
    assert_eq!(admin.get("/livez").await.0, 200);

    drop(readers.pop());
    let room = async {
        loop {
            let response = admin.open("GET", "/api/v1/events", &[], "").await;
            if response.status() == 200 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, room)
        .await
        .expect("room is made");
    drop(readers);
    admin.stop().await;
}

fn at(seconds: u64, accepted: u64, throttled: u64) -> Overview {
    Overview {
        now: UnixMillis(seconds * 1000),
        destinations: vec![Destination {
            id: DESTINATION.into(),
            batches: 50,
            batches_accepted: accepted,
            replies: [("throttled".into(), throttled)].into(),
            latency_mean_ms: 20.0,
            ..Destination::default()
        }],
        ..Overview::default()
    }
}

#[test]
fn the_history_holds_rates_made_of_counters() {
    let mut recorder = Recorder::default();
    for overview in [at(10, 100, 5), at(20, 300, 5), at(40, 500, 9)] {
        recorder.take(&overview);
    }
    let samples = recorder.after(Range::Hour, UnixMillis(0)).samples;
    let rates: Vec<_> = samples.iter().map(|sample| sample.accepted_rate).collect();
    assert_eq!(rates, [20.0, 10.0]);
    assert_eq!(samples[1].throttled, 4);
    assert_eq!(samples[1].backlog_batches, 50);
    assert_eq!(samples[1].latency_mean_ms, 20.0);
    assert_eq!(
        recorder.after(Range::Hour, UnixMillis(20_000)).samples,
        samples[1..]
    );
}

#[test]
fn a_speed_is_that_of_the_last_seconds() {
    let mut speeds = Speeds::default();
    let rate = |speeds: &Speeds, now: Overview| {
        let mut overview = now;
        speeds.fill(&mut overview);
        overview.destinations[0].accepted_rate
    };
    let take = |speeds: &mut Speeds, now: Overview| speeds.take(now.now, &now.destinations);
    assert_eq!(rate(&speeds, at(9, 0, 0)), 0.0, "nothing is known yet");
    // The first speed does not wait for five seconds.
    take(&mut speeds, at(10, 100, 0));
    assert_eq!(rate(&speeds, at(12, 300, 0)), 100.0);
    for (second, accepted) in [(11, 200), (12, 300), (13, 400), (14, 500), (15, 500)] {
        take(&mut speeds, at(second, accepted, 0));
    }
    assert_eq!(rate(&speeds, at(16, 500, 0)), 60.0);
    // Soon after the last batch it is nothing.
    for second in 16..=20 {
        take(&mut speeds, at(second, 500, 0));
    }
    assert_eq!(rate(&speeds, at(21, 500, 0)), 0.0);
    // A counter that starts over, and a clock that was set back.
    take(&mut speeds, at(22, 10, 0));
    take(&mut speeds, at(5, 20, 0));
    assert_eq!(rate(&speeds, at(6, 30, 0)), 10.0);
}

#[test]
fn coarser_rings_keep_what_the_finer_ones_forget() {
    let mut recorder = Recorder::default();
    for n in 11..=8_651 {
        recorder.take(&at(n * 10, n * 10, u64::from(n % 2 == 0)));
    }
    let ring = |range| recorder.after(range, UnixMillis(0));
    assert_eq!(ring(Range::Hour).samples.len(), 2_160);
    let day = ring(Range::Day);
    assert_eq!((day.every_seconds, day.samples.len()), (120, 720));
    let week = ring(Range::Week);
    assert_eq!((week.every_seconds, week.samples.len()), (900, 97));
    for sample in &week.samples {
        assert_eq!(sample.accepted_rate, 1.0, "a mean, not a sum");
        assert_eq!(sample.backlog_batches, 50);
    }
    let throttled: u64 = day.samples.iter().map(|sample| sample.throttled).sum();
    assert_eq!(throttled, 720 * 6, "counts add up");
}

#[test]
fn the_history_goes_on_after_a_restart() {
    let mut before = Recorder::default();
    for n in 0..100 {
        before.take(&at(n * 10, n, 0));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outbox.history");
    assert!(kept::read(&file).unwrap().is_none());
    kept::write(&file, &before.kept()).unwrap();
    let go_on = |now| {
        let mut after = Recorder::default();
        after.go_on(kept::read(&file).unwrap().unwrap(), UnixMillis(now));
        after
    };
    let mut after = go_on(1_000_000);
    let all = |recorder: &Recorder| recorder.after(Range::Hour, UnixMillis(0)).samples;
    assert_eq!(all(&after), all(&before));
    // The first look only sets the counters: they begin at zero.
    after.take(&at(1_000, 5, 0));
    after.take(&at(1_010, 25, 0));
    assert_eq!(all(&after).len(), all(&before).len() + 1);
    assert_eq!(all(&after).last().unwrap().accepted_rate, 2.0);
    // What is too old is forgotten, and what is to come is not believed.
    assert!(all(&go_on(100_000_000)).is_empty());
    assert!(all(&go_on(5_000)).is_empty());
    std::fs::write(&file, "no JSON").unwrap();
    assert!(kept::read(&file).is_err());
}

#[test]
fn counters_that_begin_anew_and_clocks_that_go_back_make_no_nonsense() {
    let mut recorder = Recorder::default();
    for overview in [
        at(10, 1_000, 0),
        at(20, 50, 0),
        at(15, 60, 0),
        at(25, 70, 0),
    ] {
        recorder.take(&overview);
    }
    let rates: Vec<_> = recorder
        .after(Range::Hour, UnixMillis(0))
        .samples
        .iter()
        .map(|sample| sample.accepted_rate)
        .collect();
    assert_eq!(rates, [5.0, 1.0]);
}

#[test]
fn the_history_is_bounded() {
    let mut recorder = Recorder::default();
    for n in 0..5_000 {
        recorder.take(&at(n * 10, n, 0));
    }
    let history = recorder.after(Range::Hour, UnixMillis(0));
    assert_eq!(history.samples.len(), 2_160);
    assert_eq!(history.samples.last().unwrap().at, UnixMillis(49_990_000));
}

#[test]
fn a_delivery_waits_for_those_before_it_and_not_for_those_after() {
    let overview = Overview {
        destinations: vec![Destination {
            id: "a".into(),
            batches: 100,
            accepted_rate: 10.0,
            ..Destination::default()
        }],
        ..Overview::default()
    };
    let delivery = |destination: &str, waiting: u64, delivered: u64| Delivery {
        destination: destination.into(),
        batches: 50,
        rows: Rows {
            waiting,
            delivered,
            rejected: 7,
            ..Rows::default()
        },
        ..Delivery::default()
    };
    // Newest first: 50 batches wait in it, 25 in the next, 25 in older ones that are not listed.
    let mut deliveries = [
        delivery("a", 80, 0),
        delivery("gone", 80, 0),
        delivery("a", 40, 40),
        delivery("a", 0, 80),
    ];
    estimate::deliveries(&overview, &Speeds::default(), &mut deliveries);
    assert_eq!(
        deliveries.map(|delivery| delivery.seconds_left),
        [Some(10), None, Some(5), None]
    );
    // One that is held waits for a person, and those before and behind it do not wait for it. Its
    // batches are not counted in its destination.
    let mut deliveries = [
        delivery("a", 40, 40),
        Delivery {
            held: true,
            ..delivery("a", 80, 0)
        },
        delivery("a", 40, 40),
    ];
    let mut overview = overview;
    overview.destinations[0].batches = 50;
    estimate::deliveries(&overview, &Speeds::default(), &mut deliveries);
    assert_eq!(
        deliveries.map(|delivery| delivery.seconds_left),
        [Some(5), None, Some(3)]
    );
}
