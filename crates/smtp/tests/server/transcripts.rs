//! Sessions of the server's side, as golden transcripts: `tests/transcripts/server-*.txt`.
//!
//! A file has cases (`== title`). In a case: `! name value` changes a setting; `C: text` is a line of the client,
//! `C< text` bytes without a line end, `+5m` time that passes, `~ shutdown` and `~ hangup` what happens to the server
//! and to the connection, `~ stranger` a client that would have to authenticate; `S: ` a reply and `E: ` what the session wants done, which must come just so. Of the answer
//! to EHLO only the last line is written, unless the title ends in `in full`.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::shell::{Shell, settings, unescape};
use posthorn_smtp::server::Settings;

fn set(settings: &mut Settings, line: &str) {
    let (name, value) = line.split_once(' ').expect("a setting has a value");
    let number = || value.parse::<u32>().expect("a number");
    match name {
        "message_size" => settings.message_size = number().into(),
        "recipients" => settings.recipients = number() as usize,
        "text_line" => settings.text_line = number() as usize,
        "errors" => settings.errors = number(),
        "commands" => settings.commands = number(),
        "transactions" => settings.transactions = number(),
        "session_timeout" => settings.session_timeout = Duration::from_secs(number().into()),
        "starttls" => settings.starttls = value == "yes",
        other => panic!("no such setting: {other}"),
    }
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number.parse().expect("a number of s or m");
    Duration::from_secs(if unit == "m" { number * 60 } else { number })
}

/// Plays a case; gives back the transcript as it is.
fn play(case: &str) -> String {
    let mut settings = settings();
    for line in case.lines().filter_map(|line| line.strip_prefix("! ")) {
        set(&mut settings, line);
    }
    let mut shell = Shell::new(settings);
    if case.lines().any(|line| line == "~ stranger") {
        shell.want_authentication();
    }
    let mut transcript = Vec::new();
    let in_full = case.lines().next().is_some_and(|title| title.ends_with("in full"));
    for line in case.lines() {
        let is_said_by_us = line.starts_with("S: ") || line.starts_with("E: ");
        if is_said_by_us {
            continue;
        }
        if !line.starts_with(['!', '=', '#']) {
            transcript.append(&mut shell.lines);
        }
        transcript.push(line.to_owned());
        if let Some(text) = line.strip_prefix("C: ") {
            shell.send(&[unescape(text), b"\r\n".to_vec()].concat());
        } else if let Some(text) = line.strip_prefix("C< ") {
            shell.send(&unescape(text));
        } else if let Some(time) = line.strip_prefix('+') {
            shell.wait(duration(time));
        } else if line == "~ shutdown" {
            shell.shut_down();
        } else if line == "~ hangup" {
            shell.hang_up();
        } else if line == "~ stranger" {
            // It was one from the start.
        } else {
            assert!(line.is_empty() || line.starts_with(['!', '=', '#']), "what is this: {line}");
        }
    }
    let blank = transcript.iter().rev().take_while(|line| line.is_empty()).count();
    transcript.truncate(transcript.len() - blank);
    transcript.append(&mut shell.lines);
    transcript.retain(|line| in_full || !line.starts_with("S: 250-"));
    transcript.join("\n") + "\n"
}

#[test]
fn every_session_goes_as_written() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut cases = 0;
    let mut differences = String::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_string_lossy().starts_with("server-") {
            continue;
        }
        let file = fs::read_to_string(&path).unwrap();
        for case in file.split("\n== ") {
            let case = format!("== {}\n", case.trim_start_matches("== ").trim_end());
            let played = play(&case);
            cases += 1;
            if played != case {
                differences += &format!("in {}:\n{case}\nwent:\n{played}\n", path.display());
            }
        }
    }
    assert!(differences.is_empty(), "{differences}");
    assert!(cases > 60, "only {cases} cases were found");
}
