-- Deliveries as they come in and are listed. Changed twice: when one begins, and when it becomes visible;
-- and when rejected rows of it are erased.
-- state: 0 on its way in, 1 visible, 2 aborted (and soon gone).
CREATE TABLE looker_feed.delivery (
    id            bytea PRIMARY KEY,
    destination   bytea NOT NULL,
    state         smallint NOT NULL,
    stager        bytea NOT NULL,
    key           bytea NOT NULL,
    webhook       bytea,
    title         text NOT NULL,
    label         text NOT NULL,
    link          text,
    received      bigint NOT NULL,
    committed     bigint NOT NULL DEFAULT 0,
    rows_in       bigint NOT NULL DEFAULT 0,
    rejected      bigint NOT NULL DEFAULT 0,
    kept          bigint NOT NULL DEFAULT 0,
    unchanged     bigint NOT NULL DEFAULT 0,
    users         bigint NOT NULL DEFAULT 0,
    rows_mapped   bigint NOT NULL DEFAULT 0,
    batches       bigint NOT NULL DEFAULT 0,
    requests      bigint NOT NULL DEFAULT 0,
    bytes         bigint NOT NULL DEFAULT 0,
    notes         text[] NOT NULL DEFAULT '{}',
    confirmed     bigint NOT NULL DEFAULT 0,
    erased_rejected bigint NOT NULL DEFAULT 0
);
CREATE INDEX delivery_listed ON looker_feed.delivery (committed, id) WHERE state = 1;
CREATE INDEX delivery_unlisted ON looker_feed.delivery (stager) WHERE state <> 1;

-- How far a delivery has come: the one row of it that changes while it is sent.
-- All requests below frontier have settled; bit n of beyond stands for request frontier + n.
-- Only who is named by owner and epoch may change it. held: nothing of it is sent before a person releases it.
CREATE TABLE looker_feed.progress (
    delivery          bytea PRIMARY KEY,
    destination       bytea NOT NULL,
    position          bigint NOT NULL,
    owner             bytea NOT NULL DEFAULT '',
    epoch             bigint NOT NULL DEFAULT 0,
    version           bigint NOT NULL DEFAULT 0,
    open              boolean NOT NULL,
    cleared           boolean NOT NULL DEFAULT false,
    frontier          bigint NOT NULL DEFAULT 0,
    beyond            bytea NOT NULL DEFAULT '',
    delivered_rows    bigint NOT NULL DEFAULT 0,
    delivered_batches bigint NOT NULL DEFAULT 0,
    dead_rows         bigint NOT NULL DEFAULT 0,
    dead_batches      bigint NOT NULL DEFAULT 0,
    discarded_rows    bigint NOT NULL DEFAULT 0,
    discarded_batches bigint NOT NULL DEFAULT 0,
    damaged_rows      bigint NOT NULL DEFAULT 0,
    damaged_batches   bigint NOT NULL DEFAULT 0,
    cancelled_rows    bigint NOT NULL DEFAULT 0,
    cancelled_batches bigint NOT NULL DEFAULT 0,
    erased_rows       bigint NOT NULL DEFAULT 0,
    erased_batches    bigint NOT NULL DEFAULT 0,
    held              boolean NOT NULL DEFAULT false,
    cancelled_at      bigint,
    finished          bigint
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);
CREATE INDEX progress_open ON looker_feed.progress (destination, position) WHERE open;
CREATE INDEX progress_uncleared ON looker_feed.progress (delivery) WHERE NOT cleared;
CREATE INDEX progress_dead ON looker_feed.progress (delivery) WHERE dead_batches > 0;

