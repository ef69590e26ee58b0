//! Temporary files that fail at any step: the delivery that needs them fails and says so, nothing of it
//! is kept, and the others do not notice.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use futures::stream;
use looker_feed::causes::with_causes;
use looker_feed::clock::UnixMillis;
use looker_feed::group::Memory;
use looker_feed::ingest::{self, IngestError, Ingested, Progress};
use looker_feed::model::{DataType, DeliveryId, DestinationId, Environment};
use looker_feed::outbox::{NewDelivery, Outbox, Settings};
use looker_feed::seal::{Keyring, Space, SpaceOp};
use looker_feed::{config, mapping};

const EIO: i32 = 5;
const EMFILE: i32 = 24;
const ENOSPC: i32 = 28;
const ROWS: usize = 200;
/// So little that rows are spilled, and runs merged in steps.
const MEMORY: usize = 16 << 10;

/// Rows before their columns, so that they lie in a temporary file until these are known.
fn document() -> Bytes {
    let row = |row| {
        let (user, text) = (row % 20, "x".repeat(200));
        format!(r#"{{"u.id":{{"value":"{user}"}},"e.text":{{"value":"{row} {text}"}}}}"#)
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let fields = r#"{"dimensions":[{"name":"u.id","tags":["mp_customer_id"]},{"name":"e.text","tags":["mp_custom_attribute"]}]}"#;
    format!(r#"{{"data":[{}],"fields":{fields}}}"#, rows.join(",")).into()
}

fn settings(home: &Path, space: Space) -> ingest::Settings {
    let mut config = config::load(None, std::iter::empty::<(String, String)>()).unwrap();
    config.outbox.path = home.to_owned();
    let mut settings = looker_feed::app::ingest_settings(&config);
    settings.group.memory = Memory::new(MEMORY);
    settings.group.space = space;
    settings
}

async fn receive(
    outbox: &Outbox,
    number: u32,
    settings: ingest::Settings,
) -> Result<Ingested, IngestError> {
    let order = ingest::Incoming {
        usual: None,
        delivery: NewDelivery {
            id: DeliveryId(u128::from(number).to_be_bytes()),
            destination: DestinationId([1; 16]),
            destination_label: "label".to_owned(),
            account: Vec::new(),
            webhook: None,
            title: String::new(),
            link: None,
            received: UnixMillis::now(),
        },
        mapping: mapping::Settings::new(DataType::Event),
        more_columns: mapping::MoreColumns::default(),
        environment: Environment::Development,
        data_plan: None,
        changes: None,
    };
    let document = stream::iter([Ok(document())]);
    let progress = Arc::new(Progress::default());
    ingest::receive(order, document, outbox.clone(), settings, progress).await
}

fn fresh() -> (tempfile::TempDir, Outbox) {
    let home = tempfile::tempdir().unwrap();
    let keys = Arc::new(Keyring::ephemeral().unwrap());
    let settings = Settings {
        reserve_bytes: 0,
        ..Settings::new(home.path(), keys)
    };
    (home, Outbox::open(settings).unwrap())
}

/// Runs a delivery for each step that fails as `fault` says, beside one whose files are sound, until no
/// step is left to fail. Returns how many there are.
async fn every_step_fails(fault: fn(SpaceOp) -> Option<io::Error>) -> usize {
    let (home, outbox) = fresh();
    let mut number = 0;
    for nth in 0.. {
        let steps = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&steps);
        let space = Space::with_hook(home.path(), move |op| match fault(op) {
            Some(error) if counted.fetch_add(1, Relaxed) == nth => Err(error),
            _ => Ok(usize::MAX),
        });
        let failing = receive(&outbox, number + 1, settings(home.path(), space));
        let sound = Space::new(home.path());
        let sound = receive(&outbox, number + 2, settings(home.path(), sound));
        let (failed, beside) = tokio::join!(failing, sound);
        assert_eq!(beside.unwrap().rows, ROWS as u64);
        number += 2;
        let all_went_well = steps.load(Relaxed) <= nth;
        match failed {
            Ok(receipt) => {
                assert!(all_went_well, "step {nth} failed and nobody said so");
                assert_eq!(receipt.rows, ROWS as u64);
            }
            Err(error) => {
                let said = with_causes(&error);
                assert!(said.contains("temporary space"), "{said}");
            }
        }
        assert_eq!(outbox.damage(), []);
        if all_went_well {
            outbox.verify().unwrap();
            let (deliveries, kept) = (nth + 2, files(&home.path().join("segments")));
            // Of a delivery that failed nothing is left.
            assert_eq!(kept, deliveries);
            let listed = outbox.deliveries(None, deliveries + 1).unwrap();
            assert_eq!(listed.deliveries.len(), deliveries);
            outbox.close();
            return nth;
        }
    }
    unreachable!("each delivery has so many steps")
}

fn files(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

fn system(code: i32) -> Option<io::Error> {
    Some(io::Error::from_raw_os_error(code))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_made_fails_its_delivery_only() {
    let steps = every_step_fails(|op| match op {
        SpaceOp::Create => system(EMFILE),
        _ => None,
    });
    // For the rows before their columns, for the runs, and for longer runs.
    assert!(steps.await > 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_fails_its_delivery_only() {
    let steps = every_step_fails(|op| match op {
        SpaceOp::Write(_) => system(ENOSPC),
        _ => None,
    });
    assert!(steps.await > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_fails_or_ends_too_soon_fails_its_delivery_only() {
    let steps = every_step_fails(|op| match op {
        SpaceOp::Read(_) => system(EIO),
        _ => None,
    });
    assert!(steps.await > 10);
    let steps = every_step_fails(|op| match op {
        SpaceOp::Read(_) => Some(io::ErrorKind::UnexpectedEof.into()),
        _ => None,
    });
    assert!(steps.await > 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_that_do_less_than_they_were_asked_for_are_gone_on_with() {
    let (home, outbox) = fresh();
    let steps = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&steps);
    let space = Space::with_hook(home.path(), move |_| {
        counted.fetch_add(1, Relaxed);
        Ok(1_000)
    });
    let received = receive(&outbox, 1, settings(home.path(), space)).await;
    assert_eq!(received.unwrap().rows, ROWS as u64);
    assert!(steps.load(Relaxed) > 100);
    outbox.close();
}
