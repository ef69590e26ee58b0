-- What the holder of a destination leaves to the next: of which epoch it was, and when it left. Opaque here.
ALTER TABLE looker_feed.destination
    ADD COLUMN handed       bytea,
    ADD COLUMN handed_epoch bigint,
    ADD COLUMN handed_at    timestamptz;
