//! The tables, as numbered steps that are part of the program. `looker_feed.schema` says how far a
//! database has come. A step is one batch of statements, which the server carries out whole or not at
//! all; two daemons that start at once wait for each other on the version's row.

use std::time::Duration;

use super::session::{Fault, Sessions, Tries};

/// The steps, in order: the first is number 1.
const STEPS: [&str; 2] = [include_str!("schema/1.sql"), include_str!("schema/2.sql")];

const WITHIN: Duration = Duration::from_secs(60);

/// The database is not as this program needs it.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Written by a later program.
    #[error(
        "its tables have version {found}, and this program knows versions up to {known}; use the program that made them"
    )]
    Newer {
        /// What the database says.
        found: i64,
        /// What this program knows.
        known: i64,
    },
    /// The tables have to be made or changed, and this user may not.
    #[error(
        "its tables have to be made or changed, and the user of the address may not ({words}); have one who may run what `looker-feed outbox schema` prints"
    )]
    Rights {
        /// The server's words.
        words: String,
    },
    /// The server cannot be asked.
    #[error("its tables cannot be looked at: {0}")]
    Server(String),
}

/// All steps, as a person with the right to do so would run them; running them again does harm to
/// nothing.
pub fn schema() -> String {
    let mut text = String::from(BEGIN);
    for (at, step) in STEPS.iter().enumerate() {
        text.push_str(&whole(at, step));
    }
    text
}

const BEGIN: &str = "CREATE SCHEMA IF NOT EXISTS looker_feed;
CREATE TABLE IF NOT EXISTS looker_feed.schema (one boolean PRIMARY KEY, version bigint NOT NULL);
INSERT INTO looker_feed.schema (one, version) VALUES (true, 0) ON CONFLICT DO NOTHING;
";

/// A step that is carried out once, by whoever comes first.
fn whole(at: usize, step: &str) -> String {
    format!(
        "DO $step$ BEGIN
UPDATE looker_feed.schema SET version = {} WHERE version = {at};
IF FOUND THEN
{step}
END IF;
END $step$;
",
        at + 1
    )
}

/// Brings the database to the version of this program.
pub(super) async fn apply(sessions: &Sessions) -> Result<(), SchemaError> {
    let known = STEPS.len() as i64;
    let mut found = version(sessions).await?;
    if found < known {
        let made = sessions.batch(&schema(), WITHIN).await;
        // Another daemon may have done it at the same time.
        found = version(sessions).await?;
        if found < known {
            return Err(match made {
                Err(Fault::Refused { code, words }) if code == "42501" => {
                    SchemaError::Rights { words }
                }
                Err(fault) => SchemaError::Server(fault.to_string()),
                Ok(()) => SchemaError::Server("the version was not written".to_owned()),
            });
        }
    }
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    Ok(())
}

/// Whether the tables are there, without making them.
pub(super) async fn look(sessions: &Sessions) -> Result<bool, SchemaError> {
    let (found, known) = (version(sessions).await?, STEPS.len() as i64);
    if found > known {
        return Err(SchemaError::Newer { found, known });
    }
    Ok(found == known)
}

/// Whether this user may make the tables, as far as that can be asked.
pub(super) async fn may_make(sessions: &Sessions) -> Result<(), SchemaError> {
    let sql = "SELECT has_database_privilege(current_database(), 'CREATE')
        OR EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'looker_feed'
            AND has_schema_privilege(oid, 'CREATE')) AS may, current_user::text AS name";
    let rows = sessions.read(sql, &[], WITHIN).await;
    let rows = rows.map_err(|fault| SchemaError::Server(fault.to_string()))?;
    match rows.first() {
        Some(row) if !row.get::<_, bool>("may") => {
            let name: String = row.get("name");
            Err(SchemaError::Rights {
                words: format!("{name} may not make a schema in this database"),
            })
        }
        _ => Ok(()),
    }
}

/// 0: there are no tables.
async fn version(sessions: &Sessions) -> Result<i64, SchemaError> {
    let read = sessions
        .run(
            "SELECT version FROM looker_feed.schema WHERE one",
            &[],
            Tries::UntilKnown,
            WITHIN,
        )
        .await;
    match read {
        Ok(rows) => Ok(rows.first().map_or(0, |row| row.get(0))),
        Err(fault) if ["42P01", "3F000"].contains(&fault.code()) => Ok(0),
        Err(Fault::Refused { code, words }) if code == "42501" => {
            Err(SchemaError::Rights { words })
        }
        Err(fault) => Err(SchemaError::Server(fault.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_ends_the_text_that_it_is_put_into() {
        for step in STEPS {
            assert!(!step.contains("$step$"));
        }
        assert!(schema().contains("SET version = 1 WHERE version = 0"));
    }
}
