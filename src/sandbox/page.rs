//! The page at `GET /` for the person who opens the address in a browser.

use super::ledger::Counts;
use super::{LedgerMode, Settings};

/// Plain text: what this is, how it is doing, how to use it.
pub(super) fn text(settings: &Settings, rate: Option<u32>, counts: &Counts) -> String {
    let limits = &settings.limits;
    let rate = match rate {
        Some(rate) => format!("{rate} batches a second for each API key"),
        None => "no rate limit".to_owned(),
    };
    let credentials = match settings.credentials {
        Some(_) => "the configured API keys and secrets",
        None => "any API key and secret that are not empty",
    };
    let ledger = match settings.ledger {
        LedgerMode::Full => "every accepted batch, in order of arrival, as JSON lines",
        LedgerMode::Counts => "not kept: only counts are",
    };
    format!(
        "A local stand-in for mParticle's Events API.\n\
         \n\
         Nothing that is sent here leaves this machine, and nothing is kept after it ends.\n\
         \n\
         Point the feed at it:   endpoint = \"http://<this address>/v2\"\n\
         It lets in:             {credentials}\n\
         It enforces:            the published shape of a batch, {batches} batches and {events} events\n\
         \x20                       a request, {request} bytes a request, {batch} bytes a batch,\n\
         \x20                       {rate}\n\
         \n\
         So far: {requests} requests, {accepted} batches with {sent} events accepted,\n\
         {duplicates} duplicates recognised; {historical} events came as historical ones,\n\
         and of those {dropped} more were dropped in silence, as mParticle does.\n\
         \n\
         POST /v2/bulkevents              the API\n\
         POST /v2/bulkevents/historical   the same for old events\n\
         GET  /sandbox/counts             what happened, as JSON\n\
         GET  /sandbox/ledger             {ledger}\n\
         GET  /sandbox/faults             the failures in force\n\
         PUT  /sandbox/faults             fail on demand, for example\n\
         \x20    {{\"seed\": 1, \"rules\": [\n\
         \x20      {{\"share\": 0.1, \"fault\": {{\"status\": {{\"status\": 503, \"retry_after\": \"1\"}}}}}},\n\
         \x20      {{\"next\": 3, \"fault\": \"drop_before\"}},\n\
         \x20      {{\"next\": 3, \"fault\": \"drop_after\"}},\n\
         \x20      {{\"window\": {{\"from_ms\": 0, \"until_ms\": 5000}}, \"fault\": {{\"delay\": {{\"ms\": 200}}}}}},\n\
         \x20      {{\"fault\": {{\"slow_body\": {{\"bytes\": 10, \"pause_ms\": 100}}}}}},\n\
         \x20      {{\"fault\": {{\"reject_marker\": {{\"marker\": \"BAD\"}}}}}}]}}\n\
         PUT  /sandbox/rate               {{\"batches_per_second\": 100}} (null: no limit)\n\
         POST /sandbox/reset              as if just started\n",
        batches = limits.batches_per_request,
        events = limits.events_per_request,
        request = limits.request_bytes,
        batch = limits.batch_bytes,
        requests = counts.requests,
        accepted = counts.batches,
        sent = counts.events,
        duplicates = counts.duplicates,
        historical = counts.historical_events,
        dropped = counts.dropped_events,
    )
}
