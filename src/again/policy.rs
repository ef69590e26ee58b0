//! What is done next, and what each event makes of a journal.

use std::time::Duration;

use super::journal::{Journal, State, Try};
use crate::clock::UnixMillis;

/// From one pause to the next.
const GROWTH: u32 = 4;

/// How often, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Looker is asked so often at most, at least once.
    pub tries: u32,
    /// And no longer than this after the failure.
    pub within: Duration,
    /// The first pause, at most; with each try it grows fourfold.
    pub pause: Duration,
    /// No pause is longer.
    pub pause_max: Duration,
    /// A delivery that was asked for must begin to come in within this.
    pub arrival: Duration,
}

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing before this time, unless something happens.
    Wait(UnixMillis),
    /// Nothing: something stands in the way that is no fault of Looker's.
    Held,
    /// Write the journal that comes with it, then call Looker.
    Ask(Journal),
    /// Write the journal that comes with it.
    Become(Journal),
    /// Nothing, ever.
    Nothing,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Looker runs the delivery under this plan.
    Runs {
        /// The id of the new run-once plan.
        plan: String,
    },
    /// Looker has surely not run anything, and may another time.
    NotNow {
        /// Why, as a sentence.
        why: String,
    },
    /// Nobody can say.
    Unknown {
        /// Why, as a sentence.
        why: String,
    },
    /// Looker will never run it.
    Never {
        /// Why, as a sentence.
        why: String,
    },
    /// It need not be run.
    Needless {
        /// Why, as a sentence.
        why: String,
    },
}

impl Settings {
    /// The pause before try `n` (0 for the first): at random between a half of its bound and the
    /// whole. `jitter` is from 0 to 1.
    fn pause(&self, n: u32, jitter: f64) -> Duration {
        let grown = GROWTH
            .checked_pow(n)
            .and_then(|factor| self.pause.checked_mul(factor));
        let most = grown.unwrap_or(self.pause_max).min(self.pause_max);
        most.mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
    }
}

impl Journal {
    /// For a delivery that has just failed.
    pub fn begin(failed: UnixMillis, settings: &Settings, jitter: f64) -> Self {
        Self {
            state: State::Waiting,
            since: failed,
            next: failed.plus(settings.pause(0, jitter)),
            count: 0,
            before: 0,
            tries: Vec::new(),
            why: String::new(),
        }
    }

    /// A person asks: at once, and with all its tries before it.
    pub fn asked_for(&self, now: UnixMillis) -> Self {
        Self {
            state: State::Waiting,
            since: now,
            next: now,
            count: self.count,
            before: self.count,
            tries: self.tries.clone(),
            why: String::new(),
        }
    }

    /// What is to be done at `now`. `held`: why nothing can be received, or asked, now.
    pub fn decide(
        &self,
        now: UnixMillis,
        held: Option<&str>,
        settings: &Settings,
        jitter: f64,
    ) -> Decision {
        match self.state {
            State::Waiting if now < self.next => Decision::Wait(self.next),
            State::Waiting if now > self.deadline(settings) => {
                let waited = humantime::format_duration(settings.within);
                let why = match (held, self.why.is_empty()) {
                    (Some(why), _) => format!("Not asked again for {waited}: {why}"),
                    (None, false) => format!("Not asked again within {waited}. {}", self.why),
                    (None, true) => format!("Not asked again within {waited}."),
                };
                Decision::Become(self.given_up(&why))
            }
            State::Waiting if held.is_some() => Decision::Held,
            State::Waiting => {
                let mut journal = self.clone();
                journal.state = State::Asking;
                journal.push(Try {
                    at: now,
                    plan: None,
                    delivery: None,
                    committed: None,
                });
                Decision::Ask(journal)
            }
            State::Asking => Decision::Nothing,
            State::Asked if self.is_arriving() => Decision::Nothing,
            State::Asked if now < self.next => Decision::Wait(self.next),
            State::Asked => Decision::Become(self.failed(
                "Looker was asked, and no delivery came.",
                now,
                settings,
                jitter,
            )),
            State::Done | State::GivenUp | State::CalledOff => Decision::Nothing,
        }
    }

