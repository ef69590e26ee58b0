//! What a reply means: for the piece that was sent, and for the destination it was sent to.
//!
//! A pure function, so that the whole policy is one table (see the tests). The two halves do not
//! mix: what concerns the destination never drops a batch, and what concerns a batch never stops
//! the destination, unless nothing but rejections comes back (see [`circuit`](super::circuit)).

use std::time::Duration;

use super::transport::{Exceeded, Reply};

/// What the decision needs to know of the piece that was sent: a whole request, or a part of one
/// that is being halved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceState {
    /// How many batches it holds, at least 1.
    pub batches: usize,
    /// The destination has been failing, and the piece is older than the longest age allowed.
    pub expired: bool,
    /// So much was rejected in a row that the destination is in doubt, and not the batches.
    pub doubted: bool,
}

/// The decision on one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the piece.
    pub piece: Fate,
    /// What the reply says of the destination.
    pub destination: Signal,
}

/// What becomes of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The server has taken it over.
    Delivered,
    /// It is sent again, unchanged, when the destination is ready.
    Again,
    /// It is sent as two halves, to isolate what is bad in it.
    Halve,
    /// It goes to the dead letters, for this reason.
    Dead(String),
}

/// What a reply says of a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// It is up, and it takes what is sent.
    Works {
        /// Share of the rate limit in use, 0 to 100.
        percent_used: Option<u8>,
    },
    /// It is up, and does not take this.
    Rejects {
        /// The request held one batch only.
        alone: bool,
        /// What it said, as a clause.
        why: String,
    },
    /// It is up, and wants less.
    Throttles {
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Which limit was passed.
        exceeded: Option<Exceeded>,
    },
    /// It is not available just now; waiting helps.
    Fails {
        /// Why, as a sentence without its full stop.
        why: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// It will not take anything until a person changes something.
    Refuses {
        /// The HTTP status; 0 when no request was made.
        status: u16,
        /// Why, as a sentence without its full stop.
        why: String,
    },
}

/// Decides on a reply.
pub fn decide(reply: Reply, piece: PieceState) -> Decision {
    match reply {
        Reply::Accepted { percent_used } => Decision {
            piece: Fate::Delivered,
            destination: Signal::Works { percent_used },
        },
        Reply::Throttled {
            retry_after,
            exceeded,
        } => Decision {
            piece: again(piece, "the rate limit was exceeded each time"),
            destination: Signal::Throttles {
                retry_after,
                exceeded,
            },
        },
        Reply::Unavailable { what, retry_after } => Decision {
            piece: again(piece, &what),
            destination: Signal::Fails {
                why: what,
                retry_after,
            },
        },
        Reply::Unauthorized { status, words } => {
            let why = sentence("the credentials were refused", status, &words);
            Decision {
                piece: again(piece, &why),
                destination: Signal::Refuses { status, why },
            }
        }
        Reply::Unexpected { status, words } => {
            let why = sentence("the endpoint gave an unexpected answer", status, &words);
            Decision {
                piece: again(piece, &why),
                destination: Signal::Refuses { status, why },
            }
        }
        Reply::Rejected { status, words } => {
            let why = sentence("rejected", status, &words);
            rejected(piece, why)
        }
        Reply::TooLarge { words } => {
            let why = sentence("too large even when sent alone,", 413, &words);
            rejected(piece, why)
        }
    }
}

/// Begins the reason of a dead letter that became too old to be sent.
const TOO_OLD: &str = "not delivered within the longest age allowed";

/// The reason of a dead letter that became too old to be sent.
pub fn too_old(why: &str) -> String {
    format!("{TOO_OLD}; last: {why}")
}

/// Whether the server may have taken a dead letter of this reason all the same: it was sent, and the
/// last that was heard is not a refusal of it.
pub fn may_have_arrived(reason: &str, attempts: u32) -> bool {
    attempts > 0 && reason.starts_with(TOO_OLD)
}

fn again(piece: PieceState, why: &str) -> Fate {
    if piece.expired {
        Fate::Dead(too_old(why))
    } else {
        Fate::Again
    }
}

fn rejected(piece: PieceState, why: String) -> Decision {
    let alone = piece.batches <= 1;
    let fate = match (alone, piece.doubted) {
        (false, _) => Fate::Halve,
        (true, true) => again(piece, &why),
        (true, false) => Fate::Dead(why.clone()),
    };
    Decision {
        piece: fate,
        destination: Signal::Rejects { alone, why },
    }
}

