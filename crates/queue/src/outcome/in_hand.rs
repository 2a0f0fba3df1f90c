//! Reports on messages in hand. What goes the plain way is passed on, or ended in one statement; all else is made known
//! to the ledger and the schedule first and goes as if it had never been in hand.

use std::collections::HashMap;
use std::time::Instant;

use posthorn_mail::MessageId;
use time::OffsetDateTime;

use super::{Insistence, Report, Reported};
use crate::dispatch;
use crate::hub::Hub;
use crate::in_hand::{Letter, Next};
use crate::message::Moment;
use crate::schedule::{Item, Key, Kind, Lane, Token};
use crate::spool;
use crate::trace::Record;

/// Writes a batch, as often as the stores need to take it, and tells for each item whether its token was stale. `None`:
/// the service ends first.
pub(super) async fn record(hub: &Hub, items: Vec<Reported>) -> Option<Vec<bool>> {
    let letters = hub.in_hand.take_back(items.iter().map(|item| (item.token, item.message)), Instant::now());
    if letters.iter().all(Option::is_none) {
        return super::record(hub, &items).await;
    }
    let now = hub.now();
    let mut stale = vec![false; items.len()];
    let (mut to_deliver, mut delivered, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
    let (mut rest, mut places) = (Vec::new(), Vec::new());
    for (at, (item, letter)) in items.into_iter().zip(letters).enumerate() {
        let Some(mut letter) = letter else {
            rest.push(item);
            places.push(at);
            continue;
        };
        match follow(hub, &mut letter, &item, now) {
            Next::Deliver => to_deliver.push(letter),
            Next::End => delivered.push(letter),
            Next::Leave => {
                leaving.push((item.token, letter));
                rest.push(item);
                places.push(at);
            }
        }
    }
    let too_late = hub.in_hand.put(Kind::Local, to_deliver, Instant::now());
    dispatch::pass_on(hub, &too_late, now).await;
    end(hub, delivered, now).await?;
    leave(hub, leaving).await?;
    if !rest.is_empty() {
        for (at, is_stale) in places.into_iter().zip(super::record(hub, &rest).await?) {
            stale[at] = is_stale;
        }
    }
    Some(stale)
}

/// What a report comes to for a message in hand.
fn follow(hub: &Hub, letter: &mut Letter, item: &Reported, now: OffsetDateTime) -> Next {
    match item.report.clone() {
        Report::Route(results) => letter.route(item.token, results, now),
        Report::Delivery(outcomes) => {
            let expires_at = letter.message.expires_at;
            let moment = Moment { now, expires_at, jitter: 0.5, policy: &hub.policy };
            letter.deliver(outcomes, &moment)
        }
    }
}

/// Ends messages that all recipients have.
async fn end(hub: &Hub, letters: Vec<Letter>, now: OffsetDateTime) -> Option<()> {
    if letters.is_empty() {
        return Some(());
    }
    let mut letters = letters;
    // In the order in which others lock them.
    letters.sort_unstable_by_key(|letter| letter.message.id);
    let records: Vec<Record> = letters
        .iter_mut()
        .map(|letter| Record::new(letter.message.id, std::mem::take(&mut letter.events)))
        .collect();
    let messages: Vec<_> = letters.iter().map(|letter| &letter.message).collect();
    let events: Vec<Vec<u8>> =
        records.iter().zip(&messages).map(|(record, message)| record.after_accepted(message)).collect();
    let mut insistence = Insistence::begin();
    let ended = loop {
        let end = async |connection: &mut sqlx::PgConnection| {
            spool::update::end_delivered(connection, &messages, &events, now).await
        };
        match hub.standing.with(end).await {
            Ok(ended) => break ended,
            Err(error) => insistence.again(hub, letters.len(), &error.to_string()).await?,
        }
    };
    insistence.end(hub);
    metrics::counter!("posthorn_queue_ended_total").increment(ended.len() as u64);
    let (gone, changed): (Vec<Letter>, Vec<Letter>) =
        letters.into_iter().partition(|letter| ended.contains(&letter.message.id));
    hub.level.ended(gone.len() as u64, gone.iter().map(|letter| letter.message.size).sum());
    if hub.wake.is_watched() {
        let of_gone: Vec<Record> =
            records.into_iter().filter(|record| ended.contains(&record.message)).collect();
        hub.wake.tell(&of_gone);
    }
    let done: Vec<Item> = gone.iter().filter(|letter| letter.is_scheduled).map(Letter::item).collect();
    if let Err(error) = hub.schedule.done_in_hand(Kind::Route, &done).await {
        hub.redis_failed(&error);
    }
    // An operator, or its age, has ended some of it meanwhile: the ledger knows what is left.
    let again: Vec<_> = changed.iter().map(|letter| (letter.item(), now)).collect();
    hub.schedule_soon(Kind::Route, &again, now).await;
    Some(())
}

/// These leave the hand: their leases are made known, and what the router said of them is written down.
async fn leave(hub: &Hub, letters: Vec<(Token, Letter)>) -> Option<()> {
    if letters.is_empty() {
        return Some(());
    }
    let mut leases: HashMap<Token, Vec<Item>> = HashMap::new();
    let mut routed = Vec::new();
    for (token, letter) in letters {
        let message = letter.message.id;
        let flow = letter.message.flow;
        match (token.kind(), letter.routed) {
            (Kind::Local, Some((route_token, results))) => {
                leases.entry(route_token).or_default().push(Item { key: key(message, Lane::ROUTE), flow });
                leases.entry(token).or_default().push(Item { key: key(message, Lane::LOCAL), flow });
                routed.push(Reported { token: route_token, message, report: Report::Route(results) });
            }
            _ => leases.entry(token).or_default().push(Item { key: key(message, Lane::ROUTE), flow }),
        }
    }
    let local = |token: &Token| token.kind() == Kind::Local;
    let (after, before): (Vec<_>, Vec<_>) = leases.into_iter().partition(|(token, _)| local(token));
    make_known(hub, before).await;
    if !routed.is_empty() {
        // Between this and the next step another worker may take the local work: then our report is stale.
        super::record(hub, &routed).await?;
    }
    make_known(hub, after).await;
    Some(())
}

fn key(message: MessageId, lane: Lane) -> Key {
    Key { message, lane }
}

/// Turns leases that only this process knew of into such as all know.
async fn make_known(hub: &Hub, leases: Vec<(Token, Vec<Item>)>) {
    let until = hub.now() + hub.config.lease.length;
    for (token, items) in leases {
        hub.leases.insert(token, items.clone(), Instant::now());
        if let Err(error) = hub.schedule.restore(token, &items, until).await {
            hub.redis_failed(&error);
        }
    }
}
