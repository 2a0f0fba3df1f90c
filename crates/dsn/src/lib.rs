#![doc = include_str!("../README.md")]

mod parse;
mod report;
mod returned;
mod write;

pub use report::{Action, ParseError, RecipientReport, Report, Returned};
