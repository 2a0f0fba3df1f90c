use posthorn_api::work::v1::{DeliveryReport, RecipientOutcome};

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
/// Streams.
const A: StreamId = 1;
const B: StreamId = 2;

fn token(name: &'static str) -> Bytes {
    Bytes::from_static(name.as_bytes())
}

fn reported(name: &'static str, answers: usize) -> Ended {
    let report = DeliveryReport { recipients: vec![RecipientOutcome::default(); answers] };
    let report = Some(item_report::Report::Delivery(report));
    Ended::Reported(ItemReport { token: token(name), report, ..ItemReport::default() })
}

fn back(name: &'static str) -> Ended {
    Ended::GivenBack(ReleasedItem { token: token(name), ..ReleasedItem::default() })
}

/// Batches and items.
fn held(leases: &Leases) -> (u32, u32) {
    let held = leases.held(0);
    (held.batches, held.items)
}

/// What the only stream is to tell.
fn end<const N: usize>(leases: &mut Leases, ended: [Ended; N]) -> Told {
    let mut told = leases.end(ended.into_iter(), A);
    assert_eq!((told.len(), told[0].0), (1, A));
    told.remove(0).1
}

#[test]
fn a_batch_ends_when_all_its_items_are_recorded_or_given_back() {
    let now = Instant::now();
    let mut leases = Leases::default();
    leases.begin(A, token("a"), 4, MINUTE, now);
    leases.begin(A, token("b"), 1, MINUTE, now);
    leases.begin(A, token("empty"), 0, MINUTE, now);
    assert_eq!((held(&leases), leases.batches_of(A)), ((2, 5), 2));
    let first = end(&mut leases, [reported("a", 1), reported("b", 1)]).reports;
    let Told { reports: second, back: given_back, .. } =
        end(&mut leases, [reported("a", 1), back("a"), Ended::Lost(token("a"))]);
    assert_eq!((first.len(), second.len(), given_back.len()), (1, 1, 1));
    assert_eq!((leases.unrecorded.len(), held(&leases)), (2, (2, 3)));
    leases.recorded(second[0].report_id);
    assert_eq!(held(&leases), (2, 2));
    leases.recorded(first[0].report_id);
    leases.recorded(first[0].report_id);
    assert_eq!((held(&leases), leases.batches_of(A)), ((0, 0), 0), "an answer to nothing changes nothing");
    assert!(leases.is_empty() && leases.unrecorded.is_empty());
}

#[test]
fn leases_are_extended_at_a_third() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut leases = Leases::default();
    let end = leases.begin(A, token("a"), 1, MINUTE, now);
    assert_eq!(leases.extend_at(), Some(now + 20 * second));
    assert!(leases.extend(now + 19 * second).is_empty());
    leases.begin(B, token("b"), 1, MINUTE, now + 10 * second);
    let extend = |name| Extend { tokens: vec![token(name)] };
    assert_eq!(leases.extend(now + 20 * second), BTreeMap::from([(A, extend("a"))]));
    assert_eq!(leases.extend_at(), Some(now + 30 * second));
    assert_eq!(leases.extend(now + 30 * second), BTreeMap::from([(B, extend("b"))]));
    assert_eq!(leases.extend_at(), Some(now + 40 * second));
    assert!(!end.is_over(now + 79 * second) && end.is_over(now + 80 * second));
    assert_eq!(leases.extend(now + 100 * second).len(), 2);
    assert!(end.is_over(now + 100 * second), "a lease that has ended does not come back");
}

#[test]
fn what_is_no_longer_held_is_extended_no_more() {
    let now = Instant::now();
    let mut leases = Leases::default();
    leases.begin(A, token("a"), 2, MINUTE, now);
    end(&mut leases, [Ended::Lost(token("a")), reported("a", 1)]);
    assert_eq!((leases.forget_unrecorded(B), held(&leases)), (0, (1, 1)));
    assert_eq!((leases.forget_unrecorded(A), held(&leases)), (1, (0, 0)));
    assert!(leases.extend(now + MINUTE).is_empty());
    assert_eq!(leases.extend_at(), None);
}

#[test]
fn what_is_ready_goes_in_one_report_unless_that_were_too_large() {
    let mut leases = Leases::default();
    let told = leases.end((0..100).map(|_| reported("a", 1)), A);
    assert_eq!(told[0].1.reports.len(), 1);
    let told = leases.end((0..120).map(|_| reported("a", 1000)), A);
    let items = |report: &Report| report.items.len();
    assert_eq!(told[0].1.reports.iter().map(items).collect::<Vec<_>>(), [50, 50, 20]);
}

#[test]
fn an_outcome_goes_by_the_stream_that_its_batch_came_by() {
    let now = Instant::now();
    let mut leases = Leases::default();
    leases.begin(A, token("a"), 1, MINUTE, now);
    leases.begin(B, token("b"), 2, MINUTE, now);
    let told = leases.end([reported("b", 1), reported("a", 1), back("b")].into_iter(), A);
    let [(A, of_a), (B, of_b)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((of_a.reports[0].items[0].token.clone(), of_a.back.len()), (token("a"), 0));
    assert_eq!((of_b.reports[0].items[0].token.clone(), of_b.back.len()), (token("b"), 1));
    assert_ne!(of_a.reports[0].report_id, of_b.reports[0].report_id);
}

#[test]
fn another_stream_tells_what_one_that_is_gone_has_not() {
    let (now, second) = (Instant::now(), Duration::from_secs(1));
    let mut leases = Leases::default();
    let lease = leases.begin(A, token("a"), 2, MINUTE, now);
    leases.begin(B, token("b"), 1, MINUTE, now);
    let unrecorded = end(&mut leases, [reported("a", 1)]).reports;
    let told = leases.adopt(B, |stream| stream == A, now + 10 * second);
    assert_eq!(told.reports, unrecorded);
    assert_eq!(told.extend, Some(Extend { tokens: vec![token("a")] }));
    assert_eq!((leases.batches_of(A), leases.batches_of(B)), (0, 2));
    assert!(!lease.is_over(now + 69 * second) && lease.is_over(now + 70 * second));
    assert_eq!(leases.extend_at(), Some(now + 20 * second), "that of b");
    // From now on it is B that tells of it.
    let told = leases.end([reported("a", 1)].into_iter(), A);
    assert_eq!((told.len(), told[0].0), (1, B));
    leases.recorded(unrecorded[0].report_id);
    assert_eq!(leases.forget_unrecorded(B), 1);
    assert_eq!((held(&leases), leases.batches_of(B)), ((1, 1), 1));
    assert!(leases.adopt(A, |stream| stream == 3, now).extend.is_none());
}
