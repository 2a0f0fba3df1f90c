//! Setting messages aside that cannot be worked on: an operator is to look at them, and may have them tried again.

use posthorn_api::trace::v1::{Event, EventKind};
use posthorn_mail::MessageId;
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use crate::hub::Hub;
use crate::spool;
use crate::trace::{Record, event};

/// Sets messages aside, visibly, and says why in their trace.
pub(crate) async fn set_aside(
    hub: &Hub,
    connection: &mut PgConnection,
    ids: &[MessageId],
    why: &str,
    now: OffsetDateTime,
) -> sqlx::Result<()> {
    let mut transaction = connection.begin().await?;
    let new = spool::find::set_poison(&mut transaction, ids).await?;
    let record = |id: &MessageId| {
        let event = event(now, EventKind::Poison);
        Record::new(*id, vec![Event { detail: why.to_owned(), ..event }])
    };
    let records: Vec<Record> = new.iter().map(record).collect();
    let rows = records.iter().map(|record| (record.message, record.encoded())).collect();
    spool::trace::insert(&mut transaction, rows, now).await?;
    transaction.commit().await?;
    hub.wake.tell(&records);
    for id in new {
        tracing::error!(message_id = %id, why, "a message is set aside");
        metrics::counter!("posthorn_queue_poison_total").increment(1);
    }
    Ok(())
}
