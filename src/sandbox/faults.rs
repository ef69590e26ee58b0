//! Failures on demand: what the stand-in is told to do wrong, and to which requests.

use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};

/// Longest pause that a rule may ask for; a day is longer than any test.
const MAX_PAUSE_MS: u64 = 86_400_000;

/// Bytes that a slow reply may have.
const MAX_SLOW_BYTES: u64 = 1 << 20;

/// Rules, tried in order at each request to `/v2/bulkevents` and `/v2/bulkevents/historical`.
///
/// As JSON: `{"seed": 7, "rules": [{"share": 0.1, "fault": {"status": {"status": 503}}}, {"next": 2,
/// "fault": "drop_after"}, {"fault": {"reject_marker": {"marker": "BAD"}}}]}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Faults {
    /// Makes shares repeatable: the same seed and order of requests fail alike.
    #[serde(default)]
    pub seed: u64,
    /// Delays add up; of the others the first that applies decides.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// One fault, and the requests that it meets: those that pass all of its conditions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Part of the requests, 0 to 1; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Only so many requests, then the rule is spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
    /// Only during this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// What goes wrong.
    pub fault: Fault,
}

impl Rule {
    /// A rule for every request, forever.
    pub fn always(fault: Fault) -> Self {
        Self {
            share: None,
            next: None,
            window: None,
            fault,
        }
    }

    /// A rule for the next `n` requests.
    pub fn next(n: u64, fault: Fault) -> Self {
        Self {
            next: Some(n),
            ..Self::always(fault)
        }
    }

    /// A rule for this part of the requests, 0 to 1, drawn from the seed.
    pub fn share(share: f64, fault: Fault) -> Self {
        Self {
            share: Some(share),
            ..Self::always(fault)
        }
    }
}

/// Milliseconds since the faults were set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// First millisecond in which the rule applies.
    #[serde(default)]
    pub from_ms: u64,
    /// First millisecond in which it applies no longer.
    pub until_ms: u64,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// The body is read and this is the reply; nothing is checked or recorded.
    Status {
        /// 200 to 999.
        status: u16,
        /// `Retry-After`: seconds or an HTTP date, sent as it is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<String>,
        /// `X-mp-rate-limit-exceeded`, for example `acceleration`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exceeded: Option<String>,
        /// Body of the reply.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        body: Option<String>,
    },
    /// Waits before it goes on.
    Delay {
        /// Milliseconds.
        ms: u64,
    },
    /// Closes the connection with the body unread.
    DropBefore,
    /// Does all that a request asks for, then closes the connection without a reply: the 202 that
    /// was sent and lost.
    DropAfter,
    /// The right status at once, then a body of spaces that comes slowly, byte by byte.
    SlowBody {
        /// Bytes of the body.
        bytes: u64,
        /// Milliseconds before each byte.
        pause_ms: u64,
    },
    /// Refuses a request whose body holds this text, whole, as mParticle does for one bad batch.
    RejectMarker {
        /// Looked for anywhere in the body, as bytes.
        marker: String,
        /// Status of the refusal.
        #[serde(default = "bad_request")]
        status: u16,
    },
}

fn bad_request() -> u16 {
    400
}

/// Rules that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum FaultsError {
    /// `share` is not a number from 0 to 1.
    #[error("rule {rule}: the share must be a number from 0 to 1")]
    Share {
        /// Position of the rule, from 0.
        rule: usize,
    },
    /// HTTP has no such status.
    #[error("rule {rule}: the status must be a number from 200 to 999")]
    Status {
        /// Position of the rule, from 0.
        rule: usize,
    },
    /// An empty marker stands in every body.
    #[error("rule {rule}: the marker must not be empty")]
    Marker {
        /// Position of the rule, from 0.
        rule: usize,
    },
    /// A header cannot carry line breaks and other control characters.
    #[error("rule {rule}: `{header}` must be printable ASCII")]
    Header {
        /// Position of the rule, from 0.
        rule: usize,
        /// Name of the key.
        header: &'static str,
    },
    /// A pause beyond a day, or a slow body beyond 1 MiB.
    #[error("rule {rule}: pauses end at a day, slow bodies at 1 MiB")]
    TooLong {
        /// Position of the rule, from 0.
        rule: usize,
    },
}

