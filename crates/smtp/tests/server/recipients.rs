//! Transactions too large to be written down line by line.

use crate::shell::{Shell, settings};

#[test]
fn a_client_that_names_more_recipients_than_are_taken_goes_on_with_those_that_were() {
    let mut shell = Shell::new(settings());
    shell.send(b"EHLO client.example\r\nMAIL FROM:<bob@example.net>\r\n");
    let rcpt: String = (0..1050).map(|n| format!("RCPT TO:<r{n}@example.test>\r\n")).collect();
    shell.send(rcpt.as_bytes());
    let count = |shell: &Shell, reply: &str| shell.lines.iter().filter(|line| *line == reply).count();
    assert_eq!(count(&shell, "S: 250 2.1.5 Ok"), 1_000);
    assert_eq!(count(&shell, "S: 452 4.5.3 Too many recipients"), 50);
    shell.send(b"DATA\r\nSubject: x\r\n.\r\n");
    assert_eq!(shell.lines.last().map(String::as_str), Some("S: 250 2.0.0 Ok: queued"));
}
