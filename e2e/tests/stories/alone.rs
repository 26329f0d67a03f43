//! The stories that must be told while no other is, for they measure the kubelet's time or take a part of Weir away.
//! Their names make the test runner begin with them, so that none waits for those that are told side by side, nor makes
//! them wait.

mod cni;
mod jobs;
mod operator_down;
mod pod_start;
mod server_first;
mod webhook_down;