    /// Looker has answered, or has not.
    pub fn answered(
        &self,
        answer: &Answer,
        now: UnixMillis,
        settings: &Settings,
        jitter: f64,
    ) -> Self {
        let mut journal = self.clone();
        match answer {
            Answer::Runs { plan } => {
                journal.state = State::Asked;
                journal.next = now.plus(settings.arrival);
                journal.why = String::new();
                if let Some(last) = journal.tries.last_mut() {
                    last.plan = Some(plan.clone());
                }
            }
            Answer::Unknown { why } => {
                journal.state = State::Asked;
                journal.next = now.plus(settings.arrival);
                journal.say(why);
            }
            Answer::NotNow { why } => {
                // It was no try.
                journal.tries.pop();
                journal.count = journal.count.saturating_sub(1);
                journal.state = State::Waiting;
                journal.next = now.plus(settings.pause(0, jitter));
                journal.say(why);
            }
            Answer::Never { why } => return journal.given_up(why),
            Answer::Needless { why } => {
                journal.tries.pop();
                journal.count = journal.count.saturating_sub(1);
                return journal.called_off(why);
            }
        }
        journal
    }

    /// The daemon has started again. A call that was under way may have been heard.
    pub fn restarted(&self, now: UnixMillis, settings: &Settings) -> Self {
        let mut journal = self.clone();
        if journal.state == State::Asking {
            journal.state = State::Asked;
            journal.next = now.plus(settings.arrival);
            journal.say("The daemon ended while it asked Looker.");
        }
        journal
    }

    /// The delivery that was asked for begins to come in.
    pub fn arrived(&self, delivery: &str) -> Self {
        let mut journal = self.clone();
        journal.state = State::Asked;
        if let Some(last) = journal.tries.last_mut() {
            last.delivery = Some(delivery.to_owned());
            last.committed = None;
        }
        journal
    }

    /// The delivery that was asked for is committed.
    pub fn done(&self) -> Self {
        let mut journal = self.clone();
        journal.state = State::Done;
        journal.why = String::new();
        if let Some(last) = journal.tries.last_mut() {
            last.committed = Some(true);
        }
        journal
    }

    /// The delivery that was asked for has failed too, for a passing reason, or did not come.
    pub fn failed(&self, why: &str, now: UnixMillis, settings: &Settings, jitter: f64) -> Self {
        let mut journal = self.clone();
        journal.mark_failed();
        let tried = journal.count.saturating_sub(journal.before);
        let next = now.plus(settings.pause(tried, jitter));
        if tried >= settings.tries {
            let times = match tried {
                1 => "once".to_owned(),
                count => format!("{count} times"),
            };
            return journal.given_up(&format!("Asked again {times}. {why}"));
        }
        if next > journal.deadline(settings) {
            let within = humantime::format_duration(settings.within);
            return journal.given_up(&format!("Asked again for {within}. {why}"));
        }
        journal.state = State::Waiting;
        journal.next = next;
        journal.say(why);
        journal
    }

    /// It came, and failed for a reason that will not pass.
    pub fn failed_for_good(&self, why: &str) -> Self {
        let mut journal = self.clone();
        journal.mark_failed();
        journal.given_up(why)
    }

    /// It is not asked for any more, since that would not help.
    pub fn given_up(&self, why: &str) -> Self {
        let mut journal = self.clone();
        journal.state = State::GivenUp;
        journal.say(why);
        journal
    }

    /// It is not asked for any more, since that is not needed.
    pub fn called_off(&self, why: &str) -> Self {
        let mut journal = self.clone();
        journal.state = State::CalledOff;
        journal.say(why);
        journal
    }

    /// Whether the delivery that was asked for has begun to come in and has not ended.
    pub fn is_arriving(&self) -> bool {
        self.arriving().is_some()
    }

