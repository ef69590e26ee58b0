//! Accounts that were resealed, on the owner's thread.

use crate::outbox::local::owner::command::Resealed;
use crate::outbox::local::owner::keeper::Keeper;
use crate::outbox::local::state::change::Change;
use crate::outbox::local::state::rows::Account;

/// Puts the accounts into the change that are still what they were made of.
pub(in crate::outbox) fn reseal(keeper: &Keeper, resealed: Vec<Resealed>, change: &mut Change) {
    let index = keeper.shared.index();
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
