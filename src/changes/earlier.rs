//! What earlier deliveries said of users, as far as it can be read and relied on.

use std::io;
use std::sync::Arc;

use super::files::{Item, Kind};
use super::snapshot::{Cursor, Entry, Head, Name, ReadError, Role};
use super::store::Store;
use super::{Comparison, Error, Inner, MOST_PENDING, Missing, ScheduleKey};
use crate::clock::UnixMillis;
use crate::model::DeliveryId;
use crate::seal::KeyError;

/// A snapshot of an earlier delivery.
pub(super) struct Earlier {
    cursor: Cursor,
    /// `None`: it is pending.
    ended: Option<Missing>,
    damaged: bool,
    delivery: DeliveryId,
}

/// Why all users are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Nothing,
    Due,
    Unsettled,
    Behind,
    Unreadable,
    Audience,
}

impl Full {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Nothing => {
                "All users were sent, since nothing is known of an earlier delivery of this schedule."
            }
            Self::Due => "All users were sent, since a full refresh was due.",
            Self::Unsettled => {
                "All users were sent, since no earlier delivery of this schedule has arrived yet."
            }
            Self::Behind => {
                "All users were sent, since several earlier deliveries of this schedule still wait."
            }
            Self::Unreadable => {
                "All users were sent, since what was kept of earlier deliveries of this schedule could not be read."
            }
            Self::Audience => {
                "All users were sent, since the audience's attribute has changed. The attribute that it had before is left as it is."
            }
        }
    }
}

/// What is read of earlier deliveries at the beginning.
pub(super) struct Found {
    pub head: Head,
    pub full: Option<Full>,
    pub earlier: Vec<Earlier>,
    pub owed: Option<Earlier>,
}

impl Earlier {
    pub fn entry(&self) -> Option<Entry<'_>> {
        self.cursor.entry().filter(|_| !self.damaged)
    }

    /// Whether it ended too early.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Whether it says that a user has this fingerprint. The cursor must have come to the user.
    pub fn has(&self, user: u64, fingerprint: Option<u128>) -> bool {
        self.entry().is_some_and(|entry| {
            entry.user == user && Some(entry.fingerprint) == fingerprint && self.arrived(&entry)
        })
    }

    /// Whether mParticle had the fingerprint at the end of this delivery, or will have unless the
    /// delivery fails.
    pub fn arrived(&self, entry: &Entry<'_>) -> bool {
        match (&self.ended, entry.sent) {
            (Some(missing), Some(sent)) => missing.spares(sent),
            // It had arrived before, or is on its way.
            _ => true,
        }
    }

    /// Whether nothing is to be told any more.
    pub fn arrived_for_good(&self, entry: &Entry<'_>) -> bool {
        match (&self.ended, entry.sent) {
            (Some(missing), Some(sent)) => missing.spares(sent),
            _ => false,
        }
    }

    /// To the next user. What is damaged ends here.
    ///
    /// # Errors
    /// It cannot be read now.
    pub fn step(&mut self) -> io::Result<()> {
        match self.cursor.advance() {
            Ok(()) => Ok(()),
            Err(ReadError::Io(error)) => Err(error),
            Err(error) => {
                tracing::warn!(
                    delivery = %self.delivery, %error,
                    "the snapshot of an earlier delivery is damaged; from there on all users are sent"
                );
                self.damaged = true;
                Ok(())
            }
        }
    }

    /// To the first user that is not before this one.
    pub fn go_to(&mut self, user: u64) -> io::Result<()> {
        while self.entry().is_some_and(|entry| entry.user < user) {
            self.step()?;
        }
        Ok(())
    }

    /// Behind this user.
    pub fn pass(&mut self, user: u64) -> io::Result<()> {
        match self.entry().is_some_and(|entry| entry.user == user) {
            true => self.step(),
            false => Ok(()),
        }
    }
}