-- The newest account of each destination, and who sends to it.
CREATE TABLE looker_feed.destination (
    id            bytea PRIMARY KEY,
    label         text NOT NULL,
    account       bytea NOT NULL,
    next_position bigint NOT NULL DEFAULT 0,
    version       bigint NOT NULL DEFAULT 0,
    owner         bytea,
    epoch         bigint NOT NULL DEFAULT 0,
    lease_until   timestamptz
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- Sealed requests, some of them together; written once. entries of them, the first of which is first.
-- places: of each its length, rows and batches, 4 bytes each, little-endian.
CREATE TABLE looker_feed.block (
    delivery bytea NOT NULL,
    first    bigint NOT NULL,
    entries  integer NOT NULL,
    places   bytea NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (delivery, first)
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE looker_feed.block ALTER COLUMN body SET STORAGE EXTERNAL;

-- Sealed rows that could not be mapped, some of them together.
CREATE TABLE looker_feed.reject (
    delivery bytea NOT NULL,
    first    bigint NOT NULL,
    entries  integer NOT NULL,
    body     bytea NOT NULL,
    PRIMARY KEY (delivery, first)
);
ALTER TABLE looker_feed.reject ALTER COLUMN body SET STORAGE EXTERNAL;

-- Dead letters, each with its sealed body. live: which slices are meant, a bit each.
-- queued: its turn, when it is to be sent again.
CREATE TABLE looker_feed.letter (
    id          bigint PRIMARY KEY,
    delivery    bytea NOT NULL,
    destination bytea NOT NULL,
    ordinal     bigint NOT NULL,
    live        bytea NOT NULL,
    rows        bigint NOT NULL,
    batches     bigint NOT NULL,
    queued      bigint,
    key         bytea NOT NULL,
    body        bytea NOT NULL
);
ALTER TABLE looker_feed.letter ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE INDEX letter_delivery ON looker_feed.letter (delivery, id);
CREATE INDEX letter_destination ON looker_feed.letter (destination, id);
CREATE INDEX letter_queued ON looker_feed.letter (destination, queued, id) WHERE queued IS NOT NULL;

-- What a person asked of the daemon that sends to a destination.
CREATE TABLE looker_feed.request (
    id          bytea PRIMARY KEY,
    destination bytea NOT NULL,
    argument    bytea NOT NULL,
    asked       timestamptz NOT NULL,
    answer      bytea
);
CREATE INDEX request_open ON looker_feed.request (destination, asked) WHERE answer IS NULL;

-- Deliveries that have begun and are not visible: being received, or failed (ended). sealed: title, what
-- is known of it, message and journal.
CREATE TABLE looker_feed.attempt (
    id       bytea PRIMARY KEY,
    stager   bytea NOT NULL,
    webhook  bytea,
    received bigint NOT NULL,
    ended    bigint,
    kind     smallint NOT NULL DEFAULT 0,
    rows     bigint NOT NULL DEFAULT 0,
    bytes    bigint NOT NULL DEFAULT 0,
    key      bytea NOT NULL,
    sealed   bytea NOT NULL
);
CREATE INDEX attempt_open ON looker_feed.attempt (stager) WHERE ended IS NULL;

CREATE TABLE looker_feed.webhook (
    key       bytea PRIMARY KEY,
    delivery  bytea NOT NULL,
    rows      bigint,
    committed bigint
);

CREATE TABLE looker_feed.note (
    destination bytea NOT NULL,
    topic       smallint NOT NULL,
    text        bytea NOT NULL,
    PRIMARY KEY (destination, topic)
);

CREATE TABLE looker_feed.damage (
    found    bigint NOT NULL,
    delivery bytea NOT NULL,
    rows     bigint NOT NULL,
    what     text NOT NULL
);

CREATE TABLE looker_feed.daemon (
    id    bytea PRIMARY KEY,
    name  text NOT NULL,
    since timestamptz NOT NULL,
    beat  timestamptz NOT NULL,
    leaving boolean NOT NULL DEFAULT false
) WITH (fillfactor = 50);

-- A text sealed under each key that has been used: a daemon without the key does not open it.
CREATE TABLE looker_feed.canary (
    key    bytea PRIMARY KEY,
    sealed bytea NOT NULL
);

CREATE TABLE looker_feed.counter (
    name text PRIMARY KEY,
    next bigint NOT NULL
);
INSERT INTO looker_feed.counter (name, next) VALUES ('letter', 0);

-- An erasure that has not ended: whom it is about, sealed, and the daemon that works on it.
CREATE TABLE looker_feed.erasure (
    one   boolean PRIMARY KEY,
    owner bytea NOT NULL,
    what  bytea NOT NULL
);

-- Schedules that send only changes, and who is in one: a delivery of it that is received (holder), or
-- somebody who searches it. One whose daemon is silent is not in it any more. noted: for all to see;
-- dropped: what is about to be published is to be forgotten.
CREATE TABLE looker_feed.schedule (
    id       bytea PRIMARY KEY,
    owner    bytea,
    holder   bytea NOT NULL,
    receives boolean NOT NULL,
    noted    bytea,
    dropped  boolean NOT NULL DEFAULT false
);

-- What schedules delivered last, delivery by delivery. state: 0 being written, 1 there, 2 gone.
CREATE TABLE looker_feed.snapshot (
    blob     bytea PRIMARY KEY,
    schedule bytea NOT NULL,
    number   bigint NOT NULL,
    delivery bytea NOT NULL,
    kind     smallint NOT NULL,
    state    smallint NOT NULL,
    bytes    bigint NOT NULL DEFAULT 0,
    body     bytea NOT NULL,
    written  bigint NOT NULL
);
CREATE INDEX snapshot_there ON looker_feed.snapshot (schedule, number) WHERE state = 1;
CREATE INDEX snapshot_rest ON looker_feed.snapshot (schedule) WHERE state <> 1;

-- The sealed bytes of it that are many, in their order; written once.
CREATE TABLE looker_feed.snapshot_block (
    blob   bytea NOT NULL,
    number bigint NOT NULL,
    body   bytea NOT NULL,
    PRIMARY KEY (blob, number)
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast.autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE looker_feed.snapshot_block ALTER COLUMN body SET STORAGE EXTERNAL;
