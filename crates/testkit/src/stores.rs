//! A Postgres and a Redis for the tests of one binary: started at first use, ended with the process.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use posthorn_stores::{Durability, Postgres, Redis, free_port};
use sqlx::Connection as _;

struct Stores {
    // Statics are never dropped: the watcher of each server ends it when this process ends. The directory stays in
    // the system's temporary directory until then; `clean_old` removes those of processes that are gone.
    postgres: Postgres,
}

fn directory(name: &str) -> std::path::PathBuf {
    let root = std::env::temp_dir().join("posthorn-tests");
    clean_old(&root);
    root.join(format!("{}-{name}", std::process::id()))
}

/// Removes what test processes that no longer run have left.
fn clean_old(root: &std::path::Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|n| n.split('-').next()).and_then(|n| n.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

fn stores() -> &'static Stores {
    static STORES: OnceLock<Stores> = OnceLock::new();
    STORES.get_or_init(|| {
        let port = free_port().expect("a free port");
        let postgres = Postgres::start(&directory("postgres"), port, Durability::ProcessOnly);
        Stores { postgres: postgres.expect("a private Postgres starts") }
    })
}

/// The address of a new, empty database, as its owner (`postgres`). For another role, see [`as_role`].
pub async fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let stores = tokio::task::spawn_blocking(stores).await.expect("the stores start");
    let name = format!("test_{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let mut connection = sqlx::PgConnection::connect(&stores.postgres.url("postgres", "postgres"))
        .await
        .expect("the private Postgres answers");
    sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .expect("a database can be made");
    stores.postgres.url("postgres", &name)
}

/// The same database for another role, which the migrations have made; lets the role log in first.
pub async fn as_role(url: &str, role: &str) -> String {
    let mut connection = sqlx::PgConnection::connect(url).await.expect("the private Postgres answers");
    // Tests of one binary share the cluster's roles: two may alter the same one at once, and one of them is refused.
    let _ =
        sqlx::query(sqlx::AssertSqlSafe(format!("ALTER ROLE {role} LOGIN"))).execute(&mut connection).await;
    url.replacen("postgres://postgres@", &format!("postgres://{role}@"), 1)
}

/// What a query for whole numbers finds.
pub async fn numbers(url: &str, query: &str) -> anyhow::Result<Vec<i64>> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_all(&mut connection).await?)
}

/// Keeps everybody else from a table until it is dropped.
pub async fn locked(url: &str, table: &str) -> anyhow::Result<impl Sized + use<>> {
    let mut connection = sqlx::PgConnection::connect(url).await?;
    let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock)).execute(&mut connection).await?;
    Ok(connection)
}

/// The names of all that a Redis holds.
pub async fn keys(url: &str) -> anyhow::Result<Vec<String>> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
    Ok(keys.into_iter().map(|key| key.escape_ascii().to_string()).collect())
}

/// Lets a Redis forget all whose names hold both parts; how many that were.
pub async fn forget(url: &str, parts: [&str; 2]) -> anyhow::Result<usize> {
    let mut connection = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await?;
    let holds = |key: &&Vec<u8>| {
        let key = key.escape_ascii().to_string();
        parts.iter().all(|part| key.contains(part))
    };
    let forgotten: Vec<&Vec<u8>> = keys.iter().filter(holds).collect();
    if !forgotten.is_empty() {
        redis::cmd("DEL").arg(&forgotten).query_async::<()>(&mut connection).await?;
    }
    Ok(forgotten.len())
}

/// A Redis of the test's own: it stops when dropped, and the test may flush, stop or crash it.
pub async fn redis() -> Redis {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("redis-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    tokio::task::spawn_blocking(move || {
        Redis::start(&directory(&name), free_port().expect("a free port")).expect("a private Redis starts")
    })
    .await
    .expect("the Redis starts")
}
