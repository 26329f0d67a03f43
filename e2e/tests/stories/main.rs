//! The stories: what Weir promises, told on a real cluster on which `kubectl apply -k manifests` was run.
