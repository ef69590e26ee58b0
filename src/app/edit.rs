//! A dead letter that an operator edits.

use super::desk::Desk;
use super::facts::{failed, letter_id, no_letter};
use crate::control::{Problem, view};
use crate::drain::policy;
use crate::mparticle::edit;
use crate::sandbox;

impl Desk {
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
        let delivery = self.outbox.delivery(letter.delivery);
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
        let most = self.settings.ingest.encode.max_batch_bytes;
        let edited = edit::edited(&old, batch, most);
        let Some(text) = edited.map_err(|error| Problem::Refused(error.to_string()))? else {
            return Ok(view::Edited {
                changed: 0,
                id: id.to_owned(),
                message: "Nothing has changed.".to_owned(),
            });
        };
        // What the old one breaks too is not held against the edit: mParticle may know more than its
        // documents say, and older names of identities are in none of them.
        let broke = str::from_utf8(&old).map(sandbox::check_batch);
        if let Err(why) = sandbox::check_batch(&text)
            && broke != Ok(Err(why.clone()))
        {
            return Err(Problem::Refused(format!(
                "mParticle would not take the edited batch: {why}."
            )));
        }
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
