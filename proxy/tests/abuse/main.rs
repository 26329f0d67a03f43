//! Abuse: thousands of clients that say nothing, or one byte at a time. Others are served meanwhile, and the memory
//! of the proxy, a process of its own here, stays within its bound.

mod child;
mod idle;
mod slow;
