"""The script that an engineer would write in an afternoon instead of installing a daemon.

    python3 afternoon.py DOWNLOAD_URL MPARTICLE_ENDPOINT

It does well what such scripts do: it reads the stream without holding it (ijson), brings the rows of
a user together as far as memory allows, sends bulk requests from a pool of connections, tries again
what failed (urllib3's Retry), and gives each batch an id, so that a request that is tried again is
not counted twice. It keeps nothing on a disk. Its last line says what it did, as JSON.
"""

import json
import resource
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import ijson
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

ROWS_HELD = 50_000
BATCHES_A_REQUEST = 100
# What mParticle takes in a request, and so in a batch.
EVENTS_A_REQUEST = 100
REQUESTS_AT_ONCE = 8

# What the columns mean; a script like this has it in its source.
IDENTITIES = {"users.id": "customer_id", "users.email": "email"}
USER_ATTRIBUTES = {"users.plan": "looker_users.plan", "users.ltv": "looker_users.ltv"}
EVENT_ATTRIBUTES = {
    "events.category": "looker_events.category",
    "events.page": "looker_events.page",
    "events.price": "looker_events.price",
}


def session():
    retry = Retry(
        total=5,
        backoff_factor=0.5,
        status_forcelist=[429, 500, 502, 503, 504],
        allowed_methods=None,
        respect_retry_after_header=True,
    )
    made = requests.Session()
    made.auth = ("key", "secret")
    made.mount("http://", HTTPAdapter(pool_maxsize=REQUESTS_AT_ONCE, max_retries=retry))
    return made


def event(row):
    attributes = {
        name: row[column]
        for column, name in EVENT_ATTRIBUTES.items()
        if row.get(column) is not None
    }
    return {
        "event_type": "custom_event",
        "data": {
            "event_name": row["events.name"],
            "custom_event_type": row["events.type"],
            "timestamp_unixtime_ms": row["events.time"],
            "custom_attributes": attributes,
        },
    }


def batch(rows):
    last = rows[-1]
    return {
        "environment": "development",
        "source_request_id": str(uuid.uuid4()),
        "user_identities": {
            name: last[column] for column, name in IDENTITIES.items() if last.get(column)
        },
        "user_attributes": {
            name: last[column]
            for column, name in USER_ATTRIBUTES.items()
            if last.get(column) is not None
        },
        "device_info": {"brand": last["devices.brand"]},
        "events": [event(row) for row in rows],
    }


def batches(held):
    for rows in held.values():
        for at in range(0, len(rows), EVENTS_A_REQUEST):
            yield batch(rows[at : at + EVENTS_A_REQUEST])


class Sender:
    def __init__(self, endpoint):
        self.url = endpoint + "/bulkevents"
        self.session = session()
        self.pool = ThreadPoolExecutor(REQUESTS_AT_ONCE)
        # The pool's own queue has no bound.
        self.room = threading.Semaphore(2 * REQUESTS_AT_ONCE)
        self.lock = threading.Lock()
        self.requests = self.batches = self.failed = 0
        self.first_error = None

    def send(self, group):
        self.room.acquire()
        self.pool.submit(self.post, group)

    def post(self, group):
        try:
            body = json.dumps(group)
            headers = {"Content-Type": "application/json"}
            reply = self.session.post(self.url, data=body, headers=headers, timeout=60)
            reply.raise_for_status()
            failed, error = 0, None
        except requests.RequestException as problem:
            failed, error = 1, str(problem)[:200]
        with self.lock:
            self.requests += 1
            self.batches += len(group)
            self.failed += failed
            self.first_error = self.first_error or error
        self.room.release()

    def send_all(self, held):
        group, events = [], 0
        for one in batches(held):
            more = len(one["events"])
            if len(group) == BATCHES_A_REQUEST or events + more > EVENTS_A_REQUEST:
                self.send(group)
                group, events = [], 0
            group.append(one)
            events += more
        if group:
            self.send(group)


def main(url, endpoint):
    start = time.monotonic()
    sender = Sender(endpoint)
    held, count, total = {}, 0, 0
    with requests.get(url, stream=True, timeout=600) as reply:
        reply.raise_for_status()
        for cells in ijson.items(reply.raw, "data.item", use_float=True):
            row = {column: cell["value"] for column, cell in cells.items()}
            held.setdefault(row["users.id"], []).append(row)
            count += 1
            total += 1
            if count == ROWS_HELD:
                sender.send_all(held)
                held, count = {}, 0
    sender.send_all(held)
    sender.pool.shutdown(wait=True)
    print(
        json.dumps(
            {
                "rows": total,
                "seconds": time.monotonic() - start,
                "requests": sender.requests,
                "batches": sender.batches,
                "requests_failed": sender.failed,
                "first_error": sender.first_error,
                "memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
