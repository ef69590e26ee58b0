//! Old events and those of today: mParticle takes them at two addresses.

/// Which of mParticle's two addresses a batch goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Era {
    /// `/bulkevents`: everything but old events.
    #[default]
    Current,
    /// `/bulkevents/historical`: events older than 30 days. It drops in silence a batch without
    /// events, and events without a time or younger than 72 hours. ("HTTP API")
    Historical,
}

impl Era {
    /// The path below an account's address.
    pub fn path(self) -> &'static str {
        match self {
            Self::Current => "bulkevents",
            Self::Historical => "bulkevents/historical",
        }
    }

    /// How the outbox knows it. These numbers are on disks: they stay.
    pub fn route(self) -> u8 {
        match self {
            Self::Current => 0,
            Self::Historical => 1,
        }
    }

    /// What [`Era::route`] gave; `None` for what another version may have written.
    pub fn of_route(route: u8) -> Option<Self> {
        [Self::Current, Self::Historical]
            .into_iter()
            .find(|era| era.route() == route)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_back_and_unknown_ones_are_not_guessed() {
        let eras: Vec<_> = (0..=u8::MAX).filter_map(Era::of_route).collect();
        assert_eq!(eras, [Era::Current, Era::Historical]);
        assert_eq!((eras[0].route(), eras[1].route()), (0, 1));
    }
}
