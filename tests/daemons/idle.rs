//! What a daemon that has nothing to do asks its database.

use std::collections::BTreeMap;

use crate::fleet::{Fleet, Terms, until};
use crate::own::{self, Own};

/// Is heard of: three times in a lease.
const BEAT: &str = "INSERT INTO looker_feed.daemon ";

/// One of the statements by which it deletes what nobody needs any more.
const TIDIES: &str = "DELETE FROM looker_feed.webhook ";

/// The statements that have been carried out, in order, as the server wrote them down.
fn statements(own: &Own) -> Vec<String> {
    let log = std::fs::read(own.directory.join("log")).unwrap_or_default();
    let log = String::from_utf8_lossy(&log).into_owned();
    let executed = log.lines().filter_map(|line| {
        let (_, statement) = line.split_once("execute ")?;
        let (_, sql) = statement.split_once(": ")?;
        Some(sql.to_owned())
    });
    executed.collect()
}

/// A lease of 15 seconds, as it is by default; counted from one beat to another, which are 5 seconds apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_daemon_without_work_asks_next_to_nothing() {
    let Some(own) = Own::start(&["fsync = off", "log_statement = 'all'"]) else {
        return;
    };
    let terms = Terms {
        more: vec![("OUTBOX__LEASE", "15s")],
        ..Terms::default()
    };
    let fleet = Fleet::at(&own::url(&[&own]), 1, terms).await;
    let sent = [fleet.send(0, "account", 1).await];
    fleet.balanced(&sent).await;
    // No balancer asks whether it is ready, since that is tried by a write.
    fleet.balancer.put(0, None);
    let beats = |own: &Own| {
        let all = statements(own).into_iter().enumerate();
        let beats = all.filter(|(_, sql)| sql.starts_with(BEAT));
        beats.map(|(at, _)| at).collect::<Vec<usize>>()
    };
    // What nobody is in a hurry for is done once more when nothing happens any more, and then seldom.
    let at_rest = |own: &Own| {
        let (beats, all) = (beats(own), statements(own));
        let from = *beats.get(beats.len().checked_sub(7)?)?;
        let asked = all.get(from..*beats.last()?)?.to_vec();
        (!asked.iter().any(|sql| sql.starts_with(TIDIES))).then_some(asked)
    };
    let mut asked = None;
    until("it has been at rest for six beats", || {
        asked = at_rest(&own);
        asked.is_some()
    })
    .await;
    let asked = asked.unwrap_or_default();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for sql in &asked {
        *counts.entry(&sql[..sql.len().min(70)]).or_default() += 1;
    }
    println!(
        "a daemon without work asks {} statements a minute",
        2 * asked.len()
    );
    assert!(asked.len() <= 75, "{} in 30 s: {counts:#?}", asked.len());
}