/// The rules in force, with what is left of them.
#[derive(Debug)]
pub(super) struct FaultState {
    faults: Faults,
    since: Instant,
    random: fastrand::Rng,
}

/// What is to go wrong with one request, known before its body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) delay: Duration,
    /// Never [`Fault::Delay`] or [`Fault::RejectMarker`].
    pub(super) fault: Option<Fault>,
}

impl Default for FaultState {
    fn default() -> Self {
        Self {
            faults: Faults::default(),
            since: Instant::now(),
            random: fastrand::Rng::with_seed(0),
        }
    }
}

impl FaultState {
    pub(super) fn new(faults: Faults, now: Instant) -> Result<Self, FaultsError> {
        for (rule, entry) in faults.rules.iter().enumerate() {
            if entry
                .share
                .is_some_and(|share| !(0.0..=1.0).contains(&share))
            {
                return Err(FaultsError::Share { rule });
            }
            entry.fault.check(rule)?;
        }
        Ok(Self {
            random: fastrand::Rng::with_seed(faults.seed),
            faults,
            since: now,
        })
    }

    /// The rules as they stand, `next` counted down.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    pub(super) fn plan(&mut self, now: Instant) -> Plan {
        let since = now.saturating_duration_since(self.since);
        let mut plan = Plan::default();
        for rule in &mut self.faults.rules {
            match &rule.fault {
                Fault::RejectMarker { .. } => {}
                Fault::Delay { ms } => {
                    let pause = Duration::from_millis(*ms);
                    if rule.meets(since, &mut self.random) {
                        plan.delay += pause;
                    }
                }
                fault if plan.fault.is_none() => {
                    let fault = fault.clone();
                    if rule.meets(since, &mut self.random) {
                        plan.fault = Some(fault);
                    }
                }
                _ => {}
            }
        }
        plan
    }

    /// The status and marker with which this body is to be refused.
    pub(super) fn rejection(&mut self, body: &[u8], now: Instant) -> Option<(u16, String)> {
        let since = now.saturating_duration_since(self.since);
        for rule in &mut self.faults.rules {
            let Fault::RejectMarker { marker, status } = &rule.fault else {
                continue;
            };
            if memchr::memmem::find(body, marker.as_bytes()).is_some() {
                let rejection = (*status, marker.clone());
                if rule.meets(since, &mut self.random) {
                    return Some(rejection);
                }
            }
        }
        None
    }
}

impl Rule {
    /// Whether the rule applies to the request at hand; counts `next` down if so.
    fn meets(&mut self, since: Duration, random: &mut fastrand::Rng) -> bool {
        let now = since.as_millis();
        if let Some(window) = self.window
            && !(u128::from(window.from_ms)..u128::from(window.until_ms)).contains(&now)
        {
            return false;
        }
        if self.next == Some(0) || self.share.is_some_and(|share| random.f64() >= share) {
            return false;
        }
        if let Some(next) = &mut self.next {
            *next -= 1;
        }
        true
    }
}