impl Found {
    pub fn read(
        inner: &Arc<Inner>,
        comparison: &Comparison,
        files: &Store,
        items: &[Item],
        now: UnixMillis,
    ) -> Result<Self, Error> {
        let audience = comparison.audience.as_ref();
        let audience = audience.map_or(String::new(), |audience| audience.attribute.clone());
        let snapshots: Vec<_> = items.iter().filter(|item| item.users).collect();
        let nothing = |full| -> Result<Self, Error> {
            Ok(Self {
                head: Head {
                    key: random()?,
                    full_at: now,
                    audience: audience.clone(),
                },
                full: Some(full),
                earlier: Vec::new(),
                owed: None,
            })
        };
        let Some((newest, older)) = snapshots.split_last() else {
            return nothing(Full::Nothing);
        };
        // `None`: it is damaged, or none of ours.
        let open = |item: &Item, kind| -> Result<Option<Earlier>, Error> {
            let open = || Earlier::open(inner, comparison.schedule, files, item, kind);
            // What seems damaged is read once more.
            let opened = open().or_else(|error| match error {
                ReadError::Io(_) => Err(error),
                _ => open(),
            });
            match opened {
                Ok(past) => Ok(Some(past)),
                Err(ReadError::Io(source)) if source.kind() != io::ErrorKind::NotFound => {
                    Err(files.unreadable(source))
                }
                Err(error) => {
                    tracing::warn!(
                        schedule = %comparison.schedule, %error,
                        "a snapshot of an earlier delivery cannot be used; all users are sent"
                    );
                    Ok(None)
                }
            }
        };
        let Some(last) = open(newest, Kind::Users)? else {
            return nothing(Full::Unreadable);
        };
        if last.cursor.head().audience != audience {
            return nothing(Full::Audience);
        }
        let head = last.cursor.head().clone();
        let mut owed = None;
        if comparison.audience.is_some() {
            match open(newest, Kind::Gone)? {
                Some(gone) => owed = Some(gone),
                None => return nothing(Full::Unreadable),
            }
        }
        let refresh = u64::try_from(comparison.full_refresh.as_millis()).unwrap_or(u64::MAX);
        let due = head.full_at > now || now.0.saturating_sub(head.full_at.0) >= refresh;
        let has_base = snapshots.first().is_some_and(|first| first.settled);
        let mut full = match () {
            () if due => Some(Full::Due),
            () if !has_base => Some(Full::Unsettled),
            () if snapshots.len() > MOST_PENDING + 1 => Some(Full::Behind),
            () => None,
        };
        let mut earlier = Vec::new();
        if full.is_none() {
            for item in older {
                match open(item, Kind::Users)? {
                    Some(one) if one.cursor.head().key == head.key => earlier.push(one),
                    _ => full = Some(Full::Unreadable),
                }
            }
        }
        earlier.push(last);
        Ok(Self {
            head,
            full,
            earlier,
            owed,
        })
    }
}

impl Earlier {
    fn open(
        inner: &Arc<Inner>,
        schedule: ScheduleKey,
        files: &Store,
        item: &Item,
        kind: Kind,
    ) -> Result<Self, ReadError> {
        let delivery = item.delivery.ok_or(ReadError::Malformed)?;
        let role = match kind {
            Kind::Gone => Role::Gone,
            Kind::Users | Kind::Settled | Kind::Before => Role::Users,
        };
        let name = Name {
            schedule,
            delivery,
            role,
        };
        let file = files.open(item.number, delivery, kind)?;
        let missing = item.settled.then(|| files.missing(item.number, delivery));
        Ok(Self {
            cursor: Cursor::open(file, name, Arc::clone(&inner.keys))?,
            ended: missing.transpose()?,
            damaged: false,
            delivery,
        })
    }
}

/// Random bytes of the system's.
pub(super) fn random() -> Result<[u8; 16], KeyError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(KeyError::Random)?;
    Ok(bytes)
}
