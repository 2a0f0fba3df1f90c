//! Header fields: folded (RFC 5322 §2.2.3), and in encoded words where they are not ASCII (RFC 2047).

use std::fmt::Write as _;

use data_encoding::BASE64;

use super::Named;

/// RFC 5322 §2.1.1 and RFC 2047 §2: how long a line should be at most.
const LINE: usize = 76;
/// RFC 5322 §2.1.1: how long a line may be.
const LONGEST_LINE: usize = 998;
/// `=?utf-8?B?` and `?=`.
const WORD_FRAME: usize = 12;
/// Octets that an encoded word of 75 characters can carry.
const WORD: usize = 45;

/// Writes a field of free text. A word that fits on no line is encoded, as what is not ASCII is.
pub(super) fn text(out: &mut String, name: &str, value: &str) {
    write!(out, "{name}: ").expect("a String takes all that is written to it");
    let value = value.trim();
    if is_plain(value) && fits(name, value) {
        fold(out, name.len() + 2, value);
    } else {
        encoded_words(out, name.len() + 2, value);
    }
    out.push_str("\r\n");
}

/// Whether lines can hold a field of plain text: what has no blank is not folded.
pub(super) fn fits(name: &str, value: &str) -> bool {
    let mut lines = format!("{name}: ");
    fold(&mut lines, name.len() + 2, value.trim());
    lines.split("\r\n").all(|line| line.len() <= LONGEST_LINE)
}

/// Writes a field of mailboxes; none at all where there is none.
pub(super) fn mailboxes(out: &mut String, name: &str, list: &[Named]) {
    let mut column = name.len() + 2;
    for (at, mailbox) in list.iter().enumerate() {
        let text = mailbox_text(mailbox);
        let first_line = text.split("\r\n").next().unwrap_or_default().len();
        if at == 0 {
            write!(out, "{name}: ").expect("a String takes all that is written to it");
        } else if column + 2 + first_line > LINE {
            out.push_str(",\r\n ");
            column = 1;
        } else {
            out.push_str(", ");
            column += 2;
        }
        out.push_str(&text);
        column = text.rsplit_once("\r\n").map_or(column + text.len(), |(_, last)| last.len());
    }
    if !list.is_empty() {
        out.push_str("\r\n");
    }
}

fn mailbox_text(mailbox: &Named) -> String {
    let Named { address, name } = mailbox;
    if name.is_empty() {
        return address.to_string();
    }
    let mut text = String::new();
    if !is_plain(name) {
        // The name of the field stands before the first of them.
        encoded_words(&mut text, 10, name);
    } else if name.split(' ').all(|word| !word.is_empty() && word.bytes().all(is_atext)) {
        text.push_str(name);
    } else {
        text.push('"');
        for c in name.chars() {
            if matches!(c, '"' | '\\') {
                text.push('\\');
            }
            text.push(c);
        }
        text.push('"');
    }
    // The longest name and the longest address together are longer than a line may be.
    let blank = if text.len() > LINE { "\r\n " } else { " " };
    write!(text, "{blank}<{address}>").expect("a String takes all that is written to it");
    text
}

/// RFC 5322 §3.2.3.
fn is_atext(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

/// Text that stands for itself: ASCII, and nothing that a reader would take for an encoded word.
pub(super) fn is_plain(text: &str) -> bool {
    text.is_ascii() && !text.contains("=?")
}

/// Breaks lines before blanks, so that unfolding gives the text back.
fn fold(out: &mut String, mut column: usize, text: &str) {
    let mut rest = text;
    while !rest.is_empty() {
        // A word with the blanks before it.
        let word = rest.trim_start_matches([' ', '\t']);
        let blanks = rest.len() - word.len();
        let end = word.find([' ', '\t']).map_or(rest.len(), |end| blanks + end);
        if blanks > 0 && column + end > LINE {
            out.push_str("\r\n");
            column = 0;
        }
        out.push_str(&rest[..end]);
        column += end;
        rest = &rest[end..];
    }
}

/// Writes UTF-8 in base64, a word a line; between words blanks count for nothing.
fn encoded_words(out: &mut String, column: usize, text: &str) {
    let first = LINE.saturating_sub(column + WORD_FRAME) / 4 * 3;
    let (mut room, mut rest) = (first.min(WORD), text);
    if room < 4 {
        out.push_str("\r\n ");
        room = WORD;
    }
    while !rest.is_empty() {
        // No character is cut in two (RFC 2047 §5).
        let end = rest.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        write!(out, "=?utf-8?B?{}?=", BASE64.encode(word.as_bytes()))
            .expect("a String takes all that is written to it");
        rest = after;
        room = WORD;
        if !rest.is_empty() {
            out.push_str("\r\n ");
        }
    }
}
