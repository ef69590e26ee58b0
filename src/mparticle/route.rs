//! Old events and those of today: mParticle takes them at two addresses.

/// Which of mParticle's two addresses a batch goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Route {
    /// `/bulkevents`: everything but old events.
    #[default]
    Current,
    /// `/bulkevents/historical`: events older than 30 days. It drops in silence a batch without
    /// events, and events without a time or younger than 72 hours. ("HTTP API")
    Historical,
}

impl Route {
    /// The path below an account's address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Current => "bulkevents",
            Self::Historical => "bulkevents/historical",
        }
    }

    /// The number by which outbox and drain know it. These numbers are on disks: they stay.
    pub fn number(self) -> u8 {
        match self {
            Self::Current => 0,
            Self::Historical => 1,
        }
    }

    /// What [`Route::number`] gave; `None` for what another version may have written.
    pub fn of_number(number: u8) -> Option<Self> {
        [Self::Current, Self::Historical]
            .into_iter()
            .find(|route| route.number() == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_back_and_unknown_ones_are_not_guessed() {
        let routes: Vec<_> = (0..=u8::MAX).filter_map(Route::of_number).collect();
        assert_eq!(routes, [Route::Current, Route::Historical]);
        assert_eq!((routes[0].number(), routes[1].number()), (0, 1));
    }
}
