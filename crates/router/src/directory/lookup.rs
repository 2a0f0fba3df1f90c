//! The look-ups of the routing decision: many keys in one statement.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use posthorn_mail::Domain;
use sqlx::PgPool;
use uuid::Uuid;

use super::{Error, routes, stored_address};
use crate::known::{Entry, MailboxName, OurDomain, StaticRoute};

/// Which of these domains are ours.
pub(crate) async fn domains(
    pool: &PgPool,
    names: &[Domain],
) -> Result<HashMap<Domain, Arc<OurDomain>>, Error> {
    let names: Vec<&str> = names.iter().map(Domain::as_str).collect();
    let rows: Vec<(String, String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT name, tenant_id, catch_all, separator FROM directory.domains WHERE name = ANY($1)",
    )
    .bind(names)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(name, tenant_id, catch_all, separator)| {
            let catch_all = catch_all.as_deref().map(stored_address).transpose()?;
            let domain =
                OurDomain { tenant_id: tenant_id.into(), catch_all, separator: separator.map(Into::into) };
            Ok((stored_domain(&name)?, Arc::new(domain)))
        })
        .collect()
}

#[derive(sqlx::FromRow)]
struct EntryRow {
    domain: String,
    local: String,
    account_id: Option<Uuid>,
    quota_bytes: Option<i64>,
    disabled: Option<bool>,
    targets: Option<Vec<String>>,
    owner: Option<String>,
    members: Vec<String>,
}

/// What these addresses of ours are.
pub(crate) async fn mailboxes(
    pool: &PgPool,
    names: &[MailboxName],
) -> Result<HashMap<MailboxName, Arc<Entry>>, Error> {
    let domains: Vec<&str> = names.iter().map(|name| name.domain.as_str()).collect();
    let locals: Vec<&str> = names.iter().map(|name| &*name.local).collect();
    let rows: Vec<EntryRow> = sqlx::query_as(
        "SELECT address.domain, address.local, account.account_id, account.quota_bytes, account.disabled,
             alias.targets, list.owner,
             ARRAY(SELECT member FROM directory.list_members AS m
                   WHERE m.domain = address.domain AND m.local = address.local AND address.kind = 'list'
                   ORDER BY member) AS members
         FROM UNNEST($1::text[], $2::text[]) AS asked (domain, local)
         JOIN directory.addresses AS address USING (domain, local)
         LEFT JOIN directory.accounts AS account USING (domain, local)
         LEFT JOIN directory.aliases AS alias USING (domain, local)
         LEFT JOIN directory.lists AS list USING (domain, local)",
    )
    .bind(domains)
    .bind(locals)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|row| {
            let name = MailboxName { local: row.local.as_str().into(), domain: stored_domain(&row.domain)? };
            Ok((name, Arc::new(row.try_into()?)))
        })
        .collect()
}

impl TryFrom<EntryRow> for Entry {
    type Error = Error;

    fn try_from(row: EntryRow) -> Result<Self, Error> {
        let addresses =
            |texts: &[String]| texts.iter().map(|text| stored_address(text)).collect::<Result<Vec<_>, _>>();
        match (row.account_id, row.targets) {
            (Some(account_id), _) => Ok(Self::Account {
                account_id,
                quota_bytes: row.quota_bytes.and_then(|q| u64::try_from(q).ok()).unwrap_or_default(),
                disabled: row.disabled.unwrap_or_default(),
            }),
            (None, Some(targets)) => Ok(Self::Alias { targets: addresses(&targets)? }),
            (None, None) => Ok(Self::List {
                members: addresses(&row.members)?,
                owner: row.owner.as_deref().map(stored_address).transpose()?,
            }),
        }
    }
}

/// The static routes of these domains, where they have one: the nearest pattern is taken.
pub(crate) async fn routes(
    pool: &PgPool,
    names: &[Domain],
) -> Result<HashMap<Domain, Arc<StaticRoute>>, Error> {
    let patterns: Vec<String> = names.iter().flat_map(route_patterns).collect();
    let rows: Vec<routes::Row> =
        sqlx::query_as("SELECT pattern, hosts FROM directory.routes WHERE pattern = ANY($1)")
            .bind(patterns)
            .fetch_all(pool)
            .await?;
    let found: HashMap<String, Arc<StaticRoute>> =
        rows.into_iter().map(|row| (row.pattern.clone(), Arc::new(row.into()))).collect();
    let nearest = |name: &Domain| route_patterns(name).find_map(|pattern| found.get(&pattern).cloned());
    Ok(names.iter().filter_map(|name| Some((name.clone(), nearest(name)?))).collect())
}

/// The patterns that fit a domain, nearest first: itself, what it is below of, everything.
pub(crate) fn route_patterns(name: &Domain) -> impl Iterator<Item = String> {
    let name = name.as_str();
    let parents = name.match_indices('.').map(|(at, _)| name[at..].to_owned());
    std::iter::once(name.to_owned()).chain(parents).chain(["*".to_owned()])
}

/// The name and the settings of an account by its id.
#[derive(Debug, sqlx::FromRow)]
pub(crate) struct AccountRow {
    pub(crate) account_id: Uuid,
    pub(crate) domain: String,
    pub(crate) local: String,
    pub(crate) tenant_id: String,
    pub(crate) quota_bytes: i64,
}

/// The account with this id.
pub(crate) async fn account(pool: &PgPool, account_id: Uuid) -> Result<AccountRow, Error> {
    let row = sqlx::query_as(
        "SELECT account.account_id, account.domain, account.local, domain.tenant_id, account.quota_bytes
         FROM directory.accounts AS account JOIN directory.domains AS domain ON domain.name = account.domain
         WHERE account.account_id = $1",
    );
    Ok(row.bind(account_id).fetch_one(pool).await?)
}

/// Those of these accounts that there are.
pub(crate) async fn existing(pool: &PgPool, accounts: &[Uuid]) -> Result<HashSet<Uuid>, Error> {
    let found: Vec<Uuid> =
        sqlx::query_scalar("SELECT account_id FROM directory.accounts WHERE account_id = ANY($1)")
            .bind(accounts)
            .fetch_all(pool)
            .await?;
    Ok(found.into_iter().collect())
}

fn stored_domain(text: &str) -> Result<Domain, Error> {
    text.parse().map_err(|e| Error::Broken(format!("stored domain {text:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_pattern_comes_first() {
        let patterns: Vec<String> = route_patterns(&"a.b.example".parse().unwrap()).collect();
        assert_eq!(patterns, ["a.b.example", ".b.example", ".example", "*"]);
    }
}
