//! Line ends as SMTP wants them.

/// Turns LF into CRLF, piece by piece, however the content is cut.
#[derive(Debug, Default)]
pub(crate) struct LineEnds {
    after_cr: bool,
    /// Octets read.
    read: u64,
}

/// What no message may hold, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineEndError {
    /// RFC 5322 §2.3: CR and LF come together.
    #[error("a CR without LF before octet {0}")]
    BareCr(u64),
    /// RFC 5322 §4 forbids it.
    #[error("a NUL at octet {0}")]
    Nul(u64),
}

impl LineEnds {
    /// Appends the piece to `out`.
    pub(crate) fn write(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), LineEndError> {
        out.reserve(piece.len());
        let mut rest = piece;
        while let Some(&first) = rest.first() {
            if self.after_cr && first != b'\n' {
                return Err(LineEndError::BareCr(self.read));
            }
            let (run, special) = match memchr::memchr3(b'\r', b'\n', 0, rest) {
                None => (rest, None),
                Some(at) => (&rest[..at], Some(rest[at])),
            };
            out.extend_from_slice(run);
            self.read += run.len() as u64;
            match special {
                None => return Ok(()),
                Some(0) => return Err(LineEndError::Nul(self.read)),
                Some(b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.after_cr = false;
                }
                Some(_) => self.after_cr = true,
            }
            self.read += 1;
            rest = &rest[run.len() + 1..];
        }
        Ok(())
    }

    /// The end of the content.
    pub(crate) fn end(&self) -> Result<(), LineEndError> {
        if self.after_cr { Err(LineEndError::BareCr(self.read)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_gives_the_same() {
        for (content, want) in [
            (&b"a\nb\r\nc"[..], Ok(&b"a\r\nb\r\nc"[..])),
            (b"\n\n\r\n", Ok(b"\r\n\r\n\r\n")),
            (b"", Ok(b"")),
            (b"a\rb", Err(LineEndError::BareCr(2))),
            (b"a\r\r\n", Err(LineEndError::BareCr(2))),
            (b"a\r", Err(LineEndError::BareCr(2))),
            (b"ab\0", Err(LineEndError::Nul(2))),
        ] {
            for cut in 0..=content.len() {
                let mut ends = LineEnds::default();
                let mut out = Vec::new();
                let got = ends
                    .write(&content[..cut], &mut out)
                    .and_then(|()| ends.write(&content[cut..], &mut out))
                    .and_then(|()| ends.end());
                assert_eq!(got.map(|()| out.as_slice()), want, "{content:?} at {cut}");
            }
        }
    }
}
