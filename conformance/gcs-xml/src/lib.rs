#![doc = include_str!("../README.md")]

mod emulator;
mod list;
mod objects;
mod refusal;
mod request;
mod server;
mod uploads;

pub use server::Translator;
