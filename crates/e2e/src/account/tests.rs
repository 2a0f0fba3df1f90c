use std::time::{Duration, SystemTime};

use posthorn_dsn::Action;
use tokio::time::Instant;

use super::found::{Arrival, Copy};
use super::*;
use crate::load::To;

const ID: &str = "an-id";

fn sent(to: To, answer: Answer) -> Sent {
    Sent { subject: "load 1 2".into(), to, large: false, by_program: false, answer, at: SystemTime::now() }
}

fn accepted(to: To) -> Sent {
    sent(to, Answer::Accepted(ID.into()))
}

fn copy_of(message: &Sent) -> Copy {
    let line = format!("Received: from x (127.0.0.1)\r\n\tby y with ESMTP id {ID};\r\n\tnow\r\n");
    Copy::of(&[line.as_bytes(), &message.content()].concat(), SystemTime::now())
}

/// All of it where it should be.
fn well(message: &Sent) -> Found {
    let mut found = Found::default();
    for to in message.to.mailboxes() {
        found.mailboxes.insert((to, message.subject.clone()), vec![copy_of(message)]);
    }
    for to in message.to.elsewhere() {
        let arrival = Arrival { copy: copy_of(message), at: Instant::now(), accepted: true };
        found.elsewhere.insert((to, message.subject.clone()), vec![arrival]);
    }
    if !message.to.notices().is_empty() {
        found.notices.insert(message.subject.clone(), message.to.notices());
    }
    found
}

fn wrong(message: &Sent, found: &Found) -> String {
    check(std::slice::from_ref(message), found, &mut Table::default()).join("; ")
}

#[test]
fn all_is_well_where_all_have_it_or_nobody_should() {
    for to in To::ALL {
        for message in [accepted(to), sent(to, Answer::Unknown)] {
            assert_eq!(wrong(&message, &well(&message)), "");
        }
        for answer in [Answer::Unknown, Answer::Leaving, Answer::NotNow(String::new())] {
            assert_eq!(wrong(&sent(to, answer), &Found::default()), "");
        }
    }
}

#[test]
fn what_is_missing_anywhere_is_seen() {
    for to in To::ALL {
        for message in [accepted(to), sent(to, Answer::Unknown)] {
            let complete = well(&message);
            let places = complete.mailboxes.len() + complete.elsewhere.len() + complete.notices.len();
            for missing in 0..places {
                let mut found = well(&message);
                let (here, there) = (found.mailboxes.len(), found.elsewhere.len());
                if missing < here {
                    let key = found.mailboxes.keys().nth(missing).unwrap().clone();
                    found.mailboxes.remove(&key);
                } else if missing < here + there {
                    let key = found.elsewhere.keys().nth(missing - here).unwrap().clone();
                    found.elsewhere.remove(&key);
                } else {
                    found.notices.clear();
                }
                // All of what nobody knows may be missing.
                let may_be = message.answer == Answer::Unknown && places == 1;
                assert_eq!(wrong(&message, &found).is_empty(), may_be, "{message:?} without {missing}");
            }
        }
    }
}

#[test]
fn what_is_doubled_changed_or_another_is_seen() {
    let message = accepted(To::List);
    let key = ("carl@example.test".to_owned(), message.subject.clone());
    let mut doubled = well(&message);
    doubled.mailboxes.get_mut(&key).unwrap().push(copy_of(&message));
    assert!(wrong(&message, &doubled).contains("is 2 times in the mailbox of carl@example.test"));

    let content = message.content();
    for changed in [&content[..content.len() - 1], &swapped(&content), b"nothing of it"] {
        let mut found = well(&message);
        let copy = Copy { id: ID.into(), ..Copy::of(changed, SystemTime::now()) };
        found.mailboxes.insert(key.clone(), vec![copy]);
        assert!(wrong(&message, &found).contains("is not what it was at carl@example.test"));
    }
    let mut another = well(&message);
    another.mailboxes.get_mut(&key).unwrap()[0].id = "another".into();
    assert!(wrong(&message, &another).contains("has the id another"));
}

/// With two lines swapped.
fn swapped(content: &[u8]) -> Vec<u8> {
    let text = String::from_utf8(content.to_vec()).unwrap();
    let text = text.replace("Line 1 ", "Line x ").replace("Line 2 ", "Line 1 ");
    text.replace("Line x ", "Line 2 ").into_bytes()
}

#[test]
fn what_was_refused_or_goes_astray_is_seen() {
    for answer in [Answer::Leaving, Answer::NotNow(String::new()), Answer::Broken(String::new())] {
        for to in To::ALL {
            let message = sent(to, answer.clone());
            assert!(wrong(&message, &well(&message)).contains("is where it should not be"));
        }
    }
    let message = accepted(To::Local);
    let mut astray = well(&message);
    astray.mailboxes.insert(("dora@example.test".into(), message.subject.clone()), vec![copy_of(&message)]);
    assert!(wrong(&message, &astray).contains("is where it should not be"));
    let mut told = well(&message);
    told.notices.insert(message.subject.clone(), vec![("alice@example.test".into(), Action::Failed)]);
    assert!(wrong(&message, &told).contains("was told of"));
    let hollow = Found { wrong: vec!["a hollow one".into()], ..well(&message) };
    assert!(wrong(&message, &hollow).contains("hollow"));
    let nobodys = check(&[], &well(&message), &mut Table::default());
    assert!(nobodys[0].contains("nobody sent"), "{nobodys:?}");
}

#[test]
fn notices_must_be_of_the_right_one_and_of_the_right_kind() {
    let message = accepted(To::Nobody);
    for told in [
        vec![("nobody@remote.test".to_owned(), Action::Delayed)],
        vec![("dave@remote.test".to_owned(), Action::Failed)],
        vec![("nobody@remote.test".to_owned(), Action::Failed); 2],
    ] {
        let mut found = well(&message);
        found.notices.insert(message.subject.clone(), told);
        assert!(wrong(&message, &found).contains("was told of"));
    }
}

#[test]
fn a_blow_explains_only_what_lies_around_it() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let blow = |leases| Blow { name: "kill".into(), from: at(100), to: at(101), leases };
    for (one, next, leases, explains) in [
        (90, 110, Leases::Lost, true),
        (90, 110, Leases::Kept, false),
        (90, 99, Leases::Lost, false),
        (103, 110, Leases::Lost, false),
        (103, 110, Leases::LostUntilNoticed, true),
        (150, 160, Leases::LostUntilNoticed, false),
    ] {
        assert_eq!(blow(leases).lies_between(at(one), at(next)), explains, "{one} {next} {leases:?}");
    }
}