    /// The delivery that was asked for and is coming in.
    pub fn arriving(&self) -> Option<&str> {
        let last = self.last().filter(|one| one.committed.is_none())?;
        last.delivery.as_deref()
    }

    fn mark_failed(&mut self) {
        if let Some(last) = self.tries.last_mut()
            && last.delivery.is_some()
        {
            last.committed = Some(false);
        }
    }

    fn deadline(&self, settings: &Settings) -> UnixMillis {
        self.since.plus(settings.within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;

    fn settings() -> Settings {
        Settings {
            tries: 4,
            within: Duration::from_secs(12 * 3600),
            pause: Duration::from_secs(60),
            pause_max: Duration::from_secs(2 * 3600),
            arrival: Duration::from_secs(1800),
        }
    }

    /// Looker as a journal meets it, in simulated time: when it was asked, and how it ended.
    fn play(
        settings: &Settings,
        jitter: f64,
        mut looker: impl FnMut(u64) -> (Answer, Option<bool>),
        held: impl Fn(u64) -> Option<&'static str>,
    ) -> (Journal, Vec<u64>) {
        let mut journal = Journal::begin(UnixMillis(0), settings, jitter);
        let mut asked = Vec::new();
        let mut now = 0;
        for _ in 0..100_000 {
            match journal.decide(UnixMillis(now), held(now), settings, jitter) {
                Decision::Wait(until) => {
                    assert!(until.0 > now, "a wait that is over");
                    now = until.0;
                }
                Decision::Held => now += MINUTE,
                Decision::Become(next) => journal = next,
                Decision::Ask(asking) => {
                    let (answer, ended) = looker(now);
                    if matches!(answer, Answer::Runs { .. } | Answer::Unknown { .. }) {
                        asked.push(now);
                    }
                    journal = asking.answered(&answer, UnixMillis(now), settings, jitter);
                    if let Some(committed) = ended {
                        journal = journal.arrived("d");
                        assert_eq!(
                            journal.decide(UnixMillis(u64::MAX), None, settings, jitter),
                            Decision::Nothing,
                            "asked for while it comes in"
                        );
                        now += MINUTE;
                        journal = match committed {
                            true => journal.done(),
                            false => {
                                journal.failed("It was cut.", UnixMillis(now), settings, jitter)
                            }
                        };
                    }
                }
                Decision::Nothing => return (journal, asked),
            }
        }
        panic!("it never ends: {journal:?}");
    }

    fn runs() -> Answer {
        Answer::Runs {
            plan: "8".to_owned(),
        }
    }

    fn not_now() -> Answer {
        Answer::NotNow {
            why: "Looker does not answer.".to_owned(),
        }
    }

    #[test]
    fn a_delivery_that_comes_at_last_was_asked_for_with_growing_pauses() {
        let mut left = 3;
        let looker = |_| {
            left -= 1;
            (runs(), Some(left == 0))
        };
        let (journal, asked) = play(&settings(), 1.0, looker, |_| None);
        assert_eq!(journal.state, State::Done);
        assert_eq!(journal.count, 3);
        let pauses: Vec<_> = [&[0], &asked[..]].concat();
        let pauses: Vec<_> = pauses.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(pauses, [MINUTE, 5 * MINUTE, 17 * MINUTE]);
        assert_eq!(journal.tries[0].committed, Some(false));
        assert_eq!(journal.tries[2].committed, Some(true));
    }

    #[test]
    fn after_four_tries_it_is_given_up_and_the_reason_is_said() {
        for jitter in [0.0, 0.3, 1.0] {
            let (journal, asked) = play(&settings(), jitter, |_| (runs(), Some(false)), |_| None);
            assert_eq!((journal.state, asked.len()), (State::GivenUp, 4));
            assert_eq!(journal.why, "Asked again 4 times. It was cut.");
        }
    }

    #[test]
    fn no_try_comes_later_than_the_bound_in_time() {
        let long = Settings {
            tries: 1_000,
            pause_max: Duration::from_secs(3600),
            ..settings()
        };
        let (journal, asked) = play(&long, 0.5, |_| (runs(), Some(false)), |_| None);
        assert_eq!(journal.state, State::GivenUp);
        assert!(asked.iter().all(|at| *at <= 12 * HOUR), "{asked:?}");
        assert!(asked.len() > 10);
    }

    #[test]
    fn a_looker_that_is_down_for_an_hour_costs_no_try() {
        let mut calls = 0;
        let looker = |now| {
            calls += 1;
            match now < HOUR {
                true => (not_now(), None),
                false => (runs(), Some(true)),
            }
        };
        let (journal, asked) = play(&settings(), 0.5, looker, |_| None);
        assert_eq!(journal.state, State::Done);
        assert_eq!(journal.count, 1);
        assert_eq!(journal.tries.len(), 1);
        assert!(
            asked[0] >= HOUR && asked[0] < HOUR + 2 * MINUTE,
            "{asked:?}"
        );
        assert!(calls < 100, "{calls} calls in an hour");
    }

    #[test]
    fn while_the_reason_holds_nothing_is_asked_and_in_the_end_it_is_given_up() {
        let full = "The disk is full.";
        let (journal, asked) = play(
            &settings(),
            0.5,
            |_| (runs(), Some(true)),
            |now| (now < 3 * HOUR).then_some(full),
        );
        assert_eq!(journal.state, State::Done);
        assert!(asked[0] >= 3 * HOUR);
        let (journal, asked) = play(&settings(), 0.5, |_| (runs(), None), |_| Some(full));
        assert_eq!((journal.state, asked.len()), (State::GivenUp, 0));
        assert_eq!(journal.why, "Not asked again for 12h: The disk is full.");
    }

    #[test]
    fn what_may_have_been_heard_is_waited_for_before_it_is_asked_again() {
        let unknown = Answer::Unknown {
            why: "The answer was lost.".to_owned(),
        };
        let (journal, asked) = play(&settings(), 0.5, |_| (unknown.clone(), None), |_| None);
        assert_eq!((journal.state, asked.len()), (State::GivenUp, 4));
        for pair in asked.windows(2) {
            assert!(pair[1] - pair[0] >= 30 * MINUTE, "{asked:?}");
        }
    }

    #[test]
    fn a_crash_within_the_call_is_as_an_answer_that_was_lost() {
        let journal = Journal::begin(UnixMillis(0), &settings(), 0.0);
        let Decision::Ask(asking) = journal.decide(UnixMillis(HOUR), None, &settings(), 0.0) else {
            panic!("its time has come");
        };
        let again = Journal::read(&asking.write()).unwrap();
        let again = again.restarted(UnixMillis(2 * HOUR), &settings());
        assert!(again.is_unknown());
        let decision = again.decide(UnixMillis(2 * HOUR), None, &settings(), 0.0);
        assert_eq!(decision, Decision::Wait(UnixMillis(2 * HOUR + 30 * MINUTE)));
        // It came all the same.
        let arrived = again.arrived("d");
        assert!(arrived.is_arriving() && !arrived.is_unknown());
        assert_eq!(arrived.done().state, State::Done);
    }

    #[test]
    fn what_never_helps_ends_it_at_once() {
        let gone = Answer::Never {
            why: "The schedule is gone.".to_owned(),
        };
        let (journal, asked) = play(&settings(), 0.5, |_| (gone.clone(), None), |_| None);
        assert_eq!((journal.state, asked.len()), (State::GivenUp, 0));
        assert_eq!(journal.why, "The schedule is gone.");
        // A person may ask all the same, with all tries anew.
        let asked = journal.asked_for(UnixMillis(20 * HOUR));
        let decision = asked.decide(UnixMillis(20 * HOUR), None, &settings(), 0.5);
        assert!(matches!(decision, Decision::Ask(_)), "{decision:?}");
        let off = Answer::Needless {
            why: "The schedule is off.".to_owned(),
        };
        let (journal, _) = play(&settings(), 0.5, |_| (off.clone(), None), |_| None);
        assert_eq!((journal.state, journal.count), (State::CalledOff, 0));
    }
}