impl Fault {
    fn check(&self, rule: usize) -> Result<(), FaultsError> {
        let status_is_possible = |status: &u16| (200..=999).contains(status);
        let printable = |header, value: &Option<String>| match value {
            Some(value) if HeaderValue::from_str(value).is_err() => {
                Err(FaultsError::Header { rule, header })
            }
            _ => Ok(()),
        };
        match self {
            Self::Status {
                status,
                retry_after,
                exceeded,
                ..
            } => {
                if !status_is_possible(status) {
                    return Err(FaultsError::Status { rule });
                }
                printable("retry_after", retry_after)?;
                printable("exceeded", exceeded)
            }
            Self::RejectMarker { status, .. } if !status_is_possible(status) => {
                Err(FaultsError::Status { rule })
            }
            Self::RejectMarker { marker, .. } if marker.is_empty() => {
                Err(FaultsError::Marker { rule })
            }
            Self::Delay { ms } if *ms > MAX_PAUSE_MS => Err(FaultsError::TooLong { rule }),
            Self::SlowBody { bytes, pause_ms }
                if *bytes > MAX_SLOW_BYTES || *pause_ms > MAX_PAUSE_MS =>
            {
                Err(FaultsError::TooLong { rule })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(json: &str) -> FaultState {
        let faults = serde_json::from_str(json).unwrap();
        FaultState::new(faults, Instant::now()).unwrap()
    }

    #[test]
    fn the_next_requests_fail_and_then_the_rule_is_spent() {
        let mut state = state(r#"{"rules":[{"next":2,"fault":"drop_after"}]}"#);
        let planned: Vec<_> = (0..4).map(|_| state.plan(Instant::now()).fault).collect();
        let drop = Some(Fault::DropAfter);
        assert_eq!(planned, [drop.clone(), drop, None, None]);
    }

    #[test]
    fn a_share_is_repeatable_and_near_its_value() {
        let json = r#"{"seed":7,"rules":[{"share":0.25,"fault":{"status":{"status":503}}}]}"#;
        let mut runs = (0..2).map(|_| {
            let mut state = state(json);
            (0..4_000)
                .map(|_| state.plan(Instant::now()).fault.is_some())
                .collect::<Vec<_>>()
        });
        let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
        assert_eq!(first, second);
        let failed = first.iter().filter(|failed| **failed).count();
        assert!((900..1_100).contains(&failed), "{failed}");
    }

    #[test]
    fn a_window_opens_and_closes() {
        let mut state = state(
            r#"{"rules":[{"window":{"from_ms":1000,"until_ms":2000},"fault":"drop_before"}]}"#,
        );
        for (ms, fails) in [
            (0, false),
            (999, false),
            (1_000, true),
            (1_999, true),
            (2_000, false),
        ] {
            let now = state.since + Duration::from_millis(ms);
            assert_eq!(state.plan(now).fault.is_some(), fails, "{ms}");
        }
    }

    #[test]
    fn delays_add_up_and_the_first_other_fault_decides() {
        let mut state = state(
            r#"{"rules":[{"fault":{"delay":{"ms":3}}},{"fault":"drop_before"},
                {"next":1,"fault":"drop_after"},{"fault":{"delay":{"ms":4}}}]}"#,
        );
        let plan = state.plan(Instant::now());
        assert_eq!(plan.delay, Duration::from_millis(7));
        assert_eq!(plan.fault, Some(Fault::DropBefore));
        assert_eq!(state.faults().rules[2].next, Some(1), "not used up");
    }

    #[test]
    fn a_marker_rejects_only_bodies_that_hold_it() {
        let mut state =
            state(r#"{"rules":[{"next":1,"fault":{"reject_marker":{"marker":"BAD"}}}]}"#);
        let now = Instant::now();
        assert_eq!(state.rejection(b"good", now), None);
        assert_eq!(
            state.rejection(b"a BAD one", now),
            Some((400, "BAD".into()))
        );
        assert_eq!(state.rejection(b"a BAD one", now), None);
        assert_eq!(state.plan(now), Plan::default());
    }

    #[test]
    fn rules_that_cannot_be_carried_out_are_refused() {
        for json in [
            r#"{"rules":[{"share":1.5,"fault":"drop_after"}]}"#,
            r#"{"rules":[{"fault":{"status":{"status":99}}}]}"#,
            r#"{"rules":[{"fault":{"status":{"status":503,"retry_after":"1\n2"}}}]}"#,
            r#"{"rules":[{"fault":{"reject_marker":{"marker":""}}}]}"#,
            r#"{"rules":[{"fault":{"delay":{"ms":86400001}}}]}"#,
        ] {
            let faults = serde_json::from_str(json).unwrap();
            assert!(FaultState::new(faults, Instant::now()).is_err(), "{json}");
        }
        for json in [r#"{"rule":[]}"#, r#"{"rules":[{"fault":"explode"}]}"#] {
            assert!(serde_json::from_str::<Faults>(json).is_err(), "{json}");
        }
    }
}
