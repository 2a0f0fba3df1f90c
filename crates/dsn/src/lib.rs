#![doc = include_str!("../README.md")]

mod encode;
mod fields;
mod parse;
mod report;
mod returned;
mod words;
mod write;

pub use report::{Action, ParseError, RecipientReport, Report, Returned};
