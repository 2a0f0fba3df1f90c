//! Both servers start in an empty directory, and again in the one they left.

use posthorn_stores::{Durability, Postgres, Redis, free_port};

#[test]
fn postgres_starts_in_an_empty_directory_and_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    Postgres::start(dir.path(), port, Durability::Full).unwrap().crash();
    let again = Postgres::start(dir.path(), port, Durability::Full).unwrap();
    assert_eq!(again.url("postgres", "x"), format!("postgres://postgres@127.0.0.1:{port}/x"));
    again.stop();
}

#[test]
fn redis_starts_in_an_empty_directory_and_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    Redis::start(dir.path(), port).unwrap().crash();
    Redis::start(dir.path(), port).unwrap().stop();
}
