//! The second act: a delivery that breaks off half-way comes again by itself.

use std::time::{Duration, Instant};

use crate::cli::Failure;
use crate::cli::daemon::Daemon;
use crate::cli::summary::{thousands, time};
use crate::control::view;
use crate::looker::{self, Api, Schedule, Shape, document};
use crate::sandbox;

/// It takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the daemon is asked how it stands.
const TICK: Duration = Duration::from_millis(200);

/// Has a schedule cut, waits until it is whole, and compares what arrived.
pub async fn heal(daemon: &Daemon, api: &Api, ledger: &sandbox::Handle) -> Result<(), Failure> {
    let shape = Shape {
        rows: 2_000,
        users: 100,
        seed: 8,
        ..Shape::default()
    };
    let bytes: usize = document(&shape).map(|chunk| chunk.len()).sum();
    let mut schedule = Schedule::new("Cut on purpose", shape.clone(), 1);
    schedule.failures = [Some(looker::Failure::CutAfter(bytes as u64 / 2))].into();
    let schedules = api.schedules();
    schedules.point_at(&daemon.hub, &daemon.token);
    let before = ledger.ledger().len();
    let begin = Instant::now();
    let id = schedules.add(schedule);
    if schedules.run(id).await {
        return Err(Failure::Other("What was cut was delivered.".to_owned()));
    }
    let mut said = false;
    let again = loop {
        let failed: view::Listing<view::FailedDelivery> =
            daemon.get("/api/v1/failed-deliveries").await?;
        if let Some(failed) = failed.items.into_iter().next() {
            if !said {
                said = true;
                println!(
                    "\nA second delivery broke off half-way, on purpose; none of it was sent, and Looker heard:\n  {}",
                    failed.message
                );
            }
            match failed.again {
                Some(again) if again.state == "done" => break again,
                Some(again) if ["given_up", "called_off"].contains(&again.state.as_str()) => {
                    let why = again.why.unwrap_or_default();
                    return Err(Failure::Other(format!("It does not come again. {why}")));
                }
                _ => {}
            }
        }
        wait(begin).await?;
    };
    let rows = loop {
        let deliveries: view::Listing<view::Delivery> = daemon.get("/api/v1/deliveries").await?;
        let mut items = deliveries.items.into_iter();
        match items.find(|delivery| delivery.repeat_of.is_some()) {
            Some(delivery) if delivery.rows.waiting + delivery.rows.in_flight == 0 => {
                break delivery.rows;
            }
            _ => wait(begin).await?,
        }
    };
    let batches = ledger.ledger();
    let arrived = batches.iter().skip(before).map(|one| &one.batch[..]);
    let audited = looker::audit(&shape, arrived);
    let audited = audited.map_err(|mismatch| Failure::Other(mismatch.what))?;
    if audited != shape.rows || rows.delivered != shape.rows {
        let all = shape.rows;
        let said = format!("{audited} of its {all} rows arrived, and the daemon counts {rows:?}.");
        return Err(Failure::Other(said));
    }
    println!(
        "Looker was asked to run it again ({}), and {} after it began all {} rows had arrived, once.",
        match again.count {
            1 => "once".to_owned(),
            count => format!("{count} times"),
        },
        time(begin.elapsed()),
        thousands(shape.rows)
    );
    Ok(())
}

async fn wait(begin: Instant) -> Result<(), Failure> {
    if begin.elapsed() > PATIENCE {
        let most = time(PATIENCE);
        let said = format!("What was cut did not come again within {most}.");
        return Err(Failure::Other(said));
    }
    tokio::time::sleep(TICK).await;
    Ok(())
}
