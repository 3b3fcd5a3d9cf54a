//! Servers as people have them: consoles, load balancers, login pages, compressing proxies, and stores that are not exact.

mod codings;
mod damaged;
mod endless;
mod inexact;
mod pages;
mod strangers;
mod uploads;
