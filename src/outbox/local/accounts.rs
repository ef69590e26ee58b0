//! Accounts that are resealed, after the key was changed. What is in them the outbox does not
//! know.

use std::sync::Arc;

use crate::model::DestinationId;
use crate::outbox::error::Error;
use crate::outbox::local::handle::Local;
use crate::outbox::local::owner::command::{Command, Resealed};

/// See [`Outbox::reseal_accounts`](crate::outbox::Outbox::reseal_accounts).
pub(in crate::outbox) fn reseal_accounts(
    local: &Local,
    mut reseal: impl FnMut(DestinationId, &[u8]) -> Option<Vec<u8>>,
) -> Result<usize, Error> {
    let accounts: Vec<_> = {
        let index = local.shared.index();
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
        local.ask(|reply| Command::Reseal(resealed, reply))?;
    }
    Ok(count)
}
