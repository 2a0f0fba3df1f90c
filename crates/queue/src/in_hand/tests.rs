use posthorn_mail::{EnhancedStatus, Notify, Outcome, Status};
use time::OffsetDateTime;

use super::*;
use crate::message::{Moment, Place, Recipient, State};
use crate::outcome::route::{Routed, Target, Verdict};
use crate::retry::Policy;
use crate::spool::Message;

const LEASE: Duration = Duration::from_secs(60);

fn letter(recipients: &[&str]) -> Letter {
    let now = OffsetDateTime::UNIX_EPOCH;
    let recipients: Vec<Recipient> =
        (1..).zip(recipients).map(|(no, address)| Recipient::fresh(no, (*address).to_owned(), now)).collect();
    Letter::new(message(recipients.len() as u32), recipients, watch::channel(true).1, Instant::now())
}

fn message(recipients: u32) -> Message {
    let now = OffsetDateTime::UNIX_EPOCH;
    Message {
        id: MessageId::generate(),
        sender: "s@x".to_owned(),
        received_at: now,
        expires_at: now + LEASE,
        size: 1,
        body: Default::default(),
        smtputf8: false,
        ret: None,
        envelope_id: None,
        origin: Default::default(),
        traceparent: String::new(),
        flow: crate::schedule::Flow::of("", "s@x"),
        held: false,
        poison: false,
        noticed: 0,
        recipients,
        pending: recipients,
        maybe_local: false,
    }
}

fn local() -> Verdict {
    Verdict::Place(Place::Local(Default::default()))
}

fn routed(no: u32, address: &str, verdict: Verdict) -> Routed {
    let target = Target { address: address.to_owned(), reason: String::new(), sender: None, verdict };
    Routed { no, targets: vec![target] }
}

fn route(letter: &mut Letter, results: Vec<Routed>) -> Next {
    letter.route(Token::in_hand(Kind::Route, Lane::ROUTE), results, OffsetDateTime::UNIX_EPOCH)
}

fn in_hand(letters: Vec<Letter>) -> InHand {
    let in_hand = InHand::new(10, LEASE);
    assert!(in_hand.put(Kind::Route, letters, Instant::now()).is_empty());
    in_hand
}

#[test]
fn mailboxes_here_are_the_plain_way() {
    let refused = || Verdict::Fail(Status::new(550, EnhancedStatus::new(5, 1, 1), "unknown"));
    let remote = || Verdict::Place(Place::Remote(Default::default()));
    for (results, plain) in [
        (vec![routed(1, "a@x", local()), routed(2, "b@x", local())], true),
        (vec![routed(1, "a@x", local())], false),
        (vec![routed(1, "a@x", local()), routed(2, "c@x", local())], false),
        (vec![routed(1, "a@x", local()), routed(2, "b@x", remote())], false),
        (vec![routed(1, "a@x", local()), routed(2, "b@x", refused())], false),
    ] {
        let mut letter = letter(&["a@x", "b@x"]);
        let next = route(&mut letter, results);
        assert_eq!(matches!(next, Next::Deliver), plain);
        assert_eq!(letter.events.len(), if plain { 2 } else { 0 });
    }
    let mut asks = letter(&["a@x"]);
    asks.recipients[0].notify = Some(Notify::On { success: true, failure: true, delay: false });
    assert!(matches!(route(&mut asks, vec![routed(1, "a@x", local())]), Next::Leave));
}

#[test]
fn a_message_ends_when_all_have_it() {
    use posthorn_mail::Verdict as Said;
    let policy = Policy { schedule: vec![], uncertain: LEASE, attempts: 0 };
    let now = OffsetDateTime::UNIX_EPOCH;
    let moment = Moment { now, expires_at: now + LEASE, jitter: 0.5, policy: &policy };
    let status = || Status::new(250, EnhancedStatus::new(2, 0, 0), "ok");
    let has =
        || Outcome { verdict: Said::Delivered { status: status(), dsn_passed_on: false }, remote: None };
    let full = || Outcome {
        verdict: Said::Deferred { status: status(), destination_unavailable: false },
        remote: None,
    };
    for (outcomes, ends) in [
        (vec![(2, has()), (1, has())], true),
        (vec![(1, has())], false),
        (vec![(1, has()), (2, full())], false),
    ] {
        let mut letter = letter(&["a@x", "b@x"]);
        route(&mut letter, vec![routed(1, "a@x", local()), routed(2, "b@x", local())]);
        let next = letter.deliver(outcomes, &moment);
        assert_eq!(matches!(next, Next::End), ends);
        assert_eq!(letter.events.len(), if ends { 5 } else { 2 });
        assert!(letter.recipients.iter().all(|recipient| recipient.state == State::Local));
    }
}

#[test]
fn a_report_counts_once_and_within_its_lease() {
    let in_hand = in_hand(vec![letter(&["a@x"]), letter(&["b@x"])]);
    let now = Instant::now();
    let Given { token, items, .. } = in_hand.give(Kind::Route, 1, true, 10, now).unwrap();
    let ids: Vec<MessageId> =
        items.iter().map(|item| MessageId::try_from(&item.message_id[..]).unwrap()).collect();
    let back = |id, now| in_hand.take_back([(token, id)].into_iter(), now).remove(0);
    assert!(back(ids[0], now).is_some());
    assert!(back(ids[0], now).is_none(), "twice");
    assert!(back(ids[1], now + LEASE).is_none(), "too late");
    assert!(in_hand.give(Kind::Route, 1, true, 10, now).is_none());
}

