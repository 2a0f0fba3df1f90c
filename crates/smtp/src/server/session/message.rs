//! How the content of a message is taken in, or read past.

use bytes::{Buf as _, BytesMut};
use posthorn_mail::{EnhancedStatus, Status};

use super::{Intake, Session, State, Step, Turn};
use crate::server::content::Fault;

impl Intake {
    /// The next chunk is announced.
    pub(super) fn expect_chunk(&mut self, size: u64, last: bool, limit: u64) {
        self.left = Some(size);
        self.last = last;
        if self.reader.size().saturating_add(size) > limit {
            self.reader.fail(Fault::TooLarge);
        }
    }
}

impl Session {
    /// Takes what is there of the content.
    pub(super) fn read_content(&mut self, mut intake: Intake) -> Turn {
        let before = self.input.len();
        let room = intake.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        let mut piece = BytesMut::new();
        if intake.reader.fault().is_none() {
            piece.reserve(before.min(room));
        }
        let dotted = intake.reader.read(&mut self.input, room, &mut piece);
        let taken = before - self.input.len();
        let ended = match &mut intake.left {
            None => dotted,
            Some(left) => {
                *left -= taken as u64;
                *left == 0
            }
        };
        if ended && intake.last {
            intake.reader.end();
        }
        if taken > 0 {
            self.waiting = None;
        }
        // What is wrong is known at once: nobody need keep the message while the rest of it is read past.
        if self.open && intake.reader.fault().is_some() {
            self.open = false;
            self.settle(intake, ended);
            return Turn::Step(Step::Abort);
        }
        let faulty = intake.reader.fault().is_some();
        self.settle(intake, ended);
        match (faulty || piece.is_empty(), ended) {
            (false, _) => Turn::Step(Step::Chunk(piece.freeze())),
            (true, true) => Turn::Again,
            (true, false) => Turn::Starved,
        }
    }

    /// Where the content leaves the session.
    fn settle(&mut self, intake: Intake, ended: bool) {
        self.state = match (ended, intake.reader.fault()) {
            (false, _) => State::Content(intake),
            (true, Some(fault)) => {
                self.answer(&fault.status());
                State::Ready
            }
            (true, None) if intake.last => State::Judging { eight_bit: intake.reader.eight_bit() },
            (true, None) => {
                let text = format!("{} octets received", intake.reader.size());
                self.say(250, EnhancedStatus::new(2, 0, 0), &text);
                State::Chunks(intake)
            }
        };
    }

    /// Reads past a chunk that is refused.
    pub(super) fn skip(&mut self, left: u64, refusal: Status, back: Box<State>) -> Turn {
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(self.input.len());
        self.input.advance(now);
        let left = left - now as u64;
        if left == 0 {
            self.answer(&refusal);
            self.state = *back;
            return Turn::Again;
        }
        if now > 0 {
            self.waiting = None;
        }
        self.state = State::Skipping { left, refusal, back };
        Turn::Starved
    }
}
