//! Messages to send, and what they come back as.

use anyhow::{Context as _, Result};

/// A plain message with the headers that any has.
pub fn letter(subject: &str, body: &str) -> Vec<u8> {
    let body = body.replace('\n', "\r\n");
    format!(
        "From: Carol <carol@elsewhere.test>\r\nTo: Somebody <somebody@elsewhere.test>\r\nSubject: {subject}\r\n\
         Date: Mon, 23 Nov 2026 09:00:00 +0000\r\nMessage-ID: <{}@elsewhere.test>\r\n\r\n{body}\r\n",
        subject.replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    )
    .into_bytes()
}

/// The headers that Posthorn put on top of a message: those that stand above `sent`, unfolded, in order.
///
/// # Errors
///
/// When what was received does not end in just what was sent, or something else than headers stands above.
pub fn headers_above(received: &[u8], sent: &[u8]) -> Result<Vec<(String, String)>> {
    let above = received.strip_suffix(sent).with_context(|| difference(received, sent))?;
    let above = std::str::from_utf8(above).context("the headers on top are not UTF-8")?;
    let mut headers: Vec<(String, String)> = Vec::new();
    for line in above.split_terminator("\r\n") {
        if line.starts_with([' ', '\t']) {
            let (_, value) = headers.last_mut().context("the headers on top begin with a folded line")?;
            value.push_str(line);
        } else {
            let (name, value) = line.split_once(": ").with_context(|| format!("no header: {line:?}"))?;
            headers.push((name.to_owned(), value.to_owned()));
        }
    }
    Ok(headers)
}

/// Where two messages part, counted from their ends.
fn difference(received: &[u8], sent: &[u8]) -> String {
    let same = received.iter().rev().zip(sent.iter().rev()).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let at = bytes.len() - same;
        bytes[at.saturating_sub(60)..(at + 20).min(bytes.len())].escape_ascii().to_string()
    };
    format!(
        "{} bytes were sent and {} came back; the last {same} are the same, before that was sent\n  {}\nand came\n  {}",
        sent.len(),
        received.len(),
        around(sent),
        around(received)
    )
}
