//! How late work is: what workers are scaled by, and what operators are alerted by when there are none.

use crate::hub::Hub;
use crate::schedule::Kind;
use crate::spool;

/// Tells since when the oldest work of each kind has been due that a worker would be given. What waits for a destination
/// that takes no more now is not late for want of workers.
pub(crate) async fn tell(hub: &Hub) -> sqlx::Result<()> {
    let now = hub.now();
    // Without Redis nobody is given anything: then all that is due is late.
    let open = hub.schedule.open_lanes(Kind::Remote, now).await.ok();
    let oldest = hub.standing.with(async |c| spool::find::oldest_due(c, now, open.as_deref()).await).await?;
    for kind in Kind::ALL {
        let late =
            oldest.iter().find(|(of, _)| *of == kind).map_or(0.0, |(_, at)| (now - *at).as_seconds_f64());
        metrics::gauge!("posthorn_queue_oldest_due_seconds", "kind" => kind.name()).set(late);
    }
    Ok(())
}
