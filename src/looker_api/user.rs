//! As whom Looker is asked, and what that user may do.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::Value;

use super::client::{Call, LookerApi, text};
use super::error::ApiError;

/// The user of the API key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What the user of the API key may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    /// Who it is.
    pub user: User,
    /// Names of permissions; `None`: the user may not read its own roles.
    pub permissions: Option<BTreeSet<String>>,
}

/// What will not work without a permission, and the permission.
const NEEDS: [(&[&str], &str); 3] = [
    (
        &["administer"],
        "only schedules of this very user can be asked for again",
    ),
    (
        &["see_system_activity"],
        "deliveries that failed while looker-feed was away are not found",
    ),
    (
        &["access_data", "see_looks"],
        "`preview --look` and `preview --query` do not work",
    ),
];

#[derive(Deserialize)]
struct RawUser {
    id: Value,
    display_name: Option<String>,
}

#[derive(Deserialize)]
struct Role {
    permission_set: Option<PermissionSet>,
}

#[derive(Deserialize)]
struct PermissionSet {
    permissions: Option<Vec<String>>,
}

impl Rights {
    /// What will not work, as sentences.
    pub fn shortcomings(&self) -> Vec<String> {
        let Some(held) = &self.permissions else {
            return vec![
                "The user may not read its own roles, so it is not known what will not work."
                    .to_owned(),
            ];
        };
        let mut told = Vec::new();
        for (permissions, without) in NEEDS {
            let missing: Vec<_> = permissions
                .iter()
                .filter(|permission| !held.contains(**permission))
                .map(|permission| format!("`{permission}`"))
                .collect();
            if !missing.is_empty() {
                told.push(format!("Without {}, {without}.", missing.join(" and ")));
            }
        }
        told
    }
}

impl LookerApi {
    /// Logs in and says as whom, and what that user may do.
    pub async fn rights(&self) -> Result<Rights, ApiError> {
        let fields = [("fields", "id,display_name")];
        let call = Call {
            query: &fields,
            ..Call::get(&["user"], "read its own name", "the key's user")
        };
        let raw: RawUser = self.ask(call).await?;
        let user = User {
            id: text(&raw.id).unwrap_or_default(),
            name: raw.display_name.unwrap_or_default(),
        };
        let path = ["users", &user.id, "roles"];
        let call = Call::get(&path, "read its own roles", "the key's user");
        let permissions = match self.ask::<Vec<Role>>(call).await {
            Ok(roles) => {
                let sets = roles.into_iter().filter_map(|role| role.permission_set);
                let names = sets.filter_map(|set| set.permissions);
                Some(names.flatten().collect())
            }
            Err(ApiError::Forbidden { .. } | ApiError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        Ok(Rights { user, permissions })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_with_what_it_costs() {
        let rights = |permissions: &[&str]| Rights {
            user: User {
                id: "5".to_owned(),
                name: "Feed".to_owned(),
            },
            permissions: Some(permissions.iter().map(|name| (*name).to_owned()).collect()),
        };
        let all = [
            "administer",
            "see_system_activity",
            "access_data",
            "see_looks",
        ];
        assert!(rights(&all).shortcomings().is_empty());
        let told = rights(&["administer", "access_data"]).shortcomings();
        assert_eq!(
            told,
            [
                "Without `see_system_activity`, deliveries that failed while looker-feed was away are not found.",
                "Without `see_looks`, `preview --look` and `preview --query` do not work.",
            ]
        );
        let unread = Rights {
            permissions: None,
            ..rights(&[])
        };
        assert_eq!(unread.shortcomings().len(), 1);
    }
}
