//go:build tools

// Package binaries pins the programs that the local test cluster runs: Kubernetes, and the Prometheus
// that scrapes its pods. One module, so that what they share is compiled once: a Prometheus is taken that
// asks for nothing much newer than Kubernetes does. `build` and `build-prometheus` beside this file compile
// them; nothing imports this package.
package binaries

import (
	_ "github.com/prometheus/prometheus/cmd/prometheus"
	_ "github.com/prometheus/prometheus/cmd/promtool"
	_ "k8s.io/kubernetes/cmd/kube-apiserver"
	_ "k8s.io/kubernetes/cmd/kube-controller-manager"
	_ "k8s.io/kubernetes/cmd/kube-proxy"
	_ "k8s.io/kubernetes/cmd/kube-scheduler"
	_ "k8s.io/kubernetes/cmd/kubectl"
	_ "k8s.io/kubernetes/cmd/kubelet"
)

// To take a new version: change go.mod's direct requirements (and the replacements, for Kubernetes),
// delete the indirect ones and go.sum, and run
//
//	GOFLAGS=-mod=mod go list -deps -tags=tools,remove_all_sd,enable_kubernetes_sd . ./coredns ./pause
//
// `go mod tidy` would also want the modules of the discoveries that are left out.
