//! looker-feed carries large scheduled Looker deliveries to mParticle, and does not lose or double
//! a row. This page is its architecture; the README says how to use it.
//!
//! ```text
//!           DATA PLANE                                        (~ async, . plain functions: no network, no clock)
//! Looker ==HTTP==> ~intake --bytes--> .decode --rows--> .mapping --records--> .group --users--> .mparticle::encode
//!                   ^  \_____________ ingest: one delivery = one task and one thread, bounded channel ___/  |
//!                   |                                                                  ready requests       |
//!            receipt, only after                                                   (batches, rows of each)  v
//!            commit + fsync  <------------------------------------------------  outbox (sled + segment files)
//!                                                                                  claim ^   | settle
//!                                                                                        |   v
//! mParticle <==HTTPS== ~mparticle::client <--Transport-- ~drain (pace: rate, policy: Reply -> decision, circuit)
//!
//!           CONTROL PLANE   reads snapshots, never sits on the data path
//! operator ==HTTP==> ~control   status page, JSON API, metrics
//! operator ==CLI===> cli        every command is a file there
//! ```
//!
//! | room | what it is | it may use | it must not know |
//! |---|---|---|---|
//! | every room | | `model`, `clock`, `shutdown`, `backoff`, `causes`, `harmless` | |
//! | [`model`], [`clock`], [`shutdown`] | nouns, time and the end, as values | nobody | any other room |
//! | [`backoff`], [`causes`], [`harmless`] | how long to wait before the next try; an error with its causes, printed; text from outside that may be shown | nobody | any other room |
//! | [`tls`], [`seal`] | certificates and keys: whom to trust, what to seal with, and sealed temporary files | nobody | any other room |
//! | [`net`] | connections: one accept loop, one HTTPS client | `tls` | what is served or asked |
//! | [`telemetry`] | traces for OpenTelemetry: spans, a bounded queue, an exporter | `net` | any other room |
//! | [`record`] | one mapped row: what mapping, group and encode pass on | nobody | bytes of Looker, HTTP |
//! | [`decode`] | Looker's documents, fed bytes and asked for rows | nobody | HTTP, tokio, tags |
//! | [`mapping`] | columns to fields, by LookML tag | `record` | HTTP, time, the outbox |
//! | [`group`] | rows of a user together, in fixed memory | `record`, `seal` | what a record means |
//! | [`mparticle`]`::limits`, `::route` | what mParticle takes in one request; which address takes old events | nobody | any other room |
//! | [`mparticle`]`::encode` | batches and requests within the limits | `record`, names of `mapping`, `mparticle::route`, `mparticle::limits` | HTTP, outbox, drain |
//! | [`mparticle`]`::edit` | a batch that a person has mended, made fit to be sent | nobody | HTTP, the outbox |
//! | [`changes`] | what each schedule delivered last, user by user | `record`, `seal`, snapshots of `outbox` | what is sent, HTTP, JSON, sled |
//! | [`outbox`] | the durable store between | `seal`, `tls` | JSON, mParticle, HTTP, retry policy |
//! | [`drain`] | when, how fast, and what a reply means | `outbox` | HTTP, JSON: it sees a `Transport` |
//! | [`mparticle`]`::reply` | an answer of mParticle, read | the reply of `drain` | the outbox |
//! | [`mparticle`]`::client` | the wire | the transport of `drain`, `mparticle::route`, `mparticle::reply`, `net`, `tls` | the outbox |
//! | [`ingest`] | one delivery from bytes to commit | `decode`, `mapping`, `record`, `group`, `mparticle::encode`, `mparticle::route`, `mparticle::limits`, `changes`, `outbox`, `seal` | HTTP: it takes a stream |
//! | [`config`] | the file and the environment as values that cannot be wrong | names of `mapping`, bounds of `outbox` | what the values are for |
//! | [`again`] | when and whether Looker is asked again for what failed | nobody | HTTP, the outbox, Looker's API |
//! | [`looker_api`] | the client of Looker's API | secrets of `config`, `net` | the outbox, when to ask |
//! | [`intake`] | the Action Hub that Looker calls | the envelope of `decode`, `config`, `net`, `seal`, `tls` | the outbox, mParticle |
//! | [`control`] | what an operator sees and steers | its own view values, `net` | the data path |
//! | [`notify`] | callbacks to the operator's own tools | views of `control`, `net` | the data path |
//! | [`sandbox`] | a strict local stand-in for mParticle: demo, tests and trials | `net` | the daemon's encoder |
//! | [`looker`] | a strict local stand-in for Looker | `sandbox` | the daemon's decoder |
//! | [`app`], [`cli`] | the composition root: opens, binds, wires, ends in order; the command line, a file for each command | every room | |
//!
//! Pure, that is without a runtime, a network and a clock, are `model`, `backoff`, `record`, `decode`, `mapping`,
//! `group`, `again`, `mparticle::encode`, and of the drain `drain::lane`, `drain::entry`, `drain::policy`,
//! `drain::pace`, `drain::circuit`, `drain::notice`, `drain::latency`. They are told the time.
//!
//! The wall clock is read in `clock`, `app`, `cli`, `sandbox`, `looker`.
//! The steady clock, by which waits are bounded, is read in `clock`, `tls`, `intake`, `control`, `drain`,
//! `looker_api`, `mparticle::client`, `outbox::postgres`, `app`, `cli`, `sandbox`, `looker`. All others are
//! given a [`clock::Clock`].
//!
//! `tests/tidy` reads this table and holds the source to it. It also sees to it that the files of a
//! large room form no circle, so that each can be read alone, from the bottom up.
//!
//! # From a chunk of bytes to the outbox
//!
//! 1. `intake::parts`: `Parts::next` takes Looker's request apart as it comes (`decode::Envelope`).
//! 2. `intake::execute`: `Executor::carry` knows what is asked for before the first row, and has the
//!    document pushed or fetches it.
//! 3. `app::receiver`: `DeliveryReceiver::receive` gives the delivery its id, its destination and its sealed
//!    account.
//! 4. `ingest::receive` hands the chunks over a bounded channel to the delivery's own thread.
//! 5. `ingest::work`: `Job::read` feeds them to the decoder.
//! 6. `decode::Decoder::next` gives the header, then a row at a time.
//! 7. `mapping::Plan::map` makes the row's record, or says why the row is rejected.
//! 8. `group::Grouper::push` sorts records by user; after its `end`, `Grouped::visit` gives them back user by user.
//! 9. `mparticle::encode::Encoder::push` writes the user's batches and closes a request when it is full.
//! 10. `ingest::writer`: a `Feeder` takes ready requests to a second thread.
//! 11. `outbox::Staging::append` compresses and seals each as an entry and writes it to a segment.
//! 12. `outbox::Staging::commit` makes all of them durable and visible at once. Only then does Looker
//!     hear of success.
//!
//! # From a claim to a settlement
//!
//! 1. `drain::Drain::run` starts a sender for each destination that has work (`drain::supervisor`).
//! 2. `drain::sender`: `Sender::claim` asks the lane how many entries are wanted (`Lane::wanted`).
//! 3. The `claim` of the lease on the destination (`outbox::Lease`) gives out the next entries, delivery by delivery.
//! 4. `Lane::claimed` takes them over; the pieces that are to be sent stand ready in `lane::held`.
//! 5. `Lane::next` asks `drain::circuit` whether to send and `drain::pace` when, and gives a request.
//! 6. `drain::sender`: `Sender::send` hands it to the `Transport`, with a bound on its time.
//! 7. `mparticle::client`: `Client::post` opens the account and sends the request.
//! 8. `mparticle::reply::read` makes a `Reply` of the answer.
//! 9. `Lane::replied` has `drain::policy::decide` say what it means for the piece and for the destination.
//! 10. An entry of which every batch is decided becomes a settlement (`lane::settlements`).
//! 11. `drain::sender`: `Sender::settle` hands all that have gathered to the lease's `settle`, in one sync.
//! 12. `Lane::settled` lets go of them; after the last entry of a delivery the next delivery may be sent.
//!
//! # The outbox, from the bottom up
//!
//! ```text
//! outbox           Outbox, Staging, Reservation and Lease: what others see, each an enum of backends
//!   moving         an outbox in a directory, moved into a database           uses: both backends
//!   attempt … webhook   the nouns, their encoding and the records: used by both backends
//!   postgres/      an outbox in a database that several daemons share          uses: the nouns
//!   local/         an outbox in a directory of one process; its page draws all that lies on the disk
//!     offline/     an outbox that nobody has open: look, check, salvage        uses: handle, state, files
//!     handle …     what a caller asks for: begin, reserve, claim, list         uses: owner, shared, state, files
//!     owner/       the one thread that changes the state, and then the index   uses: recovery, shared, state, files
//!     shared       what handles and owner share                                uses: state, files
//!     recovery/    an open: what was found, and its replay                     uses: state, files
//!     state/       sled: rows, the index of them in memory, changes            uses: files
//!     files/       names, headers, records and footers; reading and writing    uses: the nouns
//! ```
//!
//! # Decisions
//!
//! 1. **A delivery is atomic.** Its entries are staged and become visible to the drain in one commit;
//!    only then is Looker told of success. One that breaks off vanishes whole.
//! 2. **Rows are grouped by user over the whole delivery**, by an external sort ([`group`]): mParticle's
//!    rate counts batches, and a batch holds one user and many events. Memory is flat at any size, and a
//!    user occurs in one place of a delivery, so its requests can fly in parallel.
//! 3. **An outbox entry is one ready request.** Written once, never changed: a resend is identical, and
//!    `source_request_id` lets mParticle drop what it has. At-least-once sending becomes exactly-once
//!    arrival.
//! 4. **The drain is first in, first out by delivery for each destination**; destinations do not wait for
//!    each other. A destination is an account at a pod, not an address: mParticle takes old events at a
//!    second address, but counts its rate by account. So both share one pace and one order, and an entry
//!    carries its address as a number (its *route*), which outbox and drain hand through unread.
//! 5. **A claim lives in memory only.** After a crash, what is not settled is due again.
//! 6. **A reply is an enum, and the decision on it a pure function** ([`drain`]).
//! 7. **Nothing is dropped in silence**: rows in = delivered + waiting + in flight + dead-lettered +
//!    rejected + cancelled + unchanged + erased + named as damaged, for each delivery, at every moment.
//! 8. **Who is passed over as unchanged is known to have it.** In doubt all users are sent ([`changes`]).
//! 9. **Secrets and people's data are never written in clear**: credentials, rows and dead letters are sealed
//!    ([`seal`]) under a key that lies outside the outbox; temporary files under keys that nobody keeps.
//!
//! # Libraries, and where there is none
//!
//! A library does what is not this project's own job. Where one was looked at and left, this is why:
//!
//! - **Traces** are OpenTelemetry's own messages (`opentelemetry-proto`); the queue and the exporter are
//!   ours ([`telemetry`]). The batch processor of `opentelemetry_sdk` counts what it drops for its own
//!   meters only, tries at the same pace while a collector is away, and exports from a thread outside
//!   tokio, where our HTTPS client cannot be used. What `opentelemetry-otlp` would save is as long as
//!   the way from our spans to its own, and it brings five crates.
//! - **The supervisor** is told by `app::systemd`, and not by `sd-notify`: it knows no sockets in the
//!   abstract namespace, and its datagrams wait for a supervisor that does not read.
//! - **Metrics**: `prometheus-client` writes OpenMetrics out of registered counters. Ours are looked up
//!   in snapshots, their names are a promise, and writing the text takes 60 lines.
//! - **Tables and plots**: the table of the command line is 40 lines that let no control character
//!   through, and `comfy-table` would need the same guard before it. The report's axes are linear or
//!   logarithmic by choice, for which `plotters` wants a coordinate type of one's own.
//!
//! Where mapping and grouping differ from what one might expect: values stay the JSON literals that Looker
//! sent, from the decoder's buffer to the request ([`record`] says why).

pub mod again;
pub mod app;
pub mod backoff;
pub mod causes;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod control;
pub mod decode;
pub mod drain;
pub mod group;
pub mod harmless;
pub mod ingest;
pub mod intake;
pub mod looker;
pub mod looker_api;
pub mod mapping;
pub mod model;
pub mod mparticle;
pub mod net;
pub mod notify;
pub mod outbox;
pub mod record;
pub mod sandbox;
pub mod seal;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