#[test]
fn what_nobody_takes_or_finishes_goes_by_the_schedule() {
    let in_hand = in_hand(vec![letter(&["a@x"]), letter(&["b@x"]), letter(&["c@x"])]);
    let now = Instant::now();
    let Given { token, .. } = in_hand.give(Kind::Route, 7, true, 1, now).unwrap();
    assert_eq!(in_hand.renew(token, now + LEASE / 2).len(), 1);
    assert!(in_hand.overdue(now).is_empty());
    assert_eq!(in_hand.overdue(now + PATIENCE * 2).len(), 2);
    assert!(in_hand.orphans(8).is_empty());
    assert_eq!(in_hand.orphans(7).len(), 1);
    assert_eq!(in_hand.close(now), (vec![], vec![]));
    assert_eq!(in_hand.put(Kind::Local, vec![letter(&["d@x"])], now).len(), 1, "closed");
}

#[test]
fn nothing_is_taken_in_hand_without_workers_to_lead_it() {
    let in_hand = InHand::new(10, LEASE);
    assert_eq!(in_hand.room(), 0);
    let _router = in_hand.present(Kind::Route);
    assert_eq!(in_hand.room(), 0);
    let local = in_hand.present(Kind::Local);
    assert!(in_hand.present(Kind::Remote).is_none());
    assert_eq!(in_hand.room(), 10);
    drop(local);
    assert_eq!(in_hand.room(), 0);
}

#[tokio::test]
async fn what_the_router_says_counts_once_the_message_is_kept() {
    use futures::FutureExt as _;
    let (kept, of_both) = watch::channel(false);
    let letters =
        [letter(&["a@x"]), letter(&["b@x"])].map(|letter| Letter { kept: of_both.clone(), ..letter });
    let ids = [0, 1].map(|at: usize| letters[at].message.id);
    let in_hand = in_hand(letters.into());
    let Given { token, .. } = in_hand.give(Kind::Route, 1, true, 10, Instant::now()).unwrap();
    assert!(in_hand.until_kept([(token, ids[0])].into_iter()).now_or_never().is_none());
    in_hand.forget(&HashSet::from([ids[1]]));
    kept.send_replace(true);
    in_hand.until_kept(ids.map(|id| (token, id)).into_iter()).await;
    let back = in_hand.take_back(ids.map(|id| (token, id)).into_iter(), Instant::now());
    assert_eq!(back.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false]);
}

#[test]
fn the_schedule_knows_what_stays_in_hand() {
    let in_hand = in_hand(vec![letter(&["a@x"]), letter(&["b@x"])]);
    let now = Instant::now();
    in_hand.give(Kind::Route, 7, true, 1, now).unwrap();
    assert!(in_hand.lasting(now).is_empty(), "a moment");
    assert_eq!(in_hand.lasting(now + MOMENT).len(), 2);
    assert!(in_hand.lasting(now + MOMENT).is_empty(), "twice");
    in_hand.put(Kind::Local, vec![letter(&["c@x"])], now);
    in_hand.give(Kind::Local, 8, true, 1, now).unwrap();
    let (waiting, given) = in_hand.close(Instant::now());
    assert_eq!((waiting.len(), given.len()), (1, 1), "what was told is not told again");
}

#[test]
fn what_the_router_said_before_counts_if_it_is_the_plain_way() {
    let mut other = letter(&["a@x"]);
    other.take_along(vec![routed(1, "b@x", local())], OffsetDateTime::UNIX_EPOCH);
    assert!(other.routed.is_none() && other.events.is_empty());
    let mut unsaid = letter(&["a@x"]);
    unsaid.take_along(vec![], OffsetDateTime::UNIX_EPOCH);
    assert!(unsaid.routed.is_none());
    let mut plain = letter(&["a@x"]);
    plain.take_along(vec![routed(1, "a@x", local())], OffsetDateTime::UNIX_EPOCH);
    assert!(plain.routed.is_some_and(|(token, _)| token.kind() == Kind::Route && token.is_in_hand()));
    assert_eq!(plain.recipients[0].state, State::Local);
}

#[test]
fn what_is_not_kept_waits_unless_it_is_alone() {
    let now = Instant::now();
    let (written, known) = watch::channel(false);
    let unkept = |recipients: &[&str]| Letter { kept: known.clone(), ..letter(recipients) };
    let waiting = |letters| {
        let in_hand = InHand::new(10, LEASE);
        in_hand.put(Kind::Local, letters, now);
        in_hand
    };
    let give = |in_hand: &InHand, takes_early| in_hand.give(Kind::Local, 1, takes_early, 10, now);
    let many = vec!["a@x"; MOST_EARLY + 1];
    for (recipients, takes_early, early) in [
        (&["a@x"][..], true, true),
        (&["a@x"], false, false),
        (&["a@x", "b@x"], true, true),
        (&many, true, false),
    ] {
        let in_hand = waiting(vec![unkept(recipients)]);
        let given = give(&in_hand, takes_early);
        assert_eq!(given.as_ref().is_some_and(|given| given.early.is_some()), early, "{recipients:?}");
        let Some(Given { token, items, .. }) = given else { continue };
        assert!(in_hand.has(token, items[0].message_id.as_ref().try_into().unwrap()));
    }
    let several = waiting(vec![unkept(&["a@x"]), letter(&["b@x"]), letter(&["c@x"]), unkept(&["d@x"])]);
    let count = |given: Option<Given>| given.map(|given| (given.items.len(), given.early.is_some()));
    assert_eq!(count(give(&several, true)), Some((2, false)), "what is kept passes by");
    assert_eq!(count(give(&several, true)), None);
    written.send_replace(true);
    assert_eq!(count(give(&several, true)), Some((2, false)));
}
