//! How many batches to ask the queue for. Pure.

use posthorn_work::Held;

use crate::config;

/// As many as surely find a place: what is held and what was asked for never pass the limit together.
///
/// A message whose DNS is slow keeps its own place and no more: places of a batch become free one by one.
pub(super) fn batches(config: &config::Work, held: Held) -> u32 {
    let (limit, batch) = (config.max_items as u64, u64::from(config.max_batch));
    let taken = u64::from(held.items) + u64::from(held.asked) * batch;
    let free = limit.saturating_sub(taken) / batch;
    let most = (config.batches as u64).saturating_sub(u64::from(held.asked));
    free.min(most) as u32
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_more_is_asked_for_than_there_is_room_for() {
        for (max_items, batches_asked, held, asked, want) in [
            (350, 8, 0, 0, 3),
            (350, 8, 0, 3, 0),
            // 250 left, 200 of them asked for.
            (350, 8, 100, 2, 0),
            // 240 left, 100 of them asked for.
            (350, 8, 110, 1, 1),
            // 300 left, 200 of them asked for.
            (350, 8, 50, 2, 1),
            // No more at once than the setting says.
            (10_000, 4, 0, 0, 4),
            (10_000, 4, 101, 2, 2),
        ] {
            let config =
                config::Work { max_batch: 100, max_items, batches: batches_asked, drain: Duration::ZERO };
            let held = Held { batches: 1, items: held, asked };
            assert_eq!(batches(&config, held), want, "{held:?} of {max_items}");
        }
    }
}
