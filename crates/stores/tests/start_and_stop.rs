//! Both servers start in an empty directory, and again in the one they left.

use std::time::{Duration, Instant};

use posthorn_stores::{Durability, Postgres, Redis, free_port};
use rustix::process::{Pid, Signal, kill_process};

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
fn a_postgres_that_another_started_again_in_its_place_is_stopped_too() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    let first = Postgres::start(dir.path(), port, Durability::ProcessOnly).unwrap();
    let pid_file = dir.path().join("data/postmaster.pid");
    let pid = Pid::from_raw(i32::try_from(first.pid()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while pid_file.exists() {
        assert!(Instant::now() < deadline, "Postgres does not stop");
        std::thread::sleep(Duration::from_millis(10));
    }
    let _second = Postgres::start(dir.path(), port, Durability::ProcessOnly).unwrap();
    first.stop();
    assert!(!pid_file.exists(), "the second one still runs");
}

#[test]
fn redis_starts_in_an_empty_directory_and_again_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port().unwrap();
    Redis::start(dir.path(), port).unwrap().crash();
    Redis::start(dir.path(), port).unwrap().stop();
}
