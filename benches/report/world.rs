//! The stand-ins for Looker and mParticle. They live in this process, on a runtime of their own;
//! the daemon is another process, so that its memory is its own. The processors are shared.

use std::sync::Arc;

use bytes::Bytes;
use looker_feed::looker::{Failure, Looker, Publisher, Shape};
use looker_feed::sandbox::{Handle, LedgerMode, Sandbox, Settings};
use looker_feed::shutdown::{self, Trigger};
use tokio::runtime::Runtime;
use url::Url;

pub struct World {
    pub runtime: Runtime,
    pub mparticle: Handle,
    pub endpoint: String,
    looker: Publisher,
    _trigger: Trigger,
}

impl World {
    /// mParticle takes so many batches a second; `None`: as fast as it can.
    pub fn new(batches_per_second: Option<u32>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let local = ([127, 0, 0, 1], 0).into();
        let (trigger, stop) = shutdown::channel();
        let (looker, mparticle) = runtime.block_on(async {
            let looker = Looker::bind(local).await.expect("a port");
            let mparticle = Sandbox::bind(Settings {
                listen: local,
                batches_per_second,
                ledger: LedgerMode::Counts,
                ..Settings::default()
            });
            (looker, mparticle.await.expect("a port"))
        });
        let world = Self {
            mparticle: mparticle.handle(),
            endpoint: format!("http://{}/v2", mparticle.addr()),
            looker: looker.publisher(),
            _trigger: trigger,
            runtime,
        };
        world.runtime.spawn(looker.run(stop.clone()));
        world.runtime.spawn(mparticle.run(stop));
        world
    }

    /// A download url for a generated document.
    pub fn publish(&self, shape: &Shape) -> Url {
        self.looker.publish(shape.clone())
    }

    /// A download url that goes wrong in this way.
    pub fn publish_failing(&self, failure: Failure) -> Url {
        self.looker.publish_failing("{}", failure)
    }

    /// Whether the url has not been fetched yet.
    pub fn is_unspent(&self, url: &Url) -> bool {
        self.looker.is_unspent(url)
    }

    /// A download url for a document that is in memory already.
    pub fn publish_made(&self, document: &Arc<[Bytes]>) -> Url {
        self.looker.publish_chunks(Arc::clone(document))
    }
}
