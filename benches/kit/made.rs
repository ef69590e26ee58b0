//! The requests that are made of a delivery, collected in memory.

use std::path::Path;

use looker_feed::group::{self, GroupError, Grouper};
use looker_feed::model::{DataType, DeliveryId, Environment};
use looker_feed::mparticle::encode::{self, Batches, Delivery, Encoder, Made, Sink, Unsendable};
use looker_feed::mparticle::route::Route;
use looker_feed::record::{Record, RecordView};
use looker_feed::seal::Space;

use super::decode_and_map;

/// Takes requests and keeps those that it has room for.
#[derive(Default)]
pub struct Kept {
    pub requests: Vec<Vec<Vec<u8>>>,
    pub most: usize,
}

impl Sink for Kept {
    type Error = GroupError;

    fn request(&mut self, _: Route, batches: &mut Batches) -> Result<(), GroupError> {
        if self.requests.len() < self.most {
            let request = batches.iter().map(|batch| batch.json.to_vec()).collect();
            self.requests.push(request);
        }
        Ok(())
    }

    fn unsendable(&mut self, _: RecordView<'_>, why: Unsendable) -> Result<(), GroupError> {
        panic!("every row fits: {why}");
    }
}

/// Groups and encodes what `fill` pushes.
pub fn requests(
    directory: &Path,
    budget: usize,
    names: &looker_feed::mapping::Names,
    sink: &mut Kept,
    fill: impl FnOnce(&mut dyn FnMut(&Record)),
) -> Made {
    let mut grouper = Grouper::new(group::Settings {
        memory: group::Memory::new(4 * budget),
        space: Space::new(directory),
    });
    fill(&mut |record| grouper.push(record).expect("it can be spilled"));
    let mut encoder = Encoder::new(
        encode::Settings::default(),
        Delivery {
            id: DeliveryId([1; 16]),
            data_type: DataType::Event,
            environment: Environment::Development,
            names: names.clone(),
        },
    );
    grouper
        .finish(|record| encoder.push(record, sink))
        .expect("it can be read back");
    encoder.finish(sink).expect("it takes everything")
}

/// All requests of a document.
pub fn requests_of(document: &[u8], most: usize) -> Vec<Vec<Vec<u8>>> {
    let directory = tempfile::tempdir().expect("a directory");
    let mut records: Vec<Record> = Vec::new();
    let plan = decode_and_map(document.chunks(super::CHUNK), |record| {
        records.push(record.clone());
    });
    let mut sink = Kept {
        most,
        ..Kept::default()
    };
    requests(directory.path(), 1 << 30, plan.names(), &mut sink, |push| {
        records.iter().for_each(push)
    });
    sink.requests
}
