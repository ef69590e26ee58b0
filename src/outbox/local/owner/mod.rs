//! The thread that owns sled: it takes commands, gathers what is waiting, and makes all of it
//! durable with one batch, one flush and one fdatasync (group commit).
//!
//! After any failure of the state it refuses everything, lets go of sled, opens and checks the
//! whole directory again as at a start, and goes on with what is on the disk then.

mod accounts;
mod attempts;
mod bring_back;
mod cancel;
pub(in crate::outbox) mod command;
mod commit;
pub(in crate::outbox) mod edit;
mod erase;
pub(in crate::outbox) mod keeper;
mod letters;
mod lose;
mod maintain;
mod note;
mod settle;

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::outbox::local::owner::command::Command;
use crate::outbox::local::owner::keeper::{Ack, Keeper, ack};
use crate::outbox::local::state::change::Change;

/// Commands that share one sync. More would only make the first of them wait longer.
const GROUP: usize = 256;
/// What is not urgent is looked at this often when nothing else happens.
const IDLE: Duration = Duration::from_secs(60);

/// What the thread holds.
pub(in crate::outbox) struct Owner {
    commands: Receiver<Command>,
    keeper: Keeper,
}

impl Owner {
    pub fn new(commands: Receiver<Command>, mut keeper: Keeper) -> Self {
        maintain::maintain(&mut keeper);
        Self { commands, keeper }
    }

    /// Works until it is told to close.
    pub fn run(mut self) {
        maintain::maintain(&mut self.keeper);
        loop {
            let now = self.keeper.instant();
            let mut wait = IDLE;
            if self.keeper.store.is_none() {
                wait = self.keeper.retry_at.saturating_duration_since(now);
            }
            if let Some(due) = self.keeper.shared.unreadables.due() {
                wait = wait.min(due.saturating_duration_since(now));
            }
            let mut group = Vec::new();
            match self.commands.recv_timeout(wait) {
                Ok(command) => group.push(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while group.len() < GROUP
                && let Ok(command) = self.commands.try_recv()
            {
                group.push(command);
            }
            let closing = group
                .iter()
                .any(|command| matches!(command, Command::Close));
            if self.keeper.store.is_none() && !closing {
                self.keeper.reopen();
            }
            process(&mut self.keeper, group);
            self.keeper
                .shared
                .unreadables
                .try_again(&self.keeper.shared.disk);
            maintain::maintain(&mut self.keeper);
            if closing {
                return;
            }
            if self.keeper.store.is_none() {
                self.keeper.reopen();
            }
        }
    }
}

fn process(keeper: &mut Keeper, group: Vec<Command>) {
    let mut change = Change::default();
    let mut acks: Vec<Ack> = Vec::new();
    let mut plans = Vec::new();
    let mut edits = Vec::new();
    let mut returned = Vec::new();
    let mut leaving = Vec::new();
    for command in group {
        match command {
            Command::Commit(prepared, reply) => {
                commit::commit(keeper, *prepared, reply, &mut change, &mut acks);
            }
            Command::Settle(settlements, reply) => {
                plans.push((settle::plan_settlement(keeper, &settlements), reply));
            }
            Command::Lost(losses, reply) => {
                lose::lose(keeper, &losses, &mut change);
                acks.push(ack(reply, |_| ()));
            }
            Command::Replay(ids, reply) => {
                let moved = letters::move_letters(keeper, &ids, true, &mut change);
                acks.push(ack(reply, move |_| moved));
            }
            Command::Discard(ids, reply) => {
                let moved = letters::move_letters(keeper, &ids, false, &mut change);
                acks.push(ack(reply, move |_| moved));
            }
            Command::Edit(id, payload, reply) => edits.push((id, payload, reply)),
            Command::BringBack(found, reply) => returned.push((found, reply)),
            Command::Cancel(id, reply) => match cancel::cancel(keeper, id, &mut change) {
                Ok(found) => acks.push(cancel::cancelled(keeper, found, reply)),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            Command::Reseal(resealed, reply) => {
                accounts::reseal(keeper, resealed, &mut change);
                acks.push(ack(reply, |_| ()));
            }
            Command::Note(key, text, reply) => match note::note(keeper, key, text, &mut change) {
                Ok(()) => acks.push(ack(reply, |_| ())),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            },
            Command::Reserve(row, reply) => {
                attempts::reserve(keeper, row, reply, &mut change, &mut acks);
            }
            Command::Journal(id, before, journal, reply) => {
                match attempts::journal(keeper, id, &before, journal, &mut change) {
                    Ok(changed) => acks.push(ack(reply, move |_| changed)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Command::Rewritten(written, reply) => {
                match erase::rewritten(keeper, &written, &mut change) {
                    Ok(erased) => acks.push(ack(reply, move |_| erased)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Command::RewrittenRows(written, rows, reply) => {
                match erase::rewritten_rows(keeper, &written, rows, &mut change) {
                    Ok(erased) => acks.push(ack(reply, move |_| erased)),
                    Err(error) => {
                        let _ = reply.send(Err(error));
                    }
                }
            }
            Command::Leave(file, letters, reply) => leaving.push((file, letters, reply)),
            Command::Sweep => cancel::sweep(keeper, &mut change),
            Command::Wake | Command::Close => {}
        }
    }
    attempts::save(keeper, &mut change, &mut acks);
    settle::settle(keeper, plans, &mut change, &mut acks);
    // After the settlements: what those wrote to the dead-letter file is durable by now, so that
    // an edit that fails cuts off nothing but itself.
    for (id, payload, reply) in edits {
        match edit::edit(keeper, id, &payload, &mut change) {
            Ok(edited) => acks.push(ack(reply, move |_| edited)),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
    for (found, reply) in returned {
        match bring_back::bring_back(keeper, found, &mut change) {
            Ok(moved) => acks.push(ack(reply, move |_| moved)),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
    for (file, letters, reply) in leaving {
        match erase::leave(keeper, file, letters, &mut change) {
            Ok(erased) => acks.push(ack(reply, move |_| erased)),
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }
    keeper.make_durable(change, acks);
}
