//! Connections that are kept, and such over which no answer comes any more.

use std::time::Duration;

use posthorn_database::{Database, Standing, is_broken, limited};
use posthorn_testkit::proxy::{Flow, Proxy};
use sqlx::PgConnection;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

/// A database behind a way that can break, and its settings.
async fn world() -> (Proxy, Database) {
    let url = posthorn_testkit::stores::database().await;
    let (proxy, url) = Proxy::before_postgres(&url).await.expect("the proxy starts");
    let database = Database {
        url,
        max_connections: 2,
        acquire_timeout: Duration::from_secs(4),
        statement_timeout: Duration::from_secs(1),
    };
    (proxy, database)
}

async fn pid(standing: &Standing) -> sqlx::Result<i32> {
    let ask = async |connection: &mut PgConnection| {
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await
    };
    standing.with(ask).await
}

#[tokio::test]
async fn a_standing_connection_serves_until_something_fails_on_it() {
    let (_proxy, database) = world().await;
    let standing = database.standing(database.options("test").unwrap(), 2);
    let first = pid(&standing).await.unwrap();
    assert_eq!(pid(&standing).await.unwrap(), first);
    let fail = async |connection: &mut PgConnection| sqlx::query("SELECT 1/0").execute(connection).await;
    standing.with(fail).await.unwrap_err();
    assert_ne!(pid(&standing).await.unwrap(), first);
}

#[tokio::test]
async fn no_more_are_lent_than_there_may_be() {
    let (_proxy, database) = world().await;
    let short = Database { acquire_timeout: Duration::from_secs(3), ..database };
    let standing = short.standing(short.options("test").unwrap(), 1);
    let lent = standing.lend().await.unwrap();
    assert!(matches!(standing.lend().await, Err(sqlx::Error::PoolTimedOut)));
    lent.keep();
    assert!(standing.lend().await.is_ok());
}

#[tokio::test]
async fn a_connection_that_leads_nowhere_is_left_and_another_made() {
    for flow in [Flow::HalfOpen, Flow::Held] {
        let (proxy, database) = world().await;
        let standing = database.standing(database.options("test").unwrap(), 2);
        let first = pid(&standing).await.unwrap();
        proxy.set(flow);
        let Err(sqlx::Error::Io(error)) = pid(&standing).await else { panic!("something came through") };
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        proxy.set(Flow::Passes);
        assert_ne!(pid(&standing).await.unwrap(), first);
    }
}

#[tokio::test]
async fn a_pool_comes_back_from_silence() {
    let (proxy, database) = world().await;
    let pool = database.pool(database.options("test").unwrap(), 1);
    let ask = || sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()").fetch_one(&pool);
    let first = ask().await.unwrap();
    proxy.set(Flow::HalfOpen);
    // A caller that gives up leaves its connection in the midst of an answer.
    limited(Duration::from_millis(200), ask()).await.unwrap_err();
    proxy.set(Flow::Passes);
    assert_ne!(ask().await.unwrap(), first);
}

/// Found by an audit: mail was put off as if Postgres had refused it.
#[tokio::test]
async fn a_door_with_no_postgres_behind_it_is_no_refusal() {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://role@{}/db", door.local_addr().unwrap());
    let closes = async {
        loop {
            let (mut stream, _) = door.accept().await.unwrap();
            // What a client asks first; read, so that it hears of an end and not of a reset.
            stream.read_exact(&mut [0; 8]).await.unwrap();
        }
    };
    let (_proxy, database) = world().await;
    let database = Database { url, ..database };
    let standing = database.standing(database.options("test").unwrap(), 1);
    let pool = database.pool(database.options("test").unwrap(), 1);
    let look = async {
        let Err(sqlx::Error::Io(error)) = standing.lend().await else {
            panic!("it is said to be something else")
        };
        assert_eq!(error.kind(), std::io::ErrorKind::NotConnected);
        assert!(is_broken(&pool.acquire().await.unwrap_err()));
    };
    tokio::select! {
        () = closes => {}
        () = look => {}
    }
}