fn sentence(what: &str, status: u16, words: &str) -> String {
    let mut text = what.to_owned();
    if status != 0 {
        text.push_str(&format!(" with status {status}"));
    }
    if !words.is_empty() {
        text.push_str(": ");
        text.push_str(words);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: PieceState = PieceState {
        batches: 100,
        expired: false,
        doubted: false,
    };
    const ALONE: PieceState = PieceState {
        batches: 1,
        ..WHOLE
    };
    const OLD: PieceState = PieceState {
        expired: true,
        ..WHOLE
    };
    const DOUBTED: PieceState = PieceState {
        doubted: true,
        ..ALONE
    };
    const OLD_DOUBTED: PieceState = PieceState {
        expired: true,
        ..DOUBTED
    };

    #[test]
    fn only_what_was_sent_and_not_refused_may_have_arrived() {
        let refused = sentence("rejected", 400, "bad");
        for (reason, attempts, may) in [
            (too_old("connection refused"), 3, true),
            (too_old("connection refused"), 0, false),
            (refused, 3, false),
        ] {
            assert_eq!(may_have_arrived(&reason, attempts), may, "{reason}");
        }
    }

    #[test]
    fn every_reply_has_its_decision() {
        let words = || "no such key".to_owned();
        let dead = |reason: &str| Fate::Dead(reason.to_owned());
        let fails = || Signal::Fails {
            why: "connection refused".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
        };
        let refuses = |status, why: &str| Signal::Refuses {
            status,
            why: why.to_owned(),
        };
        let throttled = || Reply::Throttled {
            retry_after: Some(Duration::from_secs(2)),
            exceeded: Some(Exceeded::Acceleration),
        };
        let throttles = || Signal::Throttles {
            retry_after: Some(Duration::from_secs(2)),
            exceeded: Some(Exceeded::Acceleration),
        };
        let unavailable = || Reply::Unavailable {
            what: "connection refused".to_owned(),
            retry_after: Some(Duration::from_secs(3)),
        };
        let accepted = || Reply::Accepted {
            percent_used: Some(40),
        };
        let accepts = || Signal::Works {
            percent_used: Some(40),
        };
        let unauthorized = |status| Reply::Unauthorized {
            status,
            words: words(),
        };
        let unexpected = || Reply::Unexpected {
            status: 404,
            words: String::new(),
        };
        let rejected = |status| Reply::Rejected {
            status,
            words: words(),
        };
        let too_large = || Reply::TooLarge { words: words() };

        let refused = "the credentials were refused with status 401: no such key";
        let sealed = "the credentials were refused: no such key";
        let lost = "the endpoint gave an unexpected answer with status 404";
        let old = |why: &str| dead(&too_old(why));
        let slow = "the rate limit was exceeded each time";
        let bad = "rejected with status 400: no such key";
        let wrong = "rejected with status 422: no such key";
        let large = "too large even when sent alone, with status 413: no such key";
        let rejects = |alone, why: &str| Signal::Rejects {
            alone,
            why: why.to_owned(),
        };

        for (reply, piece, fate, signal) in [
            (accepted(), WHOLE, Fate::Delivered, accepts()),
            (accepted(), ALONE, Fate::Delivered, accepts()),
            (accepted(), OLD, Fate::Delivered, accepts()),
            (throttled(), WHOLE, Fate::Again, throttles()),
            (throttled(), ALONE, Fate::Again, throttles()),
            (throttled(), OLD, old(slow), throttles()),
            (unavailable(), WHOLE, Fate::Again, fails()),
            (unavailable(), ALONE, Fate::Again, fails()),
            (unavailable(), OLD, old("connection refused"), fails()),
            (unauthorized(401), WHOLE, Fate::Again, refuses(401, refused)),
            (unauthorized(401), ALONE, Fate::Again, refuses(401, refused)),
            (unauthorized(401), OLD, old(refused), refuses(401, refused)),
            (unauthorized(0), WHOLE, Fate::Again, refuses(0, sealed)),
            (unexpected(), WHOLE, Fate::Again, refuses(404, lost)),
            (unexpected(), OLD, old(lost), refuses(404, lost)),
            (rejected(400), WHOLE, Fate::Halve, rejects(false, bad)),
            (rejected(400), OLD, Fate::Halve, rejects(false, bad)),
            (rejected(400), ALONE, dead(bad), rejects(true, bad)),
            (rejected(400), DOUBTED, Fate::Again, rejects(true, bad)),
            (rejected(400), OLD_DOUBTED, old(bad), rejects(true, bad)),
            (rejected(422), ALONE, dead(wrong), rejects(true, wrong)),
            (too_large(), WHOLE, Fate::Halve, rejects(false, large)),
            (too_large(), ALONE, dead(large), rejects(true, large)),
            (too_large(), DOUBTED, Fate::Again, rejects(true, large)),
        ] {
            let decision = decide(reply.clone(), piece);
            assert_eq!(decision.piece, fate, "{reply:?} {piece:?}");
            assert_eq!(decision.destination, signal, "{reply:?} {piece:?}");
        }
    }
}
