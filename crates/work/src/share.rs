//! How many batches to ask which stream for. Pure.

/// What there is by a stream.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Load {
    /// Batches that were asked for and have not come.
    pub(crate) asked: u32,
    /// Batches that have come and are held.
    pub(crate) open: u32,
}

/// How many more batches to ask each stream for. `ask` says how many in all when so many have been asked for.
///
/// The sum is what `ask` allows, and goes one by one to whom least was asked for, so that streams that all have work have
/// the same. What an idle stream was asked for cannot be taken back: one that would have nothing, since others have all,
/// has one more batch all the same. There are never more of these than streams.
pub(crate) fn share(streams: &[Load], ask: impl Fn(u32) -> u32) -> Vec<u32> {
    let mut more = vec![0; streams.len()];
    let mut asked: u32 = streams.iter().map(|stream| stream.asked).sum();
    for _ in 0..ask(asked) {
        let least = (0..streams.len()).min_by_key(|n| (streams[*n].asked + more[*n], streams[*n].open));
        let Some(least) = least else { break };
        more[least] += 1;
        asked += 1;
    }
    let spare = streams.len() as u32;
    for (more, stream) in more.iter_mut().zip(streams) {
        let has_nothing = stream.asked + stream.open + *more == 0;
        if has_nothing && ask(asked.saturating_sub(spare)) > 0 {
            *more = 1;
            asked += 1;
        }
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a worker that takes `capacity` batches in all, and holds what came by these streams.
    fn shared<const N: usize>(capacity: u32, streams: [(u32, u32); N]) -> [u32; N] {
        let streams = streams.map(|(asked, open)| Load { asked, open });
        let held: u32 = streams.iter().map(|stream| stream.open).sum();
        let more = share(&streams, |asked| capacity.saturating_sub(held + asked));
        more.try_into().unwrap()
    }

    #[test]
    fn one_stream_has_all() {
        assert_eq!(shared(4, [(0, 0)]), [4]);
        assert_eq!(shared(4, [(1, 2)]), [1]);
        assert_eq!(shared(4, [(0, 4)]), [0]);
        assert_eq!(shared(0, [(0, 0)]), [0], "a worker that wants nothing");
        assert!(share(&[], |_| 4).is_empty());
    }

    #[test]
    fn streams_have_the_same() {
        assert_eq!(shared(4, [(0, 0), (0, 0)]), [2, 2]);
        assert_eq!(shared(5, [(0, 0), (0, 0), (0, 0)]), [2, 2, 1]);
        // What becomes free goes to whom least was asked for, and of those to whom less was given.
        assert_eq!(shared(4, [(2, 0), (0, 1)]), [0, 1]);
        assert_eq!(shared(4, [(0, 2), (0, 1)]), [0, 1]);
        assert_eq!(shared(6, [(3, 0), (0, 0)]), [0, 3]);
    }

    #[test]
    fn a_stream_that_comes_late_is_not_left_without() {
        assert_eq!(shared(4, [(4, 0), (0, 0)]), [0, 1]);
        assert_eq!(shared(4, [(3, 1), (0, 0)]), [0, 1]);
        // Where all is at work, it has the next batch that ends.
        assert_eq!(shared(4, [(0, 4), (0, 0)]), [0, 0]);
        assert_eq!(shared(4, [(0, 3), (0, 0)]), [0, 1]);
        // More streams than batches.
        assert_eq!(shared(2, [(0, 0), (0, 0), (0, 0)]), [1, 1, 1]);
        assert_eq!(shared(0, [(0, 0), (0, 0)]), [0, 0]);
    }

    #[test]
    fn there_is_never_more_than_one_batch_a_stream_too_many() {
        let (capacity, mut held) = (4, 0);
        // Again and again a stream gets a batch and breaks, while another one is idle.
        let idle = Load { asked: capacity, open: 0 };
        for _ in 0..20 {
            let more = share(&[idle, Load::default()], |asked| capacity.saturating_sub(held + asked));
            assert_eq!(more[0], 0);
            held += more[1];
        }
        assert_eq!(held + idle.asked, capacity + 2);
    }
}
