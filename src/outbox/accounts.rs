//! Accounts that are sealed anew, after the key was changed. What is in them the outbox does not
//! know.

use std::sync::Arc;

use super::Outbox;
use super::change::Change;
use super::error::Error;
use super::owner::{Command, Owner};
use super::state::Account;
use crate::model::DestinationId;

/// An account in the place of the one that it was made of.
pub(super) struct Resealed {
    destination: DestinationId,
    before: Arc<[u8]>,
    after: Arc<[u8]>,
}

impl Outbox {
    /// Shows `reseal` every sealed account and puts what comes back in its place; `None` leaves it
    /// as it is. Durable on return. Returns how many were replaced.
    ///
    /// # Errors
    /// The state could not be made durable; the call can be made again.
    pub fn reseal_accounts(
        &self,
        mut reseal: impl FnMut(DestinationId, &[u8]) -> Option<Vec<u8>>,
    ) -> Result<usize, Error> {
        let accounts: Vec<_> = {
            let index = self.shared.index();
            let sealed = index.accounts.iter();
            sealed
                .map(|(id, account)| (*id, Arc::clone(&account.sealed)))
                .collect()
        };
        let resealed: Vec<_> = accounts
            .into_iter()
            .filter_map(|(destination, before)| {
                Some(Resealed {
                    destination,
                    after: reseal(destination, &before)?.into(),
                    before,
                })
            })
            .collect();
        let count = resealed.len();
        if count > 0 {
            self.ask(|reply| Command::Reseal(resealed, reply))?;
        }
        Ok(count)
    }
}

impl Owner {
    pub(super) fn reseal(&self, resealed: Vec<Resealed>, change: &mut Change) {
        let index = self.shared().index();
        for one in resealed {
            // A newer one has come in between.
            let same = |account: &&Account| account.sealed == one.before;
            if let Some(account) = index.accounts.get(&one.destination).filter(same) {
                let account = Account {
                    sealed: one.after,
                    ..account.clone()
                };
                change.put_account(one.destination, account);
            }
        }
    }
}
