//! A dead letter that an operator edits.

use super::facts::{Facts, failed, letter_id, no_letter};
use crate::clock::UnixMillis;
use crate::control::{Problem, view};
use crate::drain::policy;
use crate::mparticle::edit;
use crate::mparticle::route::Route;
use crate::sandbox;

impl Facts {
    /// Checks the edited batch as strictly as the stand-in for mParticle does, since mParticle may
    /// answer "accepted" to what it then drops, and keeps it in the place of the old one.
    pub(super) fn edit_letter(
        &self,
        id: &str,
        batch: &str,
        take_chance: bool,
    ) -> Result<view::Edited, Problem> {
        let name = letter_id(id)?;
        let found = self.outbox.dead_letter(name).map_err(failed)?;
        let (letter, old) = found.ok_or_else(|| no_letter(id))?;
        let delivery = self.outbox.delivery(letter.delivery).map_err(failed)?;
        if delivery.is_some_and(|delivery| delivery.cancelled_at.is_some()) {
            return Err(Problem::Refused(
                "Its delivery was cancelled, so it is not sent again and cannot be edited."
                    .to_owned(),
            ));
        }
        if policy::may_have_arrived(&letter.reason, letter.attempts) && !take_chance {
            return Err(Problem::Refused(
                "mParticle may have taken this batch: it was sent, and no answer refused it. \
                 Edited, it is sent under a new id, and then events of it may be there twice. Replay \
                 it unedited, which doubles nothing, or say that they may double (`--may-double`)."
                    .to_owned(),
            ));
        }
        let most = self.max_batch_bytes;
        let edited = edit::edited(&old, batch, most);
        let Some(text) = edited.map_err(|error| Problem::Refused(error.to_string()))? else {
            return Ok(view::Edited {
                changed: 0,
                id: id.to_owned(),
                message: "Nothing has changed.".to_owned(),
            });
        };
        check(&old, &text, Route::of_number(letter.route))?;
        let bytes = text.len();
        let kept = self.outbox.edit(name, text.into_bytes()).map_err(failed)?;
        let kept = kept.ok_or_else(|| no_letter(id))?;
        tracing::info!(
            letter = %name, edited = %kept, delivery = %letter.delivery, bytes,
            "a dead letter was edited"
        );
        Ok(view::Edited {
            changed: 1,
            id: kept.to_string(),
            message: format!("The edited batch is kept as dead letter {kept}; replay that."),
        })
    }
}

/// What the old batch breaks too is not held against the edit: mParticle may know more than its
/// documents say, and older names of identities are in none of them.
fn check(old: &[u8], new: &str, route: Option<Route>) -> Result<(), Problem> {
    let now = UnixMillis::now();
    let checked = match sandbox::check_batch(new, now) {
        Ok(checked) => checked,
        Err(why) => {
            let broke = str::from_utf8(old).map(|old| sandbox::check_batch(old, now));
            if broke == Ok(Err(why.clone())) {
                return Ok(());
            }
            let why = format!("mParticle would not take the edited batch: {why}.");
            return Err(Problem::Refused(why));
        }
    };
    let kept = checked.old_events > 0 && checked.old_events == checked.events;
    if route == Some(Route::Historical) && !kept {
        return Err(Problem::Refused(
            "This batch goes to mParticle's address for old events, which drops in silence a batch \
             without events, and events without a time or younger than 72 hours: each of its events \
             must have an older time."
                .to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(email: &str, time: &str) -> String {
        format!(
            "{{\"source_request_id\":\"a\",\"environment\":\"production\",\"user_identities\":\
             {{{email}}},\"events\":[{{\"event_type\":\"custom_event\",\"data\":{{\"event_name\":\"n\",\
             \"custom_event_type\":\"other\"{time}}}}}]}}"
        )
    }

    #[test]
    fn an_edit_must_keep_to_the_contract_unless_the_old_batch_broke_it_alike() {
        let old = batch("\"customerid\":\"1\"", "");
        let same = batch("\"customerid\":\"2\"", "");
        let worse = batch("\"customerid\":\"2\",\"customerid2\":\"3\"", "");
        let good = batch("\"customer_id\":\"2\"", "");
        let check = |old: &str, new: &str| check(old.as_bytes(), new, Some(Route::Current));
        assert_eq!(check(&old, &same), Ok(()));
        assert_eq!(check(&old, &good), Ok(()));
        assert!(check(&good, &same).is_err());
        assert!(check("no batch", &worse).is_err());
    }

    #[test]
    fn a_batch_for_old_events_keeps_only_old_ones() {
        let id = "\"customer_id\":\"1\"";
        let old = batch(id, ",\"timestamp_unixtime_ms\":1500000000000");
        let now = format!(",\"timestamp_unixtime_ms\":{}", UnixMillis::now().0);
        let long_ago = ",\"timestamp_unixtime_ms\":1400000000000";
        for (time, route, fine) in [
            ("", Route::Historical, false),
            (&now, Route::Historical, false),
            (long_ago, Route::Historical, true),
            ("", Route::Current, true),
        ] {
            let new = batch(id, time);
            let checked = check(old.as_bytes(), &new, Some(route));
            assert_eq!(checked.is_ok(), fine, "{route:?} {new}: {checked:?}");
        }
    }
}
